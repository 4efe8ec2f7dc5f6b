//! The first admin token of a server without development credentials, made by the command line.

use std::process::{Command, Output};

use bigpeer_e2e::{Server, binary};
use serde_json::json;

fn create(name: &str, data: &std::path::Path, more: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(["admin-token", "create", name, "--data-dir"]).arg(data).args(more).output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_operator_needs_no_operator() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let made = create("ops", &data, &[]);
    let token = String::from_utf8(made.stdout.clone()).unwrap().trim().to_owned();
    assert!(made.status.success() && token.starts_with("bpa_") && !token.contains(char::is_whitespace), "{made:?}");
    assert!(!String::from_utf8_lossy(&made.stderr).contains(&token));
    assert!(said(&create("ops", &data, &[])).contains("already"));
    assert!(said(&create("no such name", &data, &[])).contains("name"));

    let server = Server::start_with(&data, &["--no-dev"]).await;
    let (status, tenant) = server.put_as(&token, "/admin/v1/tenants/acme", &json!({})).await;
    assert_eq!(status, 201, "{tenant}");
    let (_, app) = server.put_as(&token, "/admin/v1/tenants/acme/apps/shop", &json!({})).await;
    let provider = format!("/admin/v1/apps/{}/providers/dev", app["id"].as_str().unwrap());
    let sealed = json!({"type": "anonymous", "shared_token": "a token that all of them share"});
    assert_eq!(server.put_as(&token, &provider, &sealed).await.0, 201);
    // That a token was made is on record, by nobody and from nowhere.
    let log = reqwest::Client::new().get(format!("{}/admin/v1/audit-log", server.url())).bearer_auth(&token);
    let log: serde_json::Value = log.send().await.unwrap().json().await.unwrap();
    let entries = log["entries"].as_array().unwrap_or_else(|| panic!("{log}"));
    let made = entries.iter().find(|entry| entry["path"] == "/admin/v1/admin-tokens/ops").unwrap();
    assert_eq!((&made["by"], &made["from"], &made["status"]), (&json!(null), &json!(null), &json!(201)), "{made}");
    // An embedded log is of one process.
    assert!(said(&create("more", &data, &[])).contains("log"));
    drop(server);

    // Who has the log and not the master key is told nothing new.
    let other = dir.path().join("other-key");
    std::fs::write(&other, "33".repeat(32)).unwrap();
    let flag = format!("--master-key-file={}", other.display());
    assert!(said(&create("thief", &data, &[&flag])).contains("master key"));
}
