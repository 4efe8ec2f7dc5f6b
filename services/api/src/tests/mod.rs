//! The data API over a log in memory and an object store in memory, asked as a client would.

mod columns;
mod doors;
mod faults;
mod legacy;
mod openapi;
mod quotas;
mod statements;
mod system;
mod transactions;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use bigpeer_chassis::{Access, ApiKeySpec, Name, Permissions, finish_router};
use bigpeer_crdt::{DocId, Document, Editor, Object, ObjectMode, TransactionBuilder, Value as Crdt};
use bigpeer_log::{AppendEntry, AppendOutcome, MemoryLog};
use bigpeer_tables::{DocumentStore, TablesSettings};
use bigpeer_types::{AppId, CollectionName, Hlc, HlcClock, RandomIds, SystemClock};
use futures::{StreamExt, stream};
use http_body_util::BodyExt;
use object_store::memory::InMemory;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tower::ServiceExt;

use super::*;

#[derive(Default)]
pub(crate) struct OpenStores(Mutex<BTreeMap<AppId, Arc<DocumentStore>>>);

impl Stores for OpenStores {
    fn store(&self, app: &AppId) -> Option<Arc<DocumentStore>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(app).cloned()
    }
}

pub(crate) struct World {
    log: Arc<MemoryLog>,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) stores: Arc<OpenStores>,
    system: SystemCollections,
    pub(crate) router: Router,
    pub(crate) app: AppId,
    pub(crate) key: String,
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn short() -> ApiSettings {
    ApiSettings { transaction_wait: Duration::from_millis(50), ..ApiSettings::default() }
}

pub(crate) async fn world(settings: ApiSettings) -> World {
    world_over(settings, |log| Arc::clone(log) as _).await
}

/// A world whose time is `clock`'s, and the context that its routes are served with.
pub(crate) async fn world_at(settings: ApiSettings, clock: Arc<dyn Clock>) -> (World, ApiContext) {
    world_of(settings, clock, |log| Arc::clone(log) as _).await
}

/// A world whose writes go through what `wrap` makes of its log.
async fn world_over(settings: ApiSettings, wrap: impl FnOnce(&Arc<MemoryLog>) -> Arc<dyn TransactionLog>) -> World {
    world_of(settings, Arc::new(SystemClock), wrap).await.0
}

async fn world_of(
    settings: ApiSettings,
    clock: Arc<dyn Clock>,
    wrap: impl FnOnce(&Arc<MemoryLog>) -> Arc<dyn TransactionLog>,
) -> (World, ApiContext) {
    let log = Arc::new(MemoryLog::new());
    let catalogue = Catalogue::open(Arc::clone(&log) as _, Arc::clone(&clock), Arc::new(RandomIds)).await.unwrap();
    let stores = Arc::new(OpenStores::default());
    catalogue.create_tenant(&name("t")).await.unwrap();
    let system = SystemCollections::default();
    let context = ApiContext {
        catalogue: Arc::clone(&catalogue),
        log: wrap(&log),
        stores: Arc::clone(&stores) as _,
        clock,
        ids: Arc::new(RandomIds),
        columns: None,
        threads: Handle::current(),
        system: system.clone(),
        settings,
    };
    let router = finish_router(router(context.clone()), Arc::new(SystemClock), Arc::new(RandomIds));
    let placeholder = AppId::new("none").unwrap();
    let mut world = World { log, catalogue, stores, system, router, app: placeholder, key: String::new() };
    world.app = world.new_app("a").await;
    world.key = world.new_key(&world.app, "all", Permissions::all()).await;
    (world, context)
}

impl World {
    pub(crate) async fn new_app(&self, text: &str) -> AppId {
        let app = self.catalogue.create_app(&name("t"), &name(text)).await.unwrap().id;
        let log = Arc::clone(&self.log) as _;
        let store = DocumentStore::open(app.clone(), Arc::new(InMemory::new()), log, TablesSettings::default()).await;
        self.stores.0.lock().unwrap().insert(app.clone(), store.unwrap());
        app
    }

