//! What is refused: other apps, other keys, everything that is not a query; and what the refusal tells.

use axum::body::{Body, to_bytes};
use axum::http::Request;
use bigpeer_chassis::Permissions;
use serde_json::{Value, json};

use crate::world::{World, add_key};

#[tokio::test]
async fn writing_and_files_are_refused() {
    let mut world = World::new().await;
    world.put("c", 1, json!({"x": 1})).await;
    for query in [
        "DROP TABLE c",
        "INSERT INTO c VALUES (1, 1, 1)",
        "CREATE TABLE d AS SELECT * FROM c",
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 'file:///etc/passwd'",
        "COPY c TO '/tmp/bigpeer-sql-must-not-exist.csv'",
        "SET datafusion.catalog.default_schema = 'x'",
        "SELECT * INTO d FROM c",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM 'file:///etc/passwd'",
        "SELECT * FROM \"/etc/passwd\"",
        "SELECT * FROM parquet_metadata('/etc/passwd')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "WITH x AS (DELETE FROM c) SELECT 1",
        "SELECT _key FROM c",
        "SELECT _crdt FROM c",
    ] {
        let (status, error) = world.error(query).await;
        assert_eq!((status, error["error"]["code"].as_str()), (400, Some("invalid_statement")), "{query}: {error}");
    }
    assert_eq!(world.rows("SELECT x FROM c").await, json!([{"x": 1}]));
}

#[tokio::test]
async fn another_apps_collections_cannot_be_named() {
    let mut world = World::new().await;
    world.put("mine", 1, json!({"x": 1})).await;
    let (other, other_key) = world.another_app(&["secrets"]).await;
    for name in [
        "secrets".to_owned(),
        format!("\"{other}\".secrets"),
        format!("bigpeer.\"{other}\".secrets"),
        format!("\"{other}\".\"bigpeer\".secrets"),
        format!("\"../{other}/secrets\""),
        format!("\"apps/{other}/tables/secrets\""),
    ] {
        let (status, error) = world.error(&format!("SELECT * FROM {name}")).await;
        assert_eq!(status, 400, "{name}: {error}");
    }
    let schemas = world.rows("SELECT DISTINCT table_schema AS s FROM information_schema.tables ORDER BY s").await;
    assert!(!schemas.to_string().contains(other.as_str()), "{schemas}");
    // A key opens its own app, and no other.
    for (app, key, status) in [(&other, &world.key, 401), (&world.app, &other_key, 401), (&other, &other_key, 200)] {
        let request = Request::post(format!("/{app}/sql")).header("authorization", format!("Bearer {key}"));
        let answer = world.send(request.body(Body::from(r#"{"query": "SELECT 1"}"#)).unwrap()).await;
        assert_eq!(answer.status(), status);
    }
}

#[tokio::test]
async fn a_key_reads_what_it_may() {
    let mut world = World::new().await;
    for name in ["open", "partly", "closed"] {
        world.put(name, 1, json!({"x": 1})).await;
    }
    let permissions: Permissions = serde_json::from_value(json!({"read": {"everything": false,
        "queriesByCollection": {"open": ["true"], "partly": ["x == 1"]}}}))
    .unwrap();
    let nothing = add_key(&world.catalogue, &world.app, "nothing", Permissions::default()).await;
    world.key = add_key(&world.catalogue, &world.app, "some", permissions).await;
    assert_eq!(world.rows("SELECT x FROM open").await, json!([{"x": 1}]));
    for (query, part) in [
        ("SELECT * FROM closed", "closed"),
        ("SELECT * FROM partly", "may read a part"),
        ("EXPLAIN SELECT * FROM closed", "closed"),
        ("SELECT (SELECT max(x) FROM partly) FROM open", "may read a part"),
        ("WITH c AS (SELECT * FROM closed) SELECT * FROM c", "closed"),
    ] {
        let (status, error) = world.error(query).await;
        assert_eq!(status, 400, "{query}");
        assert!(error["error"]["message"].as_str().unwrap().contains(part), "{query}: {error}");
    }
    let tables = world.rows("SELECT table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE'").await;
    assert_eq!(tables, json!([{"table_name": "open"}]));
    world.key = nothing;
    assert_eq!(world.error("SELECT 1").await.0, 403);
}

#[tokio::test]
async fn errors_of_sql_say_what_and_where() {
    let mut world = World::new().await;
    world.put("c", 1, json!({"x": 1, "text": "a"})).await;
    for (query, part, position) in [
        ("SELECT *\nFORM c", "", Some(json!({"line": 2, "column": 1}))),
        ("SELECT y FROM c", "y", Some(json!({"line": 1, "column": 8}))),
        ("SELECT * FROM d", "d", None),
        ("SELECT nope(x) FROM c", "nope", None),
        ("SELECT avg(text) FROM c", "avg", None),
        ("SELECT x / 0 FROM c", "ivi", None),
        ("SELECT CAST(text AS BIGINT) FROM c", "a", None),
        ("SELECT x FROM c GROUP BY text", "x", None),
    ] {
        let (status, error) = world.error(query).await;
        assert_eq!((status, error["error"]["code"].as_str()), (400, Some("invalid_statement")), "{query}: {error}");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains(part) && !message.to_lowercase().contains("datafusion"), "{query}: {message}");
        if let Some(position) = position {
            assert_eq!(error["error"]["position"], position, "{query}: {error}");
        }
    }
}

#[tokio::test]
async fn malformed_requests_are_told_so() {
    let world = World::new().await;
    for body in [
        json!({}),
        json!({"query": 3}),
        json!({"query": "SELECT 1", "format": "xml"}),
        json!({"query": "SELECT 1", "params": "x"}),
        json!({"query": "SELECT 1", "limit": 3}),
        json!([]),
    ] {
        let answer = world.send(world.request(&body)).await;
        assert_eq!(answer.status(), 400, "{body}");
        let error: Value = serde_json::from_slice(&to_bytes(answer.into_body(), 10_000).await.unwrap()).unwrap();
        assert_eq!(error["error"]["code"], "bad_request", "{body}");
    }
    let request = Request::post(format!("/{}/sql", world.app)).body(Body::from("{}")).unwrap();
    assert_eq!(world.send(request).await.status(), 401);
    let mut request = world.request(&json!({"query": "SELECT 1"}));
    request.headers_mut().insert("x-ditto-txn-id", "soon".parse().unwrap());
    assert_eq!(world.send(request).await.status(), 400);
}
