//! System collections as tables.

use std::sync::Arc;

use bigpeer_chassis::{Access, Column, ColumnKind, Permissions, SystemCollection, SystemCollections};
use bigpeer_types::AppId;
use serde_json::{Value, json};

use crate::world::{World, add_key};

#[derive(Debug)]
struct Devices;

impl SystemCollection for Devices {
    fn columns(&self) -> &'static [Column] {
        &[
            Column { name: "_id", kind: ColumnKind::Text },
            Column { name: "lag_ms", kind: ColumnKind::Integer },
            Column { name: "behind", kind: ColumnKind::Boolean },
            Column { name: "subscriptions", kind: ColumnKind::Json },
        ]
    }

    fn rows(&self, app: &AppId) -> Vec<Value> {
        vec![
            json!({"_id": format!("{app}/1"), "lag_ms": 7, "behind": true, "subscriptions": ["SELECT * FROM c"]}),
            json!({"_id": format!("{app}/2"), "lag_ms": 0, "behind": false, "subscriptions": []}),
        ]
    }
}

#[tokio::test]
async fn a_system_collection_is_a_table_for_who_may_read_everything() {
    let mut world = World::new().await;
    let system = SystemCollections::default();
    system.register("__devices", Arc::new(Devices));
    world.serve_system(system);
    world.put("c", 1, json!({"x": 1})).await;
    let app = world.app.clone();
    let rows = world.rows("SELECT _id, lag_ms, subscriptions FROM __devices WHERE behind").await;
    assert_eq!(rows, json!([{"_id": format!("{app}/1"), "lag_ms": 7, "subscriptions": "[\"SELECT * FROM c\"]"}]));
    let tables = world.rows("SELECT table_name FROM information_schema.tables WHERE table_name LIKE '%devices'").await;
    assert_eq!(tables, json!([{"table_name": "__devices"}]));

    let mut named = std::collections::BTreeMap::new();
    named.insert("__devices".to_owned(), vec!["true".to_owned()]);
    named.insert("c".to_owned(), vec!["true".to_owned()]);
    let read = Access { everything: false, queries_by_collection: named };
    world.key = add_key(&world.catalogue, &app, "some", Permissions { read, ..Permissions::default() }).await;
    assert_eq!(world.rows("SELECT x FROM c").await, json!([{"x": 1}]));
    let (status, error) = world.error("SELECT * FROM __devices").await;
    assert_eq!((status, error["error"]["code"].as_str()), (400, Some("invalid_statement")), "{error}");
}
