//! What takes documents, and what is said when they cannot be read.

use std::sync::Arc;

use bigpeer_chassis::{ApiError, ErrorCode};
use bigpeer_crdt::{DocId, Document};
use bigpeer_dql::{DeleteRun, DqlError, Flow, SelectRun, UpdateRun};
use bigpeer_tables::TablesError;

/// Something that takes documents, one after the other.
pub(crate) trait Run: Send + 'static {
    fn push(&mut self, id: &DocId, document: Arc<Document>) -> Result<Flow, DqlError>;
}

impl Run for SelectRun {
    fn push(&mut self, id: &DocId, document: Arc<Document>) -> Result<Flow, DqlError> {
        self.push(id, &document)
    }
}

impl Run for UpdateRun {
    fn push(&mut self, id: &DocId, document: Arc<Document>) -> Result<Flow, DqlError> {
        self.push(id, document)
    }
}

impl Run for DeleteRun {
    fn push(&mut self, id: &DocId, document: Arc<Document>) -> Result<Flow, DqlError> {
        self.push(id, document)
    }
}

/// The tables could not answer.
pub(crate) fn failed(error: &TablesError) -> ApiError {
    if error.is_retryable() {
        tracing::warn!(%error, "documents could not be read");
        return ApiError::new(ErrorCode::Unavailable, "documents cannot be read right now; try again");
    }
    ApiError::internal(error)
}
