//! Attachments over HTTP: blobs beside documents, named by the SHA-256 of what is in them. Documents hold tokens; the blobs
//! lie in the app's part of object storage.
//!
//! # Layout
//! [`receive`] takes a blob in one request, [`resumable`] in as many as it takes; both stage what does not fit into one
//! piece with [`staging`]. [`fetch`] hands blobs out, to those that [`access`] lets read a document that holds the token.
//!
//! # Consistency
//! A blob is there whole or not at all, and only under the digest of the bytes that were stored: large ones are hashed
//! again while they are put together.
//!
//! # Crash safety
//! The process keeps nothing. What an upload has sent is in object storage piece by piece; any process goes on with it.
//! What is never finished expires ([`expire_uploads`]).
//!
//! # Cancellation
//! A body is received by a task of its own: when the client goes away in the middle, what came is kept (resumable) or
//! removed (in one request).

mod access;
mod fetch;
mod pieces;
mod range;
mod receive;
mod resumable;
mod staging;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::{get, head, post};
use bigpeer_chassis::{Access, ApiError, Door, ErrorCode, Principal, app_of};
use bigpeer_tables::DocumentStore;
use bigpeer_types::AppId;
use object_store::ObjectStore;

use crate::Api;

pub use staging::expire_uploads;

/// The routes. Bodies have limits of their own.
pub(crate) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/{app}/api/v4/attachments/upload", post(receive::upload))
        .route("/{app}/api/v4/attachments/{id}", get(fetch::fetch))
        .route("/{app}/api/v1/attachments/uploads", post(resumable::create))
        .route(
            "/{app}/api/v1/attachments/uploads/{upload}",
            head(resumable::tell).patch(resumable::append).delete(resumable::cancel),
        )
}

/// Who asks, of which app, and where the app's objects are.
struct Caller {
    app: AppId,
    principal: Principal,
    store: Arc<DocumentStore>,
    objects: Arc<dyn ObjectStore>,
}

impl Caller {
    fn of(api: &Api, app: &str, headers: &HeaderMap) -> Result<Self, ApiError> {
        let app = app_of(app)?;
        let principal = api.context.catalogue.authenticate(&app, Door::Data, headers)?;
        api.context.catalogue.admit(&app, &principal)?;
        let not_open = || ApiError::new(ErrorCode::Unavailable, "this app is still being opened; try again");
        let store = api.context.stores.store(&app).ok_or_else(not_open)?;
        let objects = Arc::clone(store.snapshot().objects());
        Ok(Self { app, principal, store, objects })
    }

    /// [`Self::of`], for who may store something.
    fn who_writes(api: &Api, app: &str, headers: &HeaderMap) -> Result<Self, ApiError> {
        let caller = Self::of(api, app, headers)?;
        if caller.principal.permissions().write == Access::default() {
            return Err(ApiError::new(ErrorCode::Forbidden, "this key may not write anything, attachments neither"));
        }
        Ok(caller)
    }

    /// Whether the app may store more.
    fn may_store(&self, api: &Api) -> Result<(), ApiError> {
        api.context.catalogue.meter(&self.app).may_store(self.store.stored_bytes())
    }

    /// Names the caller among those of its app: uploads belong to who began them.
    fn name(&self) -> String {
        match &self.principal {
            Principal::ApiKey { name, .. } => format!("key {name}"),
            Principal::Peer { site, .. } => format!("site {site}"),
        }
    }
}

fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message)
}

/// Object storage could not do it: nothing that the client did.
fn storage(error: &object_store::Error) -> ApiError {
    tracing::warn!(%error, "object storage failed for an attachment");
    ApiError::new(ErrorCode::Unavailable, "attachments cannot be stored or read right now; try again").retry_after(1)
}

fn too_large(max_bytes: u64) -> ApiError {
    ApiError::new(ErrorCode::TooLarge, format!("an attachment may have {max_bytes} bytes at most on this server"))
}

fn not_the_bytes(id: &str) -> ApiError {
    bad(format!("the bytes that arrived are not those of {id}; nothing is stored, send them again"))
}
