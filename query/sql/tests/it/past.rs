//! The past: states at transactions, in requests and in queries.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use bigpeer_types::Lsn;
use object_store::memory::InMemory;
use serde_json::json;

use crate::world::{World, small_sql, small_tables};

#[tokio::test]
async fn a_state_is_answered_as_it_was() {
    let mut world = World::new().await;
    let first = world.put("c", 1, json!({"x": 1})).await;
    let second = world.write(&[("c", json!(1), Some(json!({"x": 2}))), ("c", json!(2), Some(json!({"x": 5})))]).await;
    world.flush().await;
    let third = world.write(&[("c", json!(2), None), ("d", json!(1), Some(json!({"y": 1})))]).await;
    let state = async |lsn: Lsn| {
        let query = json!({"query": "SELECT _id, x FROM c ORDER BY _id", "as_of": lsn.version});
        let (status, headers, body) = world.post(query).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        assert_eq!(headers["x-ditto-txn-id"].to_str().unwrap(), lsn.version.to_string());
        serde_json::from_slice::<serde_json::Value>(&body).unwrap()
    };
    assert_eq!(state(first).await, json!([{"_id": 1, "x": 1}]));
    assert_eq!(state(second).await, json!([{"_id": 1, "x": 2}, {"_id": 2, "x": 5}]));
    assert_eq!(state(third).await, json!([{"_id": 1, "x": 2}]));

    let changed = format!(
        "SELECT now.x AS now, before.x AS before FROM c AS now JOIN as_of_{}.c AS before ON now._id = before._id",
        first.version
    );
    assert_eq!(world.rows(&changed).await, json!([{"now": 2, "before": 1}]));
    let gone = format!("SELECT _id FROM as_of_{}.c EXCEPT SELECT _id FROM c", second.version);
    assert_eq!(world.rows(&gone).await, json!([{"_id": 2}]));
    let path = format!("/{}/sql?q=SELECT%20count(*)%20AS%20n%20FROM%20c&as_of={}", world.app, second.version);
    let request = Request::get(path).header("authorization", format!("Bearer {}", world.key));
    let answer = world.send(request.body(Body::empty()).unwrap()).await;
    let body = axum::body::to_bytes(answer.into_body(), 1_000).await.unwrap();
    assert_eq!(&body[..], b"[{\"n\":2}]\n");
    // What came later is not there.
    let (status, error) = world.error(&format!("SELECT * FROM as_of_{}.d", second.version)).await;
    assert_eq!(status, 400, "{error}");
}

#[tokio::test]
async fn what_is_not_yet_or_no_longer_known_is_not_found() {
    let mut world = World::with(Arc::new(InMemory::new()), small_tables(), small_sql()).await;
    let first = world.put("c", 1, json!({"x": 1})).await;
    let last = world.put("c", 1, json!({"x": 2})).await;
    world.flush().await;
    let ask = async |version: u64| {
        let (status, _, body) = world.post(json!({"query": "SELECT x FROM c", "as_of": version})).await;
        (status.as_u16(), String::from_utf8_lossy(&body).into_owned())
    };
    let (status, body) = ask(last.version + 1).await;
    assert!(status == 404 && body.contains("not visible here yet"), "{body}");
    assert_eq!(ask(first.version).await.0, 200);
    world.log.trim(&world.app, last).await.unwrap();
    let (status, body) = ask(first.version).await;
    assert!(status == 404 && body.contains("no longer kept"), "{body}");
    assert_eq!(ask(last.version).await.0, 200);
    let (status, error) = world.error(&format!("SELECT * FROM as_of_{}.c", first.version)).await;
    assert!(status == 404 && error.to_string().contains("no longer kept"), "{error}");
}

#[tokio::test]
async fn one_query_looks_back_to_a_few_transactions_only() {
    let mut world = World::new().await;
    let mut versions = Vec::new();
    for n in 0..9 {
        versions.push(world.put("c", 1, json!({"x": n})).await.version);
    }
    let query = |count: usize| {
        let parts: Vec<_> =
            versions.iter().take(count).map(|version| format!("SELECT x FROM as_of_{version}.c")).collect();
        format!("SELECT count(*) AS n FROM ({})", parts.join(" UNION ALL "))
    };
    assert_eq!(world.rows(&query(8)).await, json!([{"n": 8}]));
    assert_eq!(world.error(&query(9)).await.0, 400);
}
