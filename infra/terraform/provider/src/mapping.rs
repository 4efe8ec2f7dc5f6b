//! Between Terraform and the API: what a plan is for a configuration, what is asked for a plan, and what the state is for an
//! answer. Without I/O.
//!
//! # Consistency
//! The plan holds every default of the server, so a change made behind Terraform's back is one from what is planned, and an
//! answer to what was planned is what was planned.

use jiff::Timestamp;
use serde_json::{Map as Object, Value as Json};
use tf_provider::AttributePath;
use tf_provider::value::Value;

use crate::field::{Field, Kind, Mode};
use crate::value::{Known, Map, Val, as_list, as_map, as_text, attribute, list, object, text};

/// What the API shows in the place of a secret.
const HIDDEN: &str = "(hidden)";

/// The state that a configuration asks for, where it was `prior`.
pub(crate) fn plan(fields: &[Field], config: &Map, prior: Option<&Map>) -> Map {
    let planned = |field: &Field| {
        let given = attribute(config, field.name);
        let before = prior.map(|prior| attribute(prior, field.name));
        let value = match &field.kind {
            Kind::Group(inner) => match given {
                Value::Unknown => Value::Unknown,
                Value::Value(_) | Value::Null => {
                    let empty = Map::new();
                    object(plan(inner, as_map(given).unwrap_or(&empty), before.and_then(as_map)))
                }
            },
            Kind::Optional(inner) | Kind::Blocks(inner) => plan_blocks(inner, given, before),
            Kind::Text
            | Kind::Whole
            | Kind::Flag
            | Kind::Time
            | Kind::Texts
            | Kind::TextSet
            | Kind::TextMap
            | Kind::TextsMap => match (&field.mode, given) {
                (Mode::Answer, _) => before.cloned().unwrap_or(Value::Unknown),
                (Mode::Default(default), Value::Null) => from_json(field, default, &Value::Null),
                (Mode::Required | Mode::Optional | Mode::Default(_), given) => given.clone(),
            },
        };
        (field.name.to_owned(), value)
    };
    fields.iter().map(planned).collect()
}

fn plan_blocks(inner: &[Field], given: &Val, before: Option<&Val>) -> Val {
    let Some(blocks) = as_list(given) else {
        return if given.is_unknown() { Value::Unknown } else { list(Vec::new()) };
    };
    let before = before.and_then(as_list).unwrap_or_default();
    let one = |(at, block): (usize, &Val)| match as_map(block) {
        Some(block) => object(plan(inner, block, before.get(at).and_then(as_map))),
        None => block.clone(),
    };
    list(blocks.iter().enumerate().map(one).collect())
}

/// Where a plan names another place than the state: what is there has to go, and another to be made.
pub(crate) fn moved(fields: &[Field], prior: &Map, planned: &Map) -> Vec<AttributePath> {
    let moves = |field: &&Field| field.is_place && attribute(prior, field.name) != attribute(planned, field.name);
    fields.iter().filter(moves).map(|field| AttributePath::new(field.name)).collect()
}

/// The body of the request for a plan. What is not known is left out.
pub(crate) fn request(fields: &[Field], planned: &Map) -> Object<String, Json> {
    let sent = |field: &Field| {
        let value = attribute(planned, field.name);
        let json = match &field.kind {
            Kind::Group(inner) => Json::Object(request(inner, as_map(value)?)),
            Kind::Optional(inner) => Json::Object(request(inner, as_map(as_list(value)?.first()?)?)),
            Kind::Blocks(inner) => {
                Json::Array(as_list(value)?.iter().filter_map(as_map).map(|one| request(inner, one).into()).collect())
            }
            Kind::Time => milliseconds(as_text(value)?).map_or_else(|| as_text(value).into(), Json::from),
            Kind::Text | Kind::Whole | Kind::Flag | Kind::Texts | Kind::TextSet | Kind::TextMap | Kind::TextsMap => {
                to_json(value)?
            }
        };
        Some((field.json.to_owned(), json))
    };
    fields.iter().filter(|field| field.is_sent()).filter_map(sent).collect()
}

