//! The older endpoints.

use super::*;

impl World {
    async fn older(&self, endpoint: &str, body: Value) -> (u16, Value) {
        let path = format!("/{}/api/v4/store/{endpoint}", self.app);
        let (status, _, json) = self.ask(&path, &self.key, None, body.to_string().into_bytes()).await;
        (status.as_u16(), json)
    }

    async fn older_ok(&self, endpoint: &str, body: Value) -> Value {
        let (status, json) = self.older(endpoint, body.clone()).await;
        assert_eq!(status, 200, "{endpoint} {body}: {json}");
        json
    }
}

async fn people() -> World {
    let world = world(short()).await;
    world
        .older_ok(
            "write",
            json!({"commands": [
                {"method": "upsert", "collection": "people", "id": 1, "value": {"name": "Susan", "age": 31, "address": {"city": "Graz"}}},
                {"method": "upsert", "collection": "people", "value": {"_id": "b", "name": "Bob", "age": 20}},
                {"method": "upsert", "collection": "people", "id": {"x": 1}, "value": {"name": "Cyd", "visits": 3}, "valueTypeOverrides": {"visits": "counter"}},
            ]}),
        )
        .await;
    world
}

#[tokio::test]
async fn find_finds() {
    let world = people().await;
    let found = world
        .older_ok("find", json!({"collection": "people", "query": "age > $args.least", "args": {"least": 18}, "sort": [{"property": "age", "direction": "desc"}]}))
        .await;
    let txn = found["txnId"].as_u64().unwrap();
    assert_eq!(
        found,
        json!({"documents": [
            {"id": 1, "fields": {"name": "Susan", "age": 31, "address": {"city": "Graz"}}},
            {"id": "b", "fields": {"name": "Bob", "age": 20}},
        ], "txnId": txn})
    );
    let some = world.older_ok("find", json!({"collection": "people", "query": "true", "limit": 1, "offset": 1, "sort": [{"property": "name", "direction": "asc"}]})).await;
    assert_eq!(some["documents"][0]["id"], json!({"x": 1}));
    let typed = world
        .older_ok(
            "find",
            json!({"collection": "people", "query": "name == 'Cyd'", "serializedAs": "latestValuesAndTypes"}),
        )
        .await;
    assert_eq!(
        typed["documents"][0]["fields"],
        json!({"name": {"register": {"value": "Cyd"}}, "visits": {"counter": {"value": 3}}})
    );
    let typed = world
        .older_ok("findbyid", json!({"collection": "people", "id": 1, "serializedAs": "latestValuesAndTypes"}))
        .await;
    assert_eq!(typed["fields"]["address"], json!({"map": {"value": {"city": {"register": {"value": "Graz"}}}}}));
    for (query, plan) in [
        ("_id == 1", json!({"index_scan": {"path": ["_id"]}})),
        ("address.city == 'Graz'", json!({"index_scan": {"path": ["address", "city"]}})),
        ("true", json!({"full_scan": {}})),
    ] {
        let described = world.older_ok("find", json!({"collection": "people", "query": query, "describe": true})).await;
        assert_eq!(described["documents"], json!([{"id": "query_details", "fields": plan}]));
    }
    let (id, missing) =
        (json!({"collection": "people", "id": {"x": 1}}), json!({"collection": "people", "id": "nobody"}));
    let one = world.older_ok("findbyid", id).await;
    assert_eq!(one, json!({"id": {"x": 1}, "fields": {"name": "Cyd", "visits": 3}, "txnId": txn}));
    assert_eq!(world.older("findbyid", missing).await.0, 404);
    let counted =
        world.older_ok("count", json!({"collection": "people", "query": "starts_with(name, 'S') || age == 20"})).await;
    assert_eq!(counted, json!({"count": 2, "txnId": txn}));
}

