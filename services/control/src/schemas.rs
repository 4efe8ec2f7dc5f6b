//! The JSON schemas of what the admin API takes and answers.

use bigpeer_chassis::{Door, ErrorCode};
use serde_json::{Map, Value, json};

/// A closed object: required fields, and optional ones behind them.
fn object(required: &[(&str, Value)], optional: &[(&str, Value)]) -> Value {
    let names: Vec<&str> = required.iter().map(|(name, _)| *name).collect();
    let all = required.iter().chain(optional).map(|(name, schema)| ((*name).to_owned(), schema.clone()));
    let mut schema = json!({
        "type": "object", "properties": all.collect::<Map<_, _>>(), "additionalProperties": false
    });
    if let (Value::Object(schema), false) = (&mut schema, names.is_empty()) {
        schema.insert("required".to_owned(), json!(names));
    }
    schema
}

/// A schema that all can refer to, by its name in `components`.
fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// Milliseconds since the epoch.
fn moment() -> Value {
    json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX, "description": "Milliseconds since the epoch." })
}

fn or_null(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(kind) = schema.get("type").cloned() {
        schema["type"] = json!([kind, "null"]);
    }
    schema
}

fn description() -> Value {
    json!({ "type": ["string", "null"], "maxLength": crate::MAX_DESCRIPTION, "description": "For people." })
}

pub(crate) fn name() -> Value {
    json!({ "type": "string", "pattern": "^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,62}$" })
}

pub(crate) fn app_id() -> Value {
    json!({ "type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,62}$" })
}

/// The body by which something is protected from deletion.
pub(crate) fn protection(default: bool) -> Value {
    let flag = json!({
        "type": "boolean", "default": default, "description": "Refuse to delete it until this is set to false."
    });
    object(&[], &[("deletion_protection", flag)])
}

pub(crate) fn tenant() -> Value {
    object(&[("name", name()), ("deletion_protection", json!({ "type": "boolean" })), ("created_at", moment())], &[])
}

pub(crate) fn app() -> Value {
    object(
        &[
            ("id", app_id()),
            ("tenant", name()),
            ("name", name()),
            ("deletion_protection", json!({ "type": "boolean" })),
            ("created_at", moment()),
        ],
        &[],
    )
}

fn count(description: &str) -> Value {
    json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX, "description": description })
}

pub(crate) fn quota() -> Value {
    let limit = |maximum: u64, description: &str| json!({ "type": ["integer", "null"], "minimum": 0, "maximum": maximum, "description": description });
    let small = |description: &str| limit(u32::MAX.into(), description);
    let large = |description: &str| limit(u64::MAX, description);
    object(
        &[],
        &[
            ("requests_per_second", small("Requests a second.")),
            ("request_burst", small("Requests at once after a silence; without, those of one second.")),
            ("key_requests_per_second", small("Requests a second of each key or user.")),
            ("bytes_in_per_second", large("Bytes a second that come in.")),
            ("sessions", small("Sync sessions at once.")),
            ("subscriptions", small("Subscriptions of all sessions together.")),
            ("session_subscriptions", small("Subscriptions of one session.")),
            ("storage_bytes", large("Bytes of documents and attachments; beyond, only deletions are taken.")),
            ("sql_queries", small("SQL queries at once.")),
            ("sql_time_secs", small("Seconds that a SQL query may take.")),
            ("sql_memory_bytes", large("Bytes of memory of a SQL query.")),
            ("feed_lag_bytes", large("Bytes of changes that are kept for feeds that lag, at most.")),
        ],
    )
}

fn used() -> Vec<(&'static str, Value)> {
    let counts = |names: &[&'static str], description: &str| {
        object(&names.iter().map(|name| (*name, count(description))).collect::<Vec<_>>(), &[])
    };
    vec![
        ("written", counts(&["transactions", "documents", "bytes"], "Exact, since the app was made.")),
        ("stored", counts(&["document_bytes", "attachment_bytes"], "Now.")),
        (
            "about",
            counts(
                &["requests", "requests_refused", "bytes_in", "bytes_out", "sql_ms"],
                "About: what a process that was killed had not written is not in it.",
            ),
        ),
    ]
}

pub(crate) fn usage_of_app() -> Value {
    let mut fields = used();
    fields.push(("app", app_id()));
    fields.push(("transaction_id", count("The transaction up to which 'written' counts.")));
    object(&fields, &[])
}

pub(crate) fn usage_of_tenant(of_app: Value) -> Value {
    let mut fields = used();
    fields.push(("apps", json!({ "type": "array", "items": of_app })));
    object(&fields, &[])
}

pub(crate) fn compacted() -> Value {
    object(&[("lsn", json!({ "type": "string" })), ("manifest", json!({ "type": "integer", "minimum": 0 }))], &[])
}

