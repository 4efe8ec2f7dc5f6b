//! The kinds of resources: each with its fields, its path in the API, and the server's own rules for it.

mod api_key;
mod app;
mod auth_provider;
mod change_feed;
mod permissions;
mod quota;
mod role;
mod tenant;

use bigpeer_chassis::Name;
use bigpeer_types::AppId;
use serde_json::{Map as Object, Value as Json};

use crate::field::Field;
use crate::value::Map;

/// A kind of resource.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    /// Its name, without `bigpeer_`.
    pub(crate) name: &'static str,
    /// What it is: one sentence, then what else is to be known.
    pub(crate) doc: &'static str,
    /// An example of it.
    pub(crate) example: &'static str,
    /// Its attributes and blocks.
    pub(crate) fields: Vec<Field>,
    /// Its path below `/admin/v1`: fixed parts, and in braces fields.
    pub(crate) path: &'static str,
    /// From its fields by their names in the API to the body of a `PUT`.
    pub(crate) to_api: fn(Object<String, Json>) -> Json,
    /// From an answer to its fields.
    pub(crate) from_api: fn(Json) -> Object<String, Json>,
    /// The rules of the server for the body of a `PUT`.
    pub(crate) check: fn(&Json) -> Result<(), String>,
    /// The field that an answer to a first `PUT` with this body holds, and no other answer.
    pub(crate) shown_once: fn(&Json) -> Option<&'static str>,
    /// What else a plan says, where it was made from this configuration.
    pub(crate) adjust: fn(&mut Map),
    /// Blocks of which there is to be one.
    pub(crate) one_of: &'static [&'static str],
    /// Whether it is there as soon as what it is of is.
    pub(crate) is_always_there: bool,
    /// Whether there is a data source of it, too.
    pub(crate) is_data_source: bool,
}

impl Kind {
    /// A kind whose fields are the body.
    fn new(name: &'static str, doc: &'static str, path: &'static str, fields: Vec<Field>) -> Self {
        Self {
            name,
            doc,
            example: "",
            fields,
            path,
            to_api: Json::Object,
            from_api: members,
            check: |_| Ok(()),
            shown_once: |_| None,
            adjust: |_| {},
            one_of: &[],
            is_always_there: false,
            is_data_source: false,
        }
    }

    /// The fields that say where it is, in the order of its path.
    pub(crate) fn place(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| field.is_place)
    }

    /// How it is written when it is imported.
    pub(crate) fn import_format(&self) -> String {
        let parts: Vec<String> = self.place().map(|field| format!("<{}>", field.name)).collect();
        parts.join("/")
    }
}

/// Every kind.
pub(crate) fn all() -> Vec<Kind> {
    vec![
        tenant::kind(),
        app::kind(),
        api_key::kind(),
        auth_provider::kind(),
        role::kind(),
        quota::kind(),
        change_feed::kind(),
    ]
}

/// The members of an object; none of anything else.
fn members(json: Json) -> Object<String, Json> {
    match json {
        Json::Object(members) => members,
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => Object::new(),
    }
}

/// What the server takes as a name.
fn name(text: &str) -> Result<(), String> {
    text.parse::<Name>().map(|_| ()).map_err(|error| error.to_string())
}

/// What the server takes as an app's id.
fn app_id(text: &str) -> Result<(), String> {
    AppId::new(text).map(|_| ()).map_err(|error| format!("{error}: the id of an app, not its name, belongs here"))
}

/// The app that a resource is of.
fn of_app() -> Field {
    Field::text("app")
        .place()
        .rule(app_id)
        .doc("The id of the app, as `bigpeer_app` has it. Another app is another resource.")
}

/// What it is called.
fn named(doc: &'static str) -> Field {
    Field::text("name").place().rule(name).doc(doc)
}

/// When it was made.
fn created() -> Field {
    Field::time("created_at").answer().doc("When it was made, in RFC 3339.")
}

fn deletion_protection(default: bool) -> Field {
    Field::flag("deletion_protection").or(default).doc(
        "Whether it is there to stay: while it is `true` nothing deletes it, neither Terraform nor anybody else. \
         To delete it, apply `false` first.",
    )
}