    pub(crate) async fn new_key(&self, app: &AppId, text: &str, permissions: Permissions) -> String {
        let spec = ApiKeySpec { permissions, expires_at_ms: None, ..Default::default() };
        let (_, secret) = self.catalogue.put_api_key(app, &name(text), spec).await.unwrap();
        secret.unwrap().expose().to_owned()
    }

    async fn ask(&self, path: &str, key: &str, txn: Option<&str>, body: Vec<u8>) -> (StatusCode, HeaderMap, Value) {
        let mut request = Request::post(path).header(header::AUTHORIZATION, format!("Bearer {key}"));
        if let Some(txn) = txn {
            request = request.header("X-DITTO-TXN-ID", txn);
        }
        let response = self.router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers, serde_json::from_slice(&bytes).unwrap())
    }

    async fn run_as(&self, key: &str, statement: &str, args: Value) -> (u16, Value) {
        let body = json!({"statement": statement, "args": args}).to_string().into_bytes();
        let (status, _, json) = self.ask(&format!("/{}/api/v5/store/execute", self.app), key, None, body).await;
        (status.as_u16(), json)
    }

    async fn run(&self, statement: &str, args: Value) -> (u16, Value) {
        self.run_as(&self.key, statement, args).await
    }

    pub(crate) async fn ok(&self, statement: &str, args: Value) -> Value {
        let (status, json) = self.run(statement, args).await;
        assert_eq!(status, 200, "{statement}: {json}");
        json
    }
}

#[tokio::test]
async fn the_envelope_is_the_documented_one() {
    let world = world(short()).await;
    let written = world
        .ok(
            "INSERT INTO cars DOCUMENTS (:d1), (:d2)",
            json!({"d1": {"_id": "123", "color": "blue"}, "d2": {"_id": {"a": 1}, "color": "red"}}),
        )
        .await;
    let id = written["transactionId"].as_u64().unwrap();
    assert_eq!(
        written,
        json!({"transactionId": id, "queryType": "mutation", "items": [], "mutatedDocumentIds": ["123", {"a": 1}],
            "error": {}, "warnings": [], "totalWarningsCount": 0})
    );
    // The writer's next read sees it, without naming the transaction.
    let read = world.ok("SELECT * FROM cars WHERE color = :color", json!({"color": "blue"})).await;
    assert_eq!(
        read,
        json!({"transactionId": id, "queryType": "select", "items": [{"_id": "123", "color": "blue"}],
            "mutatedDocumentIds": [], "error": {}, "warnings": [], "totalWarningsCount": 0})
    );
    let updated = world.ok("UPDATE cars SET color = 'green' WHERE _id = '123'", json!({})).await;
    assert_eq!(updated["mutatedDocumentIds"], json!(["123"]));
    assert!(updated["transactionId"].as_u64() > Some(id));
    let deleted = world.ok("DELETE FROM cars WHERE color = 'red'", json!({})).await;
    assert_eq!(deleted["mutatedDocumentIds"], json!([{"a": 1}]));
    let left = world.ok("SELECT * FROM cars", json!({})).await;
    assert_eq!(left["items"], json!([{"_id": "123", "color": "green"}]));
}

#[tokio::test]
async fn nothing_touched_is_no_transaction() {
    let world = world(short()).await;
    let nothing = world.ok("UPDATE cars SET color = 'green' WHERE _id = 'nobody'", json!({})).await;
    assert_eq!((&nothing["mutatedDocumentIds"], &nothing["transactionId"]), (&json!([]), &json!(0)));
    assert_eq!(world.log.head(&world.app).await.unwrap(), bigpeer_types::Lsn::ZERO);
}

