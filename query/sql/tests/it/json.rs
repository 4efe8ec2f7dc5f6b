//! Functions on JSON text.

use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn json_text_is_looked_into() {
    let mut world = World::new().await;
    // Values of different kinds make a column of JSON text.
    for (id, value) in [
        (1, json!({"name": "Ada", "tags": ["a", "b"], "size": 3, "deep": {"x": [10, 20]}, "ok": true, "none": null})),
        (2, json!("plain")),
        (3, json!(7.5)),
        (4, json!(["x", 2])),
    ] {
        world.put("c", id, json!({"v": value})).await;
    }
    let first = "FROM c WHERE _id = 1";
    for (query, expected) in [
        (format!("SELECT v ->> 'name' AS r {first}"), json!("Ada")),
        (format!("SELECT v -> 'name' AS r {first}"), json!("Ada")),
        (format!("SELECT v -> 'deep' AS r {first}"), json!({"x": [10, 20]})),
        (format!("SELECT v -> 'deep' -> 'x' ->> 1 AS r {first}"), json!("20")),
        (format!("SELECT v -> 'tags' ->> -1 AS r {first}"), json!("b")),
        (format!("SELECT v ->> 'none' AS r {first}"), json!(null)),
        (format!("SELECT v ->> 'missing' AS r {first}"), json!(null)),
        (format!("SELECT json_get_int(v, 'deep', 'x', 0) + 1 AS r {first}"), json!(11)),
        (format!("SELECT json_get_bool(v, 'ok') AS r {first}"), json!(true)),
        (format!("SELECT json_get_int(v, 'name') AS r {first}"), json!(null)),
        (format!("SELECT json_length(v, 'tags') AS r {first}"), json!(2)),
        (format!("SELECT json_exists(v, 'none') AS r {first}"), json!(true)),
        (format!("SELECT json_keys(v, 'deep') AS r {first}"), json!(["x"])),
        (format!("SELECT json_type(v, 'none') AS r {first}"), json!("null")),
        ("SELECT json_get_float(v) AS r FROM c WHERE _id = 3".to_owned(), json!(7.5)),
        ("SELECT v ->> 0 AS r FROM c WHERE _id = 4".to_owned(), json!("x")),
        ("SELECT json_get_str('{\"a\": 1}', 'a') AS r".to_owned(), json!("1")),
        ("SELECT json_type('no json') AS r".to_owned(), json!(null)),
    ] {
        assert_eq!(world.rows(&query).await, json!([{"r": expected}]), "{query}");
    }
    let kinds = world.rows("SELECT json_type(v) AS k, count(*) AS n FROM c GROUP BY k ORDER BY k").await;
    assert_eq!(
        kinds,
        json!([{"k": "array", "n": 1}, {"k": "number", "n": 1}, {"k": "object", "n": 1}, {"k": "string", "n": 1}])
    );
    let items = world.rows("SELECT unnest(json_list(v)) AS item FROM c WHERE _id = 4").await;
    assert_eq!(items, json!([{"item": "\"x\""}, {"item": "2"}]));
}

#[tokio::test]
async fn what_is_not_json_text_is_refused_with_advice() {
    let mut world = World::new().await;
    world.put("c", 1, json!({"s": {"a": 1}})).await;
    let (status, error) = world.error("SELECT s -> 'a' FROM c").await;
    assert_eq!(status, 400);
    assert!(error["error"]["message"].as_str().unwrap().contains("brackets"), "{error}");
    let (status, error) = world.error("SELECT json_get('{}', true)").await;
    assert_eq!(status, 400, "{error}");
}
