//! The doors of the data API against every kind of caller: who is let in, who may, and what they see. A route without a row
//! here fails.

mod naive;

use std::collections::BTreeSet;

use bigpeer_chassis::{CatalogueError, Holder, LoginTimes, ProviderKind, ProviderSpec, Revoked, User, provider_place};

use super::*;

/// Ways to read the orders (`alpha` is of store a, `beta` of store b), by path: all of them must show the same.
fn reads() -> Vec<(&'static str, Value)> {
    let statement = json!({"statement": "SELECT * FROM orders"});
    vec![
        ("/{app}/api/v4/store/execute", statement.clone()),
        ("/{app}/api/v5/store/execute", statement.clone()),
        ("/{app}/api/v5/store/execute", json!({"statement": "SELECT * FROM orders WHERE _id IN (1, 2)"})),
        ("/{app}/api/v5/store/execute", json!({"statement": "SELECT name, COUNT(*) FROM orders GROUP BY name"})),
        ("/{app}/api/v1/transaction", json!({"statements": [statement]})),
        ("/{app}/api/v4/store/find", json!({"collection": "orders", "query": "true"})),
        ("/{app}/api/v4/store/findbyid", json!({"collection": "orders", "id": 2})),
        ("/{app}/api/v4/store/count", json!({"collection": "orders", "query": "name == 'beta'"})),
    ]
}

/// Ways to write an order of a store.
fn writes(id: u64, store: &str) -> Vec<(&'static str, Value)> {
    let insert =
        |id: u64| json!({"statement": "INSERT INTO orders DOCUMENTS (:d)", "args": {"d": {"_id": id, "store": store}}});
    vec![
        ("/{app}/api/v4/store/execute", insert(id)),
        ("/{app}/api/v5/store/execute", insert(id + 1)),
        ("/{app}/api/v1/transaction", json!({"statements": [insert(id + 2)]})),
        (
            "/{app}/api/v4/store/write",
            json!({"commands": [
            {"method": "upsert", "collection": "orders", "id": id + 3, "value": {"store": store}}]}),
        ),
        ("/{app}/api/v4/attachments/upload", json!("a blob")),
        ("/{app}/api/v1/attachments/uploads", json!({"id": "0".repeat(64), "len": 5})),
    ]
}

/// Doors that only ask who it is: with anything else they answer about the attachment.
fn others(blob: &str) -> Vec<(&'static str, String)> {
    vec![
        ("GET", format!("/{{app}}/api/v4/attachments/{blob}")),
        ("HEAD", format!("/{{app}}/api/v4/attachments/{blob}")),
        ("HEAD", "/{app}/api/v1/attachments/uploads/x".to_owned()),
        ("PATCH", "/{app}/api/v1/attachments/uploads/x".to_owned()),
        ("DELETE", "/{app}/api/v1/attachments/uploads/x".to_owned()),
    ]
}

/// Needs no key, and says nothing about the app.
const PUBLIC: [&str; 1] = ["/{app}/api/v4/swagger.json"];

