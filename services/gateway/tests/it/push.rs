//! Pushes: accepted once, durable, in order; rejections that are told until they are heard.

use std::sync::Arc;

use bigpeer_gateway::GatewaySettings;
use bigpeer_log::TransactionLog;
use bigpeer_protocol::pb::{self, CloseCode, FromGateway, RejectCode};
use bigpeer_types::{Clock, CollectionName, Lsn, ManualClock, SystemClock};
use bytes::Bytes;

use crate::world::{Author, Edit, Replica, World, doc_id, flights, hello};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_is_durable_when_it_is_accepted() {
    let world = World::new().await;
    let mut client = world.client().await;
    let mut author = Author::new(client.site);
    let lsn = client.write(1, author.insert("a", "UA")).await;
    assert_eq!(world.log.last_seq(&world.app, client.site).await.unwrap(), 1);
    world.store.wait_for(lsn).await.unwrap();
    let stored = world.store.snapshot().get(&flights(), &doc_id("a")).await.unwrap().unwrap();
    assert!(stored.document.is_visible() && stored.lsn == lsn);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pushes_in_flight_are_accepted_in_order() {
    let world = World::new().await;
    let mut client = world.client().await;
    let mut author = Author::new(client.site);
    for seq in 1..=500 {
        client.push(seq, author.insert(&format!("d{seq}"), "UA")).await;
    }
    let mut last = 0;
    while last < 500 {
        let seq = client.accepted().await;
        assert!(seq > last);
        last = seq;
    }
    assert_eq!(world.log.last_seq(&world.app, client.site).await.unwrap(), 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_push_is_applied_once() {
    let world = World::new().await;
    let (site, token) = world.login("all").await;
    let mut author = Author::new(site);
    let (first, second) = (author.insert("a", "UA"), author.insert("b", "UA"));
    let mut client = world.session(site, &token, hello(site, &token)).await;
    client.write(1, first.clone()).await;
    let head = world.head().await;
    // In the same session, and in another one that lost the acknowledgement.
    client.push(1, first.clone()).await;
    assert_eq!(client.accepted().await, 1);
    let mut client = world.session(site, &token, hello(site, &token)).await;
    assert_eq!(client.accepted().await, 1, "the missed outcome follows the Welcome");
    client.push(1, first).await;
    assert_eq!(client.accepted().await, 1);
    assert_eq!(world.head().await, head);
    client.write(2, second).await;
    assert!(world.head().await > head);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_ends_the_session_and_nothing_behind_it_is_applied() {
    let world = World::new().await;
    let mut client = world.client().await;
    let mut author = Author::new(client.site);
    client.push(2, author.insert("a", "UA")).await;
    assert_eq!(client.close().await.code(), CloseCode::CloseSeqGap);
    assert_eq!(world.head().await, Lsn::ZERO);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_an_old_copy_is_told_so() {
    let world = World::new().await;
    let (site, token) = world.login("all").await;
    let mut author = Author::new(site);
    let mut client = world.session(site, &token, hello(site, &token)).await;
    client.write(1, author.insert("a", "UA")).await;
    let mut old = world.socket().await;
    old.send(pb::Hello { last_seq: 0, ..hello(site, &token) }).await;
    assert_eq!(old.close().await.code(), CloseCode::CloseStaleSite);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_far_ahead_is_refused_with_the_servers_time_and_the_state_to_restore() {
    let world = World::new().await;
    let (site, token) = world.login("all").await;
    let mut author = Author::new(site);
    let mut client = world.session(site, &token, hello(site, &token)).await;
    client.write(1, author.insert("a", "UA")).await;
    let ahead = Arc::new(ManualClock::new(SystemClock.now_ms() + 3_600_000));
    let mut wrong = Author::with_clock(site, ahead);
    client.push(2, wrong.edit(&flights(), &[("a", Edit::flight("XX")), ("new", Edit::flight("XX"))])).await;
    let FromGateway::Rejected(rejected) = client.next().await else { panic!("not rejected") };
    assert_eq!((rejected.seq, rejected.code()), (2, RejectCode::RejectClockAhead));
    assert!(rejected.server_time_ms > 0 && rejected.message.contains("clock"));
    assert_eq!(rejected.restore.len(), 2);
    let state_of = |id: &str| {
        let restore = rejected.restore.iter().find(|restore| *restore.id == *doc_id(id).as_key()).unwrap();
        restore.state.clone()
    };
    let before = world.store.snapshot().get(&flights(), &doc_id("a")).await.unwrap().unwrap();
    assert_eq!(state_of("a").unwrap(), before.document.encode());
    assert_eq!(state_of("new"), None);
    // The number is used up; what follows is not stopped.
    client.write(3, author.insert("c", "UA")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejection_that_was_not_heard_is_told_again_and_never_turns_into_an_acceptance() {
    let world = World::new().await;
    let (site, token) = world.login("all").await;
    let mut author = Author::new(site);
    let system = CollectionName::new("__devices").unwrap();
    let bad = author.edit(&system, &[("a", Edit::flight("UA"))]);
    let mut client = world.session(site, &token, hello(site, &token)).await;
    client.write(1, author.insert("a", "UA")).await;
    client.push(2, bad.clone()).await;
    let FromGateway::Rejected(first) = client.next().await else { panic!("not rejected") };
    assert_eq!(first.code(), RejectCode::RejectSystemCollection);
    client.write(3, author.insert("b", "UA")).await;

    // The outcomes of 1 to 3 were lost.
    let mut again = world.session(site, &token, hello(site, &token)).await;
    assert_eq!(again.accepted().await, 1);
    let FromGateway::Rejected(second) = again.next().await else { panic!("not rejected") };
    assert_eq!((second.seq, second.code, second.message), (2, first.code, first.message));
    assert_eq!(again.accepted().await, 3);

    // Heard up to 2: nothing is told twice.
    let mut heard = world.session(site, &token, pb::Hello { acknowledged_seq: 2, ..hello(site, &token) }).await;
    assert_eq!(heard.accepted().await, 3);
    assert!(world.store.snapshot().get(&system, &doc_id("a")).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_built_on_a_rejected_transaction_is_rejected_too() {
    let world = World::new().await;
    let (site, token) = world.login("all").await;
    let ahead = Arc::new(ManualClock::new(SystemClock.now_ms() + 3_600_000));
    let mut wrong = Author::with_clock(site, ahead);
    let mut author = Author::new(site);
    let mut client = world.session(site, &token, hello(site, &token)).await;
    let transactions = vec![
        pb::PushedTransaction { seq: 1, transaction: wrong.insert("a", "UA"), basis: 0, more: false },
        pb::PushedTransaction { seq: 2, transaction: author.set("a", "gate", "B2"), basis: 0, more: false },
        pb::PushedTransaction { seq: 3, transaction: author.insert("b", "UA"), basis: 0, more: false },
    ];
    client.send(pb::Push { transactions }).await;
    for (seq, code) in [(1, RejectCode::RejectClockAhead), (2, RejectCode::RejectBuiltOnRejected)] {
        let FromGateway::Rejected(rejected) = client.next().await else { panic!("not rejected") };
        assert_eq!((rejected.seq, rejected.code()), (seq, code));
    }
    assert_eq!(client.accepted().await, 3);
    // Made after the peer knew.
    let transaction = author.insert("a", "DL");
    client
        .send(pb::Push { transactions: vec![pb::PushedTransaction { seq: 4, transaction, basis: 3, more: false }] })
        .await;
    assert_eq!(client.accepted().await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_in_parts_shows_when_it_is_whole_and_not_if_it_never_is() {
    let world = World::new().await;
    let (site, token) = world.login("all").await;
    let mut client = world.session(site, &token, hello(site, &token)).await;
    let mut author = Author::new(site);
    let mut transaction = author.many(0..100, "UA");
    let rest = transaction.split_off(transaction.len() / 2);
    let part =
        |transaction: &Bytes, more| pb::PushedTransaction { seq: 1, transaction: transaction.clone(), basis: 0, more };
    client.send(pb::Push { transactions: vec![part(&transaction, true)] }).await;
    // Answered after the part was taken.
    client.subscribe(1, "SELECT * FROM flights", None).await;
    let mut replica = Replica::default();
    client.catch_up(&mut replica).await;
    drop(client);
    assert_eq!(world.log.last_seq(&world.app, site).await.unwrap(), 0);

    // A new session starts it again.
    let mut client = world.session(site, &token, hello(site, &token)).await;
    client.send(pb::Push { transactions: vec![part(&transaction, true)] }).await;
    client.send(pb::Push { transactions: vec![part(&rest, false)] }).await;
    assert_eq!(client.accepted().await, 1);
    let mut reader = world.client().await;
    reader.subscribe(1, "SELECT * FROM flights", None).await;
    reader.catch_up(&mut replica).await;
    assert_eq!(replica.documents.len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_over_the_window_end_the_session() {
    let settings = GatewaySettings { max_pushes_in_flight: 2, ..GatewaySettings::default() };
    let world = World::with(settings).await;
    let mut client = world.client().await;
    let mut author = Author::new(client.site);
    let push = |seq| pb::PushedTransaction {
        seq,
        transaction: author.insert(&format!("d{seq}"), "UA"),
        basis: 0,
        more: false,
    };
    client.send(pb::Push { transactions: (1..=3).map(push).collect() }).await;
    assert_eq!(client.close().await.code(), CloseCode::CloseLimitExceeded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_loses_no_acknowledged_write_and_says_go_elsewhere() {
    let world = World::new().await;
    let mut client = world.client().await;
    let mut author = Author::new(client.site);
    for seq in 1..=50 {
        client.push(seq, author.insert(&format!("d{seq}"), "UA")).await;
    }
    assert!(client.accepted().await >= 1);
    world.shutdown.cancel();
    let mut last = 0;
    let close = loop {
        match client.next().await {
            FromGateway::Accepted(accepted) => last = accepted.seq,
            FromGateway::Close(close) => break close,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(close.code(), CloseCode::CloseGoingAway);
    assert!(world.log.last_seq(&world.app, client.site).await.unwrap() >= last);
}
