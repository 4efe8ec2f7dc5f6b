//! What became of each write: waiting, durable, or rejected, and told until somebody has taken note.

use bigpeer_peer::{Params, Peer, PeerError, PeerEvent, WriteStatus};

use super::fake::Fake;
use super::{open, rows, run};

async fn seq(peer: &Peer, statement: &str) -> u64 {
    run(peer, statement).await.seq.expect("a transaction")
}

#[tokio::test]
async fn each_write_is_waiting_then_durable_or_rejected_and_rejections_survive_a_restart() {
    let (server, dir) = (Fake::start().await, tempfile::tempdir().expect("a directory"));
    let peer = open(dir.path()).await;
    peer.connect(server.settings()).await.expect("connects");
    peer.wait_connected().await.expect("connected");
    peer.disconnect().await;
    let good = seq(&peer, "INSERT INTO cars DOCUMENTS ({'_id': 1, 'color': 'red'})").await;
    let bad = seq(&peer, "INSERT INTO cars DOCUMENTS ({'_id': 2, 'forbidden': true})").await;
    let last = seq(&peer, "INSERT INTO cars DOCUMENTS ({'_id': 3})").await;
    for number in [good, bad, last] {
        assert_eq!(peer.write_status(number).await.expect("reads"), WriteStatus::Waiting);
    }
    for unknown in [0, last + 1, u64::MAX] {
        assert_eq!(peer.write_status(unknown).await.expect("reads"), WriteStatus::Unknown);
    }
    assert!(matches!(peer.wait_written(last).await, Err(PeerError::NotConnected)));
    let mut events = peer.events();
    peer.connect(server.settings()).await.expect("connects");
    let written = peer.wait_written(last).await.expect("answered");
    assert!(matches!(written, WriteStatus::Durable { lsn } if lsn.version == 3), "{written:?}");
    let WriteStatus::Durable { lsn } = peer.write_status(good).await.expect("reads") else { panic!("not durable") };
    assert!((1..=3).contains(&lsn.version), "{lsn}");
    let WriteStatus::Rejected(rejection) = peer.wait_written(bad).await.expect("answered") else {
        panic!("not rejected")
    };
    assert_eq!((rejection.seq, rejection.code.as_str()), (bad, "REJECT_FORBIDDEN"));
    assert_eq!(rejection.documents.len(), 1);
    loop {
        if let PeerEvent::WriteRejected { seq, .. } = events.recv().await.expect("the peer lives") {
            assert_eq!(seq, bad);
            break;
        }
    }
    assert_eq!(rows(&peer, "SELECT _id FROM cars").await, [r#"{"_id":1}"#, r#"{"_id":3}"#]);
    peer.close().await;
    drop(peer);

    // The app was not there when it happened; it is told now, until it has taken note.
    let peer = open(dir.path()).await;
    assert_eq!(peer.status().rejections, 1);
    assert_eq!(peer.rejections().await.expect("reads"), std::slice::from_ref(&rejection));
    assert!(peer.dismiss_rejection(rejection.number).await.expect("noted"));
    assert!(!peer.dismiss_rejection(rejection.number).await.expect("reads"));
    assert_eq!((peer.rejections().await.expect("reads").len(), peer.status().rejections), (0, 0));
    // What was taken note of was rejected all the same.
    assert_eq!(peer.write_status(bad).await.expect("reads"), WriteStatus::Rejected(rejection));
}

#[tokio::test]
async fn what_is_subscribed_to_is_told_with_its_arguments() {
    let dir = tempfile::tempdir().expect("a directory");
    let peer = open(dir.path()).await;
    let arguments = super::params([("color", bigpeer_peer::Value::from("red"))]);
    peer.subscribe("SELECT * FROM cars WHERE color = :color", arguments.clone()).await.expect("subscribes");
    peer.subscribe("SELECT * FROM boats", Params::new()).await.expect("subscribes");
    let subscribed = peer.subscribed().await.expect("reads");
    let expected = [
        ("SELECT * FROM cars WHERE color = :color".to_owned(), arguments),
        ("SELECT * FROM boats".to_owned(), Params::new()),
    ];
    assert_eq!(subscribed, expected);
    for (query, arguments) in subscribed {
        peer.observe(&query, arguments).expect("can be observed");
    }
}

#[tokio::test]
async fn a_store_is_free_when_its_peer_was_dropped_without_a_word() {
    let (server, dir) = (Fake::start().await, tempfile::tempdir().expect("a directory"));
    let peer = open(dir.path()).await;
    peer.connect(server.settings()).await.expect("connects");
    peer.wait_connected().await.expect("connected");
    drop(peer);
    let again = async {
        loop {
            match Peer::open(bigpeer_peer::PeerSettings::new(dir.path())).await {
                Ok(peer) => return peer,
                Err(PeerError::StoreInUse(_)) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    let again = tokio::time::timeout(std::time::Duration::from_secs(30), again).await.expect("the store is let go");
    again.close().await;
}
