//! Which statements columns answer, and which they leave to the evaluator.

use serde_json::{Value as Json, json};

use super::{evaluated, from_columns, plan, same_rows};
use crate::world::World;

async fn world() -> World {
    let mut world = World::new().await;
    for n in 0..40_i64 {
        let mut fields = json!({"n": n, "carrier": if n % 3 == 0 { "UA" } else { "AA" }, "delay": n as f64 / 4.0,
            "flag": n % 2 == 0, "map": {"x": n, "deep": {"y": "z"}}, "mixed": n, "tags": [n]});
        if n % 4 == 0 {
            fields.as_object_mut().unwrap().remove("delay");
        }
        if n == 7 {
            fields["mixed"] = json!("seven");
        }
        if n % 5 == 0 {
            fields["nullable"] = if n % 2 == 0 { Json::Null } else { json!(n) };
        }
        world.put("c", n, fields).await;
        if n == 30 {
            world.flush().await;
        }
    }
    world
}

async fn how(world: &World, statement: &str, strict: bool) -> &'static str {
    let columns = world.context.dql();
    let plan = plan(statement, strict).unwrap_or_else(|error| panic!("{statement}: {error}"));
    let expected = evaluated(world, plan.clone(), None).unwrap();
    let Some((how, rows)) = from_columns(world, &columns, plan).await else { return "not" };
    assert!(same_rows(how, &rows, &expected), "{statement}: {rows:?}, not {expected:?}");
    how
}

#[tokio::test(flavor = "multi_thread")]
async fn what_columns_say_exactly_they_answer() {
    let world = world().await;
    for (statement, expected) in [
        ("SELECT COUNT(*) FROM c", "groups"),
        ("SELECT COUNT(*), SUM(n), AVG(n), MIN(n), MAX(n), MID(n), COUNT(DISTINCT carrier) FROM c", "groups"),
        ("SELECT carrier, COUNT(*) AS k FROM c WHERE n > 3 AND delay < 8.5 GROUP BY carrier ORDER BY k DESC", "groups"),
        ("SELECT carrier, flag, AVG(delay) FROM c GROUP BY carrier, flag HAVING COUNT(*) > 2", "groups"),
        ("SELECT SUM(CASE WHEN flag THEN n * 2 ELSE 0 END) AS s FROM c WHERE carrier LIKE 'U%'", "groups"),
        ("SELECT COUNT(delay) FROM c WHERE delay IS MISSING", "groups"),
        ("SELECT map.deep.y AS y, SUM(map.x) FROM c GROUP BY map.deep.y", "groups"),
        ("SELECT n % 3 AS r, COUNT(*) FROM c GROUP BY n % 3", "not"),
        ("SELECT MEDIAN(n) FROM c", "not"),
        // 7 is text in one document, and nulls are of two kinds.
        ("SELECT SUM(mixed) FROM c", "not"),
        ("SELECT nullable, COUNT(*) FROM c GROUP BY nullable", "not"),
        ("SELECT COUNT(*) FROM c WHERE nullable IS NULL", "not"),
        ("SELECT COUNT(nullable), SUM(nullable) FROM c WHERE nullable > 3", "groups"),
        ("SELECT DISTINCT carrier, flag FROM c", "values"),
        ("SELECT DISTINCT upper(carrier) AS u FROM c ORDER BY u", "not"),
        ("SELECT DISTINCT upper(carrier) AS u FROM c", "values"),
        ("SELECT DISTINCT carrier FROM c LIMIT 1", "not"),
        ("SELECT * FROM c WHERE n = 17", "documents"),
        // A part of the condition finds documents, the whole of it decides.
        ("SELECT * FROM c WHERE n > 30 AND regexp_like(carrier, 'U.')", "documents"),
        ("SELECT * FROM c WHERE n > 30 OR regexp_like(carrier, 'U.')", "not"),
        ("SELECT * FROM c WHERE nullable IS NULL", "documents"),
        ("SELECT * FROM c WHERE mixed = 3", "not"),
        ("SELECT _id FROM c ORDER BY n DESC LIMIT 3 OFFSET 1", "documents"),
        ("SELECT _id FROM c ORDER BY delay DESC, n LIMIT 12", "documents"),
        ("SELECT _id FROM c WHERE flag ORDER BY delay LIMIT 5", "documents"),
        ("SELECT * FROM c", "not"),
        ("SELECT * FROM c WHERE _id = 3", "not"),
    ] {
        assert_eq!(how(&world, statement, false).await, expected, "{statement}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_mode_sees_no_maps_that_were_not_declared() {
    let world = world().await;
    for (statement, expected) in [
        ("SELECT carrier, SUM(n) FROM c GROUP BY carrier", "groups"),
        ("SELECT SUM(map.x) FROM c", "not"),
        ("SELECT SUM(map.x) FROM COLLECTION c (map MAP)", "not"),
        ("SELECT COUNT(*) FROM c WHERE n > 2", "groups"),
    ] {
        assert_eq!(how(&world, statement, true).await, expected, "{statement}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_is_not_there_has_no_groups() {
    let world = World::new().await;
    assert_eq!(how(&world, "SELECT COUNT(*), SUM(x), MIN(y) FROM c WHERE x > 1", false).await, "groups");
    assert_eq!(how(&world, "SELECT x, COUNT(*) FROM c GROUP BY x", false).await, "not");
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_that_need_more_than_64_bits_are_right() {
    let mut world = World::new().await;
    for (id, x) in [i64::MAX, i64::MAX, 5, i64::MIN].into_iter().enumerate() {
        world.put("c", id as i64, json!({"x": x, "y": u64::MAX})).await;
    }
    assert_eq!(how(&world, "SELECT SUM(x), AVG(x) FROM c WHERE x > 0", false).await, "groups");
    assert_eq!(how(&world, "SELECT SUM(x + 1) FROM c", false).await, "not");
    assert_eq!(how(&world, "SELECT SUM(y) FROM c", false).await, "not");
    assert_eq!(how(&world, "SELECT COUNT(*) FROM c WHERE x = 9223372036854775807.0", false).await, "groups");
}
