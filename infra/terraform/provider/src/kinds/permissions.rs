//! The block of permissions that keys, providers and roles have.

use bigpeer_chassis::Permissions;
use serde_json::Value as Json;

use crate::field::Field;

/// What the block is, with the server's rules for it.
pub(super) fn fields() -> Vec<Field> {
    let access = || {
        vec![
            Field::flag("everything").or(false).doc("Every document of every collection."),
            Field::texts_map("queries_by_collection").json("queriesByCollection").or(Json::Object(serde_json::Map::new())).doc(
                "Per collection a list of conditions over the document's fields, of which one must hold; `[\"true\"]` is the \
                 whole collection. `:claims.x` is what is known of the caller.",
            ),
        ]
    };
    vec![
        Field::whole("ql_version").json("qlVersion").or(1).doc(
            "The language of the conditions: 1 is DQL, 0 the older query language, which the API takes where nothing is said.",
        ),
        Field::flag("remote_query").json("remoteQuery").or(false).doc("Whether queries may be sent to devices."),
        Field::group("read", access()).doc("What may be read."),
        Field::group("write", access()).doc("What may be written."),
    ]
}

/// Whether the server would take it.
pub(super) fn check(json: &Json) -> Result<(), String> {
    // What is not known yet is not there; the language decides how the rest is read.
    if json.get("qlVersion").is_none() {
        return Ok(());
    }
    let permissions: Permissions = serde_json::from_value(json.clone()).map_err(|error| error.to_string())?;
    permissions.check()
}
