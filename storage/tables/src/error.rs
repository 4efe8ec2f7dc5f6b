//! `TablesError`: what can go wrong with an app's tables, told by what the caller must do next.

use std::sync::Arc;

use bigpeer_log::ReadError;
use thiserror::Error;

/// Why the tables could not answer. Cheap to clone: a failure of the tail is told to everyone who waits for it.
#[derive(Clone, Debug, Error)]
pub enum TablesError {
    /// Object storage did not do what was asked. Nothing that was committed is lost; the same call may succeed later.
    #[error("object storage failed at '{path}'")]
    Objects {
        /// The object, or the prefix that was listed.
        path: String,
        /// What it said.
        #[source]
        source: Arc<object_store::Error>,
    },
    /// Stored bytes are not what was written. A person must look.
    #[error("'{path}' is damaged: {reason}")]
    Corrupt {
        /// The object.
        path: String,
        /// What was found.
        reason: String,
    },
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Log(#[from] ReadError),
    /// A transaction in the log cannot be decoded. Nothing after it is applied.
    #[error("the transaction at {lsn} cannot be decoded: {reason}")]
    BadTransaction {
        /// Where it stands.
        lsn: bigpeer_types::Lsn,
        /// What is wrong with it.
        reason: String,
    },
    /// Another writer has taken over this app's tables. This one must not go on; what it was about to commit was not
    /// committed.
    #[error("another writer (epoch {theirs}) has taken over from this one (epoch {ours})")]
    Fenced {
        /// The epoch of this writer.
        ours: u64,
        /// The epoch of the other.
        theirs: u64,
    },
    /// The state at an LSN was asked for that is no longer kept: its manifest was collected, or the log behind it trimmed.
    #[error("the state at {lsn} is no longer kept; ask for a later one")]
    Forgotten {
        /// What was asked for.
        lsn: bigpeer_types::Lsn,
    },
    /// There is no pin of this name, or its time is over.
    #[error("there is no pin '{name}'")]
    NoPin {
        /// What was asked for.
        name: String,
    },
    /// An app was to be made that has been written to already.
    #[error("the app '{app}' is not empty")]
    NotEmpty {
        /// Which.
        app: bigpeer_types::AppId,
    },
    /// The store was shut down.
    #[error("the store was shut down")]
    Stopped,
    /// Documents could not be turned into a Parquet file, or a file into documents: a defect of this program.
    #[error("cannot encode or decode a segment: {0}")]
    Encoding(String),
}

impl TablesError {
    /// Whether the same call may succeed later, unchanged.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Objects { .. } => true,
            Self::Log(error) => error.is_retryable(),
            Self::Corrupt { .. }
            | Self::BadTransaction { .. }
            | Self::Fenced { .. }
            | Self::Forgotten { .. }
            | Self::NoPin { .. }
            | Self::NotEmpty { .. }
            | Self::Stopped
            | Self::Encoding(_) => false,
        }
    }

    pub(crate) fn objects(path: &impl ToString, source: object_store::Error) -> Self {
        Self::Objects { path: path.to_string(), source: Arc::new(source) }
    }

    pub(crate) fn corrupt(path: &impl ToString, reason: impl ToString) -> Self {
        Self::Corrupt { path: path.to_string(), reason: reason.to_string() }
    }
}

impl From<arrow::error::ArrowError> for TablesError {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::Encoding(error.to_string())
    }
}
