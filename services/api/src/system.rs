//! Collections that are not stored: `system:…`. What this process knows it answers by itself, the rest comes from
//! [`SystemRows`].

use bigpeer_chassis::{ApiError, ErrorCode};
use bigpeer_crdt::{Object, Value};
use bigpeer_tables::Snapshot;
use bigpeer_types::{AppId, CollectionName};

use crate::read::failed;
use crate::rules::may_see;
use crate::transaction::Session;

/// Rows of system collections that others know: which devices are connected, how far they are.
pub trait SystemRows: Send + Sync {
    /// The rows of `collection` for `app`; none when it is not one of these.
    fn rows(&self, app: &AppId, collection: &CollectionName) -> Option<Vec<Object>>;
}

/// Nobody knows anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSystemRows;

impl SystemRows for NoSystemRows {
    fn rows(&self, _: &AppId, _: &CollectionName) -> Option<Vec<Object>> {
        None
    }
}

/// Whether the rows of `collection` are made here, not read from documents.
pub(crate) fn is_virtual(collection: &CollectionName) -> bool {
    collection.as_str().starts_with("system:") || collection.is_system()
}

/// The rows.
pub(crate) async fn rows(
    session: Session<'_>,
    snapshot: &Snapshot,
    collection: &CollectionName,
) -> Result<Vec<Object>, ApiError> {
    if let Some(rows) = session.api.context.system.rows(session.app, collection) {
        return Ok(rows);
    }
    match collection.as_str() {
        "system:dual" => Ok(vec![Object::new()]),
        "system:collections" | "system:all_collections" | "__collections" => collections(session, snapshot).await,
        "system:indexes" => Ok(Vec::new()),
        "system:active_requests" => Ok(session.api.active.rows(session.app)),
        other if other.starts_with("__") => Ok(Vec::new()),
        _ => {
            let message = format!(
                "there is no collection '{collection}'; there are system:dual, system:collections, system:indexes and system:active_requests"
            );
            Err(ApiError::new(ErrorCode::InvalidStatement, message))
        }
    }
}

/// The collections that the key may read: `name`, and `count` of documents, of those that it may read whole.
async fn collections(session: Session<'_>, snapshot: &Snapshot) -> Result<Vec<Object>, ApiError> {
    let mut rows = Vec::new();
    for collection in snapshot.collections() {
        let Some(whole) = may_see(&session.permissions.read, &collection) else { continue };
        let name = Value::from(collection.as_str());
        let mut row: Object = [("_id", name.clone()), ("name", name)].into_iter().collect();
        if whole {
            let count = snapshot.table(&collection).await.map_err(|error| failed(&error))?.rows();
            row.insert("count", Value::from(count));
        }
        rows.push(row);
    }
    Ok(rows)
}
