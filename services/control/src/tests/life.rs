//! Tenants and apps: made, found again, listed in pages, protected, deleted.

use bigpeer_chassis::{Door, Role};
use bigpeer_log::TransactionLog;
use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn put_is_idempotent_and_get_returns_what_put_took() {
    let world = world().await;
    let root = world.root.as_str();
    for (path, fields) in [
        ("/admin/v1/tenants/new", vec![json!({}), json!({"deletion_protection": true})]),
        ("/admin/v1/tenants/acme/apps/new", vec![json!({}), json!({"deletion_protection": false})]),
    ] {
        for (at, body) in fields.into_iter().enumerate() {
            let (status, made) = world.ask("PUT", path, root, body.clone()).await;
            assert_eq!(status, if at == 0 { 201 } else { 200 }, "{path}: {made}");
            assert_eq!(world.ask("PUT", path, root, body.clone()).await, (200, made.clone()));
            assert_eq!(world.ask("GET", path, root, Value::Null).await, (200, made.clone()));
            for (field, value) in body.as_object().unwrap() {
                assert_eq!(&made[field], value);
            }
        }
    }
    // What is not said is as by default: tenants may be deleted, apps may not.
    let (_, tenant) = world.ask("PUT", "/admin/v1/tenants/new", root, Value::Null).await;
    let (_, app) = world.ask("PUT", "/admin/v1/tenants/acme/apps/new", root, Value::Null).await;
    assert_eq!((&tenant["deletion_protection"], &app["deletion_protection"]), (&json!(false), &json!(true)));
    let by_id = format!("/admin/v1/apps/{}", app["id"].as_str().unwrap());
    assert_eq!(world.ask("GET", &by_id, root, Value::Null).await, (200, app));
    assert!(world.process.opened.lock().unwrap().len() >= 2);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let world = world().await;
    for n in 0..25 {
        let role = Permissions::read_only();
        world.catalogue.create_tenant(&named(&format!("t{n:02}"))).await.unwrap();
        world.catalogue.create_app(&named("acme"), &named(&format!("a{n:02}"))).await.unwrap();
        world.catalogue.put_role(&world.flights, &named(&format!("r{n:02}")), role).await.unwrap();
        world.catalogue.put_api_key(&world.flights, &named(&format!("k{n:02}")), ApiKeySpec::default()).await.unwrap();
        let scope = AdminScope::Tenant(named("acme"));
        let spec = AdminTokenSpec { scope, ..AdminTokenSpec::default() };
        world.catalogue.put_admin_token(&named(&format!("m{n:02}")), spec, |_| true).await.unwrap();
    }
    let flights = format!("/admin/v1/apps/{}", world.flights);
    for (path, field, name, count) in [
        ("/admin/v1/tenants".to_owned(), "tenants", "name", 27),
        ("/admin/v1/tenants/acme/apps".to_owned(), "apps", "name", 27),
        ("/admin/v1/apps".to_owned(), "apps", "id", 28),
        (format!("{flights}/api-keys"), "api_keys", "name", 27),
        ("/admin/v1/admin-tokens".to_owned(), "admin_tokens", "name", 28),
        (format!("{flights}/roles"), "roles", "name", 25),
    ] {
        let (status, whole) = world.ask("GET", &path, &world.root, Value::Null).await;
        assert_eq!((status, &whole["next"]), (200, &Value::Null));
        let whole = whole[field].as_array().unwrap().clone();
        assert_eq!(whole.len(), count, "{path}");
        for limit in [1, 10, count, 1000] {
            let (mut parts, mut query) = (Vec::new(), format!("?limit={limit}"));
            loop {
                let (status, page) = world.ask("GET", &format!("{path}{query}"), &world.root, Value::Null).await;
                let entries = page[field].as_array().unwrap();
                assert!(status == 200 && entries.len() <= limit);
                parts.extend(entries.iter().cloned());
                let Some(next) = page["next"].as_str() else { break };
                assert_eq!(entries.last().unwrap()[name], next);
                query = format!("?limit={limit}&after={next}");
            }
            assert_eq!(parts, whole, "{path} by {limit}");
        }
        for bad in ["limit=0", "limit=1001", "limit=x", "limit=-1", "page=2", "limit=1&limit=2"] {
            let (status, json) = world.ask("GET", &format!("{path}?{bad}"), &world.root, Value::Null).await;
            assert_eq!((status, &json["error"]["code"]), (400, &json!("bad_request")), "{path}?{bad}");
        }
    }
}

