//! Stores of other versions: older ones are brought up to date, newer ones are refused.

use std::path::Path;

use bigpeer_peer::{Object, Peer, PeerError, PeerSettings};
use bigpeer_types::SiteId;

use super::{open, rows, run};

/// A store as version 1 left it: site 7 of `an-app`, three local transactions that are not pushed, each with a document in
/// `debits` and one in `credits`, and a subscription that was never connected.
const VERSION_1: &[u8] = include_bytes!("../data/store-v1.bin");

fn version(dir: &Path) -> i64 {
    let database = rusqlite::Connection::open(dir.join("peer.db")).expect("opens");
    database.pragma_query_value(None, "user_version", |row| row.get(0)).expect("a version")
}

#[tokio::test]
async fn a_store_of_the_first_version_is_brought_up_to_date_with_everything_in_it() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("peer.db"), VERSION_1).expect("writes");
    assert_eq!(version(dir.path()), 1);
    for _opened in 0..2 {
        let peer = open(dir.path()).await;
        let status = peer.status();
        assert_eq!((status.site, status.uploads, status.rejections), (Some(SiteId::new(7)), 0, 0));
        assert_eq!(status.subscriptions.len(), 1);
        for collection in ["debits", "credits"] {
            let found = rows(&peer, &format!("SELECT * FROM {collection} WHERE _id <= 3")).await;
            assert_eq!(found, [r#"{"_id":1,"n":1}"#, r#"{"_id":2,"n":2}"#, r#"{"_id":3,"n":3}"#]);
        }
        let committed = status.committed;
        assert!(run(&peer, "UPDATE debits SET n = n WHERE _id = 1").await.seq.is_some());
        assert_eq!(peer.status().unpushed, committed + 1);
        peer.attach_bytes("new in version 2", Object::new()).await.expect("attaches");
        peer.close().await;
        drop(peer);
        assert_eq!(version(dir.path()), 3);
        let database = rusqlite::Connection::open(dir.path().join("peer.db")).expect("opens");
        database.execute_batch("DELETE FROM attachments").expect("as it was");
    }
}

#[tokio::test]
async fn a_store_of_a_newer_version_or_of_none_is_refused_and_left_alone() {
    for (set, told) in [(4, "a newer bigpeer"), (99, "version 99"), (0, "never was")] {
        let dir = tempfile::tempdir().expect("a directory");
        drop(open(dir.path()).await);
        let database = rusqlite::Connection::open(dir.path().join("peer.db")).expect("opens");
        database.pragma_update(None, "user_version", set).expect("updates");
        drop(database);
        let error = Peer::open(PeerSettings::new(dir.path())).await.expect_err("another version");
        assert!(matches!(error, PeerError::NotAStore { .. }) && error.to_string().contains(told), "{error}");
        assert_eq!(version(dir.path()), set);
    }
}
