//! The metadata space of a log: a small ordered key-value store with atomic compare-and-swap and watch.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::MetaError;
use crate::limits::{MAX_META_COMMIT_BYTES, MAX_META_KEY_BYTES, MAX_META_VALUE_BYTES};

/// A value and the revision of the commit that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The value.
    pub value: Bytes,
    /// The commit that wrote it; greater than that of every commit before it.
    pub revision: u64,
}

/// One step of a metadata commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaOp {
    /// The commit happens only if the key's revision is this; `None`: only if the key is absent.
    Check {
        /// The key.
        key: Bytes,
        /// What its revision must be before the commit.
        revision: Option<u64>,
    },
    /// Writes a value.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// Removes a key; no error if it is absent.
    Delete {
        /// The key.
        key: Bytes,
    },
}

impl MetaOp {
    /// The key that the step is about.
    #[must_use]
    pub const fn key(&self) -> &Bytes {
        match self {
            Self::Check { key, .. } | Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// Refuses a commit that is over a limit: what every engine checks before anything else.
///
/// # Errors
/// [`MetaError::Rejected`].
pub fn check_ops(ops: &[MetaOp]) -> Result<(), MetaError> {
    let mut total = 0;
    for op in ops {
        let value = match op {
            MetaOp::Put { value, .. } => value.len(),
            MetaOp::Check { .. } | MetaOp::Delete { .. } => 0,
        };
        let key = op.key().len();
        if key == 0 || key > MAX_META_KEY_BYTES {
            return Err(MetaError::Rejected {
                reason: format!("a key must have 1 to {MAX_META_KEY_BYTES} bytes, not {key}"),
            });
        }
        if value > MAX_META_VALUE_BYTES {
            return Err(MetaError::Rejected {
                reason: format!("a value must have at most {MAX_META_VALUE_BYTES} bytes, not {value}"),
            });
        }
        total += key + value;
    }
    if total > MAX_META_COMMIT_BYTES {
        return Err(MetaError::Rejected {
            reason: format!("a commit must have at most {MAX_META_COMMIT_BYTES} bytes of keys and values, not {total}"),
        });
    }
    Ok(())
}

/// Ordered keys, strongly consistent: a read sees every commit that was acknowledged before it began.
///
/// A commit is atomic, and durable before it is acknowledged. Its checks are judged together, against the state before
/// it; then its writes are done in the order given. It is meant for what is small and rare: the catalogue, leases, cursors.
#[async_trait]
pub trait Metadata: Send + Sync + fmt::Debug {
    /// The value of a key.
    ///
    /// # Errors
    /// [`MetaError::Unavailable`].
    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, MetaError>;

    /// Keys that start with `prefix` and come after `after`, in byte order, at most `limit`; from one point in time.
    ///
    /// # Errors
    /// [`MetaError::Unavailable`].
    async fn range(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Versioned)>, MetaError>;

    /// Does all of `ops` or nothing; answers the commit's revision.
    ///
    /// # Errors
    /// [`MetaError::Conflict`] names the first check that failed. [`MetaError::Unknown`]: it may have happened.
    async fn commit(&self, ops: Vec<MetaOp>) -> Result<u64, MetaError>;

    /// Watches the keys that start with `prefix`, from now on. Watch first, then read, then wait: nothing is missed.
    fn watch(&self, prefix: &[u8]) -> MetaWatch;
}

/// A watch on a prefix of the metadata space.
pub struct MetaWatch {
    receiver: watch::Receiver<u64>,
}

impl fmt::Debug for MetaWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetaWatch").finish_non_exhaustive()
    }
}

impl MetaWatch {
    /// The end of a channel into which an engine sends after a commit below the prefix was made readable.
    #[must_use]
    pub const fn new(receiver: watch::Receiver<u64>) -> Self {
        Self { receiver }
    }

    /// Returns when something below the prefix was committed since the watch was made, or since this last returned; at
    /// once if it has been. Many commits may be told as one. May return without need. Cancel safe.
    ///
    /// # Errors
    /// [`MetaError::Unavailable`] when the log is closed.
    pub async fn changed(&mut self) -> Result<(), MetaError> {
        self.receiver.changed().await.map_err(|_| MetaError::Unavailable { reason: "the log is closed".to_owned() })
    }
}
