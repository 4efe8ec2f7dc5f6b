//! `InlineLog`: a log with threads of its own, made to look as if it had none. Every call but waiting is done before it
//! returns for the first time, while the caller's thread does nothing else; so a simulation over it is the same each time.

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use bigpeer_log::{
    AppendEntry, AppendError, AppendOutcome, MetaError, MetaOp, MetaWatch, Metadata, ReadBatch, ReadError,
    TransactionLog, Versioned,
};
use bigpeer_types::{AppId, Lsn, SiteId};
use bytes::Bytes;
use tokio::task::unconstrained;

/// Waits here and now. Unconstrained, as the runtime that would hand out more budget does not get to run meanwhile.
fn block_on<T>(asked: impl Future<Output = T>) -> T {
    futures::executor::block_on(unconstrained(asked))
}

/// Wraps a log whose calls never wait for the caller's runtime.
#[derive(Debug)]
pub struct InlineLog(Arc<dyn TransactionLog>);

impl InlineLog {
    /// Wraps `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn TransactionLog>) -> Self {
        Self(inner)
    }
}

#[async_trait]
impl TransactionLog for InlineLog {
    async fn append(&self, app: &AppId, entries: Vec<AppendEntry>) -> Result<Vec<AppendOutcome>, AppendError> {
        block_on(self.0.append(app, entries))
    }

    async fn read(&self, app: &AppId, after: Lsn, max_bytes: usize) -> Result<ReadBatch, ReadError> {
        block_on(self.0.read(app, after, max_bytes))
    }

    async fn wait_past(&self, app: &AppId, after: Lsn) -> Result<(), ReadError> {
        self.0.wait_past(app, after).await
    }

    async fn head(&self, app: &AppId) -> Result<Lsn, ReadError> {
        block_on(self.0.head(app))
    }

    async fn trimmed(&self, app: &AppId) -> Result<Lsn, ReadError> {
        block_on(self.0.trimmed(app))
    }

    async fn last_seq(&self, app: &AppId, site: SiteId) -> Result<u64, ReadError> {
        block_on(self.0.last_seq(app, site))
    }

    async fn trim(&self, app: &AppId, through: Lsn) -> Result<(), ReadError> {
        block_on(self.0.trim(app, through))
    }

    fn metadata(&self) -> &dyn Metadata {
        self
    }
}

#[async_trait]
impl Metadata for InlineLog {
    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, MetaError> {
        block_on(self.0.metadata().get(key))
    }

    async fn range(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Versioned)>, MetaError> {
        block_on(self.0.metadata().range(prefix, after, limit))
    }

    async fn commit(&self, ops: Vec<MetaOp>) -> Result<u64, MetaError> {
        block_on(self.0.metadata().commit(ops))
    }

    fn watch(&self, prefix: &[u8]) -> MetaWatch {
        self.0.metadata().watch(prefix)
    }
}
