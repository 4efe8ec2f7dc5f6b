//! Sessions: push, first sync, live changes, resume, leaving, rejection, resynchronization.

use bigpeer_peer::{ConnectSettings, Connection, Params, Peer, PeerError, PeerEvent, SubscriptionId, Value};
use tokio::sync::broadcast;

use super::fake::Fake;
use super::{open, params, rows, run};

const ALL: &str = "SELECT * FROM cars";

async fn connected(server: &Fake, dir: &tempfile::TempDir) -> Peer {
    let peer = open(dir.path()).await;
    peer.connect(server.settings()).await.expect("connects");
    peer
}

async fn subscribed(peer: &Peer, query: &str) -> SubscriptionId {
    let id = peer.subscribe(query, Params::new()).await.expect("subscribes");
    peer.wait_caught_up(id).await.expect("catches up");
    id
}

/// Waits until everything that `writer` committed has come through at `reader`.
async fn settle(writer: &Peer, reader: &Peer, subscription: SubscriptionId) {
    if let Some(lsn) = writer.wait_pushed().await.expect("pushed") {
        reader.wait_for(subscription, lsn).await.expect("received");
    }
}

async fn event(events: &mut broadcast::Receiver<PeerEvent>, which: impl Fn(&PeerEvent) -> bool) -> PeerEvent {
    loop {
        let event = events.recv().await.expect("the peer lives");
        if which(&event) {
            return event;
        }
    }
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

#[tokio::test]
async fn a_write_reaches_the_server_and_another_peer() {
    let (server, dirs) = (Fake::start().await, (dir(), dir()));
    let (a, b) = (connected(&server, &dirs.0).await, connected(&server, &dirs.1).await);
    let of_b = subscribed(&b, ALL).await;
    run(&a, "INSERT INTO cars DOCUMENTS ({'_id': 1, 'color': 'red', 'seats': {'front': 2}})").await;
    settle(&a, &b, of_b).await;
    assert_eq!(rows(&b, ALL).await, [r#"{"_id":1,"color":"red","seats":{"front":2}}"#]);
    run(&b, "UPDATE cars SET color = 'blue' WHERE _id = 1").await;
    b.wait_pushed().await.expect("pushed");
    assert_eq!(server.documents("cars"), rows(&b, ALL).await);
    assert_eq!((b.status().unpushed, b.status().acknowledged), (0, 1));
    let of_a = subscribed(&a, ALL).await;
    settle(&b, &a, of_a).await;
    assert_eq!(rows(&a, ALL).await, rows(&b, ALL).await);
}

#[tokio::test]
async fn offline_writes_are_pushed_later_and_only_once() {
    let (server, dirs) = (Fake::start().await, (dir(), dir()));
    let a = connected(&server, &dirs.0).await;
    a.wait_connected().await.expect("connects");
    a.disconnect().await;
    assert_eq!(a.status().connection, Connection::Offline);
    for id in 0..200 {
        run(&a, &format!("INSERT INTO cars DOCUMENTS ({{'_id': {id}}})")).await;
    }
    assert_eq!(a.status().unpushed, 200);
    a.close().await;
    drop(a);
    // The connection breaks again and again while they are pushed.
    let a = connected(&server, &dirs.0).await;
    let mut status = a.watch_status();
    for acknowledged in [1, 20, 70, 120] {
        status.wait_for(|status| status.acknowledged >= acknowledged).await.expect("goes on");
        server.cut();
    }
    a.wait_pushed().await.expect("pushed");
    assert_eq!(server.log_len(), 200);
    let b = connected(&server, &dirs.1).await;
    subscribed(&b, ALL).await;
    assert_eq!(rows(&b, ALL).await, rows(&a, ALL).await);
}

#[tokio::test]
async fn a_first_sync_goes_on_where_it_was_cut() {
    let (server, dirs) = (Fake::start().await, (dir(), dir()));
    let a = connected(&server, &dirs.0).await;
    for id in 0..40 {
        run(&a, &format!("INSERT INTO cars DOCUMENTS ({{'_id': {id}}})")).await;
    }
    a.wait_pushed().await.expect("pushed");
    server.cut_after_pages(15);
    let b = connected(&server, &dirs.1).await;
    subscribed(&b, ALL).await;
    assert_eq!(rows(&b, ALL).await.len(), 40);
    // A page that was on the wire when the connection was cut may come twice, the whole of it must not.
    assert!(server.paged() < 70, "{} documents were sent", server.paged());
}

#[tokio::test]
async fn a_resume_goes_on_where_it_was_cut() {
    let (server, dirs) = (Fake::start().await, (dir(), dir()));
    let a = connected(&server, &dirs.0).await;
    let b = connected(&server, &dirs.1).await;
    let of_b = subscribed(&b, "SELECT * FROM cars WHERE color = 'red'").await;
    for id in 0..40 {
        run(&a, &format!("INSERT INTO cars DOCUMENTS ({{'_id': {id}, 'color': 'red'}})")).await;
    }
    settle(&a, &b, of_b).await;
    b.disconnect().await;
    run(&a, "UPDATE cars SET fast = true").await;
    run(&a, "UPDATE cars SET color = 'blue' WHERE _id IN (0, 39)").await;
    a.wait_pushed().await.expect("pushed");
    let before = server.paged();
    server.cut_after_pages(10);
    b.connect(server.settings()).await.expect("connects");
    settle(&a, &b, of_b).await;
    let red: Vec<String> = server.documents("cars").into_iter().filter(|car| car.contains("red")).collect();
    let mut found = rows(&b, ALL).await;
    found.sort();
    assert_eq!((found.len(), found), (38, red));
    // What was on the wire when the connection was cut may come twice, the whole of it must not.
    let paged = server.paged() - before;
    assert!(paged < 38 + 20, "{paged} documents were sent");
}

#[tokio::test]
async fn a_cursor_brings_what_changed_and_what_left_meanwhile() {
    let (server, dirs) = (Fake::start().await, (dir(), dir()));
    let a = connected(&server, &dirs.0).await;
    let b = connected(&server, &dirs.1).await;
    let query = "SELECT * FROM cars WHERE color = 'red'";
    let of_b = subscribed(&b, query).await;
    for id in 0..20 {
        run(&a, &format!("INSERT INTO cars DOCUMENTS ({{'_id': {id}, 'color': 'red'}})")).await;
    }
    settle(&a, &b, of_b).await;
    b.close().await;
    drop(b);
    run(&a, "UPDATE cars SET color = 'blue' WHERE _id = 1").await;
    run(&a, "DELETE FROM cars WHERE _id = 2").await;
    run(&a, "UPDATE cars SET fast = true WHERE _id = 3").await;
    a.wait_pushed().await.expect("pushed");
    let before = server.paged();
    let b = connected(&server, &dirs.1).await;
    b.wait_caught_up(of_b).await.expect("catches up");
    assert_eq!(server.paged() - before, 1, "only what changed and matches is sent");
    let found = rows(&b, ALL).await;
    assert_eq!(found.len(), 18);
    assert!(found.contains(&r#"{"_id":3,"color":"red","fast":true}"#.to_owned()));
    // And live, with a document that comes back.
    run(&a, "UPDATE cars SET color = 'blue' WHERE _id = 4").await;
    run(&a, "UPDATE cars SET color = 'red', back = true WHERE _id = 1").await;
    settle(&a, &b, of_b).await;
    let found = rows(&b, ALL).await;
    assert_eq!(found.len(), 18);
    assert!(found.contains(&r#"{"_id":1,"back":true,"color":"red"}"#.to_owned()), "{found:?}");
}

#[tokio::test]
async fn what_leaves_one_subscription_stays_for_another() {
    let (server, dirs) = (Fake::start().await, (dir(), dir()));
    let (a, b) = (connected(&server, &dirs.0).await, connected(&server, &dirs.1).await);
    let red = subscribed(&b, "SELECT * FROM cars WHERE color = 'red'").await;
    subscribed(&b, "SELECT * FROM cars WHERE fast = true").await;
    run(&a, "INSERT INTO cars DOCUMENTS ({'_id': 1, 'color': 'red', 'fast': true}), ({'_id': 2, 'color': 'red'})")
        .await;
    run(&a, "UPDATE cars SET color = 'blue'").await;
    settle(&a, &b, red).await;
    assert_eq!(rows(&b, ALL).await, [r#"{"_id":1,"color":"blue","fast":true}"#]);
}

#[tokio::test]
async fn a_document_that_left_with_unpushed_changes_goes_when_they_are_pushed() {
    let (server, dirs) = (Fake::start().await, (dir(), dir()));
    let (a, b) = (connected(&server, &dirs.0).await, connected(&server, &dirs.1).await);
    let red = subscribed(&b, "SELECT * FROM cars WHERE color = 'red'").await;
    run(&a, "INSERT INTO cars DOCUMENTS ({'_id': 1, 'color': 'red'}), ({'_id': 2, 'color': 'red'})").await;
    settle(&a, &b, red).await;
    b.disconnect().await;
    run(&b, "UPDATE cars SET note = 'mine' WHERE _id = 1").await;
    run(&a, "UPDATE cars SET color = 'blue' WHERE _id = 1").await;
    a.wait_pushed().await.expect("pushed");
    b.connect(server.settings()).await.expect("connects");
    let lsn = b.wait_pushed().await.expect("pushed").expect("a transaction");
    b.wait_for(red, lsn).await.expect("received");
    assert_eq!(rows(&b, ALL).await, [r#"{"_id":2,"color":"red"}"#]);
    assert!(server.documents("cars").contains(&r#"{"_id":1,"color":"blue","note":"mine"}"#.to_owned()));
}

#[tokio::test]
async fn a_rejected_write_is_rolled_back_and_the_app_is_told() {
    let (server, dirs) = (Fake::start().await, (dir(), dir()));
    let (a, b) = (connected(&server, &dirs.0).await, connected(&server, &dirs.1).await);
    let of_a = subscribed(&a, ALL).await;
    run(&b, "INSERT INTO cars DOCUMENTS ({'_id': 1, 'color': 'red'}), ({'_id': 2, 'color': 'red'})").await;
    settle(&b, &a, of_a).await;
    let mut events = a.events();
    a.disconnect().await;
    run(&a, "UPDATE cars SET color = 'pink' WHERE _id = 2").await;
    a.transaction(|tx| {
        tx.execute("UPDATE cars SET forbidden = true, color = 'black' WHERE _id = 1", &Params::new())?;
        tx.execute("INSERT INTO cars DOCUMENTS ({'_id': 3})", &Params::new())
    })
    .await
    .expect("commits");
    // Built on the rejected one, and one that is not.
    run(&a, "UPDATE cars SET color = 'white' WHERE _id = 1").await;
    run(&a, "UPDATE cars SET seats = 4 WHERE _id = 2").await;
    a.connect(server.settings()).await.expect("connects");
    a.wait_pushed().await.expect("answered");
    let rejected = event(&mut events, |event| matches!(event, PeerEvent::WriteRejected { .. })).await;
    let PeerEvent::WriteRejected { seq, code, documents, .. } = rejected else { panic!("{rejected:?}") };
    assert_eq!((seq, code.as_str(), documents.len()), (2, "REJECT_FORBIDDEN", 2));
    let rejected = event(&mut events, |event| matches!(event, PeerEvent::WriteRejected { .. })).await;
    assert!(matches!(rejected, PeerEvent::WriteRejected { seq: 3, .. }), "{rejected:?}");
    let expected = [r#"{"_id":1,"color":"red"}"#, r#"{"_id":2,"color":"pink","seats":4}"#];
    assert_eq!(rows(&a, ALL).await, expected);
    assert_eq!(server.documents("cars"), expected);
    assert_eq!((a.status().unpushed, a.status().acknowledged), (0, 4));
    // The next write of the same document is not built on the rejected one any more.
    run(&a, "UPDATE cars SET color = 'white' WHERE _id = 1").await;
    a.wait_pushed().await.expect("pushed");
    assert_eq!(server.documents("cars"), rows(&a, ALL).await);
}

#[tokio::test]
async fn a_resynchronization_drops_what_is_gone_and_keeps_unpushed_writes() {
    let (server, dirs) = (Fake::start().await, (dir(), dir()));
    let (a, b) = (connected(&server, &dirs.0).await, connected(&server, &dirs.1).await);
    let of_b = subscribed(&b, ALL).await;
    for id in 0..10 {
        run(&a, &format!("INSERT INTO cars DOCUMENTS ({{'_id': {id}, 'old': true}})")).await;
    }
    settle(&a, &b, of_b).await;
    b.disconnect().await;
    run(&a, "DELETE FROM cars WHERE _id IN (1, 2, 3)").await;
    run(&a, "UPDATE cars SET fast = true WHERE _id = 4").await;
    a.wait_pushed().await.expect("pushed");
    server.forget_history();
    server.forget_tombstones();
    // A deleted document that is inserted anew: nothing of the old one must come back.
    run(&a, "INSERT INTO cars DOCUMENTS ({'_id': 1, 'new': true}) ON ID CONFLICT DO UPDATE").await;
    a.wait_pushed().await.expect("pushed");
    run(&b, "INSERT INTO cars DOCUMENTS ({'_id': 'b', 'mine': 1})").await;
    run(&b, "UPDATE cars SET mine = 2 WHERE _id = 5").await;
    let mut events = b.events();
    b.connect(server.settings()).await.expect("connects");
    b.wait_caught_up(of_b).await.expect("catches up");
    let lsn = b.wait_pushed().await.expect("pushed").expect("a transaction");
    b.wait_for(of_b, lsn).await.expect("received");
    event(&mut events, |event| matches!(event, PeerEvent::Resync { .. })).await;
    assert_eq!(rows(&b, ALL).await, server.documents("cars"));
    assert_eq!(rows(&b, "SELECT * FROM cars WHERE _id = 1").await, [r#"{"_id":1,"new":true}"#]);
    assert_eq!(rows(&b, "SELECT * FROM cars WHERE _id = 5").await, [r#"{"_id":5,"mine":2,"old":true}"#]);
}

#[tokio::test]
async fn refused_subscriptions_and_keys_are_told() {
    let (server, dirs) = (Fake::start().await, (dir(), dir()));
    let a = connected(&server, &dirs.0).await;
    let refused = a.subscribe("SELECT * FROM cars WHERE color = 'refuse me'", Params::new()).await.expect("is stored");
    assert!(matches!(a.wait_caught_up(refused).await, Err(PeerError::Refused(_))));
    subscribed(&a, ALL).await;

    let b = open(dirs.1.path()).await;
    let wrong = ConnectSettings::new(server.settings().url, server.settings().app, "wrong");
    let error = b.connect(wrong).await.expect_err("a wrong key");
    assert!(matches!(error, PeerError::Refused(_)) && !error.to_string().contains("wrong"), "{error:?}");
    let nobody = ConnectSettings::new("http://127.0.0.1:1", server.settings().app, "a-key");
    assert!(matches!(b.connect(nobody).await, Err(PeerError::Unreachable(_))));
    assert!(matches!(b.wait_pushed().await, Ok(None)), "there is nothing to push");
    run(&a, "INSERT INTO cars DOCUMENTS ({'_id': 1})").await;
    let other = ConnectSettings::new(server.settings().url, "another-app".parse().expect("valid"), "a-key");
    assert!(matches!(a.connect(other).await, Err(PeerError::OtherApp { .. })));
}

#[tokio::test]
async fn an_old_copy_of_a_store_gets_a_site_of_its_own() {
    let (server, dirs) = (Fake::start().await, (dir(), dir()));
    let a = connected(&server, &dirs.0).await;
    a.wait_connected().await.expect("connects");
    let site = a.status().site;
    a.close().await;
    drop(a);
    std::fs::copy(dirs.0.path().join("peer.db"), dirs.1.path().join("peer.db")).expect("copies");
    let a = connected(&server, &dirs.0).await;
    run(&a, "INSERT INTO cars DOCUMENTS ({'_id': 1})").await;
    a.wait_pushed().await.expect("pushed");
    let copy = connected(&server, &dirs.1).await;
    copy.wait_connected().await.expect("connects, as another site");
    assert_ne!(copy.status().site, site);
    run(&copy, "INSERT INTO cars DOCUMENTS ({'_id': 2})").await;
    copy.wait_pushed().await.expect("pushed");
    assert_eq!(server.documents("cars").len(), 2);
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for() {
    let (server, dir) = (Fake::start().await, dir());
    let a = connected(&server, &dir).await;
    let of_a = subscribed(&a, ALL).await;
    server.set_open(false);
    let mut status = a.watch_status();
    let trying = |status: &bigpeer_peer::Status| matches!(status.connection, Connection::Connecting { failures, .. } if failures >= 3);
    status.wait_for(trying).await.expect("the peer tries");
    run(&a, "INSERT INTO cars DOCUMENTS ({'_id': 1})").await;
    server.set_open(true);
    a.wait_pushed().await.expect("pushed");
    a.wait_caught_up(of_a).await.expect("catches up");
    assert_eq!(server.documents("cars").len(), 1);
    assert_eq!(server.logins(), 1, "a good token is used again");
}

#[tokio::test]
async fn each_refresh_token_is_shown_once_and_the_next_is_kept() {
    let (server, dir) = (Fake::start().await, dir());
    server.give_ended_tokens();
    let mut site = None;
    for _ in 0..3 {
        let a = connected(&server, &dir).await;
        a.wait_connected().await.expect("connects");
        assert!(site.is_none_or(|site| site == a.status().site));
        site = Some(a.status().site);
        a.close().await;
    }
    let shown = server.refreshed();
    assert!(shown.len() >= 2 && shown.windows(2).all(|pair| pair[0] < pair[1]), "{shown:?}");
}

#[tokio::test]
async fn who_logs_in_again_keeps_the_site_and_what_was_not_pushed() {
    let (server, dir) = (Fake::start().await, dir());
    server.give_ended_tokens();
    let a = connected(&server, &dir).await;
    a.wait_connected().await.expect("connects");
    let site = a.status().site;
    server.set_open(false);
    run(&a, "INSERT INTO cars DOCUMENTS ({'_id': 1})").await;
    server.refuse_refresh();
    server.set_open(true);
    a.wait_pushed().await.expect("pushed, after another login");
    assert_eq!((a.status().site, server.documents("cars").len()), (site, 1));
}

#[tokio::test]
async fn eviction_forgets_locally_and_only_what_may_go() {
    let (server, dirs) = (Fake::start().await, (dir(), dir()));
    let (a, b) = (connected(&server, &dirs.0).await, connected(&server, &dirs.1).await);
    run(&a, "INSERT INTO cars DOCUMENTS ({'_id': 1, 'n': 1}), ({'_id': 2, 'n': 2})").await;
    a.wait_pushed().await.expect("pushed");
    let of_b = b.subscribe(ALL, params([("unused", Value::Null)])).await.expect("subscribes");
    b.wait_caught_up(of_b).await.expect("catches up");
    let kept = run(&b, "EVICT FROM cars WHERE _id = 1").await;
    assert_eq!((kept.mutated.len(), kept.warnings.len()), (0, 1), "{kept:?}");
    b.unsubscribe(of_b).await.expect("there");
    let gone = run(&b, "EVICT FROM cars WHERE _id = 1").await;
    assert_eq!(gone.mutated.len(), 1);
    assert_eq!(rows(&b, ALL).await, [r#"{"_id":2,"n":2}"#]);
    assert_eq!(server.documents("cars").len(), 2);
}
