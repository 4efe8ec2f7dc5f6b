//! Hostile and confused peers: each gets a Close with a code, and nobody else notices.

use std::time::Duration;

use bigpeer_gateway::GatewaySettings;
use bigpeer_protocol::pb::{self, CloseCode};
use bigpeer_protocol::{SUBPROTOCOL, encode_frame};
use bytes::Bytes;
use tokio_tungstenite::tungstenite::Message;

use crate::world::{Author, Client, World, hello};

/// Others are served as ever.
async fn goes_on(world: &World, bystander: &mut Client, seq: u64) {
    let transaction = Author::new(bystander.site).insert(&format!("d{seq}"), "UA");
    bystander.write(seq, transaction).await;
    drop(world.client().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_none_end_the_session_and_no_other() {
    let world = World::new().await;
    let mut bystander = world.client().await;
    let frames: Vec<(Bytes, CloseCode)> = vec![
        (Bytes::new(), CloseCode::CloseProtocolError),
        (Bytes::from_static(&[0]), CloseCode::CloseProtocolError),
        (Bytes::from_static(&[7, 1, 2, 3]), CloseCode::CloseProtocolError),
        (Bytes::from_static(&[1, 0x28, 0xb5, 0x2f, 0xfd, 9, 9, 9]), CloseCode::CloseProtocolError),
        (Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), CloseCode::CloseProtocolError),
        (
            Bytes::from((0..2000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect::<Vec<_>>()),
            CloseCode::CloseProtocolError,
        ),
    ];
    for (seq, (frame, code)) in (1..).zip(frames) {
        let mut before_hello = world.socket().await;
        before_hello.raw(Message::Binary(frame.clone())).await;
        assert_eq!(before_hello.close().await.code(), code);
        let mut open = world.client().await;
        open.raw(Message::Binary(frame)).await;
        assert_eq!(open.close().await.code(), code);
        goes_on(&world, &mut bystander, seq).await;
    }
    let mut text = world.client().await;
    text.raw(Message::Text("hello".into())).await;
    assert_eq!(text.close().await.code(), CloseCode::CloseProtocolError);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_large_is_read_before_the_hello() {
    let world = World::new().await;
    let mut client = world.socket().await;
    client.raw(Message::Binary(vec![0; 100_000].into())).await;
    assert_eq!(client.close().await.code(), CloseCode::CloseLimitExceeded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_checked_and_so_is_the_site() {
    let world = World::new().await;
    let (site, token) = world.login("all").await;
    let (other, _) = world.login("all").await;
    let (broken, _) = token.split_at(token.len() - 3);
    let hellos = [
        (hello(site, ""), CloseCode::CloseUnauthenticated),
        (hello(site, "not-a-token"), CloseCode::CloseUnauthenticated),
        (hello(site, broken), CloseCode::CloseUnauthenticated),
        (hello(other, &token), CloseCode::CloseForeignSite),
        (pb::Hello { versions: vec![2, 3], ..hello(site, &token) }, CloseCode::CloseUnsupportedVersion),
        (pb::Hello { acknowledged_seq: 5, last_seq: 4, ..hello(site, &token) }, CloseCode::CloseProtocolError),
    ];
    for (hello, code) in hellos {
        let mut client = world.socket().await;
        client.send(hello).await;
        assert_eq!(client.close().await.code(), code);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_no_session_are_answered_as_http() {
    let world = World::new().await;
    let path = format!("/{}/sync", world.app);
    assert_eq!(world.refused_upgrade(&path, None).await, 400);
    assert_eq!(world.refused_upgrade(&path, Some("chat")).await, 400);
    assert_eq!(world.refused_upgrade("/NO.APP/sync", Some(SUBPROTOCOL)).await, 401);
    // Whether an app exists is not told before the token is known.
    let mut client = world.socket().await;
    client.send(hello(bigpeer_types::SiteId::new(1), "x.y.z")).await;
    assert_eq!(client.close().await.code(), CloseCode::CloseUnauthenticated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_in_the_wrong_order_are_a_protocol_error() {
    let world = World::new().await;
    let mut early = world.socket().await;
    early.send(pb::Credit { bytes: 1 }).await;
    assert_eq!(early.close().await.code(), CloseCode::CloseProtocolError);
    let (site, token) = world.login("all").await;
    let mut twice = world.session(site, &token, hello(site, &token)).await;
    twice.send(hello(site, &token)).await;
    assert_eq!(twice.close().await.code(), CloseCode::CloseProtocolError);
    let mut unknown = world.client().await;
    unknown.send(pb::Unsubscribe { id: 9 }).await;
    assert_eq!(unknown.close().await.code(), CloseCode::CloseProtocolError);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_transactions_and_foreign_stamps_end_the_session_and_nothing_is_applied() {
    let world = World::new().await;
    let head = world.head().await;
    let mut garbage = world.client().await;
    garbage.push(1, Bytes::from_static(b"not a transaction")).await;
    assert_eq!(garbage.close().await.code(), CloseCode::CloseProtocolError);
    let mut forger = world.client().await;
    let (victim, _) = world.login("all").await;
    forger.push(1, Author::new(victim).insert("a", "UA")).await;
    assert_eq!(forger.close().await.code(), CloseCode::CloseForeignSite);
    assert_eq!(world.head().await, head);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_session_of_a_site_replaces_the_older() {
    let world = World::new().await;
    let (site, token) = world.login("all").await;
    let mut older = world.session(site, &token, hello(site, &token)).await;
    let mut newer = world.session(site, &token, hello(site, &token)).await;
    assert_eq!(older.close().await.code(), CloseCode::CloseReplaced);
    newer.write(1, Author::new(site).insert("a", "UA")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_says_nothing_is_sent_away() {
    let settings = GatewaySettings { handshake_timeout: Duration::from_millis(50), ..GatewaySettings::default() };
    let world = World::with(settings).await;
    assert_eq!(world.socket().await.close().await.code(), CloseCode::CloseTimeout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_frames_are_understood() {
    let world = World::new().await;
    let (site, token) = world.login("all").await;
    let compressions = vec![pb::Compression::Zstd.into()];
    let mut client = world.session(site, &token, pb::Hello { compressions, ..hello(site, &token) }).await;
    let mut author = Author::new(site);
    let transactions =
        vec![pb::PushedTransaction { seq: 1, transaction: author.many(0..100, "UA"), basis: 0, more: false }];
    let frame = encode_frame(&pb::PeerMessage::from(pb::Push { transactions }), pb::Compression::Zstd);
    assert!(frame.message.len() < frame.bytes / 2);
    client.raw(Message::Binary(frame.message)).await;
    assert_eq!(client.accepted().await, 1);
}
