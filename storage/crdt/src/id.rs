//! `DocId`: a document's `_id`.
use crate::error::DecodeError;
use crate::value::Value;
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// A document's `_id` as order-preserving key bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocId(Arc<[u8]>);

/// A value that cannot be an `_id`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DocIdError {
    /// NaN or an infinity.
    #[error("an _id cannot be NaN or infinite")]
    NotANumber,
    /// Longer than allowed.
    #[error("an _id of {0} bytes is longer than the allowed {max}", max = bigpeer_types::limits::MAX_DOCUMENT_ID_BYTES)]
    TooLong(usize),
    /// Nested too deep.
    #[error("an _id cannot nest deeper than {} levels", bigpeer_types::limits::MAX_DEPTH)]
    TooDeep,
    /// Key bytes that are not canonical.
    #[error("not the key of an _id: {0}")]
    NotAKey(#[from] DecodeError),
}

impl DocId {
    /// The id that is `value`.
    /// # Errors
    /// When it cannot be an id.
    pub fn from_value(value: &Value) -> Result<Self, DocIdError> {
        let _ = value;
        Ok(Self(Arc::from(&b""[..])))
    }
    /// The value that the id is.
    #[must_use]
    pub fn to_value(&self) -> Value {
        Value::Null
    }
    /// The key bytes; their order is the order of ids.
    #[must_use]
    pub fn as_key(&self) -> &[u8] {
        &self.0
    }
    /// Reads key bytes.
    /// # Errors
    /// When they are not canonical.
    pub fn from_key(key: &[u8]) -> Result<Self, DocIdError> {
        Ok(Self(Arc::from(key)))
    }
}

impl fmt::Debug for DocId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_value().fmt(f)
    }
}
