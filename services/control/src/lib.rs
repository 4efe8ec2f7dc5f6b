//! The admin API of tenants, apps, their quotas and usage, API keys and admin tokens, and the audit log of all that is asked of `/admin/v1`.
//!
//! Each resource is a file; a file has its routes, and says what each asks of its caller. Who they are and whether they may
//! is decided, and recorded, before a handler is reached: see [`bigpeer_chassis::admin`]. docs/admin.md is the guide.

mod admin_tokens;
mod api_keys;
mod apps;
mod audit_log;
mod openapi;
mod quota;
mod schemas;
mod tenants;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::http::StatusCode;
use bigpeer_chassis::admin::{AdminRoute, Described, admin_router};
use bigpeer_chassis::{ApiError, Catalogue, ErrorCode, Name, NameError, Shutdown};
use bigpeer_types::{AppId, Lsn};

pub use api_keys::ApiKeyRequest;
pub use apps::shown as app_json;
pub use openapi::document as openapi;

/// How often uses of keys are written.
const WRITE_USES_EVERY: Duration = Duration::from_secs(60);
/// How often it is looked for what deleted apps have left, in rounds of the above.
const CLEAR_EVERY: u32 = 10;
/// Longest description of a key or token, in characters.
const MAX_DESCRIPTION: usize = 250;

/// What the process does with apps besides what the catalogue says of them.
#[async_trait]
pub trait Process: Send + Sync + std::fmt::Debug {
    /// Opens an app, so that it can be used at once. Nothing when it is open.
    ///
    /// # Errors
    /// When it cannot be opened; it will be tried again.
    async fn open(&self, app: &AppId) -> Result<(), ApiError>;

    /// Puts everything applied so far into segments, in one sorted run per collection. Answers the LSN up to which, and the
    /// manifest; none when the app is not open.
    ///
    /// # Errors
    /// When that fails.
    async fn compact(&self, app: &AppId) -> Result<Option<(Lsn, u64)>, ApiError>;

    /// What was written to an app, and what it stores now; none when the app is not open.
    ///
    /// # Errors
    /// When that cannot be said now.
    async fn stored(&self, app: &AppId) -> Result<Option<Stored>, ApiError>;

    /// Closes an app that was deleted, and removes what is kept of it elsewhere than in the catalogue. May be repeated.
    ///
    /// # Errors
    /// When that fails; it will be tried again.
    async fn forget(&self, app: &AppId) -> Result<(), ApiError>;
}

/// What was written to an app, exactly, and what it stores now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Up to here what was written is counted.
    pub through: Lsn,
    /// Transactions since the app was made.
    pub transactions: u64,
    /// Documents that they changed.
    pub documents: u64,
    /// Bytes of them in the log.
    pub bytes: u64,
    /// Bytes that documents take now.
    pub document_bytes: u64,
    /// Bytes that attachments take now.
    pub attachment_bytes: u64,
}

impl Stored {
    /// Adds what another app has.
    fn add(&mut self, other: &Self) {
        self.transactions = self.transactions.saturating_add(other.transactions);
        self.documents = self.documents.saturating_add(other.documents);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.document_bytes = self.document_bytes.saturating_add(other.document_bytes);
        self.attachment_bytes = self.attachment_bytes.saturating_add(other.attachment_bytes);
    }
}

/// What the routes need. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ControlContext {
    /// Where tenants, apps, keys, tokens and the audit log are.
    pub catalogue: Arc<Catalogue>,
    /// The stores of this process.
    pub process: Arc<dyn Process>,
    /// What is said of other routes of the admin API, for its description.
    pub others: Arc<Vec<Described>>,
}

/// The routes, each with what it asks and what is said of it.
#[must_use]
pub fn routes() -> Vec<AdminRoute<ControlContext>> {
    let all = [
        tenants::routes(),
        apps::routes(),
        api_keys::routes(),
        admin_tokens::routes(),
        audit_log::routes(),
        quota::routes(),
        usage::routes(),
        openapi::routes(),
    ];
    all.into_iter().flatten().collect()
}

/// What is said of the routes.
#[must_use]
pub fn described() -> Vec<Described> {
    routes().iter().map(|route| route.described().clone()).collect()
}

/// The routes of this crate.
pub fn router(context: ControlContext) -> Router {
    admin_router(&Arc::clone(&context.catalogue), routes(), context)
}

/// Writes now and then which keys were used, and clears away what deleted apps have left, until shutdown.
pub async fn upkeep(context: ControlContext, shutdown: Shutdown) {
    let mut round = 0_u32;
    loop {
        if round.is_multiple_of(CLEAR_EVERY) {
            clear_deleted(&context).await;
        }
        round = round.wrapping_add(1);
        let ends = tokio::select! {
            () = shutdown.cancelled() => true,
            () = tokio::time::sleep(WRITE_USES_EVERY) => false,
        };
        if let Err(error) = context.catalogue.write_uses().await {
            tracing::warn!(%error, "uses of keys could not be written; the next try is in a minute");
        }
        if ends {
            return;
        }
    }
}

async fn clear_deleted(context: &ControlContext) {
    let apps = match context.catalogue.uncleared_apps().await {
        Ok(apps) => apps,
        Err(error) => {
            tracing::warn!(%error, "it could not be looked for what deleted apps have left, will try again");
            return;
        }
    };
    for app in apps {
        clear(context, &app).await;
    }
}

/// Clears away what a deleted app has left. What fails is tried again by [`upkeep`].
async fn clear(context: &ControlContext, app: &AppId) {
    let done = match context.process.forget(app).await {
        Ok(()) => context.catalogue.clear_app(app).await.map_err(ApiError::from),
        failed => failed,
    };
    match done {
        Ok(()) => tracing::info!(%app, "a deleted app is cleared away"),
        Err(error) => tracing::warn!(%app, %error, "a deleted app could not be cleared away, will try again"),
    }
}

fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message)
}

fn name(text: &str) -> Result<Name, ApiError> {
    text.parse().map_err(|error: NameError| bad(error.to_string()))
}

const fn made(is_new: bool) -> StatusCode {
    if is_new { StatusCode::CREATED } else { StatusCode::OK }
}

fn described_well(description: Option<&String>) -> Result<(), String> {
    match description {
        Some(text) if text.chars().count() > MAX_DESCRIPTION => {
            Err(format!("'description' has {MAX_DESCRIPTION} characters at most"))
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
