//! Statements over more than one collection, and over what is not stored.

use super::*;

#[tokio::test]
async fn joins_and_inserts_of_selects() {
    let world = world(short()).await;
    world
        .ok(
            "INSERT INTO makers DOCUMENTS ({'_id': 'Ford', 'country': 'US'}), ({'_id': 'Opel', 'country': 'DE'})",
            json!({}),
        )
        .await;
    world
        .ok(
            "INSERT INTO cars DOCUMENTS ({'_id': 1, 'make': 'Ford'}), ({'_id': 2, 'make': 'Opel'}), ({'_id': 3})",
            json!({}),
        )
        .await;
    let joined = "SELECT c._id, m.country FROM cars c LEFT JOIN makers m ON c.make = m._id ORDER BY c._id";
    let rows = world.ok(joined, json!({})).await;
    assert_eq!(rows["items"], json!([{"_id": 1, "country": "US"}, {"_id": 2, "country": "DE"}, {"_id": 3}]));
    let inserted = world
        .ok(
            "INSERT INTO exports SELECT c._id, m.country FROM cars c JOIN makers m ON c.make = m._id RETURNING _id",
            json!({}),
        )
        .await;
    assert_eq!(
        (&inserted["mutatedDocumentIds"], &inserted["items"]),
        (&json!([1, 2]), &json!([{"_id": 1}, {"_id": 2}]))
    );
    let again = world
        .run("INSERT INTO exports SELECT c._id, m.country FROM cars c JOIN makers m ON c.make = m._id", json!({}))
        .await;
    assert_eq!(again.0, 400, "{}", again.1);
}

#[tokio::test]
async fn a_statement_knows_its_moment() {
    let world = world(short()).await;
    world.ok("INSERT INTO c DOCUMENTS ({'_id': 1, 'at': clock()})", json!({})).await;
    let row = world.ok("SELECT at <= clock() AS past, request_info() AS r FROM c", json!({})).await["items"][0].take();
    assert_eq!((&row["past"], &row["r"]["app_id"]), (&json!(true), &json!(world.app.as_str())));
    assert!(row["r"]["request_id"].is_string() && row["r"]["start_time"].is_number(), "{row}");
}

#[tokio::test]
async fn system_collections() {
    let world = world(short()).await;
    world.ok("INSERT INTO cars DOCUMENTS ({'_id': 1, 'lot': 'a'}), ({'_id': 2, 'lot': 'b'})", json!({})).await;
    world.ok("INSERT INTO news DOCUMENTS ({'_id': 1})", json!({})).await;
    world.ok("DELETE FROM cars WHERE _id = 2", json!({})).await;
    assert_eq!(world.ok("SELECT 1 + 1 AS two FROM system:dual", json!({})).await["items"], json!([{"two": 2}]));
    let rows = world.ok("SELECT name, count FROM system:collections ORDER BY name", json!({})).await;
    assert_eq!(rows["items"], json!([{"name": "cars", "count": 1}, {"name": "news", "count": 1}]));
    assert_eq!(world.ok("SELECT * FROM system:indexes", json!({})).await["items"], json!([]));
    let active = world.ok("SELECT text, state FROM system:active_requests", json!({})).await;
    assert_eq!(
        active["items"],
        json!([{"text": "SELECT text, state FROM system:active_requests", "state": "running"}])
    );
    let joined = "SELECT n.name FROM system:collections n JOIN cars c ON c.lot = 'a' WHERE n.name = 'news'";
    assert_eq!(world.ok(joined, json!({})).await["items"], json!([{"name": "news"}]));
    assert_eq!(world.run("SELECT * FROM system:nothing", json!({})).await.0, 400);
    assert_eq!(world.run("DELETE FROM system:collections", json!({})).await.0, 400);
    // Another key sees the collections that it may read, and counts of those that it may read whole.
    let access = Access {
        everything: false,
        queries_by_collection: BTreeMap::from([
            ("cars".to_owned(), vec!["lot = 'a'".to_owned()]),
            ("system:collections".to_owned(), vec!["true".to_owned()]),
        ]),
    };
    let permissions = Permissions { ql_version: 1, remote_query: false, read: access, write: Access::default() };
    let key = world.new_key(&world.app, "few", permissions).await;
    let seen = world.run_as(&key, "SELECT name, count FROM system:collections", json!({})).await.1;
    assert_eq!(seen["items"], json!([{"name": "cars"}]));
    assert_eq!(world.run_as(&key, "SELECT * FROM system:active_requests", json!({})).await.0, 403);
}

#[tokio::test]
async fn cbor_is_answered_and_taken() {
    let world = world(short()).await;
    let path = format!("/{}/api/v5/store/execute", world.app);
    let mut body = Vec::new();
    let bytes = ciborium::Value::Bytes(vec![1, 2, 255]);
    let text = |text: &str| ciborium::Value::Text(text.to_owned());
    let document = ciborium::Value::Map(vec![(text("_id"), text("a")), (text("b"), bytes.clone())]);
    let request = ciborium::Value::Map(vec![
        (text("statement"), text("INSERT INTO c DOCUMENTS (:d)")),
        (text("args"), ciborium::Value::Map(vec![(text("d"), document)])),
    ]);
    ciborium::into_writer(&request, &mut body).unwrap();
    let ask = |body: Vec<u8>, content: &'static str, accept: &'static str| {
        let request = Request::post(&path)
            .header(header::AUTHORIZATION, format!("Bearer {}", world.key))
            .header(header::CONTENT_TYPE, content)
            .header(header::ACCEPT, accept)
            .body(Body::from(body));
        let router = world.router.clone();
        async move {
            let response = router.oneshot(request.unwrap()).await.unwrap();
            let (parts, body) = response.into_parts();
            (parts.status.as_u16(), parts.headers, body.collect().await.unwrap().to_bytes())
        }
    };
    let (status, headers, answer) = ask(body.clone(), "application/cbor", "*/*").await;
    assert_eq!((status, headers["content-type"].to_str().unwrap()), (200, "application/json"), "{answer:?}");
    let select = json!({"statement": "SELECT b FROM c"}).to_string().into_bytes();
    let (status, headers, answer) = ask(select.clone(), "application/json", "application/cbor, */*;q=0.1").await;
    assert_eq!((status, headers["content-type"].to_str().unwrap()), (200, "application/cbor"));
    let answer: ciborium::Value = ciborium::from_reader(answer.as_ref()).unwrap();
    let items = answer.as_map().unwrap().iter().find(|(key, _)| key.as_text() == Some("items")).unwrap().1.clone();
    assert_eq!(items.as_array().unwrap()[0].as_map().unwrap()[0].1, bytes);
    assert_eq!(world.ok("SELECT b FROM c", json!({})).await["items"], json!([{"b": {"$binary": "AQL/"}}]));
    // What is no CBOR, or no request, is refused, in JSON.
    for broken in [vec![], vec![0xff], vec![0x81; 10_000], b"{}".to_vec(), body[..body.len() - 1].to_vec()] {
        let (status, headers, _) = ask(broken, "application/cbor", "application/cbor").await;
        assert_eq!((status, headers["content-type"].to_str().unwrap()), (400, "application/json"));
    }
}
