//! The examples of the guide run, each against the app that the guide describes.

use serde_json::json;

use crate::world::World;

const GUIDE: &str = include_str!("../../../../docs/sql.md");

fn note(n: i64) -> serde_json::Value {
    match n {
        1 => json!("late"),
        2 => json!({"gate": "B7", "gates": ["B7", "B9"]}),
        n => json!(n),
    }
}

async fn guide_world() -> World {
    let mut world = World::new().await;
    for (n, carrier, origin, delay) in [
        (1, "UA", "EWR", json!(2)),
        (2, "AA", "JFK", json!(-5)),
        (3, "UA", "JFK", json!(33)),
        (4, "DL", "LGA", json!(null)),
    ] {
        let fields = json!({"carrier": carrier, "origin": origin, "dep_delay": delay, "tailNum": format!("N{n}"),
            "crew": {"pilot": "Ada", "size": n}, "note": note(n)});
        world.put("flights", n, fields).await;
    }
    for (code, name) in [("UA", "United Air Lines"), ("AA", "American Airlines"), ("DL", "Delta Air Lines")] {
        world.put("airlines", code, json!({"name": name})).await;
    }
    world.put("lost luggage", "x", json!({"colour": "red"})).await;
    world
}

#[tokio::test]
async fn the_examples_of_the_guide_run() {
    let world = guide_world().await;
    let params = json!({"carrier": "UA", "least": 10});
    let mut examples = 0;
    for block in GUIDE.split("```sql\n").skip(1) {
        let text = block.split("```").next().unwrap();
        for statement in text.split(";\n").map(str::trim).filter(|statement| !statement.is_empty()) {
            let positional = statement.contains("$1");
            let params = if positional { json!(["UA", 10]) } else { params.clone() };
            let rows = world.rows_with(statement, params).await;
            assert!(!rows.as_array().unwrap().is_empty(), "{statement}");
            examples += 1;
        }
    }
    assert!(examples >= 10, "{examples} examples");
}
