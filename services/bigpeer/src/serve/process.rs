//! What the admin API needs of this process: apps are opened, measured, put into Parquet and forgotten.

use std::sync::Arc;

use async_trait::async_trait;
use bigpeer_changefeed::Registry;
use bigpeer_chassis::{ApiError, ErrorCode};
use bigpeer_control::{Process, Stored};
use bigpeer_log::TransactionLog;
use bigpeer_tables::Stores;
use bigpeer_types::{AppId, Lsn};

use super::stores::AppStores;

/// This process.
#[derive(Debug)]
pub(super) struct ThisProcess {
    pub(super) stores: Arc<AppStores>,
    pub(super) feeds: Registry,
    pub(super) log: Arc<dyn TransactionLog>,
}

#[async_trait]
impl Process for ThisProcess {
    async fn open(&self, app: &AppId) -> Result<(), ApiError> {
        self.stores.open(app).await.map_err(|error| ApiError::internal(&error))
    }

    async fn compact(&self, app: &AppId) -> Result<Option<(Lsn, u64)>, ApiError> {
        self.stores.compact(app).await.map_err(|error| ApiError::internal(&error))
    }

    async fn stored(&self, app: &AppId) -> Result<Option<Stored>, ApiError> {
        let Some(store) = self.stores.store(app) else { return Ok(None) };
        let attachment_bytes = store.attachment_bytes().await.map_err(|error| {
            tracing::warn!(%app, %error, "an app's attachments cannot be counted now");
            ApiError::new(ErrorCode::Unavailable, "attachments cannot be counted now; try again")
        })?;
        let (through, written) = store.written();
        Ok(Some(Stored {
            through,
            transactions: written.transactions,
            documents: written.documents,
            bytes: written.bytes,
            document_bytes: store.stored_bytes(),
            attachment_bytes,
        }))
    }

    async fn forget(&self, app: &AppId) -> Result<(), ApiError> {
        self.stores.close(app).await;
        self.feeds.forget_app(app).await?;
        // Nobody flushes its tail any more: it would keep the log from being freed.
        let head = self.log.head(app).await.map_err(|error| ApiError::internal(&error))?;
        self.log.trim(app, head).await.map_err(|error| ApiError::internal(&error))
    }
}
