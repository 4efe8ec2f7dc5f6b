//! Feeding documents of a snapshot to a run: looked up by id where the statement pins it, else scanned, with the work of
//! decoding and evaluating on threads that may block.

use std::sync::Arc;

use bigpeer_chassis::{ApiError, ErrorCode};
use bigpeer_crdt::{DocId, Document, FieldCondition};
use bigpeer_dql::{DeleteRun, DqlError, Flow, SelectRun, UpdateRun};
use bigpeer_tables::{Scan, ScannedDocument, Snapshot, StoredDocument, TablesError};
use bigpeer_types::CollectionName;
use futures::StreamExt;

use crate::envelope::refused;
use crate::rules::Allowed;

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

/// Which documents a plan needs.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) collection: CollectionName,
    pub(crate) ids: Option<Vec<DocId>>,
    pub(crate) conditions: Vec<FieldCondition>,
}

/// Feeds what is `wanted` and `readable` to `run`, in key order, until it has enough.
pub(crate) async fn feed<R: Run>(
    mut run: R,
    snapshot: &Snapshot,
    wanted: Wanted,
    readable: &Arc<Allowed>,
) -> Result<R, ApiError> {
    if let Some(ids) = &wanted.ids {
        let found = snapshot.get_many(&wanted.collection, ids).await.map_err(|error| failed(&error))?;
        for (id, found) in ids.iter().zip(found) {
            let Some(StoredDocument { document, .. }) = found else { continue };
            if readable.holds(id, &document) && run.push(id, document).map_err(|error| refused(&error))? == Flow::Enough
            {
                break;
            }
        }
        return Ok(run);
    }
    let scan = Scan { conditions: wanted.conditions, after: None, changed_since: None, deleted: false };
    let mut batches = snapshot.scan(&wanted.collection, scan);
    while let Some(batch) = batches.next().await {
        let batch = batch.map_err(|error| failed(&error))?;
        let readable = Arc::clone(readable);
        let pushed = tokio::task::spawn_blocking(move || push_batch(run, &batch, &readable)).await;
        let (back, flow) = pushed.map_err(|error| ApiError::internal(&error))??;
        run = back;
        if flow == Flow::Enough {
            break;
        }
    }
    Ok(run)
}

fn push_batch<R: Run>(mut run: R, batch: &[ScannedDocument], readable: &Allowed) -> Result<(R, Flow), ApiError> {
    for found in batch {
        let document = Document::decode(&found.state).map_err(|error| ApiError::internal(&error))?;
        if readable.holds(&found.id, &document)
            && run.push(&found.id, Arc::new(document)).map_err(|error| refused(&error))? == Flow::Enough
        {
            return Ok((run, Flow::Enough));
        }
    }
    Ok((run, Flow::More))
}

/// The tables could not answer.
pub(crate) fn failed(error: &TablesError) -> ApiError {
    if error.is_retryable() {
        tracing::warn!(%error, "documents could not be read");
        return ApiError::new(ErrorCode::Unavailable, "documents cannot be read right now; try again");
    }
    ApiError::internal(error)
}
