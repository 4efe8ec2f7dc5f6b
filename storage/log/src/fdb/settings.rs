//! How a log in FoundationDB is opened, and why it may not be.

use std::sync::Arc;
use std::time::Duration;

use bigpeer_types::{IdGenerator, RandomIds};
use thiserror::Error;

/// How a log uses its cluster.
#[derive(Clone, Debug)]
pub struct FdbSettings {
    /// What all keys start with: two logs may share a cluster under different prefixes, of which none may be the beginning
    /// of another. Short: it is in every key.
    pub prefix: Vec<u8>,
    /// How long an operation is tried before it is given up.
    pub patience: Duration,
    /// How long written keys are remembered at least for conflict checks.
    pub conflict_memory: Duration,
    /// Where the marks come from by which commits are recognized.
    pub ids: Arc<dyn IdGenerator>,
}

impl Default for FdbSettings {
    fn default() -> Self {
        Self {
            prefix: b"bp".to_vec(),
            patience: Duration::from_secs(15),
            conflict_memory: Duration::from_secs(600),
            ids: Arc::new(RandomIds),
        }
    }
}

/// Why a log in FoundationDB was not opened.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FdbOpenError {
    /// The client library or the cluster file cannot be used.
    #[error("FoundationDB cannot be used: {reason}")]
    Client {
        /// What is missing, and what to do about it.
        reason: String,
    },
    /// The cluster does not answer.
    #[error(
        "the FoundationDB cluster does not answer: {reason}; is it running, and is the cluster file that of this cluster?"
    )]
    Unavailable {
        /// What it said.
        reason: String,
    },
    /// What is stored under the prefix was not written by this version.
    #[error("what is stored in the cluster is not a log of this version: {reason}")]
    Format {
        /// What was found.
        reason: String,
    },
}
