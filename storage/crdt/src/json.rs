//! Values from and to JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bigpeer_types::limits::MAX_DEPTH;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use thiserror::Error;

use crate::value::{Object, Value};

/// The key with which JSON says that something is binary data.
const BINARY: &str = "$binary";

/// JSON that cannot be a value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ValueError {
    /// Nested deeper than documents may be.
    #[error("the value is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// An object whose only key is `$binary` and whose text is not base64.
    #[error("'$binary' needs text in base64 (standard alphabet, with padding)")]
    NotBase64,
}

impl Value {
    /// From JSON. Integers within `i64` and `u64` stay integers; `{"$binary": "<base64>"}` is binary data.
    ///
    /// # Errors
    /// When it nests too deep, or its `$binary` is text but not base64.
    pub fn from_json(json: serde_json::Value) -> Result<Self, ValueError> {
        from_json(json, MAX_DEPTH)
    }

    /// To JSON. Bytes become `{"$binary": "<base64>"}`; NaN and the infinities, which JSON lacks, become `null`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::UInt(value) => (*value).into(),
            Self::Float(value) => (*value).into(),
            Self::String(value) => serde_json::Value::String(value.as_ref().to_owned()),
            Self::Bytes(value) => serde_json::json!({ BINARY: STANDARD.encode(value) }),
            Self::Array(items) => items.iter().map(Self::to_json).collect(),
            Self::Object(object) => object.to_json(),
        }
    }
}

impl Object {
    /// To a JSON object, as [`Value::to_json`].
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        self.iter().map(|(key, value)| (key.to_owned(), value.to_json())).collect::<serde_json::Map<_, _>>().into()
    }
}

fn from_json(json: serde_json::Value, levels: usize) -> Result<Value, ValueError> {
    let inner = || levels.checked_sub(1).ok_or(ValueError::TooDeep);
    Ok(match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Bool(value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::UInt(number),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => text.into(),
        serde_json::Value::Array(items) => {
            let levels = inner()?;
            Value::Array(items.into_iter().map(|item| from_json(item, levels)).collect::<Result<_, _>>()?)
        }
        serde_json::Value::Object(map) => {
            if let (1, Some(serde_json::Value::String(text))) = (map.len(), map.get(BINARY)) {
                return STANDARD.decode(text).map(Value::from).map_err(|_| ValueError::NotBase64);
            }
            let levels = inner()?;
            let entries = map.into_iter().map(|(key, value)| Ok((key, from_json(value, levels)?)));
            Value::Object(entries.collect::<Result<Vec<_>, _>>()?.into_iter().collect())
        }
    })
}

/// As [`Value::to_json`]; formats that are not text, such as CBOR, have bytes and all floats of their own.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => to.serialize_unit(),
            Self::Bool(value) => to.serialize_bool(*value),
            Self::Int(value) => to.serialize_i64(*value),
            Self::UInt(value) => to.serialize_u64(*value),
            Self::Float(value) if value.is_finite() || !to.is_human_readable() => to.serialize_f64(*value),
            Self::Float(_) => to.serialize_unit(),
            Self::String(value) => to.serialize_str(value),
            Self::Bytes(value) if !to.is_human_readable() => to.serialize_bytes(value),
            Self::Bytes(value) => {
                let mut map = to.serialize_map(Some(1))?;
                map.serialize_entry(BINARY, &STANDARD.encode(value))?;
                map.end()
            }
            Self::Array(items) => {
                let mut list = to.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Self::Object(object) => object.serialize(to),
        }
    }
}

/// As [`Object::to_json`].
impl Serialize for Object {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.len()))?;
        self.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_round_trips() {
        for json in [
            json!(null),
            json!(true),
            json!([0, -1, i64::MIN, i64::MAX, u64::MAX]),
            json!([1.0, -0.5, 1e300]),
            json!({"a": {"b": [], "c": {}}, "": "ü\u{0}"}),
            json!({"$binary": "AAEC"}),
            json!({"$binary": 1}),
            json!({"$binary": "not base64!", "other": 1}),
        ] {
            let value = Value::from_json(json.clone()).unwrap();
            assert_eq!(value.to_json(), json);
            assert_eq!(serde_json::to_value(&value).unwrap(), json);
        }
    }

    #[test]
    fn integers_stay_integers_and_floats_floats() {
        assert_eq!(Value::from_json(json!(1)).unwrap(), Value::Int(1));
        assert_eq!(Value::from_json(json!(1.0)).unwrap(), Value::Float(1.0));
        assert_eq!(Value::from_json(json!(u64::MAX)).unwrap(), Value::UInt(u64::MAX));
        assert_eq!(serde_json::to_string(&Value::Float(1.0)).unwrap(), "1.0");
    }

    #[test]
    fn what_json_lacks_becomes_null() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Value::Float(number).to_json(), json!(null));
            assert_eq!(serde_json::to_string(&Value::Float(number)).unwrap(), "null");
        }
    }

    #[test]
    fn binary_data_has_its_own_form() {
        assert_eq!(Value::from_json(json!({"$binary": "AAEC"})).unwrap(), Value::from(vec![0_u8, 1, 2]));
        assert_eq!(Value::from_json(json!({"$binary": "!"})), Err(ValueError::NotBase64));
    }

    #[test]
    fn depth_is_limited() {
        let nested = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!([inner]));
        assert!(Value::from_json(nested(MAX_DEPTH)).is_ok());
        assert_eq!(Value::from_json(nested(MAX_DEPTH + 1)), Err(ValueError::TooDeep));
    }
}
