//! The OpenAPI 3.1 description of the routes, made from the same list as the router: what is not described is not served.

mod changes;

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use bigpeer_chassis::ErrorCode;
use bigpeer_types::AppId;
use bigpeer_types::limits::MAX_STATEMENT_BYTES;
use serde_json::{Map, Value, json};

use crate::routes::Route;

/// `GET /{app}/api/v4/swagger.json`: needs no key, says nothing about the app.
pub(crate) async fn serve(Path(app): Path<String>) -> Response {
    let server = match AppId::new(&app) {
        Ok(app) => json!([{ "url": format!("/{app}") }]),
        Err(_) => servers(),
    };
    axum::Json(document(&crate::routes::all(), server)).into_response()
}

/// The description without an app.
#[must_use]
pub fn description() -> Value {
    document(&crate::routes::all(), servers())
}

fn servers() -> Value {
    json!([{ "url": "/{app}", "variables": { "app": { "default": "app", "description": "The id of the app." } } }])
}

fn document(routes: &[Route], servers: Value) -> Value {
    let mut paths = Map::new();
    for route in routes {
        let path = route.path.trim_start_matches("/{app}");
        let entry = paths.entry(path.to_owned()).or_insert_with(|| json!({}));
        if let (Value::Object(entry), Value::Object(operations)) = (entry, route.describe()) {
            entry.extend(operations);
        }
    }
    paths.insert("/changes".to_owned(), changes::path());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "bigpeer HTTP data API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Documents of one app. Answers are JSON, or CBOR where Accept asks for it; requests may be CBOR, too. See docs/http-api.md and docs/dql.md.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" }
        },
        "servers": servers,
        "security": [{ "key": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "key": { "type": "http", "scheme": "bearer", "description": "An API key of the app, or an access token from its login." }
            },
            "parameters": {
                "TransactionId": {
                    "name": "X-DITTO-TXN-ID", "in": "header", "required": false,
                    "description": "Wait until this transaction is visible; 404 when it is not soon enough.",
                    "schema": { "type": "integer", "minimum": 0, "maximum": u64::MAX }
                }
            },
            "schemas": schemas()
        }
    })
}

/// A reference to a schema.
fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// How a route answers what it refuses.
#[derive(Clone, Copy)]
pub(crate) enum Errors {
    /// In the envelope of `/store/execute`.
    Envelope,
    /// `{"message": …}`.
    Rpc,
    /// `{"error": …}`.
    Plain,
}

impl Errors {
    fn schema(self) -> Value {
        schema(match self {
            Self::Envelope => "QueryResponse",
            Self::Rpc => "RpcError",
            Self::Plain => "Error",
        })
    }
}

/// A POST with a JSON body.
pub(crate) fn post(id: &str, summary: &str, request: &str, response: &str, errors: Errors) -> Value {
    let mut responses = Map::new();
    responses.insert(
        "200".to_owned(),
        json!({
            "description": "It was done.",
            "headers": { "X-DITTO-TXN-ID": { "description": "What the answer is true at, or the commit.", "schema": { "type": "integer" } } },
            "content": { "application/json": { "schema": schema(response) }, "application/cbor": { "schema": schema(response) } }
        }),
    );
    for (status, description) in [
        ("400", "The request or the statement cannot be understood or carried out."),
        ("401", "No valid key or token for this app."),
        ("403", "The key is good, and may not do this."),
        ("404", "The named transaction did not become visible, or the document does not exist."),
        ("408", "It took too long; a mutation may have been carried out."),
        ("409", "Others keep changing the same documents; nothing was written, try again."),
        ("413", "The request, the transaction or the answer is too large."),
        ("429", "Too many statements are running and waiting; with Retry-After."),
        ("500", "The server failed; report the request id."),
        ("503", "Not now; with Retry-After."),
    ] {
        let content = json!({ "application/json": { "schema": errors.schema() } });
        responses.insert(status.to_owned(), json!({ "description": description, "content": content }));
    }
    json!({
        "post": {
            "operationId": id,
            "summary": summary,
            "parameters": [{ "$ref": "#/components/parameters/TransactionId" }],
            "requestBody": {
                "required": true,
                "content": { "application/json": { "schema": schema(request), "examples": examples(request) } }
            },
            "responses": responses
        }
    })
}

