//! The audit log: what is in it, what is not, and who reads what of it.

use bigpeer_log::TransactionLog;
use serde_json::{Value, json};

use super::*;

impl World {
    async fn entries(&self, credential: &str, query: &str) -> Vec<Value> {
        let (status, json) = self.ask("GET", &format!("/admin/v1/audit-log{query}"), credential, Value::Null).await;
        assert_eq!(status, 200, "{json}");
        json["entries"].as_array().unwrap().clone()
    }
}

#[tokio::test]
async fn changes_and_refusals_are_recorded_and_nothing_else() {
    let world = world().await;
    let keys = format!("/admin/v1/apps/{}/api-keys", world.flights);
    let body = json!({"permissions": {}, "description": "hush"});
    world.ask("PUT", &format!("{keys}/new"), &world.acme, body).await;
    world.ask("PUT", &format!("{keys}/bad"), &world.key, json!({"nonsense": "hush"})).await;
    world.ask("GET", &keys, &world.acme, Value::Null).await;
    world.ask("GET", "/admin/v1/tenants/nobody", &world.root, Value::Null).await;
    world.ask("GET", &keys, &world.globex, Value::Null).await;
    world.ask("DELETE", "/admin/v1/tenants/acme", &world.acme, Value::Null).await;
    world.send("DELETE", "/admin/v1/tenants/acme", Some("bpa_AAAAAAAAAAAA_hush"), "").await;
    world.send("DELETE", "/admin/v1/tenants/acme", Some("my_hush_password"), "").await;
    world.ask("PUT", "/admin/v1/tenants/third", &world.root, Value::Null).await;
    world.ask("PUT", "/admin/v1/tenants/third/apps/a", &world.root, Value::Null).await;
    let all = world.entries(&world.root, "").await;
    let short = |entry: &Value| {
        let app = entry["app"].as_str().map(|app| if app == world.flights.as_str() { "flights" } else { "another" });
        (entry["status"].as_u64().unwrap(), entry["tenant"].as_str().map(str::to_owned), app)
    };
    let mut seen: Vec<_> = all.iter().map(short).collect();
    let mut expected = [
        (201, Some("acme"), Some("flights")),
        (400, Some("acme"), Some("flights")),
        (404, Some("globex"), None),
        (403, Some("acme"), None),
        (401, None, None),
        (401, None, None),
        (201, Some("third"), None),
        (201, Some("third"), Some("another")),
    ]
    .map(|(status, tenant, app)| (status, tenant.map(str::to_owned), app));
    // All in the same moment: in no order.
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected, "{all:#?}");
    let made = all.iter().find(|entry| entry["path"] == format!("{keys}/new")).unwrap();
    assert_eq!(made["by"], json!({"token": "acme-admin"}));
    assert_eq!((&made["method"], &made["at"]), (&json!("PUT"), &json!(NOW_MS)));
    assert_eq!(made["fields"], json!(["description", "permissions"]));
    assert!(world.acme.starts_with(made["prefix"].as_str().unwrap()) && made["request_id"].is_string());
    let refused = all.iter().find(|entry| entry["path"] == format!("{keys}/bad")).unwrap();
    assert_eq!(refused["by"], json!({"key": {"app": world.flights, "name": "ops"}}));
    assert_eq!(refused["fields"], json!([]));
    let prefixes: Vec<&Value> = all.iter().filter(|entry| entry["by"].is_null()).map(|e| &e["prefix"]).collect();
    assert!(prefixes.contains(&&json!("bpa_AAAAAAAAAAAA")) && prefixes.contains(&&Value::Null), "{prefixes:?}");
}

#[tokio::test]
async fn no_secret_is_in_it() {
    let world = world().await;
    let app = format!("/admin/v1/apps/{}", world.flights);
    let mut secrets = vec![
        world.root.clone(),
        world.acme.clone(),
        world.key.clone(),
        "a token that all share".to_owned(),
        "c2VjcmV0IG9mIGEgd2ViaG9vaw==".to_owned(),
        "a-wrong-token".to_owned(),
    ];
    for (path, field) in [(format!("{app}/api-keys/new"), "key"), ("/admin/v1/admin-tokens/new".to_owned(), "token")] {
        let body = if field == "key" { json!({"permissions": {}}) } else { json!({"scope": "operator"}) };
        let (status, made) = world.ask("PUT", &path, &world.root, body).await;
        assert_eq!(status, 201);
        secrets.push(made[field].as_str().unwrap().to_owned());
    }
    let shared = json!({"type": "anonymous", "shared_token": "a token that all share"});
    assert_eq!(world.ask("PUT", &format!("{app}/providers/dev"), &world.key, shared).await.0, 201);
    let hook = json!({"type": "webhook", "url": "https://example.com/x", "secrets": ["c2VjcmV0IG9mIGEgd2ViaG9vaw=="]});
    assert_eq!(world.ask("PUT", &format!("{app}/providers/hook"), &world.acme, hook).await.0, 201);
    world.send("GET", &app, Some("a-wrong-token"), "").await;
    let stored = world.log.metadata().range(b"audit/", None, 1000).await.unwrap();
    assert_eq!(stored.len(), 5);
    for (_, entry) in stored {
        let text = String::from_utf8(entry.value.to_vec()).unwrap();
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{text}");
            // Not its second half, either.
            let tail = secret.rsplit('_').next().unwrap();
            assert!(!text.contains(tail), "{text}");
        }
    }
}

