//! `Val`: a value as Terraform has it, of any type, known or not yet.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tf_provider::value::Value;

/// A value that may be null, or unknown while a plan is made.
pub(crate) type Val = Value<Known>;

/// The attributes of an object.
pub(crate) type Map = BTreeMap<String, Val>;

/// A value that is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Known {
    /// `true` or `false`.
    Flag(bool),
    /// A whole number.
    Whole(i64),
    /// Any other number.
    Number(f64),
    /// Text.
    Text(String),
    /// A list or set; blocks of which there may be several.
    List(Vec<Val>),
    /// A map or an object.
    Map(Map),
}

/// Text, as a value.
pub(crate) fn text(text: impl Into<String>) -> Val {
    Value::Value(Known::Text(text.into()))
}

/// An object, as a value.
pub(crate) const fn object(map: Map) -> Val {
    Value::Value(Known::Map(map))
}

/// A list, as a value.
pub(crate) const fn list(values: Vec<Val>) -> Val {
    Value::Value(Known::List(values))
}

/// The text that a value is, when it is known.
pub(crate) const fn as_text(value: &Val) -> Option<&str> {
    match value {
        Value::Value(Known::Text(text)) => Some(text.as_str()),
        Value::Value(Known::Flag(_) | Known::Whole(_) | Known::Number(_) | Known::List(_) | Known::Map(_))
        | Value::Null
        | Value::Unknown => None,
    }
}

/// The object that a value is, when it is known.
pub(crate) const fn as_map(value: &Val) -> Option<&Map> {
    match value {
        Value::Value(Known::Map(map)) => Some(map),
        Value::Value(Known::Flag(_) | Known::Whole(_) | Known::Number(_) | Known::Text(_) | Known::List(_))
        | Value::Null
        | Value::Unknown => None,
    }
}

/// The elements of a list or set, when it is known.
pub(crate) fn as_list(value: &Val) -> Option<&[Val]> {
    match value {
        Value::Value(Known::List(values)) => Some(values),
        Value::Value(Known::Flag(_) | Known::Whole(_) | Known::Number(_) | Known::Text(_) | Known::Map(_))
        | Value::Null
        | Value::Unknown => None,
    }
}

/// Whether a value and all in it are known.
pub(crate) fn is_known(value: &Val) -> bool {
    match value {
        Value::Unknown => false,
        Value::Value(Known::List(values)) => values.iter().all(is_known),
        Value::Value(Known::Map(map)) => map.values().all(is_known),
        Value::Value(Known::Flag(_) | Known::Whole(_) | Known::Number(_) | Known::Text(_)) | Value::Null => true,
    }
}

/// The value of an attribute; null when it is not there.
pub(crate) fn attribute<'m>(map: &'m Map, name: &str) -> &'m Val {
    const NULL: &Val = &Value::Null;
    map.get(name).unwrap_or(NULL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_through_terraforms_encoding_as_they_are() {
        let map: Map = [
            ("flag".to_owned(), Value::Value(Known::Flag(true))),
            ("whole".to_owned(), Value::Value(Known::Whole(1 << 40))),
            ("number".to_owned(), Value::Value(Known::Number(1.5))),
            ("text".to_owned(), text("a")),
            ("null".to_owned(), Value::Null),
            ("unknown".to_owned(), Value::Unknown),
            ("list".to_owned(), list(vec![text("b"), Value::Unknown, Value::Null])),
            ("map".to_owned(), object([("k".to_owned(), list(vec![]))].into())),
        ]
        .into();
        let value = object(map);
        let bytes = rmp_serde::to_vec_named(&value).unwrap();
        let again: Val = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!(again, value);
        assert!(!is_known(&value));
    }
}
