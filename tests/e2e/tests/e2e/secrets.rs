//! No secret is in logs, metrics, answers to failed requests, or at rest, and master keys are changed without losing any.

use std::path::Path;
use std::process::Command;

use bigpeer_e2e::Server;
use serde_json::{Value, json};

/// Every byte of every file below `dir`, without the two files that are for secrets.
fn at_rest(dir: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if entry.file_type().unwrap().is_dir() {
            all.extend(at_rest(&entry.path()));
        } else if name != "master-key" && name != "dev-credentials.json" {
            all.extend(std::fs::read(entry.path()).unwrap());
        }
    }
    all
}

fn holds(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

fn text(json: &Value, field: &str) -> String {
    json[field].as_str().unwrap_or_else(|| panic!("{field} is missing: {json}")).to_owned()
}

const SHARED: &str = "a token that all of them share";
const WEBHOOK: &str = "dGhlIHNlY3JldCBvZiBhIHdlYmhvb2sgb2YgYSBwcm92aWRlcg==";
const FEED: &str = "the secret of a receiver of a feed";

/// A certificate request for a new key, and that key.
fn csr() -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key.pem");
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-new", "-newkey", "ed25519", "-nodes", "-subj", "/", "-keyout"]).arg(&key);
    let made = openssl.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let key = std::fs::read_to_string(key).unwrap();
    let key = key.lines().find(|line| !line.starts_with('-')).unwrap().to_owned();
    (String::from_utf8(made.stdout).unwrap(), key)
}