impl World {
    async fn knock(&self, method: &str, path: &str, credential: Option<&str>, body: &Value) -> (u16, String) {
        let path = path.replace("{app}", self.app.as_str());
        let mut request = Request::builder().method(method).uri(path);
        if let Some(credential) = credential {
            request = request.header(header::AUTHORIZATION, format!("Bearer {credential}"));
        }
        let response = self.router.clone().oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The access token of a user of an app's provider, who has this claim.
    async fn user(&self, app: &AppId, id: &str, store: Option<&str>) -> (bigpeer_types::SiteId, String) {
        let place = provider_place(app, &name("idp"));
        let shared_token = self.catalogue.keyring().seal(&place, b"shared", &RandomIds).unwrap();
        let rule = json!({"queriesByCollection": {"orders": ["store = :claims.store"]}});
        let permissions = serde_json::from_value(json!({"qlVersion": 1, "read": rule, "write": rule})).unwrap();
        let spec = ProviderSpec {
            kind: ProviderKind::Anonymous { shared_token },
            roles: Vec::new(),
            permissions: Some(permissions),
            session_secs: 60,
        };
        self.catalogue.put_provider::<CatalogueError>(app, &name("idp"), |_| Ok(spec)).await.unwrap();
        let claims = store.map(|store| ("store".to_owned(), store.into())).into_iter().collect();
        self.log_in(app, id, claims, Vec::new()).await
    }

    /// The access token of a user with these claims and roles, and nothing else.
    async fn user_with(
        &self,
        app: &AppId,
        id: &str,
        claims: serde_json::Map<String, Value>,
        roles: &[&str],
    ) -> (bigpeer_types::SiteId, String) {
        self.user(app, id, None).await;
        let provider = self.catalogue.provider(app, &name("idp")).unwrap();
        let spec = ProviderSpec { permissions: None, ..provider.spec.clone() };
        self.catalogue.put_provider::<CatalogueError>(app, &name("idp"), |_| Ok(spec)).await.unwrap();
        self.log_in(app, id, claims, roles.iter().map(|role| name(role)).collect()).await
    }

    async fn log_in(
        &self,
        app: &AppId,
        id: &str,
        claims: serde_json::Map<String, Value>,
        roles: Vec<Name>,
    ) -> (bigpeer_types::SiteId, String) {
        let provider = name("idp");
        let user = User { provider, id: id.to_owned(), roles, permissions: None, claims };
        let site = self.catalogue.allocate_site(app).await.unwrap();
        let times = LoginTimes { token_ttl_secs: 3600, refresh_ttl_secs: 3600 };
        let granted = self.catalogue.log_in(app, site, Holder::User(Box::new(user)), None, times).await.unwrap();
        (site, granted.access_token)
    }
}

/// A world with two orders.
async fn orders() -> World {
    let world = world(short()).await;
    let documents =
        json!({"a": {"_id": 1, "store": "a", "name": "alpha"}, "b": {"_id": 2, "store": "b", "name": "beta"}});
    world.ok("INSERT INTO orders DOCUMENTS (:a), (:b)", documents).await;
    world
}

#[test]
fn every_route_has_a_row() {
    let rows: BTreeSet<&str> = reads().into_iter().chain(writes(0, "")).map(|row| row.0).chain(PUBLIC).collect();
    for route in routes::all() {
        assert!(rows.contains(route.path), "{} is a door that nobody watches: add it to this file", route.path);
    }
}

#[tokio::test]
async fn who_does_not_belong_here_is_not_let_in_by_any_door() {
    let world = orders().await;
    let other = world.new_app("b").await;
    let spec = ApiKeySpec { permissions: Permissions::all(), expires_at_ms: Some(1), ..Default::default() };
    let (_, ended_key) = world.catalogue.put_api_key(&world.app, &name("ended"), spec).await.unwrap();
    let key = world.catalogue.api_key(&world.app, &name("all")).unwrap();
    let (site, revoked) = world.user(&world.app, "revoked", Some("a")).await;
    world.catalogue.revoke(&world.app, Revoked::Site(site)).await.unwrap();
    let gone_key = world.new_key(&world.app, "gone", Permissions::all()).await;
    let gone = world.catalogue.api_key(&world.app, &name("gone")).unwrap();
    let of_gone = world.catalogue.issue_token(&world.app, site, &gone, 60).unwrap().0;
    world.catalogue.delete_api_key(&world.app, &name("gone")).await.unwrap();
    let good = world.user(&world.app, "anna", Some("a")).await.1;
    let callers = [
        ("nobody", None),
        ("a wrong key", Some("bpk_abc_def".to_owned())),
        ("a wrong token", Some(format!("{good}A"))),
        ("a key that has ended", Some(ended_key.unwrap().expose().to_owned())),
        ("a key that is gone", Some(gone_key)),
        ("a token of a key that is gone", Some(of_gone)),
        ("a token that has ended", Some(world.catalogue.issue_token(&world.app, site, &key, 0).unwrap().0)),
        ("a revoked token", Some(revoked)),
        ("a key of another app", Some(world.new_key(&other, "all", Permissions::all()).await)),
        ("a user of another app", Some(world.user(&other, "anna", Some("a")).await.1)),
        (
            "an administrator",
            Some(world.catalogue.create_admin(&name("root")).await.unwrap().unwrap().expose().to_owned()),
        ),
    ];
    let before = world.log.head(&world.app).await.unwrap();
    for (who, credential) in &callers {
        let asked = reads().into_iter().chain(writes(100, "a"));
        let mut answers = Vec::new();
        for (path, body) in asked {
            answers.push((path.to_owned(), world.knock("POST", path, credential.as_deref(), &body).await));
        }
        for (method, path) in others(&"0".repeat(64)) {
            let answer = world.knock(method, &path, credential.as_deref(), &Value::Null).await;
            answers.push((format!("{method} {path}"), answer));
        }
        for (path, (status, body)) in answers {
            assert_eq!(status, 401, "{who} at {path}: {body}");
            assert!(!body.contains("alpha") && !body.contains("beta"), "{who} at {path}: {body}");
        }
    }
    assert_eq!(world.log.head(&world.app).await.unwrap(), before);
}

#[tokio::test]
async fn every_door_shows_and_takes_what_the_caller_may_and_nothing_else() {
    let world = orders().await;
    let rules = |read: Value, write: Value| {
        serde_json::from_value(json!({"qlVersion": 1, "read": read, "write": write})).unwrap()
    };
    let a = json!({"queriesByCollection": {"orders": ["store = 'a'"]}});
    let everything = json!({"everything": true});
    let mut keys = Vec::new();
    for (text, read, write) in [
        ("read-only", everything.clone(), json!({})),
        ("write-only", json!({}), everything.clone()),
        ("row-rule", a.clone(), a),
        ("nothing", json!({}), json!({})),
        ("claims", json!({"queriesByCollection": {"orders": ["store = :claims.store"]}}), json!({})),
    ] {
        keys.push(world.new_key(&world.app, text, rules(read, write)).await);
    }
    // Which of alpha and beta they see, and which stores they write for.
    let callers = [
        (world.key.clone(), [true, true], [true, true]),
        (keys[0].clone(), [true, true], [false, false]),
        (keys[1].clone(), [false, false], [true, true]),
        (keys[2].clone(), [true, false], [true, false]),
        (keys[3].clone(), [false, false], [false, false]),
        (keys[4].clone(), [false, false], [false, false]),
        (world.user(&world.app, "anna", Some("a")).await.1, [true, false], [true, false]),
        (world.user(&world.app, "bert", Some("b")).await.1, [false, true], [false, true]),
        (world.user(&world.app, "cyd", None).await.1, [false, false], [false, false]),
        (world.user(&world.app, "dora", Some("a' OR '1' = '1")).await.1, [false, false], [false, false]),
    ];
    for (at, (credential, sees, _)) in callers.iter().enumerate() {
        for (path, body) in reads() {
            let (status, answer) = world.knock("POST", path, Some(credential), &body).await;
            let seen = |text: &str, counted: &str| answer.contains(text) || answer.contains(counted);
            let (alpha, beta) = match path.rsplit('/').next().unwrap() {
                "findbyid" => (sees[0], status == 200 && answer.contains("beta")),
                "count" => (sees[0], answer.contains(r#""count":1"#)),
                _ => (seen("alpha", "alpha"), seen("beta", "beta")),
            };
            assert_eq!([alpha, beta], *sees, "caller {at} at {path} {body}: {status} {answer}");
            assert!([200, 403, 404].contains(&status), "caller {at} at {path}: {status} {answer}");
        }
    }
    for (at, (credential, _, may)) in callers.iter().enumerate() {
        for (which, store) in ["a", "b"].into_iter().enumerate() {
            let base = 1000 + u64::try_from(at * 100 + which * 10).unwrap();
            for (path, body) in writes(base, store) {
                let (status, answer) = world.knock("POST", path, Some(credential), &body).await;
                // Attachments are of no store: who may write something may upload.
                let may = if path.contains("attachments") { may[0] || may[1] } else { may[which] };
                let may = may || (path.contains("attachments") && at > 6);
                let expected: &[u16] = if may { &[200, 201] } else { &[403] };
                assert!(expected.contains(&status), "caller {at} at {path} for {store}: {status} {answer}");
            }
        }
    }
}
