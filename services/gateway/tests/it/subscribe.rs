//! Subscriptions: first sync, live changes, leaving, resuming, slow readers.

use bigpeer_crdt::Value;
use bigpeer_gateway::GatewaySettings;
use bigpeer_protocol::pb::{self, CloseCode, FromGateway, RefuseCode};
use bigpeer_types::{CollectionName, Lsn};

use crate::world::{Author, Edit, Replica, SEVERAL_PAGES, World, flights, hello};

const UNITED: &str = "SELECT * FROM flights WHERE carrier = 'UA'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_sync_brings_what_matches_and_what_happens_then_comes_live() {
    let world = World::new().await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    writer.write(1, author.edit(&flights(), &[("a", Edit::flight("UA")), ("b", Edit::flight("DL"))])).await;
    let mut reader = world.client().await;
    let mut replica = Replica::default();
    reader.subscribe(1, UNITED, None).await;
    reader.catch_up(&mut replica).await;
    assert_eq!(replica.ids(), ["a"]);

    writer.write(2, author.insert("c", "UA")).await;
    reader.until(&mut replica, |replica| replica.documents.len() == 2).await;
    writer.write(3, author.set("a", "gate", "Z9")).await;
    reader.until(&mut replica, |replica| replica.field("a", "gate") == Some(Value::String("Z9".into()))).await;
    // One stops matching, one begins to: with its whole state.
    let carrier = |carrier: &str| Edit::Set("carrier", Value::String(carrier.into()));
    let lsn = writer.write(4, author.edit(&flights(), &[("a", carrier("DL")), ("b", carrier("UA"))])).await;
    reader.until(&mut replica, |replica| replica.through >= lsn).await;
    assert_eq!(replica.ids(), ["b", "c"]);
    assert_eq!(replica.field("b", "gate"), Some(Value::String("A1".into())));
    let lsn = writer.write(5, author.delete("c")).await;
    reader.until(&mut replica, |replica| replica.through >= lsn).await;
    assert_eq!(replica.ids(), ["b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_first_sync_comes_in_pages_and_loses_nothing_that_happens_meanwhile() {
    let world = World::new().await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    writer.write(1, author.many(0..SEVERAL_PAGES, "UA")).await;
    let (site, token) = world.login("all").await;
    // Just enough credit for one page.
    let mut reader = world.session(site, &token, pb::Hello { credit: 1, ..hello(site, &token) }).await;
    let mut replica = Replica::default();
    reader.subscribe(1, "SELECT * FROM flights", None).await;
    reader.until(&mut replica, |replica| replica.pages == 1).await;
    assert!(replica.documents.len() < SEVERAL_PAGES);
    // Both sides of the position.
    writer.write(2, author.edit(&flights(), &[("a", Edit::flight("DL")), ("z", Edit::flight("DL"))])).await;
    writer.write(3, author.set("f000000", "gate", "B2")).await;
    writer.write(4, author.delete("f000001")).await;
    reader.send(pb::Credit { bytes: 1 << 40 }).await;
    reader.catch_up(&mut replica).await;
    assert_eq!(replica.documents.len(), SEVERAL_PAGES + 1);
    assert_eq!(replica.field("f000000", "gate"), Some(Value::String("B2".into())));
    assert!(replica.through >= world.head().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_first_sync_goes_on_where_it_stopped() {
    let world = World::new().await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    writer.write(1, author.many(0..SEVERAL_PAGES, "UA")).await;
    let (site, token) = world.login("all").await;
    let mut reader = world.session(site, &token, pb::Hello { credit: 1, ..hello(site, &token) }).await;
    let mut replica = Replica::default();
    let scope = reader.subscribe(1, "SELECT * FROM flights", None).await;
    reader.until(&mut replica, |replica| replica.pages == 1).await;
    let held = replica.documents.len();
    drop(reader);
    writer.write(2, author.delete("f000000")).await;
    writer.write(3, author.set("f000001", "gate", "B2")).await;
    writer.write(4, author.insert("zzz", "DL")).await;

    let mut reader = world.session(site, &token, hello(site, &token)).await;
    let resume = pb::Resume { lsn: Some(replica.snapshot.into()), position: replica.position.clone(), scope };
    reader.subscribe(1, "SELECT * FROM flights", Some(resume)).await;
    let mut sent = 0;
    loop {
        let message = reader.next().await;
        if let FromGateway::Changes(pb::Changes { page: Some(page), .. }) = &message {
            sent += page.states.len();
        }
        replica.apply(&message);
        if matches!(message, FromGateway::CaughtUp(_)) {
            break;
        }
    }
    assert_eq!(replica.documents.len(), SEVERAL_PAGES);
    assert_eq!(sent, SEVERAL_PAGES - held + 3, "what the peer has is not sent again");
    assert_eq!(replica.field("f000001", "gate"), Some(Value::String("B2".into())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_was_away_gets_what_changed_and_learns_what_left() {
    let world = World::new().await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    writer.write(1, author.many(0..100, "UA")).await;
    writer.write(2, author.insert("gone", "UA")).await;
    writer.write(3, author.insert("deleted", "UA")).await;
    let (site, token) = world.login("all").await;
    let mut reader = world.session(site, &token, hello(site, &token)).await;
    let mut replica = Replica::default();
    let scope = reader.subscribe(1, UNITED, None).await;
    reader.catch_up(&mut replica).await;
    drop(reader);

    writer.write(4, author.set("gone", "carrier", "DL")).await;
    writer.write(5, author.delete("deleted")).await;
    writer.write(6, author.set("f000007", "gate", "B2")).await;
    let mut reader = world.session(site, &token, hello(site, &token)).await;
    let resume = pb::Resume { lsn: Some(replica.through.into()), scope, ..Default::default() };
    reader.subscribe(1, UNITED, Some(resume)).await;
    let FromGateway::Changes(changes) = reader.next().await else { panic!("no page") };
    let page = changes.page.clone().unwrap();
    assert_eq!((page.states.len(), page.left.len()), (2, 1), "the deletion comes as a state");
    assert!(page.clock > 0, "the deletion's stamp must be passed");
    replica.apply(&FromGateway::Changes(changes));
    reader.catch_up(&mut replica).await;
    assert_eq!(replica.documents.len(), 100);
    assert_eq!(replica.field("f000007", "gate"), Some(Value::String("B2".into())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_from_the_future_or_of_another_query_starts_again() {
    let world = World::new().await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    let lsn = writer.write(1, author.insert("a", "UA")).await;
    let mut reader = world.client().await;
    let scope = reader.subscribe(1, UNITED, None).await;
    reader.catch_up(&mut Replica::default()).await;
    let ahead = pb::Resume { lsn: Some(Lsn::new(lsn.version + 1000, 0).into()), scope, ..Default::default() };
    let other = pb::Resume { lsn: Some(lsn.into()), scope: scope ^ 1, ..Default::default() };
    for (id, resume) in [(2, ahead), (3, other)] {
        // Whoever hears the new scope has heard before that what it holds is not of that scope.
        let is_first = resume.scope != scope;
        reader.send(pb::Subscribe { id, query: UNITED.to_owned(), resume: Some(resume), ..Default::default() }).await;
        let mut answers = [reader.next().await, reader.next().await];
        if is_first {
            answers.reverse();
        }
        let [FromGateway::Subscribed(subscribed), FromGateway::Resync(resync)] = answers else { panic!("{answers:?}") };
        assert_eq!((subscribed.scope, resync.subscriptions), (scope, vec![id]));
        let mut replica = Replica::default();
        reader.catch_up(&mut replica).await;
        assert_eq!(replica.ids(), ["a"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_subscriptions_get_a_document_once_per_transaction() {
    let world = World::new().await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    let mut reader = world.client().await;
    let mut replica = Replica::default();
    for (id, query) in [(1, UNITED), (2, "SELECT * FROM flights"), (5, UNITED), (6, "SELECT * FROM other")] {
        reader.subscribe(id, query, None).await;
        reader.catch_up(&mut replica).await;
    }
    writer.write(1, author.insert("a", "UA")).await;
    let FromGateway::Changes(changes) = reader.next().await else { panic!("no changes") };
    assert_eq!(changes.transactions.len(), 1);
    let [change] = changes.transactions[0].changes.as_slice() else { panic!("once: {changes:?}") };
    assert_eq!(change.subscriptions, [1, 2, 5]);
    writer.write(2, author.set("a", "carrier", "DL")).await;
    let FromGateway::Changes(changes) = reader.next().await else { panic!("no changes") };
    let [transaction] = changes.transactions.as_slice() else { panic!("{changes:?}") };
    assert_eq!(transaction.changes[0].subscriptions, [2]);
    assert!(matches!(transaction.changes[0].content, Some(pb::change::Content::Delta(_))));
    assert_eq!(transaction.left[0].subscriptions, [1, 5]);
    assert!(transaction.clock > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peers_own_writes_do_not_come_back_but_move_its_cursor() {
    let world = World::new().await;
    let mut client = world.client().await;
    let mut author = Author::new(client.site);
    client.subscribe(1, "SELECT * FROM flights", None).await;
    let mut replica = Replica::default();
    client.catch_up(&mut replica).await;
    client.write(1, author.insert("a", "UA")).await;
    let lsn = client.write(2, author.set("a", "gate", "B2")).await;
    let mut other = world.client().await;
    let last = other.write(1, Author::new(other.site).insert("b", "UA")).await;
    let mut content = 0;
    while replica.through < last {
        let message = client.next().await;
        if let FromGateway::Changes(changes) = &message {
            let changes = changes.transactions.iter().flat_map(|transaction| &transaction.changes);
            content += changes.filter(|change| change.content.is_some()).count();
        }
        replica.apply(&message);
    }
    assert!(lsn < last);
    assert_eq!((content, replica.ids()), (1, vec!["b".to_owned()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_is_put_back_to_catching_up_and_holds_up_nobody() {
    let settings = GatewaySettings { queue_bytes: 4096, ..GatewaySettings::default() };
    let world = World::with(settings).await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    let (site, token) = world.login("all").await;
    let mut slow = world.session(site, &token, pb::Hello { credit: 1, ..hello(site, &token) }).await;
    let mut quick = world.client().await;
    let (mut of_slow, mut of_quick) = (Replica::default(), Replica::default());
    slow.subscribe(1, UNITED, None).await;
    slow.catch_up(&mut of_slow).await;
    quick.subscribe(1, UNITED, None).await;
    quick.catch_up(&mut of_quick).await;
    for seq in 1..=200 {
        writer.write(seq, author.insert(&format!("d{seq}"), "UA")).await;
        // The quick one keeps up.
        let expected = usize::try_from(seq).unwrap();
        quick.until(&mut of_quick, |replica| replica.documents.len() == expected).await;
    }
    let last = writer.write(201, author.set("d1", "carrier", "DL")).await;
    // It reads again, and is brought up to date by pages.
    slow.send(pb::Credit { bytes: 1 << 30 }).await;
    slow.until(&mut of_slow, |replica| replica.through >= last).await;
    assert_eq!(of_slow.documents.len(), 199);
    assert!(of_slow.pages > 0, "not from the queue alone");
    writer.write(202, author.insert("live", "UA")).await;
    slow.until(&mut of_slow, |replica| replica.documents.len() == 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_unsubscribed_is_not_sent_any_more() {
    let world = World::new().await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    let mut reader = world.client().await;
    let mut replica = Replica::default();
    for (id, query) in [(1, UNITED), (2, "SELECT * FROM flights WHERE carrier = 'DL'")] {
        reader.subscribe(id, query, None).await;
        reader.catch_up(&mut replica).await;
    }
    reader.send(pb::Unsubscribe { id: 1 }).await;
    // Answered after the Unsubscribe was carried out.
    reader.subscribe(3, "SELECT * FROM other", None).await;
    reader.catch_up(&mut replica).await;
    writer.write(1, author.insert("a", "UA")).await;
    writer.write(2, author.insert("b", "DL")).await;
    reader.until(&mut replica, |replica| !replica.documents.is_empty()).await;
    assert_eq!(replica.ids(), ["b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_queries_are_refused_and_the_session_goes_on() {
    let world = World::new().await;
    let mut client = world.client().await;
    let bad = [
        "SELEC",
        "SELECT a FROM flights",
        "DELETE FROM flights",
        "SELECT * FROM flights LIMIT 1",
        "SELECT * FROM flights WHERE a = :x",
    ];
    for (query, id) in bad.into_iter().zip(1..) {
        client.send(pb::Subscribe { id, query: query.to_owned(), ..Default::default() }).await;
        let FromGateway::Refused(refused) = client.next().await else { panic!("not refused: {query}") };
        assert_eq!((refused.id, refused.code()), (id, RefuseCode::RefuseInvalidQuery));
        assert!(!refused.message.is_empty());
    }
    let with = |id, arguments: &str| pb::Subscribe {
        id,
        query: "SELECT * FROM flights WHERE carrier = :c".to_owned(),
        arguments_json: arguments.to_owned(),
        ..Default::default()
    };
    client.send(with(10, "[1]")).await;
    assert!(matches!(client.next().await, FromGateway::Refused(_)));
    client.send(with(11, r#"{"c": "UA"}"#)).await;
    assert!(matches!(client.next().await, FromGateway::Subscribed(_)));
    client.catch_up(&mut Replica::default()).await;
    // An id may not be used twice.
    client.send(with(11, r#"{"c": "UA"}"#)).await;
    assert_eq!(client.close().await.code(), CloseCode::CloseProtocolError);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_segments_syncs_like_what_is_in_memory() {
    let world = World::new().await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    writer.write(1, author.many(0..1000, "UA")).await;
    let lsn = writer.write(2, author.many(1000..1100, "DL")).await;
    world.store.wait_for(lsn).await.unwrap();
    world.store.writer().await.unwrap().flush().await.unwrap();
    let mut reader = world.client().await;
    let mut replica = Replica::default();
    let scope = reader.subscribe(1, UNITED, None).await;
    reader.catch_up(&mut replica).await;
    assert_eq!(replica.documents.len(), 1000);
    let cursor = replica.through;
    // A document that is in a segment only changes, and comes as a delta; one that begins to match with its state.
    writer.write(3, author.set("f000005", "gate", "B2")).await;
    reader.until(&mut replica, |replica| replica.field("f000005", "gate") == Some(Value::String("B2".into()))).await;
    let lsn = writer.write(4, author.set("f001005", "carrier", "UA")).await;
    reader.until(&mut replica, |replica| replica.through >= lsn).await;
    assert_eq!(replica.field("f001005", "gate"), Some(Value::String("A1".into())));
    // And the same from a cursor, after another flush.
    world.store.writer().await.unwrap().flush().await.unwrap();
    let mut late = world.client().await;
    let mut pages = Replica::default();
    let resume = pb::Resume { lsn: Some(cursor.into()), scope, ..Default::default() };
    late.subscribe(1, UNITED, Some(resume)).await;
    late.catch_up(&mut pages).await;
    assert_eq!(pages.ids(), ["f000005", "f001005"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_all_sessions_together_is_bounded_and_those_put_back_lose_nothing() {
    const MOST: usize = 64 << 10;
    const WRITES: u64 = 60;
    let world = World::with(GatewaySettings { max_waiting_bytes: MOST, ..GatewaySettings::default() }).await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    // None of them has credit for more than a frame; each queue alone would hold all of it.
    let mut readers = Vec::new();
    for _ in 0..3 {
        let (site, token) = world.login("all").await;
        let mut reader = world.session(site, &token, pb::Hello { credit: 1, ..hello(site, &token) }).await;
        let mut replica = Replica::default();
        reader.subscribe(1, "SELECT * FROM flights", None).await;
        reader.catch_up(&mut replica).await;
        readers.push((reader, replica));
    }
    let mut fast = world.client().await;
    let mut seen = Replica::default();
    fast.subscribe(1, "SELECT * FROM flights", None).await;
    fast.catch_up(&mut seen).await;
    let text = "x".repeat(4 << 10);
    let mut last = Lsn::ZERO;
    for seq in 1..=WRITES {
        last = writer.write(seq, author.insert(&format!("f{seq}"), &text)).await;
        fast.until(&mut seen, |replica| replica.through >= last).await;
        // One more transaction may have come since those that wait were looked at.
        let devices = world.system.get(&CollectionName::new("__devices").unwrap()).unwrap().rows(&world.app);
        let waits = devices.iter().filter_map(|device| device["queued_bytes"].as_u64()).max();
        assert!(waits <= Some(2 * MOST as u64), "{waits:?} bytes wait for a session after {seq} writes");
    }
    for (mut reader, mut replica) in readers {
        reader.send(pb::Credit { bytes: 1 << 40 }).await;
        reader.until(&mut replica, |replica| replica.through >= last).await;
        assert_eq!(replica.ids(), seen.ids());
        assert_eq!(replica.ids().len() as u64, WRITES);
    }
}
