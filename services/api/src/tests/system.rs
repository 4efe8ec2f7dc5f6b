//! System collections through DQL.

use bigpeer_chassis::{Column, ColumnKind, SystemCollection};

use super::*;

#[derive(Debug)]
struct Devices;

impl SystemCollection for Devices {
    fn columns(&self) -> &'static [Column] {
        &[Column { name: "_id", kind: ColumnKind::Text }, Column { name: "lag_ms", kind: ColumnKind::Integer }]
    }

    fn rows(&self, app: &AppId) -> Vec<Value> {
        (0..3).map(|n| json!({"_id": format!("{app}-{n}"), "lag_ms": n * 10})).collect()
    }
}

#[tokio::test]
async fn a_system_collection_is_read_like_any_other_by_who_may_read_everything() {
    let world = world(short()).await;
    world.system.register("__devices", Arc::new(Devices));
    let read = world.ok("SELECT * FROM __devices WHERE lag_ms > 5 ORDER BY lag_ms DESC", json!({})).await;
    let app = world.app.as_str();
    assert_eq!(
        read["items"],
        json!([{"_id": format!("{app}-2"), "lag_ms": 20}, {"_id": format!("{app}-1"), "lag_ms": 10}])
    );
    let counted = world.ok("SELECT COUNT(*) AS n, SUM(lag_ms) AS lag FROM __devices", json!({})).await;
    assert_eq!(counted["items"], json!([{"n": 3, "lag": 30}]));

    for statement in
        ["UPDATE __devices SET lag_ms = 0", "DELETE FROM __devices", "INSERT INTO __devices DOCUMENTS ({'_id': 1})"]
    {
        let (status, json) = world.run(statement, json!({})).await;
        assert!(status == 400 || status == 403, "{statement}: {json}");
    }
    let mut named = BTreeMap::new();
    named.insert("__devices".to_owned(), vec!["true".to_owned()]);
    let access = Access { everything: false, queries_by_collection: named };
    let permissions = Permissions { read: access, ..Permissions::default() };
    let key = world.new_key(&world.app, "some", permissions).await;
    let (status, json) = world.run_as(&key, "SELECT * FROM __devices", json!({})).await;
    assert_eq!((status, &json["error"]["code"]), (403, &json!("forbidden")), "{json}");
}
