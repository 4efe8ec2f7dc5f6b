//! What is refused: other apps, other keys, everything that is not a query; and what the refusal tells.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
        format!("as_of_1.\"{other}.secrets\""),
        format!("\"{other}\".as_of_1.secrets"),
        "pg_catalog.pg_class".to_owned(),
        "information_schema.df_settings".to_owned(),
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
    for name in ["open", "closed", "__rejections"] {
        world.put(name, 1, json!({"x": 1})).await;
    }
    let permissions: Permissions = serde_json::from_value(json!({"read": {"everything": false,
        "queriesByCollection": {"open": ["true"], "__rejections": ["true"]}}}))
    .unwrap();
    let nothing = add_key(&world.catalogue, &world.app, "nothing", Permissions::default()).await;
    let everything =
        std::mem::replace(&mut world.key, add_key(&world.catalogue, &world.app, "some", permissions).await);
    assert_eq!(world.rows("SELECT x FROM open").await, json!([{"x": 1}]));
    for (query, part) in [
        ("SELECT * FROM closed", "closed"),
        ("EXPLAIN SELECT * FROM closed", "closed"),
        ("EXPLAIN ANALYZE SELECT * FROM closed", "closed"),
        ("DESCRIBE closed", "closed"),
        ("SHOW COLUMNS FROM closed", "closed"),
        ("SELECT (SELECT max(x) FROM closed) FROM open", "closed"),
        ("SELECT x FROM open WHERE EXISTS (SELECT 1 FROM closed)", "closed"),
        ("WITH c AS (SELECT * FROM closed) SELECT * FROM c", "closed"),
        ("SELECT * FROM as_of_1.closed", "closed"),
        ("SELECT * FROM __rejections", "__rejections"),
    ] {
        let (status, error) = world.error(query).await;
        assert_eq!(status, 400, "{query}");
        assert!(error["error"]["message"].as_str().unwrap().contains(part), "{query}: {error}");
    }
    let tables = "SELECT table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE'";
    assert_eq!(world.rows(tables).await, json!([{"table_name": "open"}]));
    world.key = nothing;
    assert_eq!(world.error("SELECT 1").await.0, 403);
    world.key = everything;
    assert_eq!(world.rows("SELECT x FROM __rejections").await, json!([{"x": 1}]));
}

#[tokio::test]
async fn parameters_and_names_inject_nothing() {
    let mut world = World::new().await;
    world.put("c", 1, json!({"x": "a"})).await;
    let (other, _) = world.another_app(&["secrets"]).await;
    for text in ["a' OR '1'='1", "'; DROP TABLE c; --", "\\", "\u{0}", "$1", ":x", "\"; SELECT", "a\\' OR 1=1 --"] {
        let rows = world.rows_with("SELECT x FROM c WHERE x = $1", json!([text])).await;
        assert_eq!(rows, json!([]), "{text:?}");
        let echoed = world.rows_with("SELECT $1 AS x", json!([text])).await;
        assert_eq!(echoed, json!([{"x": text}]));
        let named = world.rows_with("SELECT x FROM c WHERE x = :x", json!({"x": text})).await;
        assert_eq!(named, json!([]), "{text:?}");
    }
    // A parameter is a value, never a name.
    for query in ["SELECT * FROM $1", "SELECT x FROM c ORDER BY $1 LIMIT $2; DROP TABLE c"] {
        let (status, _, body) = world.post(json!({"query": query, "params": ["secrets", 1]})).await;
        assert_eq!(status, 400, "{query}: {}", String::from_utf8_lossy(&body));
    }
    for name in [
        format!("c\" UNION SELECT * FROM \"{other}\".\"secrets"),
        "c\"; SELECT 1; --".to_owned(),
        format!("{other}.secrets"),
        "../c".to_owned(),
        "c\u{0}".to_owned(),
        "C".to_owned(),
    ] {
        let quoted = name.replace('"', "\"\"");
        let (status, error) = world.error(&format!("SELECT * FROM \"{quoted}\"")).await;
        assert_eq!(status, 400, "{name:?}: {error}");
    }
    assert_eq!(world.rows("SELECT x FROM c").await, json!([{"x": "a"}]));
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

#[tokio::test]
async fn nothing_is_read_of_whoever_may_not_ask() {
    let world = World::new().await;
    let was_read = Arc::new(AtomicBool::new(false));
    let reading = Arc::clone(&was_read);
    let body = futures::stream::once(async move {
        reading.store(true, Ordering::Relaxed);
        Ok::<_, std::io::Error>(bytes::Bytes::from_static(b"{\"query\": \"SELECT 1\"}"))
    });
    let request = Request::post(format!("/{}/sql", world.app))
        .header("authorization", "Bearer nobodys")
        .body(Body::from_stream(body))
        .unwrap();
    assert_eq!(world.send(request).await.status(), 401);
    assert!(!was_read.load(Ordering::Relaxed));
}
