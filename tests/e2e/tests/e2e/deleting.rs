//! Deletes, revivals and re-insertions across devices, through the real server.

use std::path::Path;

use bigpeer_e2e::{Server, wait_until};
use bigpeer_peer::{ConnectSettings, Params, Peer, PeerSettings, SubscriptionId, Value};
use bigpeer_types::AppId;
use serde_json::json;

fn settings(server: &Server) -> ConnectSettings {
    let credentials = server.credentials();
    ConnectSettings::new(server.url(), AppId::new(&credentials.app).unwrap(), credentials.api_key.as_str())
}

async fn online(server: &Server, dir: &Path) -> (Peer, SubscriptionId) {
    let peer = Peer::open(PeerSettings::new(dir)).await.unwrap();
    let subscription = peer.subscribe("SELECT * FROM cars", Params::new()).await.unwrap();
    peer.connect(settings(server)).await.unwrap();
    peer.wait_caught_up(subscription).await.unwrap();
    (peer, subscription)
}

async fn run(peer: &Peer, statement: &str) {
    peer.execute(statement, Params::new()).await.unwrap();
}

async fn sees(peer: &Peer, expected: serde_json::Value) {
    let same = || async {
        let rows = peer.execute("SELECT * FROM cars ORDER BY _id", Params::new()).await.unwrap().items;
        (rows.iter().map(Value::to_json).collect::<serde_json::Value>() == expected).then_some(())
    };
    wait_until(&format!("the peer sees {expected}"), 20, same).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_documents_stay_away_come_back_whole_or_start_anew() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data")).await;
    let (a, _) = online(&server, &dir.path().join("a")).await;
    let (b, _) = online(&server, &dir.path().join("b")).await;

    run(&a, "INSERT INTO cars DOCUMENTS ({'_id': 1, 'color': 'blue', 'doors': 4})").await;
    sees(&b, json!([{"_id": 1, "color": "blue", "doors": 4}])).await;

    // Deleted by one, then inserted anew by the other that has seen it: it starts empty.
    run(&a, "DELETE FROM cars WHERE _id = 1").await;
    sees(&b, json!([])).await;
    run(&b, "INSERT INTO cars DOCUMENTS ({'_id': 1, 'color': 'red'})").await;
    sees(&a, json!([{"_id": 1, "color": "red"}])).await;

    // Deleted by one while the other, offline, updates it later: the whole document comes back.
    b.disconnect().await;
    run(&a, "DELETE FROM cars WHERE _id = 1").await;
    a.wait_pushed().await.unwrap();
    run(&b, "UPDATE cars SET doors = 2 WHERE _id = 1").await;
    b.connect(settings(&server)).await.unwrap();
    b.wait_pushed().await.unwrap();
    let whole = json!([{"_id": 1, "color": "red", "doors": 2}]);
    sees(&a, whole.clone()).await;
    sees(&b, whole.clone()).await;
    assert_eq!(server.dql("SELECT * FROM cars", json!({})).await["items"], whole);
    let rows = server.sql("SELECT _id, color, doors FROM cars").await;
    assert_eq!(serde_json::Value::from(rows), whole);
}
