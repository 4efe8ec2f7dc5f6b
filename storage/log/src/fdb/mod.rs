//! The engine on FoundationDB: any number of processes, one cluster.
//!
//! # Layout
//! See `keys`. An LSN is the versionstamp of the commit that wrote the entry (version in eight bytes, place in the cluster's
//! batch in two) and the entry's place in that commit (two bytes): `version: u64`, `order = batch << 16 | place`. So the
//! order of the log is the order of the cluster's commits, and nobody hands out numbers.
//!
//! # Consistency
//! Several commits may share a version: the cluster commits in batches. They become visible together, because a read stands
//! at one version and sees everything up to it; an acknowledged commit's version is below every read version that is given
//! out later. So the transaction id (the version) names a point in time, and a version is never seen in part.
//!
//! Appends of different sites do not conflict: a commit depends on, and conflicts with, the `seq`s that it applies (keys that
//! are never written), and on the keys in `unchanged`; everything else is written blindly. Head and last entries are set by
//! versionstamp, not read and rewritten, so that no key is contended.
//!
//! # Crash safety
//! The cluster is durable; this process keeps nothing. A commit of unknown outcome is found by its mark (see `commit`).
//!
//! # Cancellation
//! What reached the queue is done whether somebody waits for the answer or not, as long as the runtime lives.

pub mod cluster;
mod commit;
mod core;
mod keys;
mod known;
mod meta;
mod pack;
mod plan;
mod queue;
mod reading;
#[cfg(feature = "foundationdb")]
mod real;
mod settings;
#[cfg(feature = "conformance")]
pub mod sim;
mod tails;
mod trimming;
mod view;

use std::sync::Arc;

use async_trait::async_trait;
use bigpeer_types::{AppId, Lsn, SiteId};
use bytes::Bytes;

#[cfg(feature = "foundationdb")]
pub use real::RealCluster;
pub use settings::{FdbOpenError, FdbSettings};

use crate::preconditions::check_entries;
use crate::{
    AppendEntry, AppendError, AppendOutcome, MetaError, MetaOp, MetaWatch, Metadata, ReadBatch, ReadError,
    TransactionLog, Versioned, check_ops,
};
use cluster::Cluster;
use core::{Core, Trouble};
use keys::AppSpace;
use queue::Queue;

/// A log in a FoundationDB cluster.
#[derive(Debug)]
pub struct FdbLog {
    core: Arc<Core>,
    queue: Arc<Queue>,
}

impl FdbLog {
    /// Opens the log in the cluster that a cluster file names. Opens the client library the first time.
    ///
    /// # Errors
    /// [`FdbOpenError`].
    #[cfg(feature = "foundationdb")]
    pub async fn open(cluster_file: &std::path::Path, settings: FdbSettings) -> Result<Self, FdbOpenError> {
        let cluster = RealCluster::open(cluster_file);
        let cluster = cluster.map_err(|error| FdbOpenError::Client { reason: error.to_string() })?;
        Self::open_on(Arc::new(cluster), settings).await
    }

    /// Opens the log in a cluster.
    ///
    /// # Errors
    /// [`FdbOpenError`].
    pub async fn open_on(cluster: Arc<dyn Cluster>, settings: FdbSettings) -> Result<Self, FdbOpenError> {
        let core = Arc::new(Core::new(cluster, settings));
        core.check_format().await?;
        // Before anybody can watch: what is committed from here on is told.
        let looked = meta::look(&core, None).await;
        let looked = looked.map_err(|trouble| FdbOpenError::Unavailable { reason: trouble.reason() })?;
        tokio::spawn(meta::run(Arc::clone(&core), looked.last));
        Ok(Self { queue: Queue::new(Arc::clone(&core)), core })
    }

    /// Stops taking appends, and returns when what was accepted is done. Everything asked after it is refused.
    pub async fn close(&self) {
        self.queue.close().await;
        self.end();
    }

