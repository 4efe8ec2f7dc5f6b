//! Every door of the binary against every kind of caller: what each sees and may write, through the listeners that people
//! reach. Which doors there are stands in `doors/list.txt`, which a test of the binary holds to what is served; here each needs a
//! row. (The admin API has matrices of its own in `services/control` and `services/bigpeer`, with a row for each route.)

mod others;

use std::collections::BTreeSet;
use std::path::Path;

use bigpeer_e2e::{Server, free_port, python};
use bigpeer_peer::{ConnectSettings, Params, Peer, PeerError, PeerSettings, WriteStatus};
use bigpeer_types::AppId;
use serde_json::{Value, json};

const CLIENT: &str = "tests/e2e/tests/e2e/doors_client.py";

/// Doors that show documents.
const READ: [&str; 9] = [
    "GET /{app}/changes",
    "GET /{app}/sql",
    "POST /{app}/api/v1/transaction",
    "POST /{app}/api/v4/store/count",
    "POST /{app}/api/v4/store/execute",
    "POST /{app}/api/v4/store/find",
    "POST /{app}/api/v4/store/findbyid",
    "POST /{app}/api/v5/store/execute",
    "POST /{app}/sql",
];
/// Doors that take documents.
const WRITTEN: [&str; 4] = [
    "POST /{app}/api/v4/store/execute",
    "POST /{app}/api/v5/store/execute",
    "POST /{app}/api/v1/transaction",
    "POST /{app}/api/v4/store/write",
];
/// Doors of peers.
const PEERS: [&str; 2] = ["GET /{app}/sync", "POST /{app}/auth/login"];
/// Listeners: that of all routes, and those that SQL's clients ask.
const LISTENERS: [&str; 3] = ["--listen", "--listen-flight", "--listen-pg"];

/// An app, and ports of the doors for SQL.
struct World {
    server: Server,
    app: String,
    pg: String,
    flight: String,
}

/// Someone who comes to the doors.
struct Caller {
    name: &'static str,
    credential: String,
    /// The names of the orders that they see; none: no door lets them in.
    sees: Option<&'static [&'static str]>,
    /// The stores whose orders they may write.
    writes: &'static [&'static str],
    devices: bool,
}

impl World {
    async fn put(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.server.put_as(&self.server.credentials().admin_token, path, body).await;
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    async fn key(&self, app: &str, name: &str, mut body: Value) -> String {
        if body.get("permissions").is_none() {
            body["permissions"] = json!({"read": {"everything": true}, "write": {"everything": true}});
        }
        let answer = self.put(&format!("/admin/v1/apps/{app}/api-keys/{name}"), &body).await;
        answer["key"].as_str().expect("a new key").to_owned()
    }

    async fn login(&self, app: &str, key: &str) -> (u16, Value) {
        self.server.post_as(key, &format!("/{app}/auth/login"), &json!({})).await
    }

    async fn get(&self, path: &str, credential: &str) -> (u16, String) {
        let request = reqwest::Client::new().get(format!("{}{path}", self.server.url()));
        let request = if credential.is_empty() { request } else { request.bearer_auth(credential) };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// What a caller gets at each of [`READ`].
    async fn http(&self, credential: &str) -> Vec<(&'static str, u16, String)> {
        let statement = json!({"statement": "SELECT * FROM orders"});
        let post = |door: &'static str, body: Value| async move {
            let (status, answer) = self.server.post_as(credential, &self.path(door), &body).await;
            (door, status, answer.to_string())
        };
        let get = |door: &'static str, query: &'static str| async move {
            let (status, answer) = self.get(&format!("{}{query}", self.path(door)), credential).await;
            (door, status, answer)
        };
        // Of each order on its own: what was let in once was let in, and it shows those that it says are there.
        let each = |door: &'static str, body: fn(i64, &str) -> Value, found: fn(&Value) -> bool| async move {
            let (mut best, mut shown) = (u16::MAX, Vec::new());
            for (id, name) in [(1, "alpha"), (2, "beta")] {
                let (status, answer) = self.server.post_as(credential, &self.path(door), &body(id, name)).await;
                best = best.min(status);
                shown.extend((status == 200 && found(&answer)).then_some(name));
            }
            (door, best, shown.join(" "))
        };
        vec![
            post("POST /{app}/api/v4/store/execute", statement.clone()).await,
            post("POST /{app}/api/v5/store/execute", statement.clone()).await,
            post("POST /{app}/api/v4/store/find", json!({"collection": "orders", "query": "true"})).await,
            each(
                "POST /{app}/api/v4/store/findbyid",
                |id, _| json!({"collection": "orders", "id": id}),
                |answer| answer["fields"]["name"].is_string(),
            )
            .await,
            each(
                "POST /{app}/api/v4/store/count",
                |_, name| json!({"collection": "orders", "query": format!("name == '{name}'")}),
                |answer| answer["count"] == 1,
            )
            .await,
            post("POST /{app}/api/v1/transaction", json!({"statements": [statement]})).await,
            post("POST /{app}/sql", json!({"query": "SELECT * FROM orders"})).await,
            get("GET /{app}/sql", "?q=SELECT%20*%20FROM%20orders").await,
            get("GET /{app}/changes", "?snapshot=true&follow=false").await,
            get("GET /{app}/changes", "?snapshot=true&follow=false&collections=orders").await,
        ]
    }

