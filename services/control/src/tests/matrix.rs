//! Every route and every kind of caller, each with the expected answer. A route without a row fails.

use std::collections::BTreeSet;

use bigpeer_chassis::{AdminTokenSpec, ApiKeySpec, Door};
use serde_json::{Value, json};

use super::{NOW_MS, World, named, others, world};
use crate::described;

/// Who asks: an operator, who administers acme, who administers globex, and keys that open `admin` of flights (acme), boats
/// (acme) and trains (globex).
type Expected = [u16; 6];

/// A request about flights, or acme.
struct Row(&'static str, &'static str, Value, Expected);

/// For operators only: nothing is to be found out.
const fn operator(ok: u16) -> Expected {
    [ok, 403, 403, 403, 403, 403]
}

/// What is of acme.
const fn tenant(ok: u16) -> Expected {
    [ok, ok, 404, 403, 403, 404]
}

/// What is of flights.
const fn app(ok: u16) -> Expected {
    [ok, ok, 404, ok, 404, 404]
}

fn rows() -> Vec<Row> {
    let none = || Value::Null;
    let permissions = || json!({"permissions": {"qlVersion": 1}});
    let anonymous = json!({"type": "anonymous", "shared_token": "a token that all share"});
    let acme = json!({"scope": {"tenant": "acme"}});
    let feed = json!({"owner": "nobody", "sink": {"type": "webhook", "url": "https://example.com"}});
    let mut rows = vec![
        Row("GET", "/admin/v1/tenants", none(), [200, 200, 200, 403, 403, 403]),
        Row("GET", "/admin/v1/tenants/{tenant}", none(), tenant(200)),
        Row("PUT", "/admin/v1/tenants/{tenant}", none(), operator(200)),
        // It has apps.
        Row("DELETE", "/admin/v1/tenants/{tenant}", none(), operator(409)),
        Row("GET", "/admin/v1/tenants/{tenant}/apps", none(), tenant(200)),
        Row("GET", "/admin/v1/tenants/{tenant}/apps/{name}", none(), app(200)),
        Row("PUT", "/admin/v1/tenants/{tenant}/apps/{name}", none(), tenant(200)),
        // It is protected.
        Row("DELETE", "/admin/v1/tenants/{tenant}/apps/{name}", none(), tenant(409)),
        Row("GET", "/admin/v1/apps", none(), [200; 6]),
        Row("GET", "/admin/v1/apps/{app}", none(), app(200)),
        Row("POST", "/admin/v1/apps/{app}/compact", none(), app(200)),
        Row("GET", "/admin/v1/apps/{app}/quota", none(), app(200)),
        // Whose app it is may not give it more.
        Row("PUT", "/admin/v1/apps/{app}/quota", json!({"sessions": 3}), operator(200)),
        Row("DELETE", "/admin/v1/apps/{app}/quota", none(), operator(204)),
        Row("GET", "/admin/v1/apps/{app}/usage", none(), app(200)),
        Row("GET", "/admin/v1/tenants/{tenant}/usage", none(), tenant(200)),
        Row("GET", "/admin/v1/apps/{app}/api-keys", none(), app(200)),
        Row("GET", "/admin/v1/apps/{app}/api-keys/data", none(), app(200)),
        Row("PUT", "/admin/v1/apps/{app}/api-keys/new", permissions(), app(201)),
        Row("DELETE", "/admin/v1/apps/{app}/api-keys/data", none(), app(204)),
        Row("GET", "/admin/v1/admin-tokens", none(), [200, 200, 200, 403, 403, 403]),
        Row("GET", "/admin/v1/admin-tokens/acme-admin", none(), [200, 200, 404, 403, 403, 403]),
        Row("PUT", "/admin/v1/admin-tokens/acme-ci", acme, [201, 201, 404, 403, 403, 403]),
        Row("DELETE", "/admin/v1/admin-tokens/acme-admin", none(), [204, 204, 404, 403, 403, 403]),
        Row("GET", "/admin/v1/audit-log", none(), [200; 6]),
        Row("GET", "/admin/v1/openapi.json", none(), [200; 6]),
        Row("PUT", "/admin/v1/apps/{app}/providers/dev", anonymous, app(201)),
        Row("PUT", "/admin/v1/apps/{app}/roles/clerk", permissions(), app(201)),
        Row("POST", "/admin/v1/apps/{app}/revocations", json!({"user": "anna"}), app(201)),
        Row("POST", "/admin/v1/apps/{app}/signing-keys/rotate", none(), app(200)),
        Row("POST", "/admin/v1/apps/{app}/authorities/rotate", none(), app(200)),
        Row("POST", "/admin/v1/secrets/reseal", none(), operator(200)),
        Row("PUT", "/admin/v1/apps/{app}/feed-retention", json!({"secs": 60, "bytes": 1000}), app(200)),
        // Its owner is no key.
        Row("PUT", "/admin/v1/apps/{app}/feeds/hook", feed, app(400)),
    ];
    for path in ["providers", "roles", "revocations", "signing-keys", "authorities", "feed-retention", "feeds"] {
        let path: &'static str = format!("/admin/v1/apps/{{app}}/{path}").leak();
        rows.push(Row("GET", path, none(), app(200)));
    }
    for (method, path, ok) in [
        ("GET", "providers/dev", 404),
        ("DELETE", "providers/dev", 204),
        ("GET", "roles/clerk", 404),
        ("DELETE", "roles/clerk", 204),
        ("GET", "feeds/hook", 404),
        ("DELETE", "feeds/hook", 204),
        ("POST", "feeds/hook/pause", 404),
        ("POST", "feeds/hook/resume", 404),
        ("GET", "feeds/hook/deliveries", 404),
        ("GET", "feeds/hook/dead-letters", 404),
        ("GET", "feeds/hook/dead-letters/1", 404),
        ("DELETE", "feeds/hook/dead-letters/1", 404),
        ("POST", "feeds/hook/dead-letters/1/deliver", 404),
    ] {
        let path: &'static str = format!("/admin/v1/apps/{{app}}/{path}").leak();
        rows.push(Row(method, path, none(), app(ok)));
    }
    let collections = json!({"collections": ["cars"]});
    rows.push(Row("POST", "/admin/v1/apps/{app}/feeds/hook/snapshot", collections, app(404)));
    rows.push(Row("POST", "/admin/v1/apps/{app}/feeds/hook/rewind", json!({"cursor": "x"}), app(400)));
    rows
}

