//! Large scans from columns: somebody hands in what can answer parts of a SELECT without going through documents.

use std::sync::Arc;

use bigpeer_chassis::ApiError;
use bigpeer_crdt::DocId;
use bigpeer_dql::{ByColumns, ByColumnsWanted, Found, SelectPlan};
use bigpeer_tables::Snapshot;
use bigpeer_types::CollectionName;
use futures::future::BoxFuture;

use crate::rules::Allowed;
use crate::transaction::Session;
use crate::view::View;

/// Answers parts of SELECTs from columns, exactly as the evaluator would from documents.
pub trait ColumnScans: Send + Sync {
    /// What the columns of `snapshot` say to `plan`; nothing when they cannot say it exactly.
    fn find<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        plan: &'a SelectPlan,
    ) -> BoxFuture<'a, Result<Option<Found>, ApiError>>;

    /// The only documents of `collection` that can be meant; nothing when columns cannot say it.
    fn documents<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        collection: &'a CollectionName,
        wanted: ByColumns<'a>,
    ) -> BoxFuture<'a, Result<Option<Vec<DocId>>, ApiError>>;
}

/// What answers from columns, where it pays, and all that it would find is committed.
fn of<'s>(session: Session<'s>, view: &View<'_>, collection: &CollectionName) -> Option<&'s Arc<dyn ColumnScans>> {
    let context = &session.api.context;
    let large = view.snapshot().segment_rows(collection) >= context.settings.columns_from_rows;
    context.columns.as_ref().filter(|_| large && !view.has_written(collection))
}

/// The documents that a statement with `wanted` can mean, where columns say which.
pub(crate) async fn documents(
    session: Session<'_>,
    view: &mut View<'_>,
    collection: &CollectionName,
    wanted: Option<ByColumns<'_>>,
) -> Result<Option<Vec<DocId>>, ApiError> {
    let (Some(columns), Some(wanted)) = (of(session, view, collection), wanted) else { return Ok(None) };
    let snapshot = view.snapshot().clone();
    let found = columns.documents(&snapshot, collection, wanted).await?;
    if found.is_some() {
        view.scanned(collection);
    }
    Ok(found)
}

/// What columns say to `plan`, where asking them pays and all that it would find is for the caller and committed.
pub(crate) async fn find(
    session: Session<'_>,
    view: &mut View<'_>,
    plan: &SelectPlan,
    readable: &Allowed,
) -> Result<Option<Found>, ApiError> {
    let collection = plan.collection();
    let (Some(columns), Some(wanted)) = (of(session, view, collection), plan.by_columns()) else { return Ok(None) };
    // Documents are looked at before they are shown; groups of them cannot be, and the first of all of them are not the first
    // of those that the caller may see.
    let checked = matches!(wanted.wanted, ByColumnsWanted::Documents) && plan.first_by().is_none();
    if !checked && !matches!(readable, Allowed::Everything) {
        return Ok(None);
    }
    let snapshot = view.snapshot().clone();
    let found = columns.find(&snapshot, plan).await?;
    if found.is_some() {
        view.scanned(collection);
    }
    Ok(found)
}
