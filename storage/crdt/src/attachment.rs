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
    /// The token as readers see it: `{"id": "<hex of sha256>", "len": <bytes>, "metadata": {…}}`.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let id: String = self.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        Value::Object(Object::from_iter([
            ("id", Value::from(id)),
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