fn scopes() -> Value {
    let doors: Vec<&str> = Door::ALL.into_iter().map(Door::as_str).collect();
    json!({
        "type": "array", "items": { "type": "string", "enum": doors }, "minItems": 1,
        "default": ["data", "sql", "changes", "sync"],
        "description": "The doors that the key opens; 'admin' is the admin API of its own app."
    })
}

pub(crate) fn api_key_request() -> Value {
    object(
        &[("permissions", reference("Permissions"))],
        &[
            ("scopes", scopes()),
            ("expires_at", or_null(&moment())),
            ("limits", reference("KeyLimits")),
            ("description", description()),
        ],
    )
}

fn api_key_fields() -> Vec<(&'static str, Value)> {
    vec![
        ("name", name()),
        ("prefix", json!({ "type": "string" })),
        ("permissions", reference("Permissions")),
        ("scopes", scopes()),
        ("expires_at", or_null(&moment())),
        ("limits", reference("KeyLimits")),
        ("description", json!({ "type": ["string", "null"] })),
        ("created_at", moment()),
        ("last_used", or_null(&moment())),
    ]
}

pub(crate) fn api_key() -> Value {
    object(&api_key_fields(), &[])
}

pub(crate) fn new_api_key() -> Value {
    let mut fields = api_key_fields();
    fields.push(("key", json!({ "type": "string", "description": "The secret: in this answer only." })));
    object(&fields, &[])
}

fn scope() -> Value {
    json!({ "oneOf": [{ "type": "string", "const": "operator" }, object(&[("tenant", name())], &[])] })
}

pub(crate) fn admin_token_request() -> Value {
    object(&[("scope", scope())], &[("expires_at", or_null(&moment())), ("description", description())])
}

fn admin_token_fields() -> Vec<(&'static str, Value)> {
    vec![
        ("name", name()),
        ("prefix", json!({ "type": "string" })),
        ("scope", scope()),
        ("expires_at", or_null(&moment())),
        ("description", json!({ "type": ["string", "null"] })),
        ("created_at", moment()),
        ("last_used", or_null(&moment())),
    ]
}

pub(crate) fn admin_token() -> Value {
    object(&admin_token_fields(), &[])
}

pub(crate) fn new_admin_token() -> Value {
    let mut fields = admin_token_fields();
    fields.push(("token", json!({ "type": "string", "description": "The secret: in this answer only." })));
    object(&fields, &[])
}

pub(crate) fn audit_entry() -> Value {
    let text = || json!({ "type": ["string", "null"] });
    let key = object(&[("app", app_id()), ("name", name())], &[]);
    let by = json!({ "oneOf": [
        { "type": "null" }, object(&[("token", name())], &[]), object(&[("key", key)], &[])
    ] });
    object(
        &[
            ("id", json!({ "type": "string" })),
            ("at", moment()),
            ("by", by),
            ("prefix", text()),
            ("method", json!({ "type": "string" })),
            ("path", json!({ "type": "string" })),
            ("tenant", text()),
            ("app", text()),
            ("status", json!({ "type": ["integer", "null"] })),
            ("fields", json!({ "type": "array", "items": { "type": "string" } })),
            ("from", text()),
            ("request_id", text()),
            ("omitted", json!({ "type": "integer", "minimum": 0 })),
        ],
        &[],
    )
}

/// What others refer to.
pub(crate) fn components() -> Value {
    let codes: Vec<&str> = ErrorCode::ALL.into_iter().map(ErrorCode::as_str).collect();
    let place = json!({ "type": "integer", "minimum": 1 });
    let error = object(
        &[("code", json!({ "type": "string", "enum": codes })), ("message", json!({ "type": "string" }))],
        &[("position", object(&[("line", place.clone()), ("column", place)], &[]))],
    );
    let conditions = json!({
        "type": "object", "additionalProperties": { "type": "array", "items": { "type": "string" } },
        "description": "Per collection conditions, of which one must hold."
    });
    let access = object(
        &[],
        &[("everything", json!({ "type": "boolean", "default": false })), ("queriesByCollection", conditions)],
    );
    let version = json!({ "type": "integer", "enum": [0, 1], "default": 0 });
    let most = |max: u64| json!({ "type": ["integer", "null"], "minimum": 0, "maximum": max });
    json!({
        "Error": object(&[("error", error)], &[("request_id", json!({ "type": "string" }))]),
        "Access": access,
        "Permissions": object(
            &[],
            &[
                ("qlVersion", version),
                ("remoteQuery", json!({ "type": "boolean", "default": false })),
                ("read", reference("Access")),
                ("write", reference("Access")),
            ],
        ),
        "KeyLimits": object(
            &[],
            &[
                ("sql_queries", most(u64::from(u32::MAX))),
                ("sql_time_secs", most(u64::from(u32::MAX))),
                ("sql_memory_bytes", most(u64::MAX)),
                ("sql_scan_bytes", most(u64::MAX)),
                ("requests_per_second", most(u64::from(u32::MAX))),
            ],
        ),
    })
}
