//! `bigpeer_api_key`.

use bigpeer_control::ApiKeyRequest;
use serde_json::{Value as Json, json};

use super::{Kind, created, named, of_app, permissions};
use crate::field::Field;

pub(super) fn kind() -> Kind {
    let limits = vec![
        Field::whole("sql_queries").doc("SQL queries at once."),
        Field::whole("sql_time_secs").doc("Seconds that a SQL query may take."),
        Field::whole("sql_memory_bytes").doc("Bytes of memory for sorts, joins and groups of a SQL query."),
        Field::whole("sql_scan_bytes").doc("Bytes of stored data that a SQL query may read."),
        Field::whole("requests_per_second").doc("Requests a second."),
    ];
    let fields = vec![
        of_app(),
        named("What it is called: 1 to 63 of `a-z A-Z 0-9 . _ -`."),
        Field::group("permissions", permissions::fields())
            .required()
            .block_rule(permissions::check)
            .doc("What it may do. What is not allowed is denied."),
        Field::time("expires_at").doc("When it ends, in RFC 3339; without, never."),
        Field::group("limits", limits).doc("What it may use, where that is less than the server allows any key."),
        Field::text_set("scopes").or(json!(["changes", "data", "sql", "sync"])).doc(
            "The doors that it opens, of `data`, `sql`, `changes`, `sync` and `admin` (the admin API of its own app).",
        ),
        Field::text("description").doc("What people say of it."),
        Field::text("key").answer().secret().doc(
            "The secret. It is shown when the key is made, and never again: an imported key has none. To have another, \
             replace the resource (`terraform apply -replace=…`).",
        ),
        Field::text("prefix").answer().doc("What the secret starts with: to find the key by."),
        created(),
    ];
    Kind {
        example: include_str!("../../../examples/resources/bigpeer_api_key/resource.tf"),
        check,
        shown_once: |_| Some("key"),
        ..Kind::new(
            "api_key",
            "A secret that opens one app. Changes of its permissions hold within a second, in open sessions, too.",
            "apps/{app}/api-keys/{name}",
            fields,
        )
    }
}

fn check(json: &Json) -> Result<(), String> {
    let request: ApiKeyRequest = serde_json::from_value(json.clone()).map_err(|error| error.to_string())?;
    request.check()
}
