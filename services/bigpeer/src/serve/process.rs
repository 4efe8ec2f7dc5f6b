//! What the admin API needs of this process: apps are opened, put into Parquet and forgotten.

use std::sync::Arc;

use async_trait::async_trait;
use bigpeer_changefeed::Registry;
use bigpeer_chassis::ApiError;
use bigpeer_control::Process;
use bigpeer_log::TransactionLog;
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

    async fn forget(&self, app: &AppId) -> Result<(), ApiError> {
        self.stores.close(app).await;
        self.feeds.forget(app).await?;
        // Nobody flushes its tail any more: it would keep the log from being freed.
        let head = self.log.head(app).await.map_err(|error| ApiError::internal(&error))?;
        self.log.trim(app, head).await.map_err(|error| ApiError::internal(&error))
    }
}
