//! Quotas of an app over sync: what is refused, how, and what goes on.

use bigpeer_chassis::Quota;
use bigpeer_protocol::pb::{self, CloseCode, FromGateway, RefuseCode, RejectCode};

use crate::world::{Author, Client, World, doc_id, flights, hello};

async fn quota(world: &World, quota: Quota) {
    world.catalogue.put_quota(&world.app, quota).await.unwrap();
}

impl Client {
    async fn ask(&mut self, id: u32) {
        self.send(pb::Subscribe { id, query: "SELECT * FROM flights".to_owned(), ..Default::default() }).await;
    }

    /// Why a subscription was refused, if it was.
    async fn answered(&mut self, id: u32) -> Option<RefuseCode> {
        loop {
            match self.next().await {
                FromGateway::Refused(refused) if refused.id == id => return Some(refused.code()),
                FromGateway::Subscribed(subscribed) if subscribed.id == id => return None,
                FromGateway::Close(close) => panic!("{close:?}"),
                _ => {}
            }
        }
    }
}

/// Waits until the gateway has noticed that a session is gone.
async fn until_gone(world: &World, sessions: u32) {
    let meter = world.catalogue.meter(&world.app);
    while meter.open().0 > sessions {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_beyond_the_quota_are_told_when_to_come_back() {
    let world = World::new().await;
    quota(&world, Quota { sessions: Some(1), ..Quota::default() }).await;
    let (site, token) = world.login("all").await;
    let first = world.session(site, &token, hello(site, &token)).await;
    let (other, other_token) = world.login("all").await;
    let mut refused = world.socket().await;
    refused.send(hello(other, &other_token)).await;
    let close = refused.close().await;
    assert_eq!(close.code(), CloseCode::CloseUnavailable);
    assert!(close.retry_after_ms >= 30_000 && close.message.contains("quota"), "{close:?}");
    // A peer that comes back before its old connection is gone is not a second one.
    let again = world.session(site, &token, hello(site, &token)).await;
    drop(first);
    until_gone(&world, 1).await;
    drop(again);
    until_gone(&world, 0).await;
    let _other = world.session(other, &other_token, hello(other, &other_token)).await;
    assert_eq!(world.catalogue.meter(&world.app).open(), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_are_so_many_of_the_app_and_of_a_session() {
    let world = World::new().await;
    quota(&world, Quota { subscriptions: Some(2), session_subscriptions: Some(2), ..Quota::default() }).await;
    let (mut one, mut two) = (world.client().await, world.client().await);
    one.ask(1).await;
    assert_eq!(one.answered(1).await, None);
    one.ask(2).await;
    assert_eq!(one.answered(2).await, None);
    one.ask(3).await;
    assert_eq!(one.answered(3).await, Some(RefuseCode::RefuseLimit), "the session's own");
    two.ask(1).await;
    assert_eq!(two.answered(1).await, Some(RefuseCode::RefuseLimit), "the app's");
    one.send(pb::Unsubscribe { id: 1 }).await;
    while world.catalogue.meter(&world.app).open().1 > 1 {
        tokio::task::yield_now().await;
    }
    two.ask(2).await;
    assert_eq!(two.answered(2).await, None);
    // Other permissions: the same places.
    world.key("all", bigpeer_chassis::Permissions::read_only()).await;
    drop(one);
    until_gone(&world, 1).await;
    assert_eq!(world.catalogue.meter(&world.app).open(), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_is_no_room_writes_are_rejected_and_deletions_taken() {
    let world = World::new().await;
    let mut client = world.client().await;
    let mut author = Author::new(client.site);
    client.write(1, author.insert("a", "UA")).await;
    let lsn = client.write(2, author.insert("b", "UA")).await;
    world.store.wait_for(lsn).await.unwrap();
    quota(&world, Quota { storage_bytes: Some(100), ..Quota::default() }).await;
    client.push(3, author.insert("c", "UA")).await;
    let FromGateway::Rejected(rejected) = client.next().await else { panic!("not rejected") };
    assert_eq!((rejected.seq, rejected.code()), (3, RejectCode::RejectQuotaExceeded));
    assert!(rejected.message.contains("storage_bytes"), "{}", rejected.message);
    let lsn = client.write(4, author.delete("a")).await;
    world.store.wait_for(lsn).await.unwrap();
    let found = world.store.snapshot().get(&flights(), &doc_id("a")).await.unwrap().unwrap();
    assert!(!found.document.is_visible());
    world.catalogue.delete_quota(&world.app).await.unwrap();
    client.write(5, author.insert("d", "UA")).await;
    let used = world.catalogue.usage(&world.app).await.unwrap();
    assert!(used.bytes_in > 500, "{used:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_with_too_many_wrong_tokens_waits_and_sessions_go_on() {
    let world = World::new().await;
    let (site, token) = world.login("all").await;
    let mut open = world.session(site, &token, hello(site, &token)).await;
    let mut author = Author::new(site);
    // Some are earned while they are spent.
    for n in 0.. {
        let mut client = world.socket().await;
        client.send(hello(site, &format!("e30.e30.{n}"))).await;
        let close = client.close().await;
        match close.code() {
            CloseCode::CloseUnauthenticated => {}
            CloseCode::CloseUnavailable => {
                assert!(n >= 200 && close.retry_after_ms >= 1000, "{n}: {close:?}");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    open.write(1, author.insert("a", "UA")).await;
    // What was right before is let in.
    let mut again = world.session(site, &token, hello(site, &token)).await;
    again.write(2, author.insert("b", "UA")).await;
}