    /// The path of a door, such as `GET /{app}/sql`.
    fn path(&self, door: &str) -> String {
        door.split_once(' ').expect("method and path").1.replace("{app}", &self.app)
    }
}

/// Which of the orders an answer shows.
fn shown(answer: &str) -> Vec<&'static str> {
    ["alpha", "beta"].into_iter().filter(|name| answer.contains(name)).collect()
}

async fn world(dir: &Path) -> World {
    let (pg, flight) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let doors = ["--listen-pg", &pg, "--listen-flight", &flight];
    let server = Server::start_with(&dir.join("data"), &doors).await;
    let orders = json!({"a": {"_id": 1, "store": "a", "name": "alpha"}, "b": {"_id": 2, "store": "b", "name": "beta"}});
    server.dql("INSERT INTO orders DOCUMENTS (:a), (:b)", orders).await;
    let app = server.credentials().app;
    World { server, app, pg, flight }
}

async fn callers(world: &World) -> Vec<Caller> {
    let app = world.app.as_str();
    world.put("/admin/v1/tenants/stranger", &json!({})).await;
    let foreign = world.put("/admin/v1/tenants/stranger/apps/shop", &json!({})).await;
    let foreign = foreign["id"].as_str().unwrap().to_owned();
    let everything = json!({"everything": true});
    let store = json!({"queriesByCollection": {"orders": ["store = 'a'"]}});
    let rules = |read: &Value, write: &Value| json!({"permissions": {"qlVersion": 1, "read": read, "write": write}});
    let nothing = json!({});
    let row_rule = world.key(app, "row-rule", rules(&store, &store)).await;
    let (_, session) = world.login(app, &row_rule).await;
    let token = session["access_token"].as_str().unwrap().to_owned();
    let gone = world.key(app, "gone", json!({})).await;
    let (_, of_gone) = world.login(app, &gone).await;
    let revoked = world.key(app, "revoked", json!({})).await;
    let (_, of_revoked) = world.login(app, &revoked).await;
    let admin = world.server.credentials().admin_token;
    let path = format!("/admin/v1/apps/{app}/revocations");
    assert_eq!(world.server.post_as(&admin, &path, &json!({"key": "revoked"})).await.0, 201);
    let path = format!("{}/admin/v1/apps/{app}/api-keys/gone", world.server.url());
    let deleted = reqwest::Client::new().delete(path).bearer_auth(&admin).send().await.unwrap();
    assert_eq!(deleted.status().as_u16(), 204);
    let own = |session: &Value| session["access_token"].as_str().unwrap().to_owned();
    let outside = |name, credential| Caller { name, credential, sees: None, writes: &[], devices: false };
    let inside =
        |name, credential, sees, writes, devices| Caller { name, credential, sees: Some(sees), writes, devices };
    vec![
        outside("nobody", String::new()),
        outside("a wrong key", "bpk_0123456789_wrong".to_owned()),
        outside("a wrong token", format!("{token}A")),
        outside("a key that has ended", world.key(app, "ended", json!({"expires_at": 1})).await),
        outside("a key that is gone", gone),
        outside("a token of a key that is gone", own(&of_gone)),
        outside("a revoked token", own(&of_revoked)),
        outside("a key of another tenant's app", world.key(&foreign, "all", json!({})).await),
        outside("an administrator", admin),
        inside("everything", world.key(app, "everything", json!({})).await, &["alpha", "beta"], &["a", "b"], true),
        inside(
            "read-only",
            world.key(app, "reader", rules(&everything, &nothing)).await,
            &["alpha", "beta"],
            &[],
            true,
        ),
        inside("write-only", world.key(app, "writer", rules(&nothing, &everything)).await, &[], &["a", "b"], false),
        inside("row rule", row_rule, &["alpha"], &["a"], false),
        inside("a token of the row rule", token, &["alpha"], &["a"], false),
        inside("nothing", world.key(app, "nothing", rules(&nothing, &nothing)).await, &[], &[], false),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_door_that_is_read_shows_each_caller_what_they_may_see() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    let callers = callers(&world).await;
    for caller in &callers {
        let answers = world.http(&caller.credential).await;
        assert_eq!(answers.iter().map(|(door, ..)| *door).collect::<BTreeSet<_>>(), BTreeSet::from(READ));
        for (door, status, answer) in answers {
            let at = format!("{} at {door}: {status} {answer}", caller.name);
            match caller.sees {
                None => assert!(status == 401 && shown(&answer).is_empty(), "{at}"),
                Some(sees) => {
                    assert_eq!(shown(&answer), sees, "{at}");
                    let expected: &[u16] = if sees.is_empty() { &[200, 400, 403, 404] } else { &[200] };
                    assert!(expected.contains(&status), "{at}");
                }
            }
        }
        let devices = json!({"statement": "SELECT * FROM __devices"});
        let path = format!("/{}/api/v5/store/execute", world.app);
        let (status, answer) = world.server.post_as(&caller.credential, &path, &devices).await;
        let expected = if caller.devices {
            200
        } else if caller.sees.is_some() {
            403
        } else {
            401
        };
        assert_eq!(status, expected, "{} at the devices: {answer}", caller.name);
        let path = format!("/admin/v1/apps/{}/api-keys", world.app);
        let (status, answer) = world.get(&path, &caller.credential).await;
        let expected: &[u16] = if caller.name == "an administrator" { &[200] } else { &[401, 403, 404] };
        assert!(expected.contains(&status), "{} at the keys: {status} {answer}", caller.name);
    }
    // PostgreSQL's protocol and Arrow Flight, by the clients that people have.
    let credentials: Vec<&str> = callers.iter().map(|caller| caller.credential.as_str()).collect();
    let credentials = serde_json::to_string(&credentials).unwrap();
    let answers = python(CLIENT, &[&world.pg, &world.flight, &world.app, &credentials]);
    let answers: Vec<Value> = serde_json::from_str(&answers).unwrap();
    assert_eq!(answers.len(), callers.len());
    for (caller, answer) in callers.iter().zip(answers) {
        for door in ["pg", "flight"] {
            let (status, text) = (answer[door]["status"].as_str().unwrap(), answer[door]["text"].to_string());
            let at = format!("{} at {door}: {status} {text}", caller.name);
            assert_eq!(shown(&text), caller.sees.unwrap_or_default(), "{at}");
            let expected: &[&str] = match caller.sees {
                None => &["not let in"],
                // Who may read nothing is told so at the door, or by its first query.
                Some([]) => &["not let in", "answered", "refused"],
                Some(_) => &["answered"],
            };
            assert!(expected.contains(&status), "{at}");
        }
    }
}

/// The paths of a scope's doors begin so, behind the app.
const SCOPES: [(&str, &[&str]); 4] =
    [("data", &["/api/"]), ("sql", &["/sql"]), ("changes", &["/changes"]), ("sync", &[])];

#[tokio::test(flavor = "multi_thread")]
async fn a_key_opens_the_doors_of_its_scopes_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    let mut credentials = Vec::new();
    for (scope, paths) in SCOPES {
        let key = world.key(&world.app, scope, json!({"scopes": [scope]})).await;
        for (door, status, answer) in world.http(&key).await {
            let opens =
                paths.iter().any(|path| door.split_once("{app}").is_some_and(|(_, rest)| rest.starts_with(path)));
            assert_eq!(status, if opens { 200 } else { 403 }, "{scope} at {door}: {answer}");
        }
        let (status, answer) = world.login(&world.app, &key).await;
        assert_eq!(status, if scope == "sync" { 200 } else { 403 }, "{scope} at login: {answer}");
        let path = format!("/admin/v1/apps/{}/api-keys", world.app);
        assert_eq!(world.get(&path, &key).await.0, 401, "{scope} at the keys");
        credentials.push(key);
    }
    let admin = world.key(&world.app, "admin", json!({"scopes": ["admin"]})).await;
    assert!(world.http(&admin).await.iter().all(|(_, status, _)| *status == 403));
    assert_eq!(world.get(&format!("/admin/v1/apps/{}/api-keys", world.app), &admin).await.0, 200);
    credentials.push(admin);
    let credentials = serde_json::to_string(&credentials).unwrap();
    let answers = python(CLIENT, &[&world.pg, &world.flight, &world.app, &credentials]);
    let answers: Vec<Value> = serde_json::from_str(&answers).unwrap();
    for (answer, scope) in answers.iter().zip(["data", "sql", "changes", "sync", "admin"]) {
        for door in ["pg", "flight"] {
            assert_eq!(answer[door]["status"] == "answered", scope == "sql", "{scope} at {door}: {answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_app_is_unknown_at_every_door() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    let key = world.key(&world.app, "k", json!({})).await;
    assert!(world.http(&key).await.iter().all(|(_, status, _)| *status == 200));
    let path = "/admin/v1/tenants/dev/apps/dev";
    let admin = world.server.credentials().admin_token;
    let delete = || async {
        let request = reqwest::Client::new().delete(format!("{}{path}", world.server.url())).bearer_auth(&admin);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(delete().await, 409);
    world.put(path, &json!({"deletion_protection": false})).await;
    assert_eq!(delete().await, 204);
    for (door, status, answer) in world.http(&key).await {
        assert_eq!(status, 401, "{door}: {answer}");
    }
    assert_eq!(world.login(&world.app, &key).await.0, 401);
    let credentials = serde_json::to_string(&[&key]).unwrap();
    let answers = python(CLIENT, &[&world.pg, &world.flight, &world.app, &credentials]);
    let answers: Vec<Value> = serde_json::from_str(&answers).unwrap();
    assert_eq!(
        (&answers[0]["pg"]["status"], &answers[0]["flight"]["status"]),
        (&json!("not let in"), &json!("not let in"))
    );
    // The others go on, and the server is ready.
    let other = world.put("/admin/v1/tenants/dev/apps/other", &json!({})).await;
    assert!(other["id"].is_string());
    assert_eq!(world.get("/readyz", "").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_door_that_is_written_takes_from_each_caller_what_they_may_write() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    let mut expected = 2;
    for (at, caller) in callers(&world).await.iter().enumerate() {
        for (which, store) in ["a", "b"].into_iter().enumerate() {
            let may = caller.writes.contains(&store);
            let id = 1000 + at * 100 + which * 10;
            let order = |number: usize| json!({"_id": id + number, "store": store});
            let insert =
                |number: usize| json!({"statement": "INSERT INTO orders DOCUMENTS (:d)", "args": {"d": order(number)}});
            let upsert = json!({"commands": [{"method": "upsert", "collection": "orders", "id": id + 3, "value": {"store": store}}]});
            let bodies = [insert(0), insert(1), json!({"statements": [insert(2)]}), upsert];
            for (door, body) in WRITTEN.into_iter().zip(bodies) {
                let path = world.path(door);
                let (status, answer) = world.server.post_as(&caller.credential, &path, &body).await;
                let right = match (caller.sees, may) {
                    (None, _) => status == 401,
                    (Some(_), true) => status == 200,
                    (Some(_), false) => status == 403,
                };
                assert!(right, "{} at {path} for {store}: {status} {answer}", caller.name);
                expected += usize::from(may);
            }
        }
    }
    let rows = world.server.sql("SELECT count(*) AS n FROM orders").await;
    assert_eq!(rows, [json!({"n": expected})], "nothing else was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_hold_and_write_what_their_key_allows() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    for (at, caller) in callers(&world).await.into_iter().enumerate() {
        // Peers log in with keys; access tokens are what they get for them.
        if caller.name.contains("token") {
            continue;
        }
        let peer = Peer::open(PeerSettings::new(dir.path().join(format!("peer-{at}")))).await.unwrap();
        let app = AppId::new(&world.app).unwrap();
        let settings = ConnectSettings::new(world.server.url(), app, caller.credential.as_str());
        let Some(sees) = caller.sees else {
            let refused = peer.login(&settings).await;
            assert!(matches!(refused, Err(PeerError::Refused { .. })), "{}: {refused:?}", caller.name);
            let (status, answer) = world.login(&world.app, &caller.credential).await;
            assert!([400, 401].contains(&status), "{}: {answer}", caller.name);
            continue;
        };
        let subscription = peer.subscribe("SELECT * FROM orders WHERE _id IN (1, 2)", Params::new()).await.unwrap();
        peer.connect(settings).await.unwrap();
        let caught_up = peer.wait_caught_up(subscription).await;
        assert_eq!(caught_up.is_ok(), !sees.is_empty(), "{}: {caught_up:?}", caller.name);
        let held =
            peer.execute("SELECT name FROM orders WHERE _id IN (1, 2) ORDER BY _id", Params::new()).await.unwrap();
        let held: Vec<Value> = held.items.iter().map(bigpeer_peer::Value::to_json).collect();
        assert_eq!(shown(&json!(held).to_string()), sees, "{}", caller.name);
        for (which, store) in ["a", "b"].into_iter().enumerate() {
            let statement =
                format!("INSERT INTO orders DOCUMENTS ({{'_id': {}, 'store': '{store}'}})", 1000 + at * 10 + which);
            let (_, seq) =
                peer.transaction(move |work| work.execute(&statement, &Params::new()).map(|_| ())).await.unwrap();
            let status = peer.wait_written(seq.unwrap()).await.unwrap();
            let right = match status {
                WriteStatus::Durable { .. } => caller.writes.contains(&store),
                WriteStatus::Rejected(_) => !caller.writes.contains(&store),
                WriteStatus::Unknown | WriteStatus::Waiting => false,
            };
            assert!(right, "{} for {store}: {status:?}", caller.name);
        }
        peer.close().await;
    }
}
