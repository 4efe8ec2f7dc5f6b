//! The OpenAPI document is what is committed, and true to itself.

use super::*;

const COMMITTED: &str = include_str!("../../../../docs/openapi.json");

#[test]
fn the_committed_document_is_the_generated_one() {
    let generated = serde_json::to_string_pretty(&openapi()).unwrap() + "\n";
    if std::env::var_os("BIGPEER_WRITE_OPENAPI").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json"), &generated).unwrap();
        return;
    }
    assert!(COMMITTED == generated, "run BIGPEER_WRITE_OPENAPI=1 cargo test -p bigpeer-api openapi");
}

#[test]
fn every_reference_leads_somewhere_and_everything_is_described() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
                object.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let document = openapi();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 50);
    for reference in found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
    for route in routes::all() {
        let path = route.path.trim_start_matches("/{app}");
        let operations = document["paths"][path].as_object().unwrap_or_else(|| panic!("{path} is not described"));
        for operation in operations.values() {
            assert!(operation["operationId"].is_string() && operation["summary"].is_string(), "{path}");
        }
    }
}

#[tokio::test]
async fn it_is_served_for_the_app_without_a_key() {
    let world = world(short()).await;
    for (app, url) in [(world.app.as_str(), format!("/{}", world.app)), ("%22x", "/{app}".to_owned())] {
        let request = Request::get(format!("/{app}/api/v4/swagger.json")).body(Body::empty()).unwrap();
        let response = world.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let json: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((&json["openapi"], &json["servers"][0]["url"]), (&json!("3.1.0"), &json!(url)));
    }
}
