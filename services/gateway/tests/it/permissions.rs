//! Permissions on reading and writing, also when they change in an open session.

use bigpeer_chassis::{Access, Permissions};
use bigpeer_crdt::Value;
use bigpeer_protocol::pb::{self, CloseCode, FromGateway, RefuseCode, RejectCode};
use bigpeer_types::CollectionName;

use crate::world::{Author, Edit, Replica, World, doc_id, flights, hello, name};

/// Reads and writes flights for which the condition holds.
fn only(condition: &str) -> Permissions {
    let access = Access {
        everything: false,
        queries_by_collection: [("flights".to_owned(), vec![condition.to_owned()])].into(),
    };
    Permissions { ql_version: 1, remote_query: false, read: access.clone(), write: access }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_are_checked_before_and_after() {
    let world = World::new().await;
    world.key("united", only("carrier = 'UA'")).await;
    let mut other = world.client().await;
    let mut theirs = Author::new(other.site);
    other.write(1, theirs.insert("delta", "DL")).await;
    let (site, token) = world.login("united").await;
    let mut client = world.session(site, &token, hello(site, &token)).await;
    let mut author = Author::new(site);
    client.write(1, author.insert("mine", "UA")).await;
    // In flight at once: the second is judged with the first.
    client.push(2, author.insert("soon", "UA")).await;
    client.push(3, author.set("soon", "gate", "B2")).await;
    while client.accepted().await < 3 {}
    let other_collection = CollectionName::new("other").unwrap();
    let refused = [
        author.insert("foreign", "DL"),
        author.set("mine", "carrier", "DL"),
        author.set("delta", "carrier", "UA"),
        author.edit(&other_collection, &[("x", Edit::flight("UA"))]),
    ];
    for (transaction, seq) in refused.into_iter().zip(4..) {
        client.push(seq, transaction).await;
        let FromGateway::Rejected(rejected) = client.next().await else { panic!("{seq} was not rejected") };
        assert_eq!((rejected.seq, rejected.code()), (seq, RejectCode::RejectForbidden));
        let readable = rejected.restore.iter().filter(|restore| restore.state.is_some()).count();
        assert_eq!(readable, usize::from(seq == 5), "only what may be read is restored");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_may_not_be_read_is_sent_live_or_in_pages() {
    let world = World::new().await;
    world.key("united", only("carrier = 'UA'")).await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    writer.write(1, author.edit(&flights(), &[("a", Edit::flight("UA")), ("b", Edit::flight("DL"))])).await;
    let (site, token) = world.login("united").await;
    let mut reader = world.session(site, &token, hello(site, &token)).await;
    let mut replica = Replica::default();
    let scope = reader.subscribe(1, "SELECT * FROM flights", None).await;
    reader.catch_up(&mut replica).await;
    assert_eq!(replica.ids(), ["a"]);
    writer.write(2, author.insert("c", "DL")).await;
    let carrier = |carrier: &str| Edit::Set("carrier", Value::String(carrier.into()));
    let lsn = writer.write(3, author.edit(&flights(), &[("a", carrier("DL")), ("b", carrier("UA"))])).await;
    reader.until(&mut replica, |replica| replica.through >= lsn).await;
    assert_eq!(replica.ids(), ["b"]);
    drop(reader);
    // While it is away one that it has becomes unreadable: it must go without being named among others.
    writer.write(4, author.edit(&flights(), &[("b", carrier("DL")), ("c", Edit::Set("gate", Value::Null))])).await;
    writer.write(5, author.insert("d", "UA")).await;
    let mut reader = world.session(site, &token, hello(site, &token)).await;
    let resume = pb::Resume { lsn: Some(replica.through.into()), scope, ..Default::default() };
    reader.subscribe(1, "SELECT * FROM flights", Some(resume)).await;
    loop {
        let message = reader.next().await;
        if let FromGateway::Changes(pb::Changes { page: Some(page), .. }) = &message {
            assert!(page.left.is_empty(), "an id that may not be read");
        }
        replica.apply(&message);
        if matches!(message, FromGateway::CaughtUp(_)) {
            break;
        }
    }
    assert_eq!(replica.ids(), ["d"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_that_may_not_be_read_is_refused() {
    let world = World::new().await;
    world.key("united", only("carrier = 'UA'")).await;
    let (site, token) = world.login("united").await;
    let mut client = world.session(site, &token, hello(site, &token)).await;
    for (query, id) in [("SELECT * FROM other", 1), ("SELECT * FROM __rejections", 2)] {
        client.send(pb::Subscribe { id, query: query.to_owned(), ..Default::default() }).await;
        let FromGateway::Refused(refused) = client.next().await else { panic!("not refused") };
        assert_eq!((refused.id, refused.code()), (id, RefuseCode::RefuseForbidden));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_permissions_take_effect_in_an_open_session() {
    let world = World::new().await;
    world.key("k", Permissions::all()).await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    writer.write(1, author.edit(&flights(), &[("a", Edit::flight("UA")), ("b", Edit::flight("DL"))])).await;
    let (site, token) = world.login("k").await;
    let mut client = world.session(site, &token, hello(site, &token)).await;
    let mut replica = Replica::default();
    let scope = client.subscribe(1, "SELECT * FROM flights", None).await;
    client.catch_up(&mut replica).await;
    assert_eq!(replica.ids(), ["a", "b"]);

    world.key("k", only("carrier = 'UA'")).await;
    assert!(matches!(client.next().await, FromGateway::Resync(_)));
    replica.documents.clear();
    let FromGateway::Subscribed(subscribed) = client.next().await else { panic!("no new scope") };
    assert_ne!(subscribed.scope, scope);
    client.catch_up(&mut replica).await;
    assert_eq!(replica.ids(), ["a"]);
    let mut mine = Author::new(site);
    client.push(1, mine.insert("c", "DL")).await;
    assert!(matches!(client.next().await, FromGateway::Rejected(_)));

    world.key("k", Permissions::default()).await;
    let FromGateway::Refused(refused) = client.next().await else { panic!("not refused") };
    assert_eq!(refused.code(), RefuseCode::RefuseForbidden);

    world.catalogue.delete_api_key(&world.app, &name("k")).await.unwrap();
    assert_eq!(client.close().await.code(), CloseCode::CloseAccessRevoked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_end_with_their_app_and_with_the_scope_of_their_key() {
    let world = World::new().await;
    world.key("k", Permissions::all()).await;
    let (site, token) = world.login("k").await;
    let mut client = world.session(site, &token, hello(site, &token)).await;
    let scopes = [bigpeer_chassis::Door::Data].into_iter().collect();
    let spec = bigpeer_chassis::ApiKeySpec { permissions: Permissions::all(), scopes, ..Default::default() };
    world.catalogue.put_api_key(&world.app, &name("k"), spec).await.unwrap();
    assert_eq!(client.close().await.code(), CloseCode::CloseAccessRevoked);
    let mut refused = world.socket().await;
    refused.send(hello(site, &token)).await;
    assert_eq!(refused.close().await.code(), CloseCode::CloseUnauthenticated);

    world.key("k", Permissions::all()).await;
    let mut client = world.session(site, &token, hello(site, &token)).await;
    world.catalogue.put_app(&name("t"), &name("a"), false).await.unwrap();
    world.catalogue.delete_app(&name("t"), &name("a")).await.unwrap();
    assert_eq!(client.close().await.code(), CloseCode::CloseAccessRevoked);
    let mut refused = world.socket().await;
    refused.send(hello(site, &token)).await;
    assert_eq!(refused.close().await.code(), CloseCode::CloseUnauthenticated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_queued_under_permissions_of_before_is_not_sent() {
    let world = World::new().await;
    world.key("k", Permissions::all()).await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    writer.write(1, author.insert("a", "UA")).await;
    let (site, token) = world.login("k").await;
    let greeting = pb::Hello { credit: 1000, ..hello(site, &token) };
    let mut client = world.session(site, &token, greeting).await;
    let mut replica = Replica::default();
    client.subscribe(1, "SELECT * FROM flights", None).await;
    client.catch_up(&mut replica).await;
    assert_eq!(replica.ids(), ["a"]);
    // This takes all of the credit: what comes later waits.
    let lsn = writer.write(2, author.set("a", "gate", &"x".repeat(2000))).await;
    client.until(&mut replica, |replica| replica.through >= lsn).await;
    let mut other = world.client().await;
    let mut seen = Replica::default();
    other.subscribe(1, "SELECT * FROM flights", None).await;
    other.catch_up(&mut seen).await;
    let lsn = writer.write(3, author.insert("b", "DL")).await;
    // The hub has queued it for all.
    other.until(&mut seen, |seen| seen.through >= lsn).await;

    world.key("k", only("carrier = 'UA'")).await;
    assert!(matches!(client.next().await, FromGateway::Resync(_)));
    replica.documents.clear();
    client.send(pb::Credit { bytes: 1 << 20 }).await;
    let lsn = writer.write(4, author.insert("c", "UA")).await;
    client.until(&mut replica, |replica| replica.through >= lsn).await;
    assert_eq!(replica.ids(), ["a", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejection_that_takes_a_document_back_is_not_followed_by_its_deltas() {
    let world = World::new().await;
    world.key("united", only("carrier = 'UA'")).await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    writer.write(1, author.insert("a", "UA")).await;
    let (site, token) = world.login("united").await;
    let mut client = world.session(site, &token, pb::Hello { credit: 1000, ..hello(site, &token) }).await;
    let mut replica = Replica::default();
    client.subscribe(1, "SELECT * FROM flights", None).await;
    client.catch_up(&mut replica).await;
    // This takes all of the credit: what comes later waits.
    let lsn = writer.write(2, author.set("a", "gate", &"x".repeat(2000))).await;
    client.until(&mut replica, |replica| replica.through >= lsn).await;
    // A change that waits, and then the end of what may be read.
    writer.write(3, author.set("a", "gate", "B2")).await;
    writer.write(4, author.set("a", "carrier", "DL")).await;

    let mut mine = Author::new(site);
    client.push(1, mine.set("a", "gate", "C3")).await;
    let FromGateway::Rejected(rejected) = client.next().await else { panic!("not rejected") };
    assert!(rejected.restore.iter().all(|restore| restore.state.is_none()), "{rejected:?}");
    replica.documents.clear();
    client.send(pb::Credit { bytes: 1 << 20 }).await;
    let last = writer.write(5, author.set("a", "gate", "D4")).await;
    let last = last.max(writer.write(6, author.insert("b", "UA")).await);
    while replica.through < last {
        let message = client.next().await;
        if let FromGateway::Changes(changes) = &message {
            let mut sent = changes.transactions.iter().flat_map(|transaction| &transaction.changes);
            assert!(
                !sent.any(|change| *change.id == *doc_id("a").as_key()),
                "a part of what may not be read: {message:?}"
            );
        }
        replica.apply(&message);
    }
    assert_eq!(replica.ids(), ["b"]);
    // When it comes again it is whole.
    let last = writer.write(7, author.set("a", "carrier", "UA")).await;
    client.until(&mut replica, |replica| replica.through >= last).await;
    assert_eq!(replica.ids(), ["a", "b"]);
    assert_eq!(replica.field("a", "gate"), Some(Value::String("D4".into())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_renewed_with_a_token_of_its_own_site_only() {
    let world = World::new().await;
    let mut client = world.client().await;
    let access_token = world.token("all", client.site);
    client.send(pb::Renew { access_token }).await;
    client.subscribe(1, "SELECT * FROM flights", None).await;
    let (_, foreign) = world.login("all").await;
    client.send(pb::Renew { access_token: foreign }).await;
    assert_eq!(client.close().await.code(), CloseCode::CloseForeignSite);
}
