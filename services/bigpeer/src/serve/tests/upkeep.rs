//! Every route of upkeep and every kind of caller, each with the expected answer. A route without a row fails. (Those of the other
//! crates have their rows in `services/control`.)

use serde_json::json;

use super::*;

/// What each of [`World::callers`] is answered.
type Expected = [u16; 6];

/// A request about flights; `{n}` is another number for each caller.
struct Row(&'static str, &'static str, Value, Expected);

/// What is of flights.
const fn app(ok: u16) -> Expected {
    [ok, ok, 404, ok, 404, 404]
}

fn rows() -> Vec<Row> {
    let none = || Value::Null;
    let settings = json!({"publication": {"mode": "compatible"}});
    vec![
        Row("GET", "/admin/v1/apps/{app}/collections", none(), app(200)),
        Row("GET", "/admin/v1/apps/{app}/collections/cars", none(), app(200)),
        Row("PUT", "/admin/v1/apps/{app}/collections/cars", settings, app(200)),
        Row("POST", "/admin/v1/apps/{app}/collections/cars/purge", json!({"ids": [1]}), app(200)),
        Row("POST", "/admin/v1/apps/{app}/examine", json!({}), app(200)),
        Row("GET", "/admin/v1/apps/{app}/backups", none(), app(200)),
        Row("PUT", "/admin/v1/apps/{app}/backups/new-{n}", json!({}), app(201)),
        Row("POST", "/admin/v1/apps/{app}/backups/kept/verify", none(), app(200)),
        Row("DELETE", "/admin/v1/apps/{app}/backups/kept-{n}", none(), app(204)),
        // Another app of the tenant: more than who administers one app may make.
        Row("PUT", "/admin/v1/apps/{app}/clones/copy-{n}", json!({}), [201, 201, 404, 403, 404, 404]),
    ]
}

fn path(world: &World, row: &Row, number: usize) -> String {
    row.1.replace("{app}", world.flights.as_str()).replace("{n}", &number.to_string())
}

/// Whether a row is about a route.
fn is_of(row: &Row, method: &str, route: &str) -> bool {
    let same = |(a, b): (&str, &str)| a == b || (b.starts_with('{') && b.ends_with('}'));
    row.0 == method
        && row.1.split('/').count() == route.split('/').count()
        && row.1.split('/').zip(route.split('/')).all(same)
}

#[test]
fn every_route_has_a_row() {
    for route in super::super::upkeep::routes() {
        let (method, path) = (route.described().method.as_str(), route.described().path);
        let found = rows().iter().any(|row| is_of(row, method, path));
        assert!(found, "{method} {path} is a route that nobody watches: add it to this file");
    }
}

#[tokio::test]
async fn everybody_may_what_they_should_and_nothing_else() {
    let world = world().await;
    let statement = json!({"statement": "INSERT INTO cars DOCUMENTS ({'_id': 1}), ({'_id': 2})"});
    let execute = format!("/{}/api/v5/store/execute", world.flights);
    assert_eq!(world.ask("POST", &execute, Some(&world.data_key), &statement).await.0, 200);
    for name in ["kept", "kept-0", "kept-1", "kept-2", "kept-3", "kept-4", "kept-5"] {
        let backup = format!("/admin/v1/apps/{}/backups/{name}", world.flights);
        let (status, answer) = world.ask("PUT", &backup, Some(&world.callers[0]), &json!({})).await;
        assert_eq!(status, 201, "{answer}");
    }
    for row in rows() {
        for (at, expected) in row.3.into_iter().enumerate() {
            let path = path(&world, &row, at);
            let (status, answer) = world.ask(row.0, &path, Some(&world.callers[at]), &row.2).await;
            assert_eq!(status, expected, "caller {at}: {} {path} {answer}", row.0);
        }
    }
    // What was refused was not done: three made a backup and deleted one, two made a clone, and all is in the audit log.
    let (_, kept) = world
        .ask("GET", &format!("/admin/v1/apps/{}/backups", world.flights), Some(&world.callers[0]), &json!(null))
        .await;
    let names: Vec<&str> =
        kept["backups"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["kept", "kept-2", "kept-4", "kept-5", "new-0", "new-1", "new-3"]);
    let (_, apps) = world.ask("GET", "/admin/v1/tenants/acme/apps", Some(&world.callers[1]), &json!(null)).await;
    let names: Vec<&str> = apps["apps"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["boats", "copy-0", "copy-1", "flights"]);
    world.end().await;
}

#[tokio::test]
async fn who_shows_nothing_good_is_told_nothing() {
    let world = world().await;
    let wrong = format!("{}x", world.callers[0]);
    for row in rows() {
        for credential in [None, Some(wrong.as_str()), Some("bpa_x_y"), Some(world.data_key.as_str())] {
            for path in [path(&world, &row, 9), row.1.replace("{app}", "nothing").replace("{n}", "9")] {
                let (status, answer) = world.ask(row.0, &path, credential, &row.2).await;
                assert_eq!(status, 401, "{} {path} {answer}", row.0);
                let message = &answer["error"]["message"];
                assert_eq!(message, "no valid admin token; send one as 'Authorization: Bearer TOKEN'");
            }
        }
    }
    world.end().await;
}

/// What is another's is answered in the very words for what is not there.
#[tokio::test]
async fn the_unknown_and_the_foreign_look_alike() {
    let world = world().await;
    let globex = Some(world.callers[2].as_str());
    for row in rows() {
        let (_, foreign) = world.ask(row.0, &path(&world, &row, 9), globex, &row.2).await;
        let not_there = row.1.replace("{app}", "nothing").replace("{n}", "9");
        let (status, unknown) = world.ask(row.0, &not_there, globex, &row.2).await;
        assert_eq!((status, &unknown["error"]), (404, &foreign["error"]), "{} {not_there}", row.0);
    }
    world.end().await;
}
