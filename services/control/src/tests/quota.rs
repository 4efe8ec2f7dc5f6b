//! Quotas and usage, as administrators see them.

use bigpeer_chassis::{AuditQuery, Quota, Usage};
use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn a_quota_is_what_was_put_until_it_is_deleted() {
    let world = world().await;
    let path = format!("/admin/v1/apps/{}/quota", world.flights);
    assert_eq!(world.ask("GET", &path, &world.root, Value::Null).await, (200, json!({})));
    let all = json!({
        "requests_per_second": 10, "request_burst": 20, "key_requests_per_second": 3, "bytes_in_per_second": 1_000_000,
        "sessions": 5, "subscriptions": 50, "session_subscriptions": 10, "storage_bytes": 1_000_000_000_000_u64,
        "sql_queries": 2, "sql_time_secs": 30, "sql_memory_bytes": 1_000_000, "feed_lag_bytes": 0,
    });
    for quota in [all.clone(), all, json!({"sessions": 7}), json!({"sessions": null})] {
        let (status, put) = world.ask("PUT", &path, &world.root, quota.clone()).await;
        let expected = if quota["sessions"].is_null() { json!({}) } else { quota };
        assert_eq!((status, &put), (200, &expected), "in the place of what was said before");
        for caller in [&world.root, &world.acme, &world.key] {
            assert_eq!(world.ask("GET", &path, caller, Value::Null).await, (200, expected.clone()));
        }
    }
    for bad in [json!({"session": 7}), json!({"sessions": -1}), json!({"sessions": 1.5}), json!([])] {
        let (status, answer) = world.ask("PUT", &path, &world.root, bad.clone()).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!("bad_request")), "{bad}");
    }
    let nobody = world.ask("PUT", "/admin/v1/apps/nobody/quota", &world.root, json!({})).await;
    assert_eq!(nobody.0, 404);
    world.catalogue.put_quota(&world.flights, Quota { sessions: Some(1), ..Quota::default() }).await.unwrap();
    assert_eq!(world.ask("DELETE", &path, &world.root, Value::Null).await, (204, Value::Null));
    assert_eq!(world.ask("GET", &path, &world.root, Value::Null).await, (200, json!({})));
    let query = AuditQuery { app: Some(world.flights.clone()), limit: 100, ..AuditQuery::default() };
    let (entries, _) = world.catalogue.audit_log(&query).await.unwrap();
    assert_eq!(entries.iter().filter(|(_, entry)| entry.status == Some(204)).count(), 1, "{entries:?}");
}

#[tokio::test]
async fn usage_is_of_an_app_and_the_sum_of_a_tenants() {
    let world = world().await;
    world.catalogue.meter(&world.flights).bytes_in(10);
    world.catalogue.meter(&world.boats).bytes_in(5);
    world.catalogue.write_usage().await.unwrap();
    world.catalogue.meter(&world.flights).bytes_out(7);
    let (status, used) =
        world.ask("GET", &format!("/admin/v1/apps/{}/usage", world.flights), &world.key, Value::Null).await;
    let about = Usage { bytes_in: 10, bytes_out: 7, ..Usage::default() };
    let expected = json!({
        "app": world.flights, "transaction_id": 9,
        "written": {"transactions": 1, "documents": 2, "bytes": 3},
        "stored": {"document_bytes": 4, "attachment_bytes": 5},
        "about": about,
    });
    assert_eq!((status, &used), (200, &expected));
    let (status, sum) = world.ask("GET", "/admin/v1/tenants/acme/usage", &world.acme, Value::Null).await;
    assert_eq!(status, 200, "{sum}");
    assert_eq!(sum["written"], json!({"transactions": 2, "documents": 4, "bytes": 6}));
    assert_eq!(sum["about"], json!(Usage { bytes_in: 15, bytes_out: 7, ..Usage::default() }));
    let apps = sum["apps"].as_array().unwrap();
    assert_eq!(apps.len(), 2);
    assert!(apps.contains(&expected));
}
