//! Feeds: every transaction once, in order, with the states around it.

use std::collections::BTreeMap;

use bigpeer_crdt::{DocId, Document, Value};
use bigpeer_tables::{FeedError, TablesError};
use bigpeer_types::Lsn;

use crate::model::{Edit, World, check, collection, id, object};

#[tokio::test]
async fn a_feed_gives_every_transaction_once_with_the_states_before_and_after() {
    let mut world = World::new();
    let c = collection("c");
    let store = world.open().await;
    let mut feed = store.feed(Lsn::ZERO);
    let mut folded: BTreeMap<DocId, Document> = BTreeMap::new();
    let mut seen = Vec::new();
    for n in 0..30_i64 {
        let lsn = world.write(&[(&c, id(n % 7), Edit::Set("n", Value::Int(n)))]).await;
        if n % 10 == 9 {
            store.wait_for(lsn).await.unwrap();
            store.writer().await.unwrap().flush().await.unwrap();
        }
        while feed.position() < lsn {
            let batch = feed.next().await.unwrap();
            assert!(batch.before.lsn() < batch.after.lsn());
            assert_eq!(batch.after.lsn(), batch.through);
            for transaction in &batch.transactions {
                seen.push(transaction.lsn);
                for change in transaction.transaction.changes() {
                    let before = batch.before.get(&c, &change.id).await.unwrap();
                    let before = before.map(|found| Document::clone(&found.document));
                    assert_eq!(before.as_ref(), folded.get(&change.id));
                    folded.entry(change.id.clone()).or_default().join_encoded(&change.delta).unwrap();
                }
            }
            check(&batch.after, &world.truth).await;
        }
    }
    let written: Vec<Lsn> = world.truth.history.iter().map(|(lsn, _)| *lsn).collect();
    assert_eq!(seen, written);
}

#[tokio::test]
async fn a_feed_that_falls_behind_is_told() {
    let mut world = World::new();
    world.settings.feed_bytes = 2_000;
    world.settings.read_bytes = 1;
    let store = world.open().await;
    let mut slow = store.feed(Lsn::ZERO);
    for n in 0..50 {
        world.put(&collection("c"), n, object([("n", Value::Int(n))])).await;
    }
    store.wait_for(world.truth.last()).await.unwrap();
    assert!(matches!(slow.next().await, Err(FeedError::Lagged { after: Lsn::ZERO })));
    // From a snapshot on it goes again.
    let mut feed = store.feed(store.snapshot().lsn());
    let lsn = world.put(&collection("c"), 1, object([("n", Value::Int(2))])).await;
    assert_eq!(feed.next().await.unwrap().through, lsn);
}

#[tokio::test]
async fn a_feed_and_waits_end_when_the_store_does() {
    let world = World::new();
    let store = world.open().await;
    let mut feed = store.feed(Lsn::ZERO);
    let never = Lsn::new(u64::MAX, 0);
    let (fed, waited, ()) = tokio::join!(feed.next(), store.wait_for(never), store.shutdown());
    assert!(matches!(fed, Err(FeedError::Failed(TablesError::Stopped))), "{fed:?}");
    assert!(matches!(waited, Err(TablesError::Stopped)));
    assert!(matches!(store.wait_for_version(9).await, Err(TablesError::Stopped)));
    assert!(store.wait_for(Lsn::ZERO).await.is_ok());
}

#[tokio::test]
async fn a_transaction_that_cannot_be_read_stops_the_store_and_says_where() {
    use bigpeer_log::{AppendEntry, TransactionLog};
    let mut world = World::new();
    let last = world.put(&collection("c"), 1, object([("n", Value::Int(1))])).await;
    let bad = AppendEntry {
        site: bigpeer_types::SiteId::new(9),
        seq: 1,
        writes: Vec::new(),
        unchanged: Vec::new(),
        payload: bytes::Bytes::from_static(b"not a transaction"),
    };
    world.log.append(&crate::model::app(), vec![bad]).await.unwrap();
    let store = world.open().await;
    let error = store.wait_for(Lsn::new(u64::MAX, 0)).await.unwrap_err();
    assert!(matches!(error, TablesError::BadTransaction { lsn, .. } if lsn > last), "{error}");
    assert!(store.failed().is_some());
}
