//! Values from and to JSON.
use crate::value::{Object, Value};
use thiserror::Error;

/// JSON that cannot be a value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ValueError {
    /// Nested deeper than documents may be.
    #[error("the value is nested deeper than {} levels", bigpeer_types::limits::MAX_DEPTH)]
    TooDeep,
}

impl Value {
    /// From JSON. Integers stay integers; an object whose only key is `$binary` with base64 text is binary data.
    ///
    /// # Errors
    /// When it nests too deep.
    pub fn from_json(json: serde_json::Value) -> Result<Self, ValueError> {
        let _ = json;
        Ok(Self::Null)
    }

    /// To JSON. Bytes become `{"$binary": "<base64>"}`; NaN and the infinities, which JSON lacks, become `null`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

impl Object {
    /// To a JSON object, as [`Value::to_json`].
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

impl serde::Serialize for Value {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(to)
    }
}

impl serde::Serialize for Object {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(to)
    }
}