    fn end(&self) {
        self.core.closed.send_replace(true);
        self.core.tails.end();
        self.core.watchers.close();
    }

    fn check_open(&self) -> Result<(), String> {
        if self.core.is_closed() { Err("the log is closed".to_owned()) } else { Ok(()) }
    }

    fn check_readable(&self) -> Result<(), ReadError> {
        self.check_open().map_err(|reason| ReadError::Unavailable { reason })
    }

    fn check_metadata(&self) -> Result<(), MetaError> {
        self.check_open().map_err(|reason| MetaError::Unavailable { reason })
    }
}

impl Drop for FdbLog {
    fn drop(&mut self) {
        self.end();
    }
}

#[async_trait]
impl TransactionLog for FdbLog {
    async fn append(&self, app: &AppId, mut entries: Vec<AppendEntry>) -> Result<Vec<AppendOutcome>, AppendError> {
        check_entries(&entries)?;
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        self.check_open().map_err(|reason| AppendError::Unavailable { reason })?;
        let number = self.core.make_number(app).await?;
        let mut outcomes = Vec::new();
        while !entries.is_empty() {
            let rest = entries.split_off(queue::piece(&entries));
            match self.queue.append(app, number, entries).await {
                Ok(more) if outcomes.is_empty() => outcomes = more,
                Ok(more) => outcomes.extend(more),
                Err(error) if outcomes.is_empty() => return Err(error),
                Err(error) => return Err(AppendError::Unknown { reason: error.to_string() }),
            }
            entries = rest;
        }
        Ok(outcomes)
    }

    async fn read(&self, app: &AppId, after: Lsn, max_bytes: usize) -> Result<ReadBatch, ReadError> {
        self.check_readable()?;
        reading::read(&self.core, app, after, max_bytes).await
    }

    async fn wait_past(&self, app: &AppId, after: Lsn) -> Result<(), ReadError> {
        let mut progress = tails::follow(&self.core, app);
        match progress.wait_for(|progress| progress.head > after || progress.ended).await {
            Ok(progress) if progress.head > after => Ok(()),
            Ok(_) | Err(_) => Err(ReadError::Unavailable { reason: "the log is closed".to_owned() }),
        }
    }

    async fn head(&self, app: &AppId) -> Result<Lsn, ReadError> {
        self.check_readable()?;
        reading::position(&self.core, app, AppSpace::head).await
    }

    async fn trimmed(&self, app: &AppId) -> Result<Lsn, ReadError> {
        self.check_readable()?;
        reading::position(&self.core, app, AppSpace::trimmed).await
    }

    async fn last_seq(&self, app: &AppId, site: SiteId) -> Result<u64, ReadError> {
        self.check_readable()?;
        reading::last_seq(&self.core, app, site).await
    }

    async fn trim(&self, app: &AppId, through: Lsn) -> Result<(), ReadError> {
        self.check_readable()?;
        trimming::trim(&self.core, app, through).await
    }

    async fn close(&self) {
        // The one of the type itself.
        Self::close(self).await;
    }

    fn metadata(&self) -> &dyn Metadata {
        self
    }
}

#[async_trait]
impl Metadata for FdbLog {
    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, MetaError> {
        self.check_metadata()?;
        Ok(meta::get(&self.core, key).await?)
    }

    async fn range(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Versioned)>, MetaError> {
        self.check_metadata()?;
        let trouble = |trouble: Trouble| MetaError::from(trouble);
        meta::range(&self.core, prefix, after, limit).await.map_err(trouble)
    }

    async fn commit(&self, ops: Vec<MetaOp>) -> Result<u64, MetaError> {
        check_ops(&ops)?;
        self.check_metadata()?;
        meta::commit(&self.core, &ops).await
    }

    fn watch(&self, prefix: &[u8]) -> MetaWatch {
        self.core.watchers.watch(prefix)
    }
}
