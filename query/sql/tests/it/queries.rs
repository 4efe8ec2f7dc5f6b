//! What queries answer: types, schemas that change, parameters, names, the transaction they are true at.

use axum::body::Body;
use axum::http::Request;
use serde_json::json;

use crate::world::World;

async fn flights() -> World {
    let mut world = World::new().await;
    for n in 0..100 {
        let carrier = ["UA", "AA", "DL"][n % 3];
        let fields = json!({"carrier": carrier, "delay": n as i64 - 50, "distance": 100.5 + n as f64});
        world.put("flights", n as i64, fields).await;
        if n == 60 {
            world.flush().await;
        }
    }
    for (code, name) in [("UA", "United"), ("AA", "American"), ("DL", "Delta")] {
        world.put("airlines", code, json!({"name": name})).await;
    }
    world
}

#[tokio::test]
async fn overlay_and_segments_are_one_table() {
    let world = flights().await;
    for flushed in [false, true] {
        if flushed {
            world.flush().await;
        }
        assert_eq!(
            world.rows("SELECT count(*) AS n, sum(delay) AS d FROM flights").await,
            json!([{"n": 100, "d": -50}])
        );
        let grouped = "SELECT a.name, count(*) AS n, min(f.delay) AS low, avg(distance) AS far FROM flights f \
                       JOIN airlines a ON f.carrier = a._id GROUP BY a.name ORDER BY a.name";
        let expected = json!([
            {"name": "American", "n": 33, "low": -49, "far": 149.5},
            {"name": "Delta", "n": 33, "low": -48, "far": 150.5},
            {"name": "United", "n": 34, "low": -50, "far": 150.0},
        ]);
        assert_eq!(world.rows(grouped).await, expected);
        let filtered = "SELECT _id FROM flights WHERE carrier = 'UA' AND delay > 40 ORDER BY _id";
        assert_eq!(world.rows(filtered).await, json!([{"_id": 93}, {"_id": 96}, {"_id": 99}]));
        assert_eq!(world.rows("SELECT count(*) AS n FROM (SELECT * FROM flights LIMIT 70)").await, json!([{"n": 70}]));
    }
}

#[tokio::test]
async fn an_answer_says_which_transaction_it_is_true_at() {
    let mut world = World::new().await;
    let first = world.put("c", 1, json!({"x": 1})).await;
    let second = world.put("c", 2, json!({"x": 2})).await;
    let (_, headers, _) = world.post(json!({"query": "SELECT 1"})).await;
    assert_eq!(headers["x-ditto-txn-id"], second.version.to_string().as_str());
    let rows = world.rows("SELECT _id, _transaction AS t FROM c ORDER BY _id").await;
    assert_eq!(rows, json!([{"_id": 1, "t": first.version}, {"_id": 2, "t": second.version}]));
    world.flush().await;
    assert_eq!(world.rows("SELECT _id, _transaction AS t FROM c ORDER BY _id").await, rows);
}

#[tokio::test]
async fn columns_widen_as_segments_differ() {
    let mut world = World::new().await;
    world.put("c", 1, json!({"n": 1, "mixed": 1, "map": {"a": 1}, "tags": [1], "only": "x"})).await;
    world.flush().await;
    world.put("c", 2, json!({"n": 2.5, "mixed": "two", "map": {"b": "x"}, "tags": [2.5]})).await;
    world.flush().await;
    world.put("c", 3, json!({"n": 3, "mixed": {"three": 3}, "map": 7, "tags": "none", "later": true})).await;
    let expected = json!([
        {"_id": 1, "n": 1.0, "mixed": 1, "map": {"a": 1}, "tags": [1], "only": "x", "later": null},
        {"_id": 2, "n": 2.5, "mixed": "two", "map": {"b": "x"}, "tags": [2.5], "only": null, "later": null},
        {"_id": 3, "n": 3.0, "mixed": {"three": 3}, "map": 7, "tags": "none", "only": null, "later": true},
    ]);
    for _ in 0..2 {
        let rows = world.rows("SELECT _id, n, mixed, map, tags, only, later FROM c ORDER BY _id").await;
        assert_eq!(rows, expected);
        assert_eq!(world.rows("SELECT sum(n) AS s, count(only) AS o FROM c").await, json!([{"s": 6.5, "o": 1}]));
        assert_eq!(world.rows("SELECT _id FROM c WHERE n > 2 ORDER BY _id").await, json!([{"_id": 2}, {"_id": 3}]));
        assert_eq!(world.rows("SELECT _id FROM c WHERE mixed = '\"two\"'").await, json!([{"_id": 2}]));
        assert_eq!(world.rows("SELECT _id FROM c WHERE map = '7'").await, json!([{"_id": 3}]));
        assert_eq!(world.rows("SELECT _id FROM c WHERE later").await, json!([{"_id": 3}]));
        assert_eq!(
            world.rows("SELECT _id FROM c WHERE only IS NULL ORDER BY _id").await,
            json!([{"_id": 2}, {"_id": 3}])
        );
        assert_eq!(world.rows("SELECT min(only) AS a, max(later) AS b FROM c").await, json!([{"a": "x", "b": true}]));
        world.flush().await;
    }
}