/// Has a secret of every kind made and used, rightly and wrongly; answers them, and what failed requests were answered.
async fn use_secrets(server: &Server) -> (Vec<String>, Vec<String>) {
    let dev = server.credentials();
    let mut secrets = vec![dev.api_key.clone(), dev.admin_token.clone(), SHARED.into(), WEBHOOK.into(), FEED.into()];
    let admin = format!("/admin/v1/apps/{}", dev.app);
    for (path, body) in [
        (
            "providers/shared",
            json!({"type": "anonymous", "shared_token": SHARED, "permissions": {"read": {"everything": true}}}),
        ),
        ("providers/hook", json!({"type": "webhook", "url": "https://example.com/", "secrets": [WEBHOOK]})),
        (
            "feeds/f",
            json!({"owner": "dev", "sink": {"type": "webhook", "url": "https://example.com/", "secrets": [FEED]}}),
        ),
    ] {
        let (status, answer) = server.put_as(&dev.admin_token, &format!("{admin}/{path}"), &body).await;
        assert!((200..300).contains(&status), "{path}: {answer}");
        assert!(![SHARED, WEBHOOK, FEED].iter().any(|secret| answer.to_string().contains(secret)), "{answer}");
    }
    let login = format!("/{}/auth/login", dev.app);
    let (_, session) = server.post_as("", &login, &json!({"provider": "shared", "token": SHARED})).await;
    let refresh = format!("/{}/auth/refresh", dev.app);
    let (_, next) = server.post_as(&text(&session, "refresh_token"), &refresh, &json!({})).await;
    let (csr, key) = csr();
    secrets.push(key);
    let (status, certified) = server.post_as(&dev.api_key, &login, &json!({"csr": csr})).await;
    assert_eq!(status, 200, "{certified}");
    assert!(text(&certified, "certificate").contains("BEGIN CERTIFICATE"));
    for session in [&session, &next, &certified] {
        secrets.extend([text(session, "access_token"), text(session, "refresh_token")]);
    }
    let mut failed = Vec::new();
    let execute = format!("/{}/api/v5/store/execute", dev.app);
    for secret in secrets.clone() {
        for path in [&execute, &login, &refresh, &format!("{admin}/roles/x")] {
            // In the wrong place, or with something wrong about it.
            failed.push(server.post_as(&format!("{secret}x"), path, &json!({})).await.1.to_string());
            failed
                .push(server.post_as(&secret, &format!("/nobody{path}"), &json!({"statement": 1})).await.1.to_string());
        }
        let body = json!({"provider": "nobody", "token": secret});
        failed.push(server.post_as("", &login, &body).await.1.to_string());
        failed.push(server.post_as(&dev.api_key, &login, &json!({"csr": secret})).await.1.to_string());
        let wrong = json!({"type": "webhook", "url": format!("https://user:{secret}@example.com")});
        failed.push(server.put_as(&dev.admin_token, &format!("{admin}/providers/x"), &wrong).await.1.to_string());
    }
    (secrets, failed)
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_nowhere_but_with_who_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(&dir.path().join("data"), &["--log-filter", "debug"]).await;
    let (mut secrets, failed) = use_secrets(&server).await;
    let master = std::fs::read_to_string(server.data_dir().join("master-key")).unwrap();
    secrets.push(master.lines().last().unwrap().to_owned());
    let metrics = reqwest::get(format!("{}/metrics", server.url())).await.unwrap().text().await.unwrap();
    let (log, stored) = (server.log(), at_rest(server.data_dir()));
    assert!(metrics.contains("bigpeer_auth_logins_total") && log.len() > 1000 && stored.len() > 1000);
    assert!(holds(&stored, "signing-keys") && holds(&stored, "authorities"), "what is at rest is not looked at");
    // What the secret key of an authority begins with.
    let pkcs8 = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg";
    assert!(!holds(&stored, pkcs8) && !log.contains(pkcs8), "the key of an authority is not sealed");
    for secret in &secrets {
        // The part that makes it one: what it is found by may be seen.
        let tail: String = secret.chars().rev().take(24).collect::<Vec<_>>().into_iter().rev().collect();
        assert!(!log.contains(&tail), "a secret is in the log");
        assert!(!metrics.contains(&tail), "a secret is in the metrics");
        assert!(!holds(&stored, &tail), "a secret is stored as it is: …{tail}");
        assert!(!failed.iter().any(|answer| answer.contains(&tail)), "a secret is in an answer");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_master_key_comes_from_a_command_of_which_nothing_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let (file, key) = (dir.path().join("vault"), "33".repeat(32));
    std::fs::write(&file, &key).unwrap();
    let command = format!("--master-key-command=echo asked for it >&2; cat {}; : open-sesame", file.display());
    let mut server = Server::start_with(&dir.path().join("data"), &[&command, "--log-filter", "debug"]).await;
    let (secrets, _) = use_secrets(&server).await;
    server.restart().await;
    let refresh = format!("/{}/auth/refresh", server.credentials().app);
    assert_eq!(server.post_as(secrets.last().unwrap(), &refresh, &json!({})).await.0, 200);
    let log = server.log();
    assert!(!["open-sesame", "asked for it", key.as_str()].iter().any(|secret| log.contains(secret)));
    assert!(!server.data_dir().join("master-key").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_master_key_is_changed_and_everything_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let (old, new) = ("11".repeat(32), "22".repeat(32));
    std::fs::write(&keys, &old).unwrap();
    let keys_flag = format!("--master-key-file={}", keys.display());
    let mut server = Server::start_with(&dir.path().join("data"), &[&keys_flag]).await;
    let (secrets, _) = use_secrets(&server).await;
    let app = server.credentials().app;
    let (login, refresh) = (format!("/{app}/auth/login"), format!("/{app}/auth/refresh"));
    let mut token = secrets.last().unwrap().clone();
    for list in [format!("{new}\n{old}"), new.clone()] {
        std::fs::write(&keys, list).unwrap();
        server.restart().await;
        let (status, next) = server.post_as(&token, &refresh, &json!({})).await;
        assert_eq!(status, 200, "{next}");
        token = text(&next, "refresh_token");
        assert_eq!(server.post_as("", &login, &json!({"provider": "shared", "token": SHARED})).await.0, 200);
        let (status, _) =
            server.post_as(&text(&next, "access_token"), &format!("/{app}/sql"), &json!({"query": "SELECT 1"})).await;
        assert_eq!(status, 200);
    }
    assert!(!server.data_dir().join("master-key").exists());
}