/// Requests that are answered 200 when there is a collection `people` with a document 1.
fn examples(request: &str) -> Value {
    let all = match request {
        "QueryRequest" => vec![
            json!({ "statement": "SELECT * FROM people WHERE name = :name", "args": { "name": "Ada" } }),
            json!({ "statement": "SELECT name, COUNT(*) AS n FROM people GROUP BY name ORDER BY n DESC LIMIT 10" }),
            json!({ "statement": "UPDATE people SET seen = clock() WHERE _id = 1 RETURNING *" }),
            json!({ "statement": "INSERT INTO people DOCUMENTS (:d)", "args": { "d": { "name": "Eve", "tags": ["x"] } } }),
            json!({ "statement": "EXPLAIN SELECT * FROM people WHERE _id = 1" }),
        ],
        "TransactionRequest" => vec![json!({ "statements": [
            { "statement": "UPDATE people APPLY visits INCREMENT BY 1 WHERE _id = 1" },
            { "statement": "SELECT visits FROM people WHERE _id = :id", "args": { "id": 1 } }
        ] })],
        "FindRequest" => vec![
            json!({ "collection": "people", "query": "true", "limit": 5, "sort": [{ "property": "name", "direction": "asc" }] }),
            json!({ "collection": "people", "query": "_id == $args.id", "args": { "id": 1 }, "serializedAs": "latestValuesAndTypes" }),
            json!({ "collection": "people", "query": "name == 'Ada'", "describe": true }),
        ],
        "FindByIdRequest" => vec![json!({ "collection": "people", "id": 1 })],
        "CountRequest" => vec![json!({ "collection": "people", "query": "starts_with(name, 'A')" })],
        "WriteRequest" => vec![json!({ "commands": [
            { "method": "upsert", "collection": "people", "id": 1, "value": { "name": "Ada" }, "valueTypeOverrides": { "visits": "counter" } },
            { "method": "update", "collection": "people", "query": "_id == 1", "commands": [{ "method": "increment", "path": "visits", "value": 1 }] },
            { "method": "remove", "collection": "people", "query": "name == 'nobody'" }
        ] })],
        _ => Vec::new(),
    };
    let named = all.into_iter().zip(1..).map(|(value, number)| (format!("example{number}"), json!({ "value": value })));
    named.collect::<Map<_, _>>().into()
}

/// The description of this description.
pub(crate) fn get_description() -> Value {
    json!({
        "get": {
            "operationId": "openapi",
            "summary": "This description",
            "security": [],
            "responses": {
                "200": { "description": "OpenAPI 3.1.", "content": { "application/json": { "schema": { "type": "object" } } } },
                "500": { "description": "The server failed.", "content": { "application/json": { "schema": schema("Error") } } }
            }
        }
    })
}

fn object(required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

fn closed(required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties, "additionalProperties": false })
}

/// With `method`, which says what kind of command it is.
fn command(method: &str, required: &[&str], mut properties: Value) -> Value {
    properties["method"] = json!({ "type": "string", "const": method });
    object(&[&["method"], required].concat(), properties)
}

fn schemas() -> Value {
    let mut all = Map::new();
    for part in [dql_schemas(), query_schemas(), write_schemas(), changes::schemas()] {
        if let Value::Object(part) = part {
            all.extend(part);
        }
    }
    all.into()
}

fn arguments() -> Value {
    json!({ "type": ["object", "null"], "description": "Values of the parameters, by name." })
}

fn dql_schemas() -> Value {
    let statement = json!({ "type": "string", "description": format!("One statement of DQL, of at most {MAX_STATEMENT_BYTES} bytes.") });
    let codes: Vec<&str> = ErrorCode::ALL.into_iter().map(ErrorCode::as_str).collect();
    let code = json!({ "type": "string", "enum": codes });
    let position =
        closed(&["line", "column"], json!({ "line": { "type": "integer" }, "column": { "type": "integer" } }));
    let id = json!({ "type": "integer", "minimum": 0 });
    json!({
        "Code": code,
        "Position": position,
        "TransactionNumber": id,
        "QueryRequest": object(&["statement"], json!({ "statement": statement, "args": arguments() })),
        "QueryResponse": closed(
            &["queryType", "items", "mutatedDocumentIds", "error", "warnings", "totalWarningsCount"],
            json!({
                "transactionId": schema("TransactionNumber"),
                "queryType": { "type": "string", "enum": ["select", "mutation", "unknown"] },
                "items": { "type": "array", "items": {} },
                "mutatedDocumentIds": { "type": "array", "items": {} },
                "error": closed(&[], json!({
                    "code": schema("Code"), "message": { "type": "string" }, "description": { "type": "string" }, "position": schema("Position")
                })),
                "warnings": { "type": "array", "maxItems": 10, "items": closed(&["description"], json!({ "_id": {}, "description": { "type": "string" } })) },
                "totalWarningsCount": { "type": "integer", "minimum": 0 },
                "request_id": { "type": "string" }
            }),
        ),
        "TransactionRequest": object(
            &["statements"],
            json!({
                "statements": { "type": "array", "minItems": 1, "maxItems": 1000, "items": schema("QueryRequest") },
                "strict": { "type": "boolean", "default": false, "description": "Objects are values, as under /api/v4." }
            }),
        ),
        "TransactionResponse": closed(
            &["transactionId", "results"],
            json!({ "transactionId": schema("TransactionNumber"), "results": { "type": "array", "items": schema("QueryResponse") } }),
        ),
        "Error": closed(
            &["error"],
            json!({
                "error": closed(&["code", "message"], json!({ "code": schema("Code"), "message": { "type": "string" }, "position": schema("Position") })),
                "request_id": { "type": "string" }
            }),
        ),
        "RpcError": closed(
            &["message", "code"],
            json!({ "message": { "type": "string" }, "code": schema("Code"), "position": schema("Position"), "request_id": { "type": "string" } }),
        )
    })
}

