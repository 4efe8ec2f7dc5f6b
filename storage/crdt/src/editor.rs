//! `Editor`: makes deltas.
use crate::attachment::Attachment;
use crate::document::Document;
use crate::value::{Object, Value};
use bigpeer_types::HlcClock;
use thiserror::Error;

/// How an object value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectMode {
    /// As a map of nodes that merge key by key.
    Map,
    /// As one register that is replaced as a whole.
    Register,
}

/// A change that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EditError {
    /// The path names no field.
    #[error("a path needs at least one key")]
    EmptyPath,
    /// Nested deeper than documents may be.
    #[error("the document would be nested deeper than {} levels", bigpeer_types::limits::MAX_DEPTH)]
    TooDeep,
}

/// Changes to one document by one site.
#[derive(Debug)]
pub struct Editor<'a> {
    document: Document,
    clock: &'a mut HlcClock,
}

impl<'a> Editor<'a> {
    /// Changes to `current`.
    pub fn new(current: &Document, clock: &'a mut HlcClock) -> Self {
        Self { document: current.clone(), clock }
    }
    /// The document as it is with the changes so far.
    #[must_use]
    pub fn current(&self) -> &Document {
        &self.document
    }
    /// Inserts a whole document.
    /// # Errors
    /// When it nests too deep.
    pub fn insert(&mut self, fields: &Object, mode: ObjectMode) -> Result<(), EditError> {
        let _ = (fields, mode, self.clock.tick());
        Ok(())
    }
    /// Sets a field.
    /// # Errors
    /// For an empty path, or one that is too deep.
    pub fn set(&mut self, path: &[impl AsRef<str>], value: Value, mode: ObjectMode) -> Result<(), EditError> {
        let _ = (path, value, mode);
        Ok(())
    }
    /// Removes a field.
    /// # Errors
    /// For an empty path, or one that is too deep.
    pub fn unset(&mut self, path: &[impl AsRef<str>]) -> Result<(), EditError> {
        let _ = path;
        Ok(())
    }
    /// Adds to a counter.
    /// # Errors
    /// For an empty path, or one that is too deep.
    pub fn increment(&mut self, path: &[impl AsRef<str>], by: i64) -> Result<(), EditError> {
        let _ = (path, by);
        Ok(())
    }
    /// Restarts a counter at `value`.
    /// # Errors
    /// For an empty path, or one that is too deep.
    pub fn restart(&mut self, path: &[impl AsRef<str>], value: i64) -> Result<(), EditError> {
        let _ = (path, value);
        Ok(())
    }
    /// Attaches a blob.
    /// # Errors
    /// For an empty path, or one that is too deep.
    pub fn attach(&mut self, path: &[impl AsRef<str>], attachment: Attachment) -> Result<(), EditError> {
        let _ = (path, attachment);
        Ok(())
    }
    /// Deletes the document.
    pub fn delete(&mut self) {}
    /// The delta; none when nothing changed.
    #[must_use]
    pub fn finish(self) -> Option<Document> {
        None
    }
}