/// The state after an answer, where it was `prior`, or is planned to be. What the API does not show again stays.
pub(crate) fn state(fields: &[Field], answer: &Object<String, Json>, prior: &Map) -> Map {
    let shown = |field: &Field| {
        let before = attribute(prior, field.name);
        let json = answer.get(field.json).unwrap_or(&Json::Null);
        let value = match &field.kind {
            _ if field.is_place => before.clone(),
            Kind::Group(inner) => object(inner_state(inner, json, before)),
            Kind::Optional(inner) | Kind::Blocks(inner) => {
                let blocks = match json {
                    Json::Null => &[],
                    Json::Array(blocks) => blocks.as_slice(),
                    Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Object(_) => std::slice::from_ref(json),
                };
                let before = as_list(before).unwrap_or_default();
                let one = |(at, json)| object(inner_state(inner, json, before.get(at).unwrap_or(&Value::Null)));
                list(blocks.iter().enumerate().map(one).collect())
            }
            Kind::Text
            | Kind::Whole
            | Kind::Flag
            | Kind::Time
            | Kind::Texts
            | Kind::TextSet
            | Kind::TextMap
            | Kind::TextsMap => match (json, &field.mode) {
                // Shown once: what was shown stays.
                (Json::Null, Mode::Answer) if !before.is_unknown() => before.clone(),
                (Json::Null, Mode::Default(default)) => from_json(field, default, before),
                (json, _) => from_json(field, json, before),
            },
        };
        (field.name.to_owned(), value)
    };
    fields.iter().map(shown).collect()
}

fn inner_state(inner: &[Field], json: &Json, before: &Val) -> Map {
    let (none, nothing) = (Map::new(), Object::new());
    state(inner, json.as_object().unwrap_or(&nothing), as_map(before).unwrap_or(&none))
}

/// A value of the API. `before` is what it was called before, where several texts mean the same, or the API hides it.
fn from_json(field: &Field, json: &Json, before: &Val) -> Val {
    match (&field.kind, json) {
        (_, Json::String(shown)) if field.is_secret && shown == HIDDEN => before.clone(),
        (_, Json::Array(shown)) if field.is_secret && is_hidden(shown) => match as_list(before) {
            // There are more or fewer than there were: that can be seen.
            Some(known) if known.len() != shown.len() => plain(json),
            Some(_) | None => before.clone(),
        },
        (Kind::Time, Json::Number(ms)) => {
            let same = as_text(before).filter(|text| milliseconds(text) == ms.as_i64());
            let written = || ms.as_i64().and_then(|ms| Timestamp::from_millisecond(ms).ok()).map(|at| at.to_string());
            same.map(str::to_owned).or_else(written).map_or(Value::Null, text)
        }
        _ => plain(json),
    }
}

fn is_hidden(shown: &[Json]) -> bool {
    !shown.is_empty() && shown.iter().all(|one| one == HIDDEN)
}

fn plain(json: &Json) -> Val {
    match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Value(Known::Flag(*flag)),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::Value(Known::Whole(whole)),
            (None, Some(number)) => Value::Value(Known::Number(number)),
            (None, None) => Value::Null,
        },
        Json::String(string) => text(string.as_str()),
        Json::Array(values) => list(values.iter().map(plain).collect()),
        Json::Object(map) => object(map.iter().map(|(key, value)| (key.clone(), plain(value))).collect()),
    }
}

/// A value as JSON; nothing when it is null or not known. Unknown elements are left out.
fn to_json(value: &Val) -> Option<Json> {
    let Value::Value(known) = value else { return None };
    Some(match known {
        Known::Flag(flag) => (*flag).into(),
        Known::Whole(whole) => (*whole).into(),
        Known::Number(number) => (*number).into(),
        Known::Text(text) => text.as_str().into(),
        Known::List(values) => values.iter().filter_map(to_json).collect(),
        Known::Map(map) => {
            Json::Object(map.iter().filter_map(|(key, value)| Some((key.clone(), to_json(value)?))).collect())
        }
    })
}

/// Milliseconds since the epoch, of a time in RFC 3339.
pub(crate) fn milliseconds(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests;
