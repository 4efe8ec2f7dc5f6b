//! System collections through DQL.

use bigpeer_chassis::{Column, ColumnKind, SystemCollection};

use super::*;

#[derive(Debug)]
struct Devices;

impl SystemCollection for Devices {
    fn columns(&self) -> &'static [Column] {
        &[
            Column { name: "_id", kind: ColumnKind::Text },
            Column { name: "lag_ms", kind: ColumnKind::Integer },
            Column { name: "last_lsn", kind: ColumnKind::Text },
        ]
    }

    fn rows(&self, app: &AppId) -> Vec<Value> {
        (0..3)
            .map(|n| json!({"_id": format!("{app}-{n}"), "lag_ms": n * 10, "last_lsn": format!("{}.0", n + 7)}))
            .collect()
    }
}

#[tokio::test]
async fn a_system_collection_is_read_like_any_other_by_who_may_read_everything() {
    let world = world(short()).await;
    world.system.register("__devices", Arc::new(Devices));
    let read = world.ok("SELECT _id, lag_ms FROM __devices WHERE lag_ms > 5 ORDER BY lag_ms DESC", json!({})).await;
    let app = world.app.as_str();
    assert_eq!(
        read["items"],
        json!([{"_id": format!("{app}-2"), "lag_ms": 20}, {"_id": format!("{app}-1"), "lag_ms": 10}])
    );
    let counted = world.ok("SELECT COUNT(*) AS n, SUM(lag_ms) AS lag FROM __devices", json!({})).await;
    assert_eq!(counted["items"], json!([{"n": 3, "lag": 30}]));

    let sent =
        "SELECT `documents`.synced_up_to_local_commit_id AS sent FROM system:data_sync_info ORDER BY sent LIMIT 1";
    assert_eq!(world.ok(sent, json!({})).await["items"], json!([{"sent": 7}]));

    for statement in
        ["UPDATE __devices SET lag_ms = 0", "DELETE FROM __devices", "INSERT INTO __devices DOCUMENTS ({'_id': 1})"]
    {
        let (status, json) = world.run(statement, json!({})).await;
        assert!(status == 400 || status == 403, "{statement}: {json}");
    }
    let mut named = BTreeMap::new();
    named.insert("__devices".to_owned(), vec!["true".to_owned()]);
    let access = Access { everything: false, queries_by_collection: named };
    let permissions = Permissions { ql_version: 1, read: access, ..Permissions::default() };
    let key = world.new_key(&world.app, "some", permissions).await;
    for name in ["__devices", "system:data_sync_info"] {
        let (status, json) = world.run_as(&key, &format!("SELECT * FROM {name}"), json!({})).await;
        assert_eq!((status, &json["error"]["code"]), (403, &json!("forbidden")), "{json}");
    }
}