fn query_schemas() -> Value {
    let collection = json!({ "type": "string", "description": "The collection's name." });
    let query = json!({ "type": "string", "description": "A condition in the older query language; true is all." });
    let serialized = json!({ "type": ["string", "null"], "enum": ["latestValues", "latestValuesAndTypes", null] });
    let flag = json!({ "type": ["boolean", "null"] });
    let sort = object(
        &["property", "direction"],
        json!({ "property": { "type": "string" }, "direction": { "type": "string", "enum": ["asc", "desc"] } }),
    );
    let id = json!({ "description": "Any JSON scalar but null, or an array or object of them." });
    json!({
        "FindRequest": object(
            &["collection", "query"],
            json!({
                "collection": collection, "query": query, "args": arguments(),
                "limit": { "type": ["integer", "null"], "minimum": 0, "maximum": 100_000, "default": 1000 },
                "offset": { "type": ["integer", "null"], "minimum": 0, "maximum": u64::MAX },
                "sort": { "type": ["array", "null"], "items": sort },
                "serializedAs": serialized, "formatAttachment": flag, "describe": flag
            }),
        ),
        "Document": object(&["id", "fields"], json!({ "id": id, "fields": { "type": "object" } })),
        "FindResponse": closed(
            &["documents", "txnId"],
            json!({ "documents": { "type": "array", "items": schema("Document") }, "txnId": schema("TransactionNumber") }),
        ),
        "FindByIdRequest": object(
            &["collection", "id"],
            json!({ "collection": collection, "id": id, "serializedAs": serialized, "formatAttachment": flag }),
        ),
        "FindByIdResponse": closed(
            &["id", "fields", "txnId"],
            json!({ "id": id, "fields": { "type": "object" }, "txnId": schema("TransactionNumber") }),
        ),
        "CountRequest": object(&["collection", "query"], json!({ "collection": collection, "query": query, "args": arguments() })),
        "CountResponse": closed(
            &["count", "txnId"],
            json!({ "count": { "type": "integer", "minimum": 0 }, "txnId": schema("TransactionNumber") }),
        )
    })
}

fn write_schemas() -> Value {
    let collection = json!({ "type": "string" });
    let query = json!({ "type": "string" });
    let overrides = json!({
        "type": ["object", "null"], "additionalProperties": { "type": "string", "enum": ["counter", "register", "attachment"] }
    });
    let change = object(
        &["method", "path", "value"],
        json!({
            "method": { "type": "string", "enum": ["set", "setAttachment", "increment", "replaceWithCounter"] },
            "path": { "type": "string" }, "value": {}
        }),
    );
    let number = json!({ "type": "integer", "minimum": 0 });
    json!({
        "WriteRequest": object(
            &["commands"],
            json!({ "commands": { "type": "array", "minItems": 1, "maxItems": 1000, "items": { "oneOf": [
                schema("UpsertCommand"), schema("UpdateCommand"), schema("RemoveCommand")
            ] } } }),
        ),
        "UpsertCommand": command(
            "upsert",
            &["collection", "value"],
            json!({ "collection": collection, "value": { "type": "object" }, "id": {}, "valueTypeOverrides": overrides }),
        ),
        "UpdateCommand": command(
            "update",
            &["collection", "query", "commands"],
            json!({ "collection": collection, "query": query, "args": arguments(), "commands": { "type": "array", "minItems": 1, "items": change } }),
        ),
        "RemoveCommand": command(
            "remove",
            &["collection", "query"],
            json!({ "collection": collection, "query": query, "args": arguments() }),
        ),
        "WriteResponse": closed(
            &["results"],
            json!({ "results": { "type": "array", "items": { "oneOf": [
                command("upsert", &["transactionId"], json!({ "transactionId": number, "id": {} })),
                command("update", &["transactionId", "updated", "error"], json!({ "transactionId": number, "updated": number, "error": number })),
                command("remove", &["transactionId", "deleted"], json!({ "transactionId": number, "deleted": number }))
            ] } } }),
        )
    })
}
