//! The description of the admin API is the one that is committed, and the one that is served.

use serde_json::Value;

use super::*;
use crate::openapi as description;

const COMMITTED: &str = include_str!("../../../../docs/openapi-admin.json");

#[test]
fn the_committed_description_is_the_one_of_the_routes() {
    let mut all = described();
    all.extend(others());
    let generated = serde_json::to_string_pretty(&description(&all)).unwrap() + "\n";
    if std::env::var_os("BIGPEER_WRITE_OPENAPI").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi-admin.json"), &generated).unwrap();
        return;
    }
    assert!(COMMITTED == generated, "run BIGPEER_WRITE_OPENAPI=1 cargo test -p bigpeer-control openapi");
}

#[tokio::test]
async fn it_is_served_to_everybody_and_its_references_lead_somewhere() {
    let world = world().await;
    let (status, _, text) = world.send("GET", "/admin/v1/openapi.json", None, "").await;
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &document), (200, &serde_json::from_str(COMMITTED).unwrap()));
    let mut ids = std::collections::BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap().iter().filter(|(method, _)| *method != "parameters")
        {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{method} {path}: {id} is there twice");
            assert!(operation["responses"].as_object().unwrap().len() > 1);
        }
    }
    for reference in text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(document.pointer(reference).is_some(), "{reference}");
    }
}
