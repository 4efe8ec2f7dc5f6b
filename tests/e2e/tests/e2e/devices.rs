//! Connected devices: `__devices` by DQL and SQL, and the metrics, through the real server.

use bigpeer_e2e::{Server, wait_until};
use bigpeer_peer::{ConnectSettings, Params, Peer, PeerSettings};
use bigpeer_types::AppId;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn who_is_connected_is_seen_by_dql_by_sql_and_in_the_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data")).await;
    let credentials = server.credentials();
    assert_eq!(server.dql("SELECT * FROM __devices", json!({})).await["items"], json!([]));
    let mut peers = Vec::new();
    for name in ["phone", "tablet"] {
        let peer = Peer::open(PeerSettings::new(dir.path().join(name))).await.unwrap();
        let subscription = peer.subscribe("SELECT * FROM cars WHERE color = 'red'", Params::new()).await.unwrap();
        let app = AppId::new(&credentials.app).unwrap();
        let mut settings = ConnectSettings::new(server.url(), app, credentials.api_key.as_str());
        settings.device = name.to_owned();
        peer.connect(settings).await.unwrap();
        peer.wait_caught_up(subscription).await.unwrap();
        peers.push(peer);
    }
    let shown = || async {
        let rows = server.dql("SELECT * FROM __devices WHERE behind = false ORDER BY device_name", json!({})).await;
        let rows = rows["items"].as_array().unwrap().clone();
        (rows.len() == 2).then_some(rows)
    };
    let rows = wait_until("both devices are up to date", 20, shown).await;
    assert_eq!((&rows[0]["device_name"], &rows[1]["device_name"]), (&json!("phone"), &json!("tablet")));
    assert_eq!(rows[0]["site"], json!(peers[0].status().site.unwrap().to_string()));
    assert_eq!((&rows[0]["user"], &rows[0]["subscription_count"]), (&json!("dev"), &json!(1)));
    let query = "SELECT device_name, lag_ms, sent_bytes > 0 AS heard FROM __devices ORDER BY device_name";
    let by_sql = server.sql(query).await;
    assert_eq!(by_sql[1], json!({"device_name": "tablet", "lag_ms": 0, "heard": true}));
    let metrics = reqwest::get(format!("{}/metrics", server.url())).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("bigpeer_gateway_subscriptions 2"), "{metrics}");

    // Part of everything is not enough.
    let permissions =
        json!({"read": {"everything": false, "queriesByCollection": {"__devices": ["true"], "cars": ["true"]}}});
    let path = format!("/admin/v1/apps/{}/api-keys/part", credentials.app);
    let (_, key) = server.put_as(&credentials.admin_token, &path, &json!({"permissions": permissions})).await;
    let path = format!("/{}/api/v5/store/execute", credentials.app);
    let (status, answer) =
        server.post_as(key["key"].as_str().unwrap(), &path, &json!({"statement": "SELECT * FROM __devices"})).await;
    assert_eq!(status, 403, "{answer}");

    peers.pop().unwrap().close().await;
    let one = || async {
        let rows = server.dql("SELECT device_name FROM __devices", json!({})).await;
        (rows["items"] == json!([{"device_name": "phone"}])).then_some(())
    };
    wait_until("a device that has gone is not shown any more", 20, one).await;
}
