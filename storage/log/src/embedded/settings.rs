//! How an embedded log is opened, and why it may not be.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bigpeer_types::{Clock, IdGenerator, RandomIds, SystemClock};
use thiserror::Error;

/// How an embedded log uses its disk and memory.
#[derive(Clone, Debug)]
pub struct EmbeddedSettings {
    /// Size of a segment file, in bytes. Space is taken and given back in such pieces; one more is kept ready.
    pub segment_bytes: u64,
    /// How many bytes of the newest payloads are kept in memory, over all apps, for those who follow the tail.
    pub tail_bytes: usize,
    /// How many written keys each app remembers for conflict checks.
    pub conflict_keys: usize,
    /// Where the durations in metrics come from.
    pub clock: Arc<dyn Clock>,
    /// Where the ids of logs and segments come from.
    pub ids: Arc<dyn IdGenerator>,
}

impl Default for EmbeddedSettings {
    fn default() -> Self {
        Self {
            segment_bytes: 32 * 1024 * 1024,
            tail_bytes: 32 * 1024 * 1024,
            conflict_keys: crate::preconditions::DEFAULT_CONFLICT_KEYS,
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
        }
    }
}

/// Why an embedded log was not opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Somebody else has it open.
    #[error("the log in {} is in use{holder}; only one process may open it at a time", dir.display())]
    Locked {
        /// The log's directory.
        dir: PathBuf,
        /// What is known of the holder, as text that follows "in use".
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

impl OpenError {
    /// The log in `dir` is open elsewhere; `holder` is a process id, as far as it is known.
    pub(crate) fn locked(dir: &Path, holder: &str) -> Self {
        let holder = if holder.is_empty() { String::new() } else { format!(" by process {holder}") };
        Self::Locked { dir: dir.to_owned(), holder }
    }
}
