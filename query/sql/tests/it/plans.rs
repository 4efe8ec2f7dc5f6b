//! What plans make of metadata: counts that read nothing, and lookups by id that read little and miss nothing.

use serde_json::json;

use crate::world::World;

async fn plan(world: &World, query: &str) -> String {
    let rows = world.rows(&format!("EXPLAIN {query}")).await;
    let physical = rows.as_array().unwrap().iter().find(|row| row["plan_type"] == "physical_plan").unwrap();
    physical["plan"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_count_is_known_without_reading() {
    let mut world = World::new().await;
    let documents: Vec<_> = (0..300).map(|n| ("c", json!(n), Some(json!({"n": n})))).collect();
    world.write(&documents).await;
    world.flush().await;
    world
        .write(&[("c", json!(5), None), ("c", json!(7), Some(json!({"n": 0.5}))), ("c", json!(900), Some(json!({})))])
        .await;
    for _ in 0..2 {
        assert_eq!(world.rows("SELECT count(*) AS n FROM c").await, json!([{"n": 300}]));
        let plan = plan(&world, "SELECT count(*) AS n FROM c").await;
        assert!(!plan.contains("DataSourceExec"), "{plan}");
        world.flush().await;
    }
}

#[tokio::test]
async fn lookups_by_id_find_what_scans_find() {
    let mut world = World::new().await;
    let documents: Vec<_> = (0..200).map(|n| ("ints", json!(n * 2), Some(json!({"n": n})))).collect();
    world.write(&documents).await;
    let documents: Vec<_> = (0..200).map(|n| ("texts", json!(format!("id {n}")), Some(json!({"n": n})))).collect();
    world.write(&documents).await;
    let mixed = [json!(1), json!("1"), json!(1.5), json!([1]), json!({"a": 1})];
    let documents: Vec<_> = mixed.iter().map(|id| ("mixed", id.clone(), Some(json!({"n": 1})))).collect();
    world.write(&documents).await;
    world.flush().await;
    // Superseded, deleted, and new ones in memory.
    world
        .write(&[
            ("ints", json!(4), Some(json!({"n": 1000}))),
            ("ints", json!(6), None),
            ("ints", json!(1001), Some(json!({"n": 7}))),
            ("texts", json!("id 3"), Some(json!({"n": 1000}))),
        ])
        .await;
    for round in 0..2 {
        for (table, condition) in [
            ("ints", "_id = 8"),
            ("ints", "_id = 4"),
            ("ints", "_id = 6"),
            ("ints", "_id = 1001"),
            ("ints", "_id = 7"),
            ("ints", "_id = 8.0"),
            ("ints", "8 = _id AND n > 3"),
            ("ints", "_id IN (8, 6, 1001, 7, 10)"),
            ("ints", "_id IN (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)"),
            ("ints", "_id = 8 OR _id = 10"),
            ("ints", "_id = 8 OR n = 50"),
            ("ints", "_id = 8 AND _id = 10"),
            ("ints", "NOT _id = 8"),
            ("texts", "_id = 'id 3'"),
            ("texts", "_id = 'id 4'"),
            ("texts", "_id IN ('id 5', 'none')"),
            ("texts", "_id LIKE 'id 19_'"),
            ("mixed", "_id = '1'"),
            ("mixed", "_id = '\"1\"'"),
            ("mixed", "_id = '[1]'"),
        ] {
            let found = world.rows(&format!("SELECT _id, n FROM {table} WHERE {condition} ORDER BY _id")).await;
            // The same without anything to look up: `n` is never null here.
            let scanned =
                format!("SELECT _id, n FROM {table} WHERE CASE WHEN n IS NULL THEN NULL ELSE ({condition}) END");
            let scanned = world.rows(&format!("{scanned} ORDER BY _id")).await;
            assert_eq!(found, scanned, "{table} {condition}, round {round}");
        }
        assert_eq!(world.rows("SELECT n FROM ints WHERE _id = 4").await, json!([{"n": 1000}]));
        let joined = "SELECT a.n FROM ints a JOIN ints b ON a._id = b.n WHERE b._id = 8";
        assert_eq!(world.rows(joined).await, json!([{"n": 1000}]));
        // Compared as numbers, which these are not.
        assert_eq!(world.error("SELECT _id FROM texts WHERE _id = 3").await.0, 400);
        world.flush().await;
    }
}
