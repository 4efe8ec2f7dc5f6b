//! Quotas, usage and wrong keys through the real binary.

use bigpeer_e2e::Server;
use serde_json::{Value, json};

async fn get(server: &Server, path: &str) -> Value {
    let admin = server.credentials().admin_token;
    let answer = reqwest::Client::new().get(format!("{}{path}", server.url())).bearer_auth(admin).send().await.unwrap();
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

/// What was acknowledged is what the bill says, whenever the process dies and whatever was flushed before.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_billed_once_over_kills() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("data")).await;
    let app = server.credentials().app;
    let usage = format!("/admin/v1/apps/{app}/usage");
    let mut written = 0;
    for round in 0..6_u64 {
        for n in 0..20_u64 {
            let id = round * 100 + n;
            server
                .dql("INSERT INTO things DOCUMENTS (:a), (:b)", json!({"a": {"_id": id}, "b": {"_id": id + 50}}))
                .await;
            written += 1;
            if round % 3 == 1 && n == 10 {
                let (status, answer) = server
                    .post_as(&server.credentials().admin_token, &format!("/admin/v1/apps/{app}/compact"), &json!({}))
                    .await;
                assert_eq!(status, 200, "{answer}");
            }
        }
        server.kill();
        server.restart().await;
        let used = get(&server, &usage).await;
        assert_eq!(used["written"]["transactions"], written, "{used}");
        assert_eq!(used["written"]["documents"], 2 * written, "{used}");
        assert!(used["stored"]["document_bytes"].as_u64() > Some(0), "{used}");
    }
    let of_tenant = get(&server, "/admin/v1/tenants/dev/usage").await;
    assert_eq!(of_tenant["written"]["transactions"], written, "{of_tenant}");
    // A process that ends in order has written what it counted.
    let requests = get(&server, &usage).await["about"]["requests"].as_u64().unwrap();
    assert!(server.terminate());
    server.restart().await;
    assert!(get(&server, &usage).await["about"]["requests"].as_u64().unwrap() >= requests);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_holds_at_once_and_wrong_keys_have_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data")).await;
    let (app, admin) = (server.credentials().app, server.credentials().admin_token);
    let quota = format!("/admin/v1/apps/{app}/quota");
    let (status, answer) = server.put_as(&admin, &quota, &json!({"requests_per_second": 1})).await;
    assert_eq!(status, 200, "{answer}");
    let execute = format!("/{app}/api/v5/store/execute");
    let statement = json!({"statement": "SELECT * FROM things"});
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(server.post(&execute, &statement).await);
    }
    let refused = answers.iter().find(|(status, _)| *status == 429).expect("twenty in a second are too many");
    assert_eq!(refused.1["error"]["code"], "quota_exceeded", "{}", refused.1);
    assert_eq!(server.put_as(&admin, &quota, &json!({})).await.0, 200);
    let (mut looked_at, mut limited) = (0, 0);
    for n in 0..1000 {
        match server.post_as(&format!("bpk_{n:012}_{n:043}"), &execute, &statement).await.0 {
            401 => looked_at += 1,
            429 => limited += 1,
            other => panic!("{other}"),
        }
    }
    // Some are earned while they are spent.
    assert!(looked_at >= 200 && limited > 0, "{looked_at} {limited}");
    assert_eq!(server.post(&execute, &statement).await.0, 200, "what was right before goes on");
    assert_eq!(get(&server, "/healthz").await["alive"], true);
}
