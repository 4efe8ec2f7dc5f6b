//! Who may fetch an attachment: whoever may read a document that holds its token, and says which one that is; and whoever
//! may read everything of the app.

use bigpeer_chassis::{ApiError, ErrorCode};
use bigpeer_crdt::{DocId, Value};
use bigpeer_types::CollectionName;
use serde::Deserialize;

use super::{Caller, bad};
use crate::Api;
use crate::read::failed;
use crate::rules::Allowed;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FetchQuery {
    /// Of the document that holds the token.
    collection: Option<String>,
    /// Its `_id` as JSON; what is no JSON is a string.
    document: Option<String>,
    /// Whether the answer may be a place where object storage hands out the bytes itself.
    #[serde(default)]
    pub(super) redirect: bool,
}

/// One answer for all that is not there or not to be seen.
pub(super) fn not_there() -> ApiError {
    ApiError::new(
        ErrorCode::NotFound,
        "this app has no such attachment, or the document named does not hold it; see docs/http-api.md",
    )
}

/// Whether the caller may have the blob, if it exists.
pub(super) async fn check(api: &Api, caller: &Caller, sha256: [u8; 32], query: &FetchQuery) -> Result<(), ApiError> {
    let permissions = caller.principal.permissions();
    let read = &permissions.read;
    let (collection, id) = match (&query.collection, &query.document) {
        (Some(collection), Some(document)) => (collection, document),
        (None, None) if read.everything => return Ok(()),
        (None, None) => {
            let message = "this key may not read everything; name the document that holds the attachment with \
                           ?collection=…&document=…, its _id as JSON";
            return Err(ApiError::new(ErrorCode::Forbidden, message));
        }
        (Some(_), None) | (None, Some(_)) => return Err(bad("'collection' and 'document' go together")),
    };
    let collection = CollectionName::new(collection).map_err(|error| bad(error.to_string()))?;
    let json = serde_json::from_str(id).unwrap_or_else(|_| serde_json::Value::String(id.clone()));
    let id = Value::from_json(json).ok().and_then(|id| DocId::from_value(&id).ok());
    let id = id.ok_or_else(|| bad("'document' is not an _id"))?;
    let readable = Allowed::compile(read, &collection, "read", &api.rules)?;
    let found = caller.store.snapshot().get(&collection, &id).await.map_err(|error| failed(&error))?;
    let holds = found.is_some_and(|found| {
        let document = &found.document;
        let holds = document.attachments().iter().any(|attachment| attachment.sha256 == sha256);
        holds && !collection.is_system() && readable.holds(&id, document)
    });
    if holds { Ok(()) } else { Err(not_there()) }
}
