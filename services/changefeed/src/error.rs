//! What can go wrong with a feed, told by what happens next.

use bigpeer_log::{MetaError, ReadError};
use bigpeer_tables::TablesError;
use bigpeer_types::Lsn;
use thiserror::Error;

/// Why changes could not be read.
#[derive(Clone, Debug, Error)]
pub enum FeedError {
    /// What comes after this position is no longer kept: the reader has to start from a snapshot.
    #[error("what comes after {after} is no longer kept")]
    Gap {
        /// Where the reader stands.
        after: Lsn,
    },
    /// The position lies beyond everything that was ever written to this app.
    #[error("the cursor {after} is ahead of the app, which ends at {head}; it is of another app, or of another log")]
    Ahead {
        /// Where the reader says that it stands.
        after: Lsn,
        /// The last transaction.
        head: Lsn,
    },
    /// The tables cannot be read.
    #[error(transparent)]
    Tables(TablesError),
    /// The log cannot be read.
    #[error(transparent)]
    Log(ReadError),
    /// Stored bytes that cannot be read. A person must look.
    #[error("the transaction at {lsn} cannot be read: {reason}")]
    Corrupt {
        /// Where it stands.
        lsn: Lsn,
        /// What is wrong.
        reason: String,
    },
    /// The feed's entry or cursor cannot be read or written.
    #[error("the feed's records: {0}")]
    Records(String),
    /// What the feed goes to cannot be reached or written to.
    #[error("{0}")]
    Sink(String),
    /// Another process owns the feed now, or its entry was changed: this owner must not go on.
    #[error("the feed was taken over or changed")]
    Lost,
}

impl FeedError {
    /// Whether the same may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Tables(error) => error.is_retryable(),
            Self::Log(error) => error.is_retryable(),
            Self::Records(_) | Self::Sink(_) => true,
            Self::Gap { .. } | Self::Ahead { .. } | Self::Corrupt { .. } | Self::Lost => false,
        }
    }

    /// What the tables said when they were asked for the state at `after`.
    pub(crate) fn at(after: Lsn, error: TablesError) -> Self {
        match error {
            TablesError::Forgotten { .. } | TablesError::Log(ReadError::Trimmed { .. }) => Self::Gap { after },
            TablesError::Objects { .. }
            | TablesError::Corrupt { .. }
            | TablesError::Log(_)
            | TablesError::BadTransaction { .. }
            | TablesError::Fenced { .. }
            | TablesError::NoPin { .. }
            | TablesError::Stopped
            | TablesError::NotEmpty { .. }
            | TablesError::Encoding(_) => Self::Tables(error),
        }
    }
}

impl From<MetaError> for FeedError {
    fn from(error: MetaError) -> Self {
        Self::Records(error.to_string())
    }
}