#[tokio::test]
async fn what_is_protected_stays_and_what_holds_apps_too() {
    let world = world().await;
    let root = world.root.as_str();
    let (app, tenant) = ("/admin/v1/tenants/globex/apps/trains", "/admin/v1/tenants/globex");
    let code = |json: &Value| json["error"]["message"].as_str().unwrap_or_default().to_owned();
    let (status, json) = world.ask("DELETE", app, root, Value::Null).await;
    assert!(status == 409 && code(&json).contains("deletion_protection"), "{json}");
    let (status, json) = world.ask("DELETE", tenant, root, Value::Null).await;
    assert!(status == 409 && code(&json).contains("apps"), "{json}");
    world.ask("PUT", app, root, json!({"deletion_protection": false})).await;
    assert_eq!(world.ask("DELETE", app, root, Value::Null).await.0, 204);
    world.ask("PUT", tenant, root, json!({"deletion_protection": true})).await;
    assert_eq!(world.ask("DELETE", tenant, root, Value::Null).await.0, 409);
    world.ask("PUT", tenant, root, Value::Null).await;
    assert_eq!(world.ask("DELETE", tenant, root, Value::Null).await.0, 204);
    assert_eq!(world.ask("DELETE", tenant, root, Value::Null).await.0, 404);
    assert_eq!(world.ask("GET", tenant, root, Value::Null).await.0, 404);
    // Its tokens went with it, and open nothing of another tenant of that name.
    assert_eq!(world.ask("GET", "/admin/v1/apps", &world.globex, Value::Null).await.0, 401);
    assert_eq!(world.ask("PUT", tenant, root, Value::Null).await.0, 201);
    assert_eq!(world.ask("GET", "/admin/v1/apps", &world.globex, Value::Null).await.0, 401);
    assert_eq!(world.ask("GET", "/admin/v1/admin-tokens/globex-admin", root, Value::Null).await.0, 404);
}

/// What the metadata space has of an app.
async fn left_of(world: &World, app: &AppId) -> Vec<String> {
    let all = world.log.metadata().range(b"", None, 10_000).await.unwrap();
    let keys = all.iter().map(|(key, _)| String::from_utf8(key.to_vec()).unwrap());
    keys.filter(|key| key.contains(app.as_str())).collect()
}

