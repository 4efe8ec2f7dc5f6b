//! API keys and admin tokens: what can be given away, by whom, and when they were used.

use bigpeer_log::TransactionLog;
use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn a_secret_is_shown_once_and_get_returns_what_put_took() {
    let world = world().await;
    let key = format!("/admin/v1/apps/{}/api-keys/reports", world.flights);
    let everything = json!({"permissions": {"qlVersion": 1, "read": {"everything": true}}, "scopes": ["sql", "data"],
        "expires_at": NOW_MS + 1000, "limits": {"sql_queries": 2}, "description": "for the board"});
    let token = json!({"scope": {"tenant": "acme"}, "expires_at": NOW_MS + 1000, "description": "ci"});
    for (path, body, secret) in [(key.as_str(), everything, "key"), ("/admin/v1/admin-tokens/ci", token, "token")] {
        let (status, first) = world.ask("PUT", path, &world.root, body.clone()).await;
        let shown = first[secret].as_str().unwrap();
        assert!(status == 201 && shown.starts_with(first["prefix"].as_str().unwrap()), "{first}");
        let (status, second) = world.ask("PUT", path, &world.root, body.clone()).await;
        assert!(status == 200 && second.get(secret).is_none(), "{second}");
        let (status, found) = world.ask("GET", path, &world.root, Value::Null).await;
        assert_eq!((status, &found), (200, &second));
        assert_eq!((&found["description"], &found["expires_at"]), (&body["description"], &body["expires_at"]));
        assert_eq!((&found["last_used"], &found["created_at"]), (&Value::Null, &json!(NOW_MS)));
    }
    let (_, found) = world.ask("GET", &key, &world.root, Value::Null).await;
    assert_eq!((&found["scopes"], &found["limits"]), (&json!(["data", "sql"]), &json!({"sql_queries": 2})));
    // What is not said is as by default.
    world.ask("PUT", &key, &world.root, json!({"permissions": {}})).await;
    let (_, found) = world.ask("GET", &key, &world.root, Value::Null).await;
    assert_eq!(found["scopes"], json!(["data", "sql", "changes", "sync"]));
    assert_eq!((&found["expires_at"], &found["description"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn who_administers_a_tenant_gives_away_no_more_than_they_have() {
    let world = world().await;
    let put = |name: &'static str, credential: String, body: Value| {
        let world = &world;
        async move { world.ask("PUT", &format!("/admin/v1/admin-tokens/{name}"), &credential, body).await }
    };
    let own = json!({"scope": {"tenant": "acme"}});
    assert_eq!(put("mine", world.acme.clone(), json!({"scope": "operator"})).await.0, 403);
    assert_eq!(put("mine", world.acme.clone(), json!({"scope": {"tenant": "globex"}})).await.0, 404);
    assert_eq!(put("mine", world.acme.clone(), own.clone()).await.0, 201);
    // Names that others have.
    for taken in ["root", "globex-admin"] {
        let (status, json) = put(taken, world.acme.clone(), own.clone()).await;
        assert_eq!((status, &json["error"]["code"]), (409, &json!("conflict")), "{json}");
        assert_eq!(
            world.ask("DELETE", &format!("/admin/v1/admin-tokens/{taken}"), &world.acme, Value::Null).await.0,
            404
        );
    }
    assert_eq!(world.catalogue.admin_token(&named("root")).unwrap().scope, AdminScope::Operator);
    let (_, list) = world.ask("GET", "/admin/v1/admin-tokens", &world.acme, Value::Null).await;
    let names: Vec<&str> =
        list["admin_tokens"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["acme-admin", "mine"]);
    let (_, list) = world.ask("GET", "/admin/v1/tenants", &world.acme, Value::Null).await;
    assert_eq!(list["tenants"].as_array().unwrap().len(), 1);
    let (_, list) = world.ask("GET", "/admin/v1/apps", &world.acme, Value::Null).await;
    assert_eq!(list["apps"].as_array().unwrap().len(), 2);
    let (_, list) = world.ask("GET", "/admin/v1/apps", &world.key, Value::Null).await;
    assert_eq!(list["apps"].as_array().unwrap().len(), 1);
    // One that ends makes none that lasts longer, itself neither.
    let short = json!({"scope": {"tenant": "acme"}, "expires_at": NOW_MS + 1000});
    let (_, made) = put("short", world.acme.clone(), short.clone()).await;
    let secret = made["token"].as_str().unwrap().to_owned();
    assert_eq!(put("short", secret.clone(), own.clone()).await.0, 403);
    assert_eq!(
        put("other", secret.clone(), json!({"scope": {"tenant": "acme"}, "expires_at": NOW_MS + 1001})).await.0,
        403
    );
    assert_eq!(put("other", secret.clone(), short).await.0, 201);
    world.clock.advance(1000);
    assert_eq!(put("other", secret, own).await.0, 401);
}

#[tokio::test]
async fn the_last_operator_stays() {
    let world = world().await;
    let root = world.root.as_str();
    assert_eq!(world.ask("DELETE", "/admin/v1/admin-tokens/root", root, Value::Null).await.0, 409);
    let demoted = json!({"scope": {"tenant": "acme"}});
    assert_eq!(world.ask("PUT", "/admin/v1/admin-tokens/root", root, demoted).await.0, 409);
    let ending = json!({"scope": "operator", "expires_at": NOW_MS + 1000});
    assert_eq!(world.ask("PUT", "/admin/v1/admin-tokens/root", root, ending.clone()).await.0, 409);
    assert_eq!(world.ask("PUT", "/admin/v1/admin-tokens/second", root, ending).await.0, 201);
    assert_eq!(world.ask("DELETE", "/admin/v1/admin-tokens/root", root, Value::Null).await.0, 409);
    let lasting = json!({"scope": "operator"});
    assert_eq!(world.ask("PUT", "/admin/v1/admin-tokens/second", root, lasting).await.0, 200);
    assert_eq!(world.ask("DELETE", "/admin/v1/admin-tokens/root", root, Value::Null).await.0, 204);
    assert_eq!(world.ask("GET", "/admin/v1/tenants", root, Value::Null).await.0, 401);
}

#[tokio::test]
async fn a_key_does_not_administer_who_administers() {
    let world = world().await;
    let keys = format!("/admin/v1/apps/{}/api-keys", world.flights);
    let admin = json!({"permissions": {}, "scopes": ["admin"]});
    assert_eq!(world.ask("PUT", &format!("{keys}/more"), &world.key, admin.clone()).await.0, 403);
    assert_eq!(world.ask("PUT", &format!("{keys}/ops"), &world.key, json!({"permissions": {}})).await.0, 403);
    assert_eq!(world.ask("DELETE", &format!("{keys}/ops"), &world.key, Value::Null).await.0, 403);
    assert_eq!(world.ask("PUT", &format!("{keys}/data"), &world.key, json!({"permissions": {}})).await.0, 200);
    assert_eq!(world.ask("PUT", &format!("{keys}/more"), &world.acme, admin).await.0, 201);
    // Without the scope it opens the admin API no more, at once.
    assert_eq!(world.ask("PUT", &format!("{keys}/ops"), &world.acme, json!({"permissions": {}})).await.0, 200);
    assert_eq!(world.ask("GET", &keys, &world.key, Value::Null).await.0, 401);
}

#[tokio::test]
async fn uses_are_noted_to_the_minute_and_written_now_and_then() {
    let world = world().await;
    let key = format!("/admin/v1/apps/{}/api-keys/data", world.flights);
    let minute = NOW_MS - NOW_MS % 60_000;
    let last_used = |path: String| {
        let world = &world;
        async move { world.ask("GET", &path, &world.root, Value::Null).await.1["last_used"].clone() }
    };
    assert_eq!(last_used(key.clone()).await, Value::Null);
    let opens = |door| world.catalogue.authenticate_credential(&world.flights, door, &world.data_key);
    assert!(opens(Door::Data).is_ok());
    assert_eq!(last_used(key.clone()).await, json!(minute));
    assert_eq!(last_used("/admin/v1/admin-tokens/root".to_owned()).await, json!(minute));
    assert_eq!(last_used("/admin/v1/admin-tokens/acme-admin".to_owned()).await, Value::Null);
    // Known to another process once it is written; written once for each minute.
    world.catalogue.write_uses().await.unwrap();
    let place = format!("used/keys/{}/data", world.flights);
    let written = |place: String| {
        let log = Arc::clone(&world.log);
        async move { log.metadata().get(place.as_bytes()).await.unwrap().map(|v| v.revision) }
    };
    let first = written(place.clone()).await;
    for _ in 0..100 {
        assert!(opens(Door::Sql).is_ok());
    }
    world.catalogue.write_uses().await.unwrap();
    assert!(first.is_some() && written(place.clone()).await == first);
    world.clock.advance(60_000);
    assert!(opens(Door::Sync).is_ok());
    world.catalogue.write_uses().await.unwrap();
    assert!(written(place.clone()).await > first);
    let another =
        Catalogue::open(Arc::clone(&world.log) as _, Arc::clone(&world.clock) as _, Arc::new(RandomIds)).await.unwrap();
    let uses = another.key_uses(&world.flights).await.unwrap();
    assert_eq!(uses.get(&named("data")), Some(&(minute + 60_000)));
    // With the key goes what is known of it.
    world.ask("DELETE", &key, &world.root, Value::Null).await;
    assert_eq!(written(place).await, None);
    let again = world.ask("PUT", &key, &world.root, json!({"permissions": {}})).await;
    assert_eq!((again.0, &again.1["last_used"]), (201, &Value::Null));
}