/// Whether a row is about a route.
fn is_of(row: &Row, method: &str, route: &str) -> bool {
    let (mut row_parts, mut parts) = (row.1.split('/'), route.split('/'));
    let same = |(a, b): (&str, &str)| a == b || (b.starts_with('{') && b.ends_with('}'));
    row.0 == method
        && row.1.split('/').count() == route.split('/').count()
        && std::iter::from_fn(|| Some((row_parts.next()?, parts.next()?))).all(same)
}

#[test]
fn every_route_has_a_row() {
    let rows = rows();
    let mut seen = BTreeSet::new();
    for route in described().into_iter().chain(others()) {
        let method = route.method.as_str().to_owned();
        let found = rows.iter().any(|row| is_of(row, &method, route.path));
        assert!(found, "{method} {} is a route that nobody watches: add it to this file", route.path);
        assert!(seen.insert((method, route.path)), "{} is there twice", route.path);
        assert!(!route.summary.is_empty() && !route.answers.is_empty(), "{} is not described", route.path);
    }
}

fn path(world: &World, row: &Row) -> String {
    row.1.replace("{tenant}", "acme").replace("{app}", world.flights.as_str()).replace("{name}", "flights")
}

#[tokio::test]
async fn everybody_may_what_they_should_and_nothing_else() {
    let shared = world().await;
    for row in rows() {
        for (at, expected) in row.3.into_iter().enumerate() {
            // What is refused, and what only reads, leaves everything as it was.
            let own = if row.0 == "GET" || expected >= 400 { None } else { Some(world().await) };
            let world = own.as_ref().unwrap_or(&shared);
            let callers =
                [&world.root, &world.acme, &world.globex, &world.key, &world.key_of_boats, &world.key_of_trains];
            let (status, body) = world.ask(row.0, &path(world, &row), callers[at], row.2.clone()).await;
            assert_eq!(status, expected, "caller {at}: {} {} {body}", row.0, row.1);
        }
    }
}

#[tokio::test]
async fn who_shows_nothing_good_is_told_nothing() {
    let world = world().await;
    let ended = AdminTokenSpec { expires_at_ms: Some(NOW_MS), ..AdminTokenSpec::default() };
    let ended = world.catalogue.put_admin_token(&named("ended"), ended, |_| true).await.unwrap().1.unwrap();
    let gone = world.catalogue.create_admin(&named("gone")).await.unwrap().unwrap();
    world.catalogue.delete_admin_token(&named("gone")).await.unwrap();
    let scopes = [Door::Admin].into_iter().collect();
    let spec = ApiKeySpec { expires_at_ms: Some(NOW_MS), scopes, ..ApiKeySpec::default() };
    let ended_key = world.catalogue.put_api_key(&world.flights, &named("ended"), spec).await.unwrap().1.unwrap();
    let wrong = format!("{}x", world.root);
    let callers = [
        None,
        Some(wrong.as_str()),
        Some("bpa_x_y"),
        Some(ended.expose()),
        Some(gone.expose()),
        Some(ended_key.expose()),
        Some(&world.data_key),
    ];
    for row in rows().iter().filter(|row| !row.1.ends_with("openapi.json")) {
        for (at, credential) in callers.iter().enumerate() {
            // Of what is there, and of what is not.
            for path in [path(&world, row), row.1.replace("{tenant}", "nobody").replace("{app}", "nothing")] {
                let path = path.replace("{name}", "x");
                let body = if row.2.is_null() { String::new() } else { row.2.to_string() };
                let (status, _, text) = world.send(row.0, &path, *credential, &body).await;
                let json: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(status, 401, "caller {at}: {} {path} {text}", row.0);
                assert_eq!(json["error"]["message"], "no valid admin token; send one as 'Authorization: Bearer TOKEN'");
            }
        }
    }
}

/// What is another's is answered in the very words for what is not there.
#[tokio::test]
async fn the_unknown_and_the_foreign_look_alike() {
    let world = world().await;
    for row in rows().iter().filter(|row| row.3[2] == 404) {
        let there = path(&world, row);
        let not_there = row.1.replace("{tenant}", "nobody").replace("{app}", "nothing").replace("{name}", "flights");
        let not_there = not_there.replace("acme", "nobody");
        let body = Value::from(row.2.to_string().replace("acme", "nobody"));
        let body: Value = serde_json::from_str(body.as_str().unwrap()).unwrap();
        let (_, foreign) = world.ask(row.0, &there, &world.globex, row.2.clone()).await;
        let (status, unknown) = world.ask(row.0, &not_there, &world.globex, body).await;
        assert_eq!(status, 404, "{} {not_there}", row.0);
        let words = |json: &Value| json["error"].to_string().replace("acme", "nobody");
        assert_eq!(words(&foreign), words(&unknown), "{} {there}", row.0);
    }
}
