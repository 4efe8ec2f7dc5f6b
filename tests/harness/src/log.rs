//! `FaultyLog`: a log that is slow, away, and forgets to answer; never one that breaks its contract, unless told to.

use std::sync::Arc;

use async_trait::async_trait;
use bigpeer_log::{
    AppendEntry, AppendError, AppendOutcome, MetaError, MetaOp, MetaWatch, Metadata, ReadBatch, ReadError,
    TransactionLog, Versioned,
};
use bigpeer_types::{AppId, Lsn, SiteId};
use bytes::Bytes;

use crate::Faults;

/// How a log breaks its contract, to see that a checker notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treachery {
    /// One append in ten is acknowledged and forgotten.
    Forgets,
    /// One entry in ten is left out of what is read.
    Skips,
}

/// Wraps a log.
#[derive(Debug)]
pub struct FaultyLog {
    inner: Arc<dyn TransactionLog>,
    faults: Arc<Faults>,
    treachery: Option<Treachery>,
}

impl FaultyLog {
    /// A log that fails as `faults` say.
    #[must_use]
    pub fn new(inner: Arc<dyn TransactionLog>, faults: Arc<Faults>) -> Self {
        Self { inner, faults, treachery: None }
    }

    /// A log that lies.
    #[must_use]
    pub fn treacherous(mut self, treachery: Option<Treachery>) -> Self {
        self.treachery = treachery;
        self
    }

    fn away<T>(&self, error: impl Fn(String) -> T) -> Result<(), T> {
        if self.faults.strikes() { Err(error("a simulated failure".to_owned())) } else { Ok(()) }
    }
}

fn unavailable(reason: String) -> ReadError {
    ReadError::Unavailable { reason }
}

#[async_trait]
impl TransactionLog for FaultyLog {
    async fn append(&self, app: &AppId, entries: Vec<AppendEntry>) -> Result<Vec<AppendOutcome>, AppendError> {
        self.faults.delay().await;
        if self.treachery == Some(Treachery::Forgets) && self.faults.below(10) == 0 {
            let lsn = self.inner.head(app).await.unwrap_or(Lsn::ZERO);
            return Ok(entries.iter().map(|_| AppendOutcome::Applied(lsn)).collect());
        }
        let unknown = || Err(AppendError::Unknown { reason: "a simulated failure".to_owned() });
        let result = if self.faults.strikes() {
            match self.faults.below(4) {
                0 => return Err(AppendError::Unavailable { reason: "a simulated failure".to_owned() }),
                // It never arrived.
                1 => unknown(),
                // The first part arrived.
                2 => {
                    let part = entries.len() / 2 + 1;
                    let _forgotten = self.inner.append(app, entries.into_iter().take(part).collect()).await?;
                    unknown()
                }
                // All of it arrived, and the answer is lost.
                _ => {
                    let _forgotten = self.inner.append(app, entries).await?;
                    unknown()
                }
            }
        } else {
            self.inner.append(app, entries).await
        };
        self.faults.delay().await;
        result
    }

    async fn read(&self, app: &AppId, after: Lsn, max_bytes: usize) -> Result<ReadBatch, ReadError> {
        self.faults.delay().await;
        self.away(unavailable)?;
        let mut batch = self.inner.read(app, after, max_bytes).await?;
        if self.treachery == Some(Treachery::Skips) {
            batch.entries.retain(|_| self.faults.below(10) != 0);
        }
        Ok(batch)
    }

    async fn wait_past(&self, app: &AppId, after: Lsn) -> Result<(), ReadError> {
        self.inner.wait_past(app, after).await?;
        self.faults.delay().await;
        Ok(())
    }

    async fn head(&self, app: &AppId) -> Result<Lsn, ReadError> {
        self.away(unavailable)?;
        self.inner.head(app).await
    }

    async fn trimmed(&self, app: &AppId) -> Result<Lsn, ReadError> {
        self.away(unavailable)?;
        self.inner.trimmed(app).await
    }

    async fn last_seq(&self, app: &AppId, site: SiteId) -> Result<u64, ReadError> {
        self.faults.delay().await;
        self.away(unavailable)?;
        self.inner.last_seq(app, site).await
    }

    async fn trim(&self, app: &AppId, through: Lsn) -> Result<(), ReadError> {
        self.faults.delay().await;
        self.away(unavailable)?;
        self.inner.trim(app, through).await
    }

    fn metadata(&self) -> &dyn Metadata {
        self
    }
}

#[async_trait]
impl Metadata for FaultyLog {
    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, MetaError> {
        self.away(|reason| MetaError::Unavailable { reason })?;
        self.inner.metadata().get(key).await
    }

    async fn range(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Versioned)>, MetaError> {
        self.away(|reason| MetaError::Unavailable { reason })?;
        self.inner.metadata().range(prefix, after, limit).await
    }

    async fn commit(&self, ops: Vec<MetaOp>) -> Result<u64, MetaError> {
        self.faults.delay().await;
        let unknown = |reason: String| MetaError::Unknown { reason };
        if self.faults.below(2) == 0 {
            self.away(unknown)?;
        }
        let revision = self.inner.metadata().commit(ops).await?;
        self.away(unknown)?;
        Ok(revision)
    }

    fn watch(&self, prefix: &[u8]) -> MetaWatch {
        self.inner.metadata().watch(prefix)
    }
}
