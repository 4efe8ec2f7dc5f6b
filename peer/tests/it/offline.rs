//! The store without a network: DQL, transactions, live queries, and who may open it.

use std::os::unix::fs::PermissionsExt;

use bigpeer_peer::{ConnectSettings, Credentials, Params, Peer, PeerError, PeerSettings, Secret, Value};
use bigpeer_types::{AppId, SiteId};

use super::{open, params, rows, run};

/// A store with a site, as after a login.
pub(crate) async fn open_with_site(dir: &std::path::Path) -> Peer {
    let peer = open(dir).await;
    let app = AppId::new("an-app").expect("valid");
    let mut settings = ConnectSettings::new("http://localhost:1", app, "unused");
    settings.credentials = Credentials::Token { site: SiteId::new(7), token: Secret::new("a-token") };
    assert_eq!(peer.login(&settings).await.expect("no server is asked"), SiteId::new(7));
    peer
}

#[tokio::test]
async fn a_store_without_a_site_reads_and_refuses_to_write() {
    let dir = tempfile::tempdir().expect("a directory");
    let peer = open(dir.path()).await;
    assert!(run(&peer, "SELECT * FROM cars").await.items.is_empty());
    let refused = peer.execute("INSERT INTO cars DOCUMENTS ({'_id': 1})", Params::new()).await;
    assert!(matches!(refused, Err(PeerError::NoSite)), "{refused:?}");
}