#[tokio::test]
async fn everybody_reads_what_is_theirs() {
    let world = world().await;
    for (app, credential) in
        [(&world.flights, &world.acme), (&world.boats, &world.acme), (&world.trains, &world.globex)]
    {
        let path = format!("/admin/v1/apps/{app}/roles/clerk");
        world.ask("PUT", &path, credential, json!({"permissions": {}})).await;
        // What was tried is of who tried it.
        let path = format!("/admin/v1/apps/{}/roles/clerk", world.trains);
        world.ask("PUT", &path, &world.key, json!({"permissions": {}})).await;
    }
    let count = |credential: String, query: String| {
        let world = &world;
        async move { world.entries(&credential, &query).await.len() }
    };
    assert_eq!(count(world.root.clone(), String::new()).await, 6);
    assert_eq!(count(world.root.clone(), "?tenant=acme".to_owned()).await, 5);
    assert_eq!(count(world.acme.clone(), String::new()).await, 5);
    assert_eq!(count(world.acme.clone(), format!("?app={}", world.boats)).await, 1);
    assert_eq!(count(world.acme.clone(), format!("?app={}", world.trains)).await, 0);
    assert_eq!(count(world.globex.clone(), String::new()).await, 1);
    assert_eq!(count(world.key.clone(), String::new()).await, 4);
    assert_eq!(count(world.key_of_boats.clone(), String::new()).await, 1);
    for (credential, query) in [
        (&world.acme, "?tenant=globex".to_owned()),
        (&world.key, "?tenant=globex".to_owned()),
        (&world.key, format!("?app={}", world.boats)),
    ] {
        assert_eq!(world.ask("GET", &format!("/admin/v1/audit-log{query}"), credential, Value::Null).await.0, 404);
    }
}

#[tokio::test]
async fn it_is_read_in_pages_between_moments_and_as_lines() {
    let world = world().await;
    for n in 0..10 {
        world.ask("PUT", &format!("/admin/v1/tenants/t{n}"), &world.root, Value::Null).await;
        world.clock.advance(1000);
    }
    let paths = |entries: &[Value]| -> Vec<String> {
        entries.iter().map(|entry| entry["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()).collect()
    };
    let all = world.entries(&world.root, "").await;
    assert_eq!(paths(&all), (0..10).map(|n| format!("t{n}")).collect::<Vec<_>>());
    let between = format!("?since={}&until={}", NOW_MS + 3000, NOW_MS + 5000);
    assert_eq!(paths(&world.entries(&world.root, &between).await), ["t3", "t4"]);
    let (mut parts, mut query) = (Vec::new(), "?limit=3".to_owned());
    loop {
        let (_, page) = world.ask("GET", &format!("/admin/v1/audit-log{query}"), &world.root, Value::Null).await;
        parts.extend(page["entries"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next"].as_str() else { break };
        query = format!("?limit=3&after={next}");
    }
    assert_eq!(parts, all);
    let (status, headers, text) = world.send("GET", "/admin/v1/audit-log?format=ndjson", Some(&world.root), "").await;
    assert_eq!((status, headers["content-type"].to_str().unwrap()), (200, "application/x-ndjson"));
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, all);
    for bad in ["?since=x", "?format=xml", "?limit=0", "?tenant=a/b", "?app=A", "?x=1"] {
        assert_eq!(
            world.ask("GET", &format!("/admin/v1/audit-log{bad}"), &world.root, Value::Null).await.0,
            400,
            "{bad}"
        );
    }
    // 90 days later nothing is left to see.
    world.clock.advance(91 * 24 * 3600 * 1000);
    assert!(world.entries(&world.root, "").await.is_empty());
}

#[tokio::test]
async fn strangers_are_counted_where_they_are_too_many_to_write_down() {
    let world = world().await;
    for _ in 0..100 {
        world.send("GET", "/admin/v1/tenants", Some("bpa_x_y"), "").await;
    }
    world.clock.advance(60_000);
    world.send("GET", "/admin/v1/tenants", None, "").await;
    let all = world.entries(&world.root, "").await;
    assert_eq!((all.len(), &all[60]["omitted"]), (61, &json!(40)));
}
