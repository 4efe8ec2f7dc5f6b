//! `DocumentStore`: restarts, limits, garbage, files on a real disk.

use std::sync::Arc;

use bigpeer_crdt::Value;
use bigpeer_log::TransactionLog;
use bigpeer_tables::{DocumentStore, Extent, LocalObjects, Written};
use bigpeer_types::{Lsn, ManualClock};
use futures::TryStreamExt;
use object_store::ObjectStore;

use crate::model::{Edit, World, app, check, collection, id, object};

#[tokio::test]
async fn a_restart_does_not_replay_what_is_in_segments() {
    let mut world = World::new();
    for n in 0..30 {
        world.put(&collection("c"), n, object([("n", Value::Int(n))])).await;
    }
    let store = world.caught_up().await;
    store.writer().await.unwrap().flush().await.unwrap();
    store.shutdown().await;
    // The log has none of it any more: whatever is read comes from segments.
    world.log.trim(&app(), Lsn::MAX).await.unwrap();
    let store = world.open().await;
    assert_eq!((store.applied(), store.flushed()), (world.truth.last(), world.truth.last()));
    check(&store.snapshot(), &world.truth).await;
    let lsn = world.write(&[(&collection("c"), id(3), Edit::Increment("hits", 2))]).await;
    store.wait_for(lsn).await.unwrap();
    check(&store.snapshot(), &world.truth).await;
}

#[tokio::test]
async fn a_full_overlay_waits_for_a_flush() {
    let mut world = World::new();
    world.settings.max_overlay_bytes = 4_000;
    world.settings.read_bytes = 500;
    for n in 0..100 {
        world.put(&collection("c"), n, object([("n", Value::Int(n))])).await;
    }
    let store = world.open().await;
    let writer = store.writer().await.unwrap();
    while store.applied() < world.truth.last() {
        store.wait_for(Lsn::new(store.flushed().version + 1, 0)).await.unwrap();
        writer.flush().await.unwrap();
        assert!(store.overlay_bytes() < 8_000);
    }
    assert!(store.manifest_number() > 3);
    check(&store.snapshot(), &world.truth).await;
}

#[tokio::test]
async fn a_hot_document_is_joined_rightly_however_often_it_changes() {
    let mut world = World::new();
    let c = collection("c");
    for _ in 0..100 {
        world.write(&[(&c, id(1), Edit::Increment("hits", 1)), (&c, id(1), Edit::Set("text", Value::from("x")))]).await;
    }
    let store = world.caught_up().await;
    let found = store.snapshot().get(&c, &id(1)).await.unwrap().unwrap();
    assert_eq!(found.document.to_object().get("hits"), Some(&Value::Int(100)));
    assert!(store.overlay_bytes() < 4_000, "{}", store.overlay_bytes());
    check(&store.snapshot(), &world.truth).await;
}

#[tokio::test]
async fn garbage_is_deleted_but_not_what_a_snapshot_reads() {
    let mut world = World::new();
    world.settings.keep_manifests = 1;
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    world.settings.clock = clock.clone();
    let c = collection("c");
    for n in 0..20 {
        world.put(&c, n, object([("n", Value::Int(n))])).await;
    }
    let store = world.caught_up().await;
    let writer = store.writer().await.unwrap();
    writer.flush().await.unwrap();
    let old = store.snapshot();
    for n in 0..20 {
        world.write(&[(&c, id(n), Edit::Set("n", Value::Int(-n)))]).await;
    }
    store.wait_for(world.truth.last()).await.unwrap();
    writer.flush().await.unwrap();
    let orphan = object_store::path::Path::from("apps/app/tables/c/segments/01HF7YAT00XXXXXXXXXXXXXXXX.parquet");
    world.objects.put_opts(&orphan, "not yet committed".into(), Default::default()).await.unwrap();

    writer.collect_garbage().await.unwrap();
    check(&old, &world.truth).await;
    drop(old);
    // Feeds may still ask for what led to the newest manifest; after a while they may not.
    clock.advance(60_000);
    writer.compact(&c, Extent::Full).await.unwrap();
    let files = || async {
        let all: Vec<_> = world.objects.list(None).try_collect().await.unwrap();
        all.into_iter().map(|object| object.location.to_string()).collect::<Vec<_>>()
    };
    let before = files().await.len();
    assert!(writer.collect_garbage().await.unwrap() >= 1);
    assert!(files().await.len() < before);
    assert!(files().await.contains(&orphan.to_string()), "it may be another writer's");
    clock.advance(2_000_000_000_000);
    writer.collect_garbage().await.unwrap();
    assert!(!files().await.contains(&orphan.to_string()));
    check(&store.snapshot(), &world.truth).await;
    assert_eq!(files().await.iter().filter(|path| path.contains("manifests")).count(), 1);
}