#[tokio::test]
async fn write_is_one_transaction() {
    let world = people().await;
    let written = world
        .older_ok(
            "write",
            json!({"commands": [
                {"method": "update", "collection": "people", "query": "age >= $args.a", "args": {"a": 20}, "commands": [
                    {"method": "set", "path": "address['zip code']", "value": 8010},
                    {"method": "increment", "path": "visits", "value": 2.0},
                ]},
                {"method": "update", "collection": "people", "query": "_id == 1", "commands": [
                    {"method": "increment", "path": "visits", "value": 1},
                    {"method": "replaceWithCounter", "path": "age", "value": 32},
                    {"method": "setAttachment", "path": "photo", "value": {"id": "0".repeat(64), "len": 5, "metadata": {}}},
                ]},
                {"method": "remove", "collection": "people", "query": "contains(['b'], _id)"},
                {"method": "upsert", "collection": "people", "value": {"name": "Dan"}},
                {"method": "remove", "collection": "people", "query": "name == 'nobody'"},
            ]}),
        )
        .await;
    let txn = written["results"][0]["transactionId"].as_u64().unwrap();
    let id = written["results"][3]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        written,
        json!({"results": [
            {"method": "update", "transactionId": txn, "updated": 2, "error": 0},
            {"method": "update", "transactionId": txn, "updated": 1, "error": 0},
            {"method": "remove", "transactionId": txn, "deleted": 1},
            {"method": "upsert", "transactionId": txn, "id": id},
            {"method": "remove", "transactionId": txn, "deleted": 0},
        ]})
    );
    let one = world.older_ok("findbyid", json!({"collection": "people", "id": 1})).await;
    assert_eq!(
        one["fields"],
        json!({"name": "Susan", "age": 32, "visits": 3, "address": {"city": "Graz", "zip code": 8010}, "photo": {"id": "0".repeat(64), "len": 5, "metadata": {}}})
    );
    assert_eq!(world.older_ok("count", json!({"collection": "people", "query": "true"})).await["count"], 3);
    // All or nothing.
    let head = world.log.head(&world.app).await.unwrap();
    let (status, refused) = world
        .older(
            "write",
            json!({"commands": [
                {"method": "remove", "collection": "people", "query": "true"},
                {"method": "update", "collection": "people", "query": "true", "commands": [{"method": "increment", "path": "age", "value": "x"}]},
            ]}),
        )
        .await;
    assert_eq!(status, 400);
    assert!(refused["message"].as_str().unwrap().starts_with("command 2 of 2: "), "{refused}");
    assert_eq!(world.log.head(&world.app).await.unwrap(), head);
}

#[tokio::test]
async fn what_they_refuse() {
    let world = people().await;
    for (endpoint, body, status) in [
        ("find", json!({"collection": "people"}), 400),
        ("find", json!({"collection": "people", "query": "age ="}), 400),
        ("find", json!({"collection": "people", "query": "age == $args.x"}), 400),
        ("find", json!({"collection": "people", "query": "true", "limit": 100_001}), 400),
        (
            "find",
            json!({"collection": "people", "query": "true", "sort": [{"property": "a[0]", "direction": "asc"}]}),
            400,
        ),
        ("find", json!({"collection": "__devices", "query": "true"}), 400),
        ("find", json!({"collection": "system:collections", "query": "true"}), 400),
        ("find", json!({"collection": "", "query": "true"}), 400),
        ("findbyid", json!({"collection": "people", "id": null}), 400),
        ("count", json!({"collection": "people", "query": "true", "args": [1]}), 400),
        ("write", json!({"commands": []}), 400),
        ("write", json!({"commands": [{"method": "other"}]}), 400),
        ("write", json!({"commands": [{"method": "upsert", "collection": "people", "value": 5}]}), 400),
        (
            "write",
            json!({"commands": [{"method": "update", "collection": "people", "query": "true", "commands": []}]}),
            400,
        ),
        ("write", json!({"commands": [{"method": "upsert", "collection": "__x", "value": {}}]}), 400),
    ] {
        let (got, json) = world.older(endpoint, body.clone()).await;
        assert_eq!(got, status, "{endpoint} {body}: {json}");
        assert!(json["message"].is_string() && json["code"].is_string() && json["request_id"].is_string(), "{json}");
    }
    // The place in the query.
    let (_, json) = world.older("find", json!({"collection": "people", "query": "age == 1 &&"})).await;
    assert_eq!(json["position"], json!({"line": 1, "column": 12}));
    let path = format!("/{}/api/v4/store/find", world.app);
    let body = || json!({"collection": "people", "query": "true"}).to_string().into_bytes();
    assert_eq!(world.ask(&path, "wrong", None, body()).await.0.as_u16(), 401);
    assert_eq!(world.ask(&path, &world.key, Some("99999"), body()).await.0.as_u16(), 404);
    let reader = world.new_key(&world.app, "reader", Permissions::read_only()).await;
    let write = json!({"commands": [{"method": "remove", "collection": "people", "query": "true"}]}).to_string();
    let (status, _, json) =
        world.ask(&format!("/{}/api/v4/store/write", world.app), &reader, None, write.into_bytes()).await;
    assert_eq!((status.as_u16(), json["code"].as_str()), (403, Some("forbidden")));
}
