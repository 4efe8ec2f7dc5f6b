//! Collections that are not stored: `system:…`. What this process knows it answers by itself, the rest comes from
//! [`SystemCollections`](bigpeer_chassis::SystemCollections).

use bigpeer_chassis::{ApiError, ErrorCode};
use bigpeer_crdt::{Object, Value};
use bigpeer_tables::Snapshot;
use bigpeer_types::CollectionName;

use crate::read::failed;
use crate::rules::may_see;
use crate::transaction::Session;

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
    if let Some(system) = session.api.context.system.get(collection) {
        if !session.permissions.read.everything {
            let message = format!("'{collection}' is read with the permission to read everything only");
            return Err(ApiError::new(ErrorCode::Forbidden, message));
        }
        return system.rows(session.app).into_iter().map(object).collect();
    }
    match collection.as_str() {
        "system:data_sync_info" => sync_info(session),
        "system:dual" => Ok(vec![Object::new()]),
        "system:collections" | "system:all_collections" | "__collections" => collections(session, snapshot).await,
        "system:indexes" => Ok(Vec::new()),
        "system:active_requests" => Ok(session.api.active.rows(session.app)),
        other if other.starts_with("__") => Ok(Vec::new()),
        _ => {
            let message = format!(
                "there is no collection '{collection}'; there are system:dual, system:collections, system:indexes, system:active_requests and system:data_sync_info"
            );
            Err(ApiError::new(ErrorCode::InvalidStatement, message))
        }
    }
}

/// How far each connected device is, in the words of the reference: made of `__devices`.
fn sync_info(session: Session<'_>) -> Result<Vec<Object>, ApiError> {
    let devices = CollectionName::new("__devices").map_err(|error| ApiError::internal(&error))?;
    let Some(devices) = session.api.context.system.get(&devices) else { return Ok(Vec::new()) };
    if !session.permissions.read.everything {
        let message = "'system:data_sync_info' is read with the permission to read everything only";
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    let row = |device: serde_json::Value| {
        let sent = device["last_lsn"].as_str().and_then(|lsn| lsn.split('.').next()?.parse::<u64>().ok());
        object(serde_json::json!({
            "_id": device["_id"],
            "is_ditto_server": false,
            "documents": {"sync_session_status": "Connected", "synced_up_to_local_commit_id": sent},
        }))
    };
    devices.rows(session.app).into_iter().map(row).collect()
}

/// A row that another role has made.
fn object(row: serde_json::Value) -> Result<Object, ApiError> {
    match Value::from_json(row).map_err(|error| ApiError::internal(&error))? {
        Value::Object(row) => Ok(row),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::UInt(_)
        | Value::Float(_)
        | Value::String(_)
        | Value::Bytes(_)
        | Value::Array(_) => Err(ApiError::internal(&"a row of a system collection is not an object")),
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
