//! The description of `GET /changes`, which the change feed serves beside this crate's routes: one document describes all
//! that an app's key opens.

use serde_json::{Value, json};

use super::schema;

/// Its operations.
pub(super) fn path() -> Value {
    let parameter = |name: &str, description: &str, of: Value| json!({ "name": name, "in": "query", "required": false, "description": description, "schema": of });
    let text = || json!({ "type": "string" });
    let choice = |of: &[&str]| json!({ "type": "string", "enum": of });
    let refusal = |description: &str| json!({ "description": description, "content": { "application/json": { "schema": schema("Error") } } });
    json!({
        "get": {
            "operationId": "changes",
            "summary": "What changes, as a stream that does not end",
            "description": "Server-sent events where Accept asks for text/event-stream, else lines of JSON. See docs/changes.md.",
            "parameters": [
                parameter("cursor", "Go on behind this.", text()),
                parameter("snapshot", "Start with all documents, unless a cursor is given.", json!({ "type": "boolean", "default": false })),
                parameter("collections", "Names with commas between; without, all.", text()),
                parameter("where", "A DQL condition on the documents of the one collection.", text()),
                parameter("on", "What the condition is asked of.", choice(&["view", "before", "after"])),
                parameter("paths", "Only changes of one of these paths, with commas between.", text()),
                parameter("fields", "Only these fields, with commas between.", text()),
                parameter("values", "How values are written.", choice(&["untyped", "typed"])),
                parameter("format", "The envelope of events.", choice(&["json", "cloudevents"])),
                parameter("follow", "Whether the stream stays open; without, it ends when everything was told that was written before.", json!({ "type": "boolean", "default": true })),
                parameter("heartbeat", "Seconds between heartbeats.", json!({ "type": "integer", "minimum": 1, "maximum": 300, "default": 15 })),
                { "name": "Last-Event-ID", "in": "header", "required": false, "description": "A cursor; wins over the parameter.", "schema": text() }
            ],
            "responses": {
                "200": {
                    "description": "Events, for as long as the reader listens.",
                    "content": {
                        "application/x-ndjson": { "schema": schema("ChangeEvent") },
                        "text/event-stream": { "schema": text() }
                    }
                },
                "400": refusal("A parameter cannot be understood."),
                "401": refusal("No valid key or token for this app."),
                "403": refusal("The key is good, and may not read a collection that was named."),
                "429": refusal("This app has too many streams open."),
                "500": refusal("The server failed; report the request id."),
                "503": refusal("Not now; with Retry-After.")
            }
        }
    })
}

/// The schema of one event.
pub(super) fn schemas() -> Value {
    let document = json!({ "type": ["object", "null"] });
    json!({
        "ChangeEvent": {
            "type": "object",
            "required": ["type"],
            "properties": {
                "type": { "type": "string", "enum": ["documentChanged", "snapshotBegin", "snapshotEnd", "requeryRequired", "heartbeat", "error"] },
                "id": { "type": "string", "description": "The same whenever the event is told again." },
                "cursor": { "type": "string", "description": "Where a reader that has seen this goes on." },
                "txnId": schema("TransactionNumber"),
                "lsn": { "type": "string" },
                "collection": { "type": "string" },
                "documentId": {},
                "change": {
                    "type": "object",
                    "required": ["method"],
                    "properties": {
                        "method": { "type": "string", "enum": ["upsert", "update", "remove"] },
                        "oldValue": document, "newValue": document, "value": document
                    }
                },
                "changedPaths": { "type": "array", "items": { "type": "string" } },
                "site": { "type": "string" },
                "seq": { "type": "integer", "minimum": 1 },
                "time": { "type": "string", "format": "date-time" },
                "snapshot": { "type": "boolean" },
                "collections": { "type": "array", "items": { "type": "string" } },
                "documents": { "type": "array", "maxItems": 0, "items": {} },
                "error": { "type": "object" }
            }
        }
    })
}