#[tokio::test]
async fn parameters_are_values_by_position_or_by_name() {
    let world = flights().await;
    let count = "SELECT count(*) AS n FROM flights WHERE";
    for (condition, params, n) in [
        ("carrier = $1 AND delay > $2", json!(["UA", 40]), 3),
        ("carrier = :carrier AND delay > :delay", json!({"carrier": "UA", "delay": 40}), 3),
        ("carrier = $carrier", json!({"carrier": "x' OR '1' = '1"}), 0),
        ("distance < $1", json!([101.5]), 1),
        ("array_has($1, carrier)", json!([["UA", "AA"]]), 67),
        ("$1 IS NULL", json!([null]), 100),
    ] {
        let rows = world.rows_with(&format!("{count} {condition}"), params).await;
        assert_eq!(rows, json!([{"n": n}]), "{condition}");
    }
    assert_eq!(world.rows_with("SELECT _id FROM flights ORDER BY _id LIMIT $1", json!([1])).await, json!([{"_id": 0}]));
    let (status, error) = world.error("SELECT * FROM flights WHERE carrier = $1").await;
    assert_eq!((status, error["error"]["code"].as_str()), (400, Some("invalid_statement")));
    assert!(error["error"]["message"].as_str().unwrap().contains("$1"), "{error}");
}

#[tokio::test]
async fn names_are_case_sensitive_and_the_schema_can_be_asked_for() {
    let mut world = World::new().await;
    world.put("Größe x", 1, json!({"tailNum": "N1", "select": 2})).await;
    assert_eq!(world.rows(r#"SELECT tailNum, "select" FROM "Größe x""#).await, json!([{"tailNum": "N1", "select": 2}]));
    let tables = world.rows(
        "SELECT table_name, table_schema FROM information_schema.tables WHERE table_schema <> \
                             'information_schema'",
    );
    assert_eq!(tables.await, json!([{"table_name": "Größe x", "table_schema": world.app.as_str()}]));
    assert!(world.rows("SHOW TABLES").await.as_array().unwrap().len() > 1);
    let columns = world.rows(r#"SHOW COLUMNS FROM "Größe x""#).await;
    let names: Vec<_> = columns.as_array().unwrap().iter().map(|row| row["column_name"].as_str().unwrap()).collect();
    assert_eq!(names, ["_id", "select", "tailNum", "_transaction"]);
    assert_eq!(world.rows(r#"DESCRIBE "Größe x""#).await.as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn get_takes_the_query_from_the_path() {
    let world = flights().await;
    let get = |tail: &str| {
        let path = format!("/{}/sql?{tail}", world.app);
        Request::get(path).header("authorization", format!("Bearer {}", world.key)).body(Body::empty()).unwrap()
    };
    let answer = world.send(get("q=SELECT%20count(*)%20AS%20n%20FROM%20flights&format=csv")).await;
    assert_eq!(answer.headers()["content-type"], "text/csv; charset=utf-8; header=present");
    assert_eq!(axum::body::to_bytes(answer.into_body(), 100).await.unwrap(), "n\n100\n");
    let answer = world.send(get("q=SELECT%20$1%20AS%20n&params=[7]&format=ndjson")).await;
    assert_eq!(axum::body::to_bytes(answer.into_body(), 100).await.unwrap(), "{\"n\":7}\n");
    for bad in ["", "q=SELECT%201&format=xml", "q=SELECT%201&params=x", "query=SELECT%201"] {
        assert_eq!(world.send(get(bad)).await.status(), 400, "{bad}");
    }
}

#[tokio::test]
async fn a_collection_without_visible_documents_has_no_rows() {
    let mut world = World::new().await;
    world.put("c", 1, json!({"x": 1})).await;
    world.flush().await;
    world.write(&[("c", json!(1), None)]).await;
    for _ in 0..2 {
        assert_eq!(world.rows("SELECT * FROM c").await, json!([]));
        assert_eq!(world.rows("SELECT count(*) AS n FROM c").await, json!([{"n": 0}]));
        world.flush().await;
    }
}
