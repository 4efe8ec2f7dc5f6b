//! Bad input: clear errors, nothing lost, and the server goes on.

use std::io::Write;
use std::process::Command;

use bigpeer_e2e::Server;
use futures::{SinkExt, StreamExt};
use serde_json::json;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Message, http::HeaderValue};

/// The server still takes a write and reads it back.
async fn assert_goes_on(server: &Server) {
    server
        .dql("INSERT INTO alive DOCUMENTS (:doc) ON ID CONFLICT DO UPDATE", json!({"doc": {"_id": "x", "ok": true}}))
        .await;
    let answer = server.dql("SELECT * FROM alive WHERE _id = 'x'", json!({})).await;
    assert_eq!(answer["items"], json!([{"_id": "x", "ok": true}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_row_is_named_and_nothing_after_it_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data")).await;
    let csv = dir.path().join("rows.csv");
    std::fs::write(&csv, "id,name\n1,one\n2,two\n3,three,what is this\n4,four\n").unwrap();
    let output = server.command(&["import", "--collection", "rows", "--id", "id", csv.to_str().unwrap()]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{error}");
    assert!(error.contains("rows.csv") && error.contains('4'), "the error names file and line: {error}");
    assert!(!error.contains("panicked"), "{error}");
    let answer = server.dql("SELECT COUNT(*) AS n FROM rows WHERE _id >= 3", json!({})).await;
    assert_eq!(answer["items"][0]["n"], 0);

    // Repaired, the same command imports everything exactly once.
    std::fs::write(&csv, "id,name\n1,one\n2,two\n3,three\n4,four\n").unwrap();
    let output = server.command(&["import", "--collection", "rows", "--id", "id", csv.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer = server.dql("SELECT COUNT(*) AS n FROM rows", json!({})).await;
    assert_eq!(answer["items"][0]["n"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_dql_and_sql_say_where() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data")).await;
    let app = server.credentials().app;
    let execute = format!("/{app}/api/v4/store/execute");
    let (status, answer) = server.post(&execute, &json!({"statement": "SELECT * FROM cars WHERE color ="})).await;
    assert_eq!(status, 400, "{answer}");
    let description = answer["error"]["description"].as_str().unwrap();
    assert!(description.contains("line 1"), "{description}");
    let (status, answer) = server.post(&format!("/{app}/sql"), &json!({"query": "SELECT FROM WHERE"})).await;
    assert_eq!(status, 400, "{answer}");
    assert!(answer["error"]["message"].is_string(), "{answer}");
    let (status, _) = server.post(&format!("/{app}/sql"), &json!({"query": "DROP TABLE cars"})).await;
    assert_eq!(status, 400);
    assert_goes_on(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_and_another_apps_id_get_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data")).await;
    let credentials = server.credentials();
    server.dql("INSERT INTO secrets DOCUMENTS ({'_id': 1, 'word': 'swordfish'})", json!({})).await;
    let (status, other) = server.put_as(&credentials.admin_token, "/admin/v1/tenants/dev/apps/other", &json!({})).await;
    assert!((200..300).contains(&status), "{other}");
    let other = other["id"].as_str().unwrap().to_owned();

    let statement = json!({"statement": "SELECT * FROM secrets"});
    for (app, key) in [
        (credentials.app.as_str(), "wrong"),
        (other.as_str(), credentials.api_key.as_str()),
        ("no-such-app", credentials.api_key.as_str()),
    ] {
        for path in [format!("/{app}/api/v4/store/execute"), format!("/{app}/sql"), format!("/{app}/auth/login")] {
            let body =
                if path.ends_with("sql") { json!({"query": "SELECT * FROM secrets"}) } else { statement.clone() };
            let (status, answer) = server.post_as(key, &path, &body).await;
            assert_eq!(status, 401, "{path}: {answer}");
            assert!(!answer.to_string().contains("swordfish"));
        }
    }
    assert!(
        !server.log().contains(&credentials.api_key) && !server.log().contains(&credentials.admin_token),
        "a secret is in the log"
    );
    assert_goes_on(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_of_random_bytes_closes_that_session_only() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data")).await;
    let url = format!("{}/{}/sync", server.url().replace("http", "ws"), server.credentials().app);
    for seed in 0..20_u64 {
        let mut request = url.as_str().into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("bigpeer.sync.v1"));
        let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        let bytes: Vec<u8> = (0..256_u64)
            .map(|i| (i.wrapping_mul(seed.wrapping_mul(2_654_435_761) + 97) >> 3).to_le_bytes()[0])
            .collect();
        socket.send(Message::Binary(bytes.into())).await.unwrap();
        // The server says why and closes; it must not hang.
        let closed = tokio::time::timeout(std::time::Duration::from_secs(20), async {
            while let Some(Ok(message)) = socket.next().await {
                if message.is_close() {
                    break;
                }
            }
        });
        closed.await.expect("the session is closed");
    }
    assert!(!server.log().contains("panicked"), "{}", server.log());
    assert_goes_on(&server).await;
}

/// A small tmpfs, unmounted when dropped.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(path: std::path::PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir_all(&path).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&path).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(path))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_clearly_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path().join("disk"), "400m") else {
        eprintln!("skipped: mounting a tmpfs needs root");
        return;
    };
    let mut server = Server::start(&disk.0.join("data")).await;
    let path = format!("/{}/api/v5/store/execute", server.credentials().app);
    // Leave little room, then write until the disk is full.
    let ballast = disk.0.join("ballast");
    fill(&ballast, 4 << 20);
    let payload: String = (0..400_000)
        .map(|i: u32| char::from(b'a' + u8::try_from(i.wrapping_mul(2_654_435_761) >> 27).unwrap() % 26))
        .collect();
    let mut acknowledged = 0_u32;
    let refused = loop {
        let body = json!({"statement": "INSERT INTO filler DOCUMENTS (:doc)", "args": {"doc": {"_id": acknowledged, "payload": payload}}});
        let (status, answer) = server.post(&path, &body).await;
        if status != 200 {
            break (status, answer);
        }
        acknowledged += 1;
        assert!(acknowledged < 2_000, "the disk never filled up");
    };
    assert!(matches!(refused.0, 500..=599), "{refused:?}");
    let description = refused.1["error"]["description"].as_str().unwrap_or_default();
    assert!(description.contains("disk") || description.contains("space"), "{refused:?}");
    // Reading goes on.
    let answer = server.dql("SELECT COUNT(*) AS n FROM filler", json!({})).await;
    assert_eq!(answer["items"][0]["n"], acknowledged);

    // Space given back: writing goes on without a restart, and after a kill everything acknowledged is there.
    std::fs::remove_file(&ballast).unwrap();
    assert_goes_on(&server).await;
    server.restart().await;
    let answer = server.dql("SELECT COUNT(*) AS n FROM filler", json!({})).await;
    assert_eq!(answer["items"][0]["n"], acknowledged);
    drop(server);
}

/// Writes `ballast` until the disk is full, and gives `room` bytes of it back.
fn fill(ballast: &std::path::Path, room: u64) {
    let mut file = std::fs::File::create(ballast).unwrap();
    let block = vec![1_u8; 1 << 20];
    let full = loop {
        if let Err(error) = file.write_all(&block) {
            break error;
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
    file.set_len(file.metadata().unwrap().len().saturating_sub(room)).unwrap();
}
