//! Which doors there are, by what is served: every route of the router that `serve` answers with, every listener that a flag opens.
//! Each is watched by a matrix of callers, or is not there: a new one fails here until it is.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Doors besides the admin API, which `tests/e2e/tests/e2e/doors` asks as every kind of caller.
const WATCHED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/e2e/tests/e2e/doors/list.txt");

/// The routes of a router, as `GET /path`. axum tells them to nobody but who debugs.
fn mounted(router: &Router) -> BTreeSet<String> {
    let text = format!("{router:?}");
    let own = text.split("fallback_router: ").next().unwrap();
    let (routes, paths) = own.split_once("node: Node").unwrap();
    let allowed = |route: &str| -> Vec<String> {
        let methods = route.split_once("allow_header: Bytes(b\"").and_then(|(_, rest)| rest.split('"').next());
        methods.unwrap_or("ANY").split(',').map(str::to_owned).collect()
    };
    let numbered = |part: &'static str| {
        move |text: &'_ str| -> Vec<(String, String)> {
            let parts = text.split("RouteId(").skip(1);
            parts.filter_map(|text| text.split_once(part).map(|(id, rest)| (id.to_owned(), rest.to_owned()))).collect()
        }
    };
    let methods: BTreeMap<String, Vec<String>> =
        numbered("): ")(routes).into_iter().map(|(id, route)| (id, allowed(&route))).collect();
    let mut all = BTreeSet::new();
    for (id, path) in numbered("): \"")(paths) {
        let path = path.split('"').next().unwrap();
        let methods = &methods[&id];
        // Whoever may GET may ask for the head alone.
        let is_more = |method: &&String| *method != "HEAD" || !methods.iter().any(|method| method == "GET");
        all.extend(methods.iter().filter(is_more).map(|method| format!("{method} {path}")));
    }
    all
}

#[tokio::test]
async fn every_door_is_watched() {
    let world = world().await;
    let (admin, others): (BTreeSet<_>, BTreeSet<_>) =
        mounted(&world.router).into_iter().partition(|door| door.contains(" /admin/"));
    // The tests of `services/control` have a row for each of the first three, `upkeep` beside this file for the last.
    let mut described = bigpeer_control::described();
    described.extend(bigpeer_auth::admin_routes().iter().map(|route| route.described().clone()));
    described.extend(bigpeer_changefeed::admin_routes().iter().map(|route| route.described().clone()));
    described.extend(super::super::upkeep::routes().iter().map(|route| route.described().clone()));
    let with_rows: BTreeSet<String> =
        described.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    assert_eq!(admin, with_rows, "routes of the admin API, and those that a matrix of callers has rows for");
    // Of which the description tells, too.
    let (_, document) = world.ask("GET", "/admin/v1/openapi.json", None, &Value::Null).await;
    let mut told = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let methods = operations.as_object().unwrap().keys().filter(|method| *method != "parameters");
        told.extend(methods.map(|method| format!("{} {path}", method.to_ascii_uppercase())));
    }
    assert_eq!(admin, told, "routes of the admin API, and those that are described");
    world.end().await;

    let listeners = ServeArgs::augment_args(clap::Command::new("serve"));
    let listeners =
        listeners.get_arguments().filter_map(|flag| flag.get_long().filter(|flag| flag.starts_with("listen")));
    let doors: BTreeSet<String> = others.into_iter().chain(listeners.map(|flag| format!("--{flag}"))).collect();
    let listed = std::fs::read_to_string(WATCHED).unwrap();
    let listed = listed.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<BTreeSet<String>>();
    assert_eq!(
        doors, listed,
        "doors, and those of tests/e2e/tests/e2e/doors/list.txt: each needs a row in the tests there"
    );
}