#[tokio::test]
async fn a_compaction_sees_what_a_flush_beside_it_supersedes() {
    let mut world = World::new();
    let c = collection("c");
    for round in 0..3 {
        for n in 0..50 {
            world.put(&c, n * 3 + round, object([("n", Value::Int(n))])).await;
        }
        let store = world.caught_up().await;
        store.writer().await.unwrap().flush().await.unwrap();
    }
    let store = world.caught_up().await;
    let writer = store.writer().await.unwrap();
    for n in 0..60 {
        world.write(&[(&c, id(n * 2), Edit::Set("n", Value::Int(-n)))]).await;
    }
    store.wait_for(world.truth.last()).await.unwrap();
    // On one thread the two interleave at every await.
    let (flushed, compacted) = tokio::join!(writer.flush(), writer.compact(&c, Extent::Full));
    assert!(flushed.unwrap().is_some());
    assert!(compacted.unwrap().is_some());
    check(&store.snapshot(), &world.truth).await;
    check(&world.caught_up().await.snapshot(), &world.truth).await;
}

#[tokio::test]
async fn everything_works_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let objects = Arc::new(LocalObjects::open(dir.path()).unwrap());
    let mut world = World::on(objects);
    let names = ["flights", "a/../b", "größe und\u{a0}mehr", &"ü".repeat(64)].map(collection);
    for n in 0..50 {
        for name in &names {
            world.put(name, n, object([("n", Value::Int(n))])).await;
        }
    }
    let store = world.caught_up().await;
    let writer = store.writer().await.unwrap();
    writer.flush().await.unwrap();
    for name in &names {
        world.write(&[(name, id(5), Edit::Delete), (name, id(6), Edit::Set("n", Value::Int(66)))]).await;
    }
    store.wait_for(world.truth.last()).await.unwrap();
    writer.flush().await.unwrap();
    check(&store.snapshot(), &world.truth).await;
    for name in &names {
        writer.compact(name, Extent::Full).await.unwrap();
    }
    writer.collect_garbage().await.unwrap();
    store.shutdown().await;
    let store = world.caught_up().await;
    check(&store.snapshot(), &world.truth).await;
    assert!(dir.path().join("apps/app/tables/flights/segments").is_dir());
}

/// What the log says was written.
async fn written(world: &World) -> Written {
    let mut all = Written::ZERO;
    let mut at = Lsn::ZERO;
    loop {
        let batch = world.log.read(&app(), at, 1 << 20).await.unwrap();
        if batch.entries.is_empty() {
            return all;
        }
        at = batch.through;
        for entry in batch.entries {
            let transaction = bigpeer_crdt::Transaction::decode(entry.payload.clone()).unwrap();
            all.transactions += 1;
            all.documents += transaction.changes().len() as u64;
            all.bytes += entry.payload.len() as u64;
        }
    }
}

#[tokio::test]
async fn what_was_written_is_counted_once_whatever_is_killed_flushed_or_trimmed() {
    let mut world = World::new();
    world.settings.read_bytes = 300;
    let c = collection("c");
    for round in 0..6_i64 {
        for n in 0..7_i64 {
            let other = id(n + 100 * (round + 1));
            world.write(&[(&c, id(n), Edit::Increment("hits", 1)), (&c, other, Edit::Set("n", Value::Int(n)))]).await;
        }
        // Another process, which is killed with what it has not flushed; and one that looks on.
        let (store, other) = (world.caught_up().await, world.caught_up().await);
        let expected = (world.truth.last(), written(&world).await);
        assert_eq!((store.written(), other.written()), (expected, expected));
        let writer = store.writer().await.unwrap();
        if round % 2 == 0 {
            writer.flush().await.unwrap();
            world.put(&c, -1, object([("n", Value::Int(round))])).await;
            store.wait_for(world.truth.last()).await.unwrap();
            writer.compact(&c, Extent::Full).await.unwrap();
        }
        let expected = (world.truth.last(), written(&world).await);
        store.wait_for(world.truth.last()).await.unwrap();
        other.wait_for(world.truth.last()).await.unwrap();
        other.refresh().await.unwrap();
        assert_eq!((store.written(), other.written()), (expected, expected));
        assert!(store.stored_bytes() > 0);
    }
    // A process that begins behind what the log still has takes it from the manifest; one that jumps over it, too.
    let expected = (world.truth.last(), written(&world).await);
    let late = world.open().await;
    let store = world.caught_up().await;
    store.writer().await.unwrap().flush().await.unwrap();
    world.log.trim(&app(), Lsn::MAX).await.unwrap();
    late.refresh().await.unwrap();
    let anew = world.open().await;
    assert_eq!((late.written(), anew.written()), (expected, expected));
}

#[tokio::test]
async fn a_clone_has_written_nothing_yet() {
    let mut world = World::new();
    for n in 0..5 {
        world.put(&collection("c"), n, object([("n", Value::Int(n))])).await;
    }
    let store = world.caught_up().await;
    let target = bigpeer_types::AppId::new("clone").unwrap();
    store.clone_as(&target, &store.snapshot()).await.unwrap();
    let log: Arc<dyn TransactionLog> = Arc::new(bigpeer_log::MemoryLog::new());
    let clone = DocumentStore::open(target, Arc::clone(&world.objects), log, world.settings.clone()).await.unwrap();
    assert_eq!(clone.written().1, Written::ZERO);
    assert!(clone.stored_bytes() > 0);
}
