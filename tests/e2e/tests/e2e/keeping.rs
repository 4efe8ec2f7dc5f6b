//! What operators do with what is kept, through the real binary: publish, examine, export, back up, restore, clone, purge.

use bigpeer_e2e::{Server, wait_until};
use bigpeer_peer::{ConnectSettings, Params, Peer, PeerSettings, Value as PeerValue};
use bigpeer_types::AppId;
use serde_json::{Value, json};

/// A command's standard output, which must succeed.
fn done(server: &Server, args: &[&str]) -> String {
    let output = server.command(args);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

async fn insert(server: &Server, from: i64, to: i64) -> u64 {
    let mut last = 0;
    for n in from..to {
        let car = json!({"car": {"_id": n, "color": if n % 2 == 0 { "blue" } else { "red" }, "price": n * 10}});
        let answer = server.dql("INSERT INTO cars DOCUMENTS (:car)", car).await;
        last = answer["transactionId"].as_u64().unwrap();
    }
    last
}

/// How many documents another app of the tenant holds, asked with a key that is made for it.
async fn count_of(server: &Server, app: &str) -> u64 {
    let admin = server.credentials().admin_token;
    let all = json!({"everything": true, "queriesByCollection": {}});
    let body = json!({"permissions": {"read": all, "write": all, "remoteQuery": true}});
    let (status, made) = server.put_as(&admin, &format!("/admin/v1/apps/{app}/api-keys/count"), &body).await;
    assert_eq!(status, 201, "{made}");
    let key = made["key"].as_str().unwrap();
    let statement = json!({"statement": "SELECT count(*) AS n FROM cars"});
    let (status, answer) = server.post_as(key, &format!("/{app}/api/v5/store/execute"), &statement).await;
    assert_eq!(status, 200, "{answer}");
    answer["items"][0]["n"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_examined_exported_backed_up_and_cloned() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data")).await;
    let (app, admin) = (server.credentials().app, server.credentials().admin_token);
    let then = insert(&server, 0, 10).await;

    let settings = json!({"publication": {"mode": "compatible", "interval_secs": 10}});
    let path = format!("/admin/v1/apps/{app}/collections/cars");
    let (status, answer) = server.put_as(&admin, &path, &settings).await;
    assert_eq!((status, &answer), (200, &settings));
    let (status, _) =
        server.put_as(&admin, &path, &json!({"publication": {"mode": "compatible", "interval_secs": 1}})).await;
    assert_eq!(status, 400);
    let (status, answer) = server.post_as(&admin, &format!("/admin/v1/apps/{app}/compact"), &json!({})).await;
    assert_eq!(status, 200, "{answer}");
    let commits = server.data_dir().join(format!("objects/apps/{app}/tables/cars/_delta_log"));
    let newest = std::fs::read_dir(commits).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
    let commit = std::fs::read_to_string(newest).unwrap();
    assert!(commit.contains(answer["lsn"].as_str().unwrap()), "{commit}");

    let made: Value = serde_json::from_str(&done(&server, &["backup", "create", "monday"])).unwrap();
    assert_eq!(made["transaction_id"].as_u64().unwrap(), then);
    insert(&server, 10, 15).await;
    assert!(done(&server, &["backup", "list"]).contains("monday"));
    done(&server, &["backup", "verify", "monday"]);
    done(&server, &["doctor", "--thorough"]);

    let out = dir.path().join("cars.ndjson");
    done(&server, &["export", "--collection", "cars", out.to_str().unwrap()]);
    let lines = std::fs::read_to_string(&out).unwrap();
    assert_eq!(lines.lines().count(), 15);
    let out = dir.path().join("colors.csv");
    let query = "SELECT color, count(*) AS n FROM cars GROUP BY color ORDER BY color";
    done(&server, &["export", "--query", query, out.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(&out).unwrap().trim(), "color,n\nblue,8\nred,7");
    let out = dir.path().join("cars.parquet");
    done(&server, &["export", "--collection", "cars", out.to_str().unwrap()]);
    assert!(std::fs::read(&out).unwrap().starts_with(b"PAR1"));
    assert!(!dir.path().join("cars.parquet.part").exists());
    let failed = server.command(&["export", "--query", "SELECT nonsense", dir.path().join("x.csv").to_str().unwrap()]);
    assert!(!failed.status.success());
    assert!(!dir.path().join("x.csv").exists() && !dir.path().join("x.csv.part").exists());

    for (args, expected) in [
        (vec!["backup", "restore", "monday", "of-monday"], 10),
        (vec!["app", "clone", "now"], 15),
        (vec!["app", "clone", "then", "--at", &then.to_string()], 10),
    ] {
        let made: Value = serde_json::from_str(&done(&server, &args)).unwrap();
        assert_eq!(count_of(&server, made["id"].as_str().unwrap()).await, expected, "{args:?}");
    }
    let again = server.command(&["app", "clone", "now"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("this tenant has an app of this name"));
    done(&server, &["doctor", "--thorough"]);

    // What is lost is named.
    let segments = server.data_dir().join(format!("objects/apps/{app}/tables/cars/segments"));
    let lost = std::fs::read_dir(segments).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(&lost).unwrap();
    let unwell = server.command(&["doctor"]);
    assert_eq!(unwell.status.code(), Some(3));
    let name = lost.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(String::from_utf8_lossy(&unwell.stdout).contains(&name));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_purged_leaves_the_devices_too() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data")).await;
    let credentials = server.credentials();
    insert(&server, 0, 5).await;
    let peer = Peer::open(PeerSettings::new(dir.path().join("phone"))).await.unwrap();
    let subscription = peer.subscribe("SELECT * FROM cars", Params::new()).await.unwrap();
    let settings =
        ConnectSettings::new(server.url(), AppId::new(&credentials.app).unwrap(), credentials.api_key.as_str());
    peer.connect(settings).await.unwrap();
    peer.wait_caught_up(subscription).await.unwrap();
    let path = format!("/admin/v1/apps/{}/collections/cars/purge", credentials.app);
    let (status, answer) = server.post_as(&credentials.admin_token, &path, &json!({"ids": [1, 3, 77]})).await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer["transaction_id"].is_u64());
    let left = || async {
        let rows = peer.execute("SELECT _id FROM cars ORDER BY _id", Params::new()).await.unwrap().items;
        let rows: Value = rows.iter().map(PeerValue::to_json).collect();
        (rows == json!([{"_id": 0}, {"_id": 2}, {"_id": 4}])).then_some(())
    };
    wait_until("the purged documents have left the device", 20, left).await;
    let (status, answer) = server.post_as(&credentials.admin_token, &path, &json!({"ids": [1]})).await;
    assert_eq!((status, answer), (200, json!({"transaction_id": null})));
}