#[tokio::test]
async fn a_wrong_statement_is_answered_with_its_position_and_type() {
    let world = world(short()).await;
    let (status, json) = world.run("SELECT * FROM cars WHERE color =", json!({})).await;
    assert_eq!(
        (status, &json["queryType"], &json["error"]["code"]),
        (400, &json!("unknown"), &json!("invalid_statement"))
    );
    assert_eq!(json["error"]["position"]["line"], 1);
    assert!(json["error"]["description"].as_str().unwrap().contains("line 1"), "{json}");
    assert!(json["request_id"].is_string() && json.get("transactionId").is_none());
    let (status, json) = world.run("SELECT * FROM cars WHERE color = :missing", json!({})).await;
    assert_eq!((status, &json["queryType"]), (400, &json!("select")));
    for (body, place) in [("{\"statement\": 1}", "1"), ("", "1"), ("{\n\"statement\"", "2"), ("[]", "1")] {
        let path = format!("/{}/api/v4/store/execute", world.app);
        let (status, _, json) = world.ask(&path, &world.key, None, body.as_bytes().to_vec()).await;
        assert_eq!((status.as_u16(), json["error"]["code"].as_str()), (400, Some("bad_request")), "{body}: {json}");
        assert_eq!(json["error"]["position"]["line"].to_string(), place, "{body}: {json}");
    }
    let (status, json) = world.run("SELECT * FROM cars", json!([1])).await;
    assert_eq!((status, json["error"]["code"].as_str()), (400, Some("bad_request")));
    let (status, _) = world.run("EVICT FROM cars WHERE _id = 1", json!({})).await;
    assert_eq!(status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_racing_inserts_exactly_one_wins() {
    let world = Arc::new(world(short()).await);
    for round in 0..5 {
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..8 {
            let world = Arc::clone(&world);
            tasks.spawn(async move {
                let document = json!({"d": {"_id": round, "writer": writer}});
                (writer, world.run("INSERT INTO races DOCUMENTS (:d)", document).await)
            });
        }
        let (won, lost): (Vec<_>, Vec<_>) =
            tasks.join_all().await.into_iter().partition(|(_, (status, _))| *status == 200);
        assert_eq!((won.len(), lost.len()), (1, 7));
        for (_, (status, json)) in &lost {
            assert_eq!(*status, 400);
            assert!(json["error"]["description"].as_str().unwrap().contains("Identifier conflict"), "{json}");
        }
        let read = world.ok("SELECT writer FROM races WHERE _id = :id", json!({"id": round})).await;
        assert_eq!(read["items"], json!([{"writer": won[0].0}]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_increment_is_lost_among_concurrent_ones() {
    let world = Arc::new(world(short()).await);
    world.ok("INSERT INTO counts DOCUMENTS ({'_id': 1}), ({'_id': 2})", json!({})).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..60_u64 {
        let world = Arc::clone(&world);
        tasks.spawn(async move {
            let id = n % 2 + 1;
            let answer = world.ok("UPDATE counts APPLY n INCREMENT BY 1 WHERE _id = :id", json!({"id": id})).await;
            (id, answer["transactionId"].as_u64().unwrap())
        });
    }
    // Transactions of one append may share an id, but those of one document follow each other.
    let ids: std::collections::BTreeSet<(u64, u64)> = tasks.join_all().await.into_iter().collect();
    assert_eq!(ids.len(), 60);
    let read = world.ok("SELECT _id, n FROM counts ORDER BY _id", json!({})).await;
    assert_eq!(read["items"], json!([{"_id": 1, "n": 30}, {"_id": 2, "n": 30}]));
}

#[tokio::test]
async fn an_insert_that_fails_sees_what_a_peer_wrote_meanwhile() {
    // A peer's write that this process's store has not applied yet: only the log can know.
    let world = world(short()).await;
    world.ok("INSERT INTO cars DOCUMENTS ({'_id': 'other'})", json!({})).await;
    let collection = CollectionName::new("cars").unwrap();
    let id = DocId::from_value(&Crdt::from_json(json!("x")).unwrap()).unwrap();
    let site = world.catalogue.allocate_site(&world.app).await.unwrap();
    let mut clock = HlcClock::new(site, Hlc::ZERO, Arc::new(SystemClock));
    let empty = Document::new();
    let mut editor = Editor::new(&empty, &mut clock);
    editor.insert(&Object::new(), ObjectMode::Map).unwrap();
    let mut builder = TransactionBuilder::new();
    builder.change(&collection, &id, &editor.finish().unwrap());
    let entry = AppendEntry {
        site,
        seq: 1,
        writes: vec![bigpeer_chassis::conflict_key(&collection, id.as_key())],
        unchanged: Vec::new(),
        payload: builder.finish().unwrap(),
    };
    let appended = world.log.append(&world.app, vec![entry]).await.unwrap();
    assert!(matches!(appended[0], AppendOutcome::Applied(_)));
    let (status, json) = world.run("INSERT INTO cars DOCUMENTS ({'_id': 'x'})", json!({})).await;
    assert_eq!(status, 400, "{json}");
    let nothing = world.ok("INSERT INTO cars DOCUMENTS ({'_id': 'x'}) ON ID CONFLICT DO NOTHING", json!({})).await;
    assert_eq!(nothing["error"], json!({}));
}

#[tokio::test]
async fn a_named_transaction_is_waited_for_and_answered_404_when_it_does_not_come() {
    let world = world(short()).await;
    let written = world.ok("INSERT INTO cars DOCUMENTS ({'_id': 1})", json!({})).await;
    let id = written["transactionId"].as_u64().unwrap();
    let path = format!("/{}/api/v4/store/execute", world.app);
    let body = || json!({"statement": "SELECT * FROM cars"}).to_string().into_bytes();
    let (status, headers, json) = world.ask(&path, &world.key, Some(&id.to_string()), body()).await;
    assert_eq!((status.as_u16(), json["items"].as_array().unwrap().len()), (200, 1));
    assert_eq!(headers["x-ditto-txn-id"], id.to_string());
    let (status, _, json) = world.ask(&path, &world.key, Some("9223372036854775807"), body()).await;
    assert_eq!((status.as_u16(), &json["error"]["code"], &json["items"]), (404, &json!("not_found"), &json!([])));
    for bad in ["", "x", "-1", "1.5"] {
        let (status, _, _) = world.ask(&path, &world.key, Some(bad), body()).await;
        assert_eq!(status.as_u16(), 400, "{bad}");
    }
}

#[tokio::test]
async fn keys_open_their_app_only_and_all_refusals_look_alike() {
    let world = world(short()).await;
    world.ok("INSERT INTO secrets DOCUMENTS ({'_id': 1, 'word': 'swordfish'})", json!({})).await;
    let other = world.new_app("b").await;
    let body = || json!({"statement": "SELECT * FROM secrets"}).to_string().into_bytes();
    let mut answers = Vec::new();
    for (app, key) in [
        (world.app.as_str(), "wrong"),
        (world.app.as_str(), ""),
        (other.as_str(), world.key.as_str()),
        ("unknown", world.key.as_str()),
        ("NOT%20AN%2FAPP", world.key.as_str()),
    ] {
        let (status, _, mut json) = world.ask(&format!("/{app}/api/v4/store/execute"), key, None, body()).await;
        assert_eq!(status.as_u16(), 401, "{app}");
        json["request_id"] = Value::Null;
        answers.push(json);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!((&answers[0]["queryType"], &answers[0]["error"]["code"]), (&json!("unknown"), &json!("unauthorized")));
    let key = world.new_key(&other, "all", Permissions::all()).await;
    let (status, _, json) = world.ask(&format!("/{other}/api/v4/store/execute"), &key, None, body()).await;
    assert_eq!((status.as_u16(), &json["items"]), (200, &json!([])));
}

#[tokio::test]
async fn permissions_hold_for_reading_and_writing() {
    let world = world(short()).await;
    world
        .ok("INSERT INTO cars DOCUMENTS ({'_id': 1, 'lot': 'a', 'n': 1}), ({'_id': 2, 'lot': 'b', 'n': 2})", json!({}))
        .await;
    let only_a = || Access {
        everything: false,
        queries_by_collection: BTreeMap::from([("cars".to_owned(), vec!["lot = 'a'".to_owned()])]),
    };
    let reader = world.new_key(&world.app, "reader", Permissions::read_only()).await;
    let row = Permissions { ql_version: 1, remote_query: false, read: only_a(), write: only_a() };
    let row = world.new_key(&world.app, "row", row).await;
    let none = world.new_key(&world.app, "none", Permissions::default()).await;

    assert_eq!(world.run_as(&reader, "SELECT * FROM cars", json!({})).await.1["items"].as_array().unwrap().len(), 2);
    assert_eq!(world.run_as(&reader, "DELETE FROM cars", json!({})).await.0, 403);
    assert_eq!(world.run_as(&none, "SELECT * FROM cars", json!({})).await.0, 403);
    let seen = world.run_as(&row, "SELECT _id FROM cars", json!({})).await.1;
    assert_eq!(seen["items"], json!([{"_id": 1}]));
    let seen = world.run_as(&row, "SELECT _id FROM cars WHERE _id = 2", json!({})).await.1;
    assert_eq!(seen["items"], json!([]));
    assert_eq!(world.run_as(&row, "SELECT * FROM trucks", json!({})).await.0, 403);
    // What it may not see it does not change; and it can neither give away nor take.
    let (status, changed) = world.run_as(&row, "UPDATE cars SET n = 9", json!({})).await;
    assert_eq!((status, &changed["mutatedDocumentIds"]), (200, &json!([1])));
    assert_eq!(world.run_as(&row, "UPDATE cars SET lot = 'b' WHERE _id = 1", json!({})).await.0, 403);
    let takes = "INSERT INTO cars DOCUMENTS ({'_id': 2, 'lot': 'a'}) ON ID CONFLICT DO UPDATE";
    assert_eq!(world.run_as(&row, takes, json!({})).await.0, 403);
    assert_eq!(world.run_as(&row, "INSERT INTO cars DOCUMENTS ({'_id': 3, 'lot': 'a'})", json!({})).await.0, 200);
    let all = world.ok("SELECT _id, n FROM cars ORDER BY _id", json!({})).await;
    assert_eq!(all["items"], json!([{"_id": 1, "n": 9}, {"_id": 2, "n": 2}, {"_id": 3}]));
    let (status, json) = world.run("INSERT INTO `__devices` DOCUMENTS ({'_id': 1})", json!({})).await;
    assert_eq!(status, 400, "{json}");
}

#[tokio::test]
async fn a_rule_may_name_fields_by_their_collection() {
    let world = world(short()).await;
    world.ok("INSERT INTO cars DOCUMENTS ({'_id': 1}), ({'_id': 2, 'hidden': true})", json!({})).await;
    let read = Access {
        everything: false,
        queries_by_collection: BTreeMap::from([("cars".to_owned(), vec!["cars.hidden IS MISSING".to_owned()])]),
    };
    let some = Permissions { ql_version: 1, read, ..Permissions::default() };
    let some = world.new_key(&world.app, "some", some).await;
    let seen = world.run_as(&some, "SELECT _id FROM cars", json!({})).await.1;
    assert_eq!(seen["items"], json!([{"_id": 1}]));
}

#[tokio::test]
async fn limits_are_answered_clearly() {
    let world = world(ApiSettings { max_answer_bytes: 2000, ..short() }).await;
    let long = format!("SELECT * FROM cars WHERE a = '{}'", "x".repeat(300_000));
    let (status, json) = world.run(&long, json!({})).await;
    assert_eq!((status, json["error"]["code"].as_str()), (413, Some("too_large")));
    let body = vec![b' '; bigpeer_types::limits::MAX_REQUEST_BYTES + 1];
    let path = format!("/{}/api/v4/store/execute", world.app);
    assert_eq!(world.ask(&path, &world.key, None, body).await.0.as_u16(), 413);
    let text = "y".repeat(1500);
    for id in 0..2 {
        world.ok("INSERT INTO big DOCUMENTS (:d)", json!({"d": {"_id": id, "text": text}})).await;
    }
    assert_eq!(world.run("SELECT * FROM big LIMIT 1", json!({})).await.0, 200);
    let (status, json) = world.run("SELECT * FROM big", json!({})).await;
    assert_eq!((status, json["error"]["code"].as_str()), (413, Some("too_large")));
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_answered_408() {
    let world = world(ApiSettings { statement_timeout: Duration::ZERO, ..short() }).await;
    let (status, json) = world.run("SELECT * FROM cars", json!({})).await;
    // A statement of no time at all may still be done at once.
    assert!(status == 408 || status == 200, "{json}");
    let path = format!("/{}/api/v4/store/execute", world.app);
    let body = json!({"statement": "SELECT * FROM cars"}).to_string().into_bytes();
    let (status, _, json) = world.ask(&path, &world.key, Some("9999"), body).await;
    assert_eq!((status.as_u16(), json["error"]["code"].as_str()), (408, Some("timeout")));
}

#[tokio::test]
async fn a_body_that_stops_is_answered_408_as_each_door_answers() {
    let world = world(short()).await;
    tokio::time::pause();
    for (path, message) in
        [("v5/store/execute", "/error/message"), ("v4/store/count", "/message"), ("v1/transaction", "/error/message")]
    {
        let begun = stream::iter([Ok::<_, Infallible>(Bytes::from("{\"statement\""))]).chain(stream::pending());
        let request = Request::post(format!("/{}/api/{path}", world.app));
        let request = request.header(header::AUTHORIZATION, format!("Bearer {}", world.key));
        let response = world.router.clone().oneshot(request.body(Body::from_stream(begun)).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        assert_eq!((parts.status.as_u16(), &parts.headers["connection"]), (408, &HeaderValue::from_static("close")));
        let json: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
        let said = json.pointer(message).and_then(Value::as_str).unwrap_or_else(|| panic!("{path}: {json}"));
        assert!(said.contains("came too slowly") && said.contains(path), "{said}");
    }
}

#[tokio::test]
async fn strict_mode_is_the_older_version() {
    let world = world(short()).await;
    let write = json!({"statement": "INSERT INTO c DOCUMENTS ({'_id': 1, 'o': {'a': 1}})"}).to_string().into_bytes();
    let path = format!("/{}/api/v4/store/execute", world.app);
    assert_eq!(world.ask(&path, &world.key, None, write).await.0.as_u16(), 200);
    let read = world.ok("SELECT o FROM c", json!({})).await;
    assert_eq!(read["items"], json!([{"o": {"a": 1}}]));
}

#[tokio::test]
async fn who_finds_no_room_is_told_to_come_back() {
    for (max_waiting_statements, turn_wait) in [(0, Duration::from_secs(60)), (1, Duration::from_millis(1))] {
        let settings = ApiSettings { max_concurrent_statements: 0, max_waiting_statements, turn_wait, ..short() };
        let world = world(settings).await;
        let path = format!("/{}/api/v4/store/execute", world.app);
        let body = json!({"statement": "SELECT * FROM cars"}).to_string().into_bytes();
        let (status, headers, json) = world.ask(&path, &world.key, None, body).await;
        assert_eq!((status.as_u16(), &json["error"]["code"]), (429, &json!("too_many_requests")), "{json}");
        assert_eq!(headers["retry-after"], "1");
    }
}

#[tokio::test]
async fn rules_of_the_older_language_hold() {
    let world = world(short()).await;
    let cars = json!([{"_id": 1, "lot": "a", "n": 1}, {"_id": 2, "lot": "b", "n": 2}, {"_id": 3, "lot": "a", "n": 9}]);
    world.ok("INSERT INTO cars DOCUMENTS (:cars)", json!({"cars": cars})).await;
    let only = |rule: &str| {
        let queries = [("cars".to_owned(), vec![rule.to_owned()])].into();
        Permissions {
            ql_version: 0,
            read: Access { everything: false, queries_by_collection: queries },
            ..Permissions::default()
        }
    };
    let key = world.new_key(&world.app, "old", only("lot == 'a' && !(n > 5)")).await;
    let seen = world.run_as(&key, "SELECT _id FROM cars", json!({})).await.1;
    assert_eq!(seen["items"], json!([{"_id": 1}]));
    let key = world.new_key(&world.app, "broken", only("lot = 'a' AND")).await;
    assert_eq!(world.run_as(&key, "SELECT _id FROM cars", json!({})).await.1["items"], json!([]));
}