#[tokio::test]
async fn a_deleted_app_is_as_if_it_had_never_been() {
    let world = world().await;
    let (catalogue, flights) = (&world.catalogue, &world.flights);
    catalogue.put_role(flights, &named("clerk"), Permissions::read_only()).await.unwrap();
    catalogue.allocate_site(flights).await.unwrap();
    let another =
        Catalogue::open(Arc::clone(&world.log) as _, Arc::clone(&world.clock) as _, Arc::new(RandomIds)).await.unwrap();
    let opens = |catalogue: &Catalogue| catalogue.authenticate_credential(flights, Door::Data, &world.data_key).is_ok();
    assert!(opens(catalogue) && opens(&another));
    catalogue.write_uses().await.unwrap();
    let path = "/admin/v1/tenants/acme/apps/flights";
    world.ask("PUT", path, &world.acme, json!({"deletion_protection": false})).await;
    let mut changes = another.changes();
    *world.process.fails.lock().unwrap() = true;
    assert_eq!(world.ask("DELETE", path, &world.acme, Value::Null).await.0, 204);
    // Gone at once, though what it left could not be cleared away.
    assert!(!opens(catalogue) && catalogue.app(flights).is_none());
    while opens(&another) {
        changes.changed().await.unwrap();
    }
    let by_id = format!("/admin/v1/apps/{flights}");
    for credential in [&world.root, &world.acme] {
        assert_eq!(world.ask("GET", &by_id, credential, Value::Null).await.0, 404);
        assert_eq!(world.ask("GET", path, credential, Value::Null).await.0, 404);
        assert_eq!(world.ask("DELETE", path, credential, Value::Null).await.0, 404);
    }
    assert_eq!(world.ask("GET", &by_id, &world.key, Value::Null).await.0, 401);
    assert!(catalogue.put_api_key(flights, &named("late"), ApiKeySpec::default()).await.is_err());
    assert!(catalogue.put_role(flights, &named("late"), Role::clone(&role()).permissions).await.is_err());
    assert!(catalogue.allocate_site(flights).await.is_err());
    assert!(catalogue.rotate_signing_keys(flights, true).await.is_err());
    assert!(left_of(&world, flights).await.len() > 3);
    // The next process, or the next round, does it.
    *world.process.fails.lock().unwrap() = false;
    clear_deleted(&world.context).await;
    assert_eq!(*world.process.forgotten.lock().unwrap(), std::slice::from_ref(flights));
    assert_eq!(left_of(&world, flights).await, [format!("deleted/{flights}")]);
    assert!(catalogue.uncleared_apps().await.unwrap().is_empty());
    // The name is free; the id is not.
    let (status, again) = world.ask("PUT", path, &world.acme, Value::Null).await;
    assert!(status == 201 && again["id"] != flights.as_str(), "{again}");
    assert!(!opens(catalogue));
}

fn role() -> Role {
    Role { permissions: Permissions::read_only(), created_ms: 0 }
}

#[tokio::test]
async fn an_id_of_a_deleted_app_is_never_taken_again() {
    let world = world().await;
    world.catalogue.put_app(&named("acme"), &named("boats"), false).await.unwrap();
    let boats = world.catalogue.app(&world.boats).unwrap();
    let flights = world.catalogue.app(&world.flights).unwrap();
    world.catalogue.delete_app(&named("acme"), &named("boats")).await.unwrap();
    let again = world.catalogue.create_clone(boats.id, &flights, &named("clone")).await;
    assert!(again.is_err(), "{again:?}");
}

#[tokio::test]
async fn bodies_are_objects_and_nothing_else_is_taken() {
    let world = world().await;
    let key = format!("/admin/v1/apps/{}/api-keys/k", world.flights);
    for (path, bad) in [
        ("/admin/v1/tenants/new", json!([true])),
        ("/admin/v1/tenants/new", json!("x")),
        ("/admin/v1/tenants/new", json!({"deletion_protection": null})),
        ("/admin/v1/tenants/new", json!({"protected": true})),
        ("/admin/v1/tenants/a b", json!({})),
        ("/admin/v1/tenants/-a", json!({})),
        ("/admin/v1/tenants/acme/apps/.x", json!({})),
        (&key, json!([{}, null])),
        (&key, json!({"permissions": [1, false]})),
        (&key, json!({"permissions": {}, "limits": [1, 2, 3, 4]})),
        (&key, json!({"permissions": {}, "scopes": []})),
        (&key, json!({"permissions": {}, "scopes": ["cellar"]})),
        (&key, json!({"permissions": {}, "description": "ä".repeat(251)})),
        (&key, json!({"permissions": {"qlVersion": 2}})),
        (&key, json!({"scopes": ["data"]})),
        ("/admin/v1/admin-tokens/t", json!({"scope": "tenant"})),
        ("/admin/v1/admin-tokens/t", json!({"scope": {"tenant": "a/b"}})),
        ("/admin/v1/admin-tokens/t", json!({"scope": "operator", "expires_at": NOW_MS})),
        ("/admin/v1/admin-tokens/t", json!({})),
    ] {
        let path = path.replace(' ', "%20");
        let (status, json) = world.ask("PUT", &path, &world.root, bad.clone()).await;
        assert_eq!((status, &json["error"]["code"]), (400, &json!("bad_request")), "{path} {bad}: {json}");
    }
}
