//! The OpenAPI 3.1 description of the admin API, made from the lists that its routers are made of: what is not described is
//! not served.

use axum::Json as Answer;
use axum::extract::State;
use bigpeer_chassis::admin::{AdminRoute, Asks, Described};
use serde_json::{Map, Value, json};

use crate::{ControlContext, described, schemas};

pub(crate) fn routes() -> Vec<AdminRoute<ControlContext>> {
    vec![
        AdminRoute::get("/admin/v1/openapi.json", Asks::Nothing, serve)
            .says("This description")
            .answers(200, Some(json!({ "type": "object" }))),
    ]
}

async fn serve(State(context): State<ControlContext>) -> Answer<Value> {
    let mut all = described();
    all.extend(context.others.iter().cloned());
    Answer(document(&all))
}

/// The description of these routes.
#[must_use]
pub fn document(routes: &[Described]) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in routes {
        let path = paths.entry(route.path.to_owned()).or_insert_with(|| json!({ "parameters": named(route.path) }));
        path[route.method.as_str().to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "bigpeer admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Tenants, apps, keys, and who may what. See docs/admin.md.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" }
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "An admin token, or an API key that opens 'admin'." }
            },
            "responses": refused(),
            "schemas": schemas::components()
        }
    })
}

/// What requests are refused with.
const REFUSALS: [(u16, &str); 10] = [
    (400, "The request cannot be understood."),
    (401, "No valid admin token."),
    (403, "The token is good, and may not do this."),
    (404, "It does not exist, or it is not the caller's."),
    (408, "The body came too slowly, or did not come to its end."),
    (409, "What is there stands against it."),
    (413, "The body is too large."),
    (429, "Too many wrong tokens from this address; with Retry-After."),
    (500, "The server failed; report the request id."),
    (503, "Not now; with Retry-After."),
];

fn refuses(route: &Described, status: u16) -> bool {
    match status {
        408 | 409 | 413 => route.method != "GET",
        500 => true,
        _ => route.asks != Asks::Nothing,
    }
}

fn refused() -> Value {
    let schema = json!({ "$ref": "#/components/schemas/Error" });
    let all = REFUSALS.iter().map(|(status, description)| {
        let content = json!({ "application/json": { "schema": schema } });
        (format!("Refused{status}"), json!({ "description": description, "content": content }))
    });
    all.collect::<Map<_, _>>().into()
}

/// The parameters that a path names.
fn named(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameter = |name: &str| {
        let schema = match name {
            "app" => schemas::app_id(),
            "tenant" | "name" => schemas::name(),
            _ => json!({ "type": "string" }),
        };
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    };
    names.map(parameter).collect()
}

/// A name of the operation: its method and the parts of its path.
fn id(route: &Described) -> String {
    let mut id = route.method.as_str().to_ascii_lowercase();
    let parts = route.path.trim_start_matches("/admin/v1/").split(['/', '-', '.', '{', '}']);
    for part in parts.filter(|part| !part.is_empty()) {
        id.extend(part.chars().take(1).flat_map(char::to_uppercase));
        id.extend(part.chars().skip(1));
    }
    id
}

fn asks(asks: Asks) -> &'static str {
    match asks {
        Asks::Operator => "For operators.",
        Asks::Tenant => "For operators, and for who administers the tenant.",
        Asks::App => {
            "For operators, for who administers the app's tenant, and for API keys of the app that open 'admin'."
        }
        Asks::Tenants => "For operators, and for who administers a tenant: as far as it is theirs.",
        Asks::Anyone => "For everybody who administers something: as far as it is theirs.",
        Asks::Nothing => "For everybody.",
    }
}

fn operation(route: &Described) -> Value {
    let mut responses = Map::new();
    for (status, schema) in &route.answers {
        let mut response = json!({ "description": if *status == 201 { "It was made." } else { "It was done." } });
        if let Some(schema) = schema {
            response["content"] = json!({ "application/json": { "schema": schema } });
            if let Some(also) = route.also {
                response["content"][also] = json!({ "schema": { "type": "string" } });
            }
        }
        responses.insert(status.to_string(), response);
    }
    for (status, _) in REFUSALS.iter().filter(|(status, _)| refuses(route, *status)) {
        let response = json!({ "$ref": format!("#/components/responses/Refused{status}") });
        responses.insert(status.to_string(), response);
    }
    let mut operation = json!({
        "operationId": id(route),
        "summary": route.summary,
        "description": asks(route.asks),
        "responses": responses,
    });
    if route.asks == Asks::Nothing {
        operation["security"] = json!([]);
    }
    if !route.query.is_empty() {
        let parameters = route.query.iter();
        let parameters = parameters
            .map(|(name, schema)| json!({ "name": name, "in": "query", "required": false, "schema": schema }));
        operation["parameters"] = parameters.collect();
    }
    if let Some(schema) = &route.body {
        // Where nothing is required the body may be left out.
        let required = schema.get("required").is_some() || schema.get("properties").is_none();
        operation["requestBody"] =
            json!({ "required": required, "content": { "application/json": { "schema": schema } } });
    }
    operation
}
