//! Row filters from permissions: no query sees what the rules do not allow.

use bigpeer_chassis::Permissions;
use serde_json::{Value, json};

use crate::world::{World, add_key};

/// Flights of which a key may see those of one carrier, stored in segments and changed in memory.
async fn world() -> World {
    let mut world = World::new().await;
    let flight = |n: i64, carrier: &str| json!({"carrier": carrier, "n": n, "pilot": format!("pilot {n}")});
    let documents: Vec<_> =
        (0..60).map(|n| ("flights", json!(n), Some(flight(n, if n % 3 == 0 { "UA" } else { "AA" })))).collect();
    world.write(&documents).await;
    world.flush().await;
    // One comes into sight, one leaves it, one is deleted, one is new and not to be seen.
    let changes = [
        ("flights", json!(1), Some(flight(1, "UA"))),
        ("flights", json!(0), Some(flight(0, "AA"))),
        ("flights", json!(3), None),
        ("flights", json!(100), Some(flight(100, "AA"))),
    ];
    world.write(&changes).await;
    let permissions: Permissions = serde_json::from_value(json!({"read": {"everything": false,
        "queriesByCollection": {"flights": ["carrier == 'UA'", "carrier ==="]}}}))
    .unwrap();
    world.key = add_key(&world.catalogue, &world.app, "ua", permissions).await;
    world
}

#[tokio::test]
async fn every_way_of_asking_sees_the_allowed_rows_only() {
    let world = world().await;
    // 0, 3, …, 57 are twenty; 0 left, 3 is deleted, 1 came.
    let count = json!([{"n": 19}]);
    for query in [
        "SELECT count(*) AS n FROM flights",
        "SELECT count(n) AS n FROM flights",
        "SELECT count(*) AS n FROM flights WHERE true OR carrier = 'AA'",
        "SELECT count(*) AS n FROM (SELECT * FROM flights UNION SELECT * FROM flights)",
        "WITH all_of_them AS (SELECT * FROM flights) SELECT count(*) AS n FROM all_of_them",
        "SELECT count(DISTINCT a._id) AS n FROM flights a, flights b",
        "SELECT (SELECT count(*) FROM flights) AS n",
        "SELECT max(place) AS n FROM (SELECT row_number() OVER (ORDER BY _id) AS place FROM flights)",
    ] {
        assert_eq!(world.rows(query).await, count, "{query}");
    }
    for query in [
        "SELECT * FROM flights WHERE carrier <> 'UA'",
        "SELECT * FROM flights WHERE _id = 2",
        "SELECT * FROM flights WHERE _id IN (0, 3, 100)",
        "SELECT pilot FROM flights WHERE pilot LIKE '% 100'",
        "SELECT 1 FROM flights GROUP BY carrier HAVING carrier <> 'UA'",
        "SELECT * FROM flights WHERE 1 / (n - 100) > 5",
    ] {
        assert_eq!(world.rows(query).await, json!([]), "{query}");
    }
    assert_eq!(world.rows("SELECT _id FROM flights WHERE _id = 1").await, json!([{"_id": 1}]));
}

#[tokio::test]
async fn plans_and_catalogues_tell_nothing_of_the_others() {
    let world = world().await;
    for query in [
        "EXPLAIN SELECT * FROM flights",
        "EXPLAIN VERBOSE SELECT count(*) FROM flights",
        "EXPLAIN ANALYZE SELECT * FROM flights",
        "EXPLAIN SELECT max(n) FROM flights",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM information_schema.columns",
        "SHOW COLUMNS FROM flights",
        "DESCRIBE flights",
    ] {
        let told = world.rows(query).await.to_string();
        assert!(
            !told.contains("pilot 100") && !told.contains("AA") && !told.contains("Rows=Exact(5"),
            "{query}: {told}"
        );
    }
    let analyzed = world.rows("EXPLAIN ANALYZE SELECT * FROM flights").await.to_string();
    assert!(!analyzed.contains("output_rows=60") && !analyzed.contains("output_rows=59"), "{analyzed}");
}

#[tokio::test]
async fn the_past_is_filtered_as_the_present_is() {
    let mut world = world().await;
    let everything = Permissions::read_only();
    let restricted = std::mem::take(&mut world.key);
    world.key = add_key(&world.catalogue, &world.app, "everything", everything).await;
    let first = world.rows("SELECT min(_transaction) AS t FROM flights").await[0]["t"].as_u64().unwrap();
    world.key = restricted;
    let (_, _, body) = world.post(json!({"query": "SELECT count(*) AS n FROM flights", "as_of": first})).await;
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), json!([{"n": 20}]));
    let named = format!("SELECT count(*) AS n FROM as_of_{first}.flights WHERE carrier <> 'UA'");
    assert_eq!(world.rows(&named).await, json!([{"n": 0}]));
}