#[tokio::test]
async fn writes_are_there_after_the_store_was_opened_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let peer = open_with_site(dir.path()).await;
    let inserted =
        run(&peer, "INSERT INTO cars DOCUMENTS ({'_id': 1, 'color': 'red'}), ({'_id': 2, 'color': 'blue'})").await;
    assert_eq!((inserted.seq, inserted.mutated.len()), (Some(1), 2));
    assert_eq!(run(&peer, "UPDATE cars SET color = 'green' WHERE _id = 2").await.seq, Some(2));
    assert_eq!(run(&peer, "UPDATE cars SET color = 'green' WHERE _id = 99").await.seq, None);
    assert_eq!(run(&peer, "DELETE FROM cars WHERE _id = 1").await.seq, Some(3));
    peer.close().await;
    assert!(matches!(peer.execute("SELECT * FROM cars LIMIT 1", Params::new()).await, Ok(_) | Err(PeerError::Closed)));
    drop(peer);

    let peer = open(dir.path()).await;
    assert_eq!(rows(&peer, "SELECT * FROM cars").await, [r#"{"_id":2,"color":"green"}"#]);
    let status = peer.status();
    assert_eq!((status.site, status.committed, status.unpushed), (Some(SiteId::new(7)), 3, 3));
    assert_eq!(run(&peer, "UPDATE cars SET color = 'black' WHERE _id = 2").await.seq, Some(4));
}

#[tokio::test]
async fn a_transaction_is_whole_or_not_at_all() {
    let dir = tempfile::tempdir().expect("a directory");
    let peer = open_with_site(dir.path()).await;
    let (count, seq) = peer
        .transaction(|tx| {
            tx.execute(
                "INSERT INTO accounts DOCUMENTS ({'_id': 'a', 'sum': 10}), ({'_id': 'b', 'sum': 0})",
                &Params::new(),
            )?;
            tx.execute("UPDATE accounts SET sum = 3 WHERE _id = 'a'", &Params::new())?;
            Ok(tx.execute("SELECT * FROM accounts WHERE sum = 3", &Params::new())?.items.len())
        })
        .await
        .expect("commits");
    assert_eq!((count, seq, peer.status().unpushed), (1, Some(1), 1));

    let failed: Result<((), _), _> = peer
        .transaction(|tx| {
            tx.execute("DELETE FROM accounts", &Params::new())?;
            Err(PeerError::Abandoned("changed my mind".to_owned()))
        })
        .await;
    assert!(matches!(failed, Err(PeerError::Abandoned(_))));
    let expected = [r#"{"_id":"a","sum":3}"#, r#"{"_id":"b","sum":0}"#];
    assert_eq!(rows(&peer, "SELECT * FROM accounts").await, expected);
    assert_eq!(peer.status().unpushed, 1);
}

#[tokio::test]
async fn wrong_statements_say_what_is_wrong_and_change_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let peer = open_with_site(dir.path()).await;
    for wrong in ["SELEC * FROM cars", "SELECT * FROM cars WHERE a = :missing", "INSERT INTO cars DOCUMENTS (1)"] {
        let error = peer.execute(wrong, Params::new()).await.expect_err(wrong);
        assert!(matches!(error, PeerError::Dql(_)), "{wrong}: {error:?}");
    }
    assert!(matches!(peer.observe("DELETE FROM cars", Params::new()), Err(PeerError::WrongStatement(_))));
    assert!(peer.subscribe("SELECT * FROM cars LIMIT 3", Params::new()).await.is_err());
    run(&peer, "INSERT INTO cars DOCUMENTS ({'_id': 1})").await;
    let twice = peer.execute("INSERT INTO cars DOCUMENTS ({'_id': 2}), ({'_id': 1})", Params::new()).await;
    assert!(twice.is_err());
    assert_eq!(rows(&peer, "SELECT * FROM cars").await, [r#"{"_id":1}"#]);
    assert_eq!(peer.status().committed, 1);
}

#[tokio::test]
async fn a_live_query_tells_what_changed() {
    let dir = tempfile::tempdir().expect("a directory");
    let peer = open_with_site(dir.path()).await;
    run(&peer, "INSERT INTO cars DOCUMENTS ({'_id': 1, 'price': 5}), ({'_id': 2, 'price': 7})").await;
    let mut live = peer
        .observe("SELECT * FROM cars WHERE price < :most ORDER BY price", params([("most", Value::Int(10))]))
        .expect("a SELECT");
    let first = live.next().await.expect("the first result");
    assert_eq!((first.items.len(), first.inserted.as_slice()), (2, [0, 1].as_slice()));

    // Nothing that the query can see: no news. Then all three kinds of change in one.
    run(&peer, "INSERT INTO boats DOCUMENTS ({'_id': 1, 'price': 5})").await;
    run(&peer, "INSERT INTO cars DOCUMENTS ({'_id': 3, 'price': 70})").await;
    peer.transaction(|tx| {
        tx.execute("UPDATE cars SET price = 1 WHERE _id = 2", &Params::new())?;
        tx.execute("DELETE FROM cars WHERE _id = 1", &Params::new())?;
        tx.execute("UPDATE cars SET price = 2 WHERE _id = 3", &Params::new())
    })
    .await
    .expect("commits");
    let next = live.next().await.expect("the next result");
    let text: Vec<String> = next.items.iter().map(|row| row.to_json().to_string()).collect();
    assert_eq!(text, [r#"{"_id":2,"price":1}"#, r#"{"_id":3,"price":2}"#]);
    assert_eq!(next.inserted, [1]);
    assert_eq!(next.updated.len(), 1);
    assert_eq!(next.updated[0].1.to_json().to_string(), r#"{"_id":2,"price":7}"#);
    assert_eq!(next.removed.len(), 1);
}

#[tokio::test]
async fn one_peer_at_a_time_and_private_files() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = dir.path().join("below").join("store");
    let peer = open(&store).await;
    let second = Peer::open(PeerSettings::new(&store)).await;
    assert!(matches!(second, Err(PeerError::StoreInUse(_))), "{second:?}");
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&store), 0o700);
    for entry in std::fs::read_dir(&store).expect("a directory") {
        let path = entry.expect("an entry").path();
        assert_eq!(mode(&path), if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
    }
    peer.close().await;
    drop(peer);
    open(&store).await;
}

#[tokio::test]
async fn other_files_and_versions_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("peer.db"), vec![b'x'; 4096]).expect("writes");
    let error = Peer::open(PeerSettings::new(dir.path())).await.expect_err("not a database");
    assert!(matches!(error, PeerError::NotAStore { .. }), "{error:?}");

    let dir = tempfile::tempdir().expect("a directory");
    drop(open(dir.path()).await);
    let database = rusqlite::Connection::open(dir.path().join("peer.db")).expect("opens");
    database.pragma_update(None, "user_version", 99).expect("updates");
    drop(database);
    let error = Peer::open(PeerSettings::new(dir.path())).await.expect_err("another version");
    assert!(error.to_string().contains("version 99"), "{error}");
}

#[tokio::test]
async fn subscriptions_are_kept_and_are_the_same_when_asked_for_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let peer = open(dir.path()).await;
    let query = "SELECT * FROM cars WHERE color = :color";
    let red = peer.subscribe(query, params([("color", Value::from("red"))])).await.expect("subscribes");
    let blue = peer.subscribe(query, params([("color", Value::from("blue"))])).await.expect("subscribes");
    assert_eq!(peer.subscribe(query, params([("color", Value::from("red"))])).await.expect("subscribes"), red);
    peer.unsubscribe(blue).await.expect("there");
    assert!(matches!(peer.unsubscribe(blue).await, Err(PeerError::NoSubscription(_))));
    assert!(matches!(peer.wait_caught_up(red).await, Err(PeerError::NotConnected)));
    peer.close().await;
    drop(peer);
    let peer = open(dir.path()).await;
    assert_eq!(peer.status().subscriptions.keys().copied().collect::<Vec<_>>(), [red]);
    let green = peer.subscribe(query, params([("color", Value::from("green"))])).await.expect("subscribes");
    assert!(green > blue, "ids are not used again");
}
