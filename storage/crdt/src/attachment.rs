//! `Attachment`: the token of a blob that is stored elsewhere.

use std::cmp::Ordering;

use crate::codec::put_attachment;
use crate::value::{Object, Value};

/// What a document holds of an attachment: enough to fetch it and to check what was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// SHA-256 of the content; its address.
    pub sha256: [u8; 32],
    /// Length of the content in bytes.
    pub length: u64,
    /// What the writer says about it: name, media type, …
    pub metadata: Object,
}

impl Attachment {
    /// The content's address as text: 64 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> String {
        self.sha256.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads what [`Self::id`] made; capital digits, too.
    #[must_use]
    pub fn parse_id(id: &str) -> Option<[u8; 32]> {
        let digits = id.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let mut sha256 = [0; 32];
        for (byte, pair) in sha256.iter_mut().zip(digits.chunks_exact(2)) {
            if let [high, low] = pair {
                *byte = digit(*high)? << 4 | digit(*low)?;
            }
        }
        Some(sha256)
    }

    /// Reads a token as [`Self::to_value`] made it; without `metadata` there is none.
    #[must_use]
    pub fn from_value(token: &Value) -> Option<Self> {
        let token = token.as_object()?;
        let sha256 = Self::parse_id(token.get("id")?.as_str()?)?;
        let length = match token.get("len")? {
            Value::Int(length) => u64::try_from(*length).ok()?,
            Value::UInt(length) => *length,
            Value::Null
            | Value::Bool(_)
            | Value::Float(_)
            | Value::String(_)
            | Value::Bytes(_)
            | Value::Array(_)
            | Value::Object(_) => return None,
        };
        let metadata = token.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
        Some(Self { sha256, length, metadata })
    }

    /// The token as readers see it: `{"id": "<hex of sha256>", "len": <bytes>, "metadata": {…}}`.
    #[must_use]
    pub fn to_value(&self) -> Value {
        Value::Object(Object::from_iter([
            ("id", Value::from(self.id())),
            ("len", Value::from(self.length)),
            ("metadata", Value::Object(self.metadata.clone())),
        ]))
    }

    /// The order that decides between two tokens with the same stamp: that of their encodings.
    pub(crate) fn tie_order(&self, other: &Self) -> Ordering {
        let encoded = |attachment| {
            let mut out = Vec::new();
            put_attachment(&mut out, attachment);
            out
        };
        encoded(self).cmp(&encoded(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_nothing_else_is_one() {
        let metadata = Object::from_iter([("name", Value::from("a.png"))]);
        let token = Attachment { sha256: [0xab; 32], length: 7, metadata };
        assert_eq!(Attachment::from_value(&token.to_value()), Some(token.clone()));
        assert_eq!(Attachment::parse_id(&token.id().to_uppercase()), Some(token.sha256));
        for id in ["", "ab", &"g".repeat(64), &"+f".repeat(32), &"ä".repeat(32), &"a".repeat(65)] {
            assert_eq!(Attachment::parse_id(id), None, "{id}");
            let value = Value::Object(Object::from_iter([("id", Value::from(id)), ("len", Value::Int(1))]));
            assert_eq!(Attachment::from_value(&value), None, "{id}");
        }
        for len in [Value::Int(-1), Value::Float(1.0), Value::Null, Value::from("1")] {
            let value = Value::Object(Object::from_iter([("id", Value::from(token.id())), ("len", len)]));
            assert_eq!(Attachment::from_value(&value), None);
        }
    }
}
