//! `Document`: a state; a delta is a small one.
use crate::error::DecodeError;
use crate::value::Object;
use crate::visible::Visible;
use bigpeer_types::{Hlc, SiteId, Stamp};

/// A document's state. A delta is a small state, and applying is joining.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {}

/// What an encoding says about itself when it is validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The greatest reading of any stamp in it; zero if there is none.
    pub max_hlc: Hlc,
    /// The least reading of any stamp in it; zero if there is none.
    pub min_hlc: Hlc,
    /// Who wrote what is in it, apart from `cleared`, which may name anyone's stamp that its writer has seen.
    pub writers: Writers,
}

/// Whose stamps live content and deletions bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// Nobody's: there is no content, at most `cleared`.
    Nobody,
    /// One site's, as in every delta of an editor.
    One(SiteId),
    /// Several sites', as in most states.
    Several,
}

impl Document {
    /// The empty state.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// Joins `other` into this state.
    pub fn join(&mut self, other: &Self) {
        let _ = other;
    }
    /// The canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }
    /// Appends the canonical bytes.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let _ = out;
    }
    /// Reads canonical bytes.
    /// # Errors
    /// On anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let _ = bytes;
        Ok(Self::default())
    }
    /// Joins an encoded state: all of it, or nothing on an error.
    /// # Errors
    /// When the bytes are not canonical.
    pub fn join_encoded(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        self.join(&Self::decode(bytes)?);
        Ok(())
    }
    /// Checks bytes as [`Self::decode`] does, without building anything.
    /// # Errors
    /// When the bytes are not canonical.
    pub fn validate_encoded(bytes: &[u8]) -> Result<Header, DecodeError> {
        let _ = bytes;
        Ok(Header { max_hlc: Hlc::ZERO, min_hlc: Hlc::ZERO, writers: Writers::Nobody })
    }
    /// Whether readers see the document.
    #[must_use]
    pub fn is_visible(&self) -> bool {
        false
    }
    /// The newest live stamp.
    #[must_use]
    pub fn newest(&self) -> Option<Stamp> {
        None
    }
    /// When and by whom it was deleted, unless a later whole insertion has made that moot.
    #[must_use]
    pub fn deleted(&self) -> Option<Stamp> {
        None
    }
    /// The greatest reading of any stamp in the state; zero if there is none.
    #[must_use]
    pub fn max_hlc(&self) -> Hlc {
        Hlc::ZERO
    }
    /// Whether nothing was ever written here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        true
    }
    /// What a reader sees at `path`; nothing if the document is not visible. The empty path is the whole document.
    #[must_use]
    pub fn get(&self, path: &[impl AsRef<str>]) -> Option<Visible<'_>> {
        let _ = path;
        None
    }
    /// The visible fields, without `_id`; empty if the document is not visible.
    #[must_use]
    pub fn to_object(&self) -> Object {
        Object::new()
    }
    /// Heap bytes behind this state, estimated from lengths.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        0
    }
}
