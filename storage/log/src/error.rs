//! What can go wrong, told by what the caller must do next. Each says whether the thing may have happened.

use bigpeer_types::Lsn;
use bytes::Bytes;
use thiserror::Error;

/// Why an append was not acknowledged.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AppendError {
    /// It did not happen and never will: the call itself is wrong (a limit, `seq` 0). Nothing of the call was applied.
    #[error("append refused: {reason}")]
    Rejected {
        /// What is wrong with the call.
        reason: String,
    },
    /// It did not happen: nothing of the call was applied. It may succeed later, unchanged.
    #[error("the log cannot take appends: {reason}")]
    Unavailable {
        /// What stands in the way, and what to do about it.
        reason: String,
    },
    /// It may have happened: any number of the call's entries, from the first on, may be applied, now or after a
    /// restart. The cure is to append the same entries again under the same `(site, seq)`.
    #[error("the log cannot say whether the append happened: {reason}")]
    Unknown {
        /// What interrupted it.
        reason: String,
    },
}

impl AppendError {
    /// Whether entries of the call may be in the log, now or later.
    #[must_use]
    pub const fn may_have_applied(&self) -> bool {
        match self {
            Self::Unknown { .. } => true,
            Self::Rejected { .. } | Self::Unavailable { .. } => false,
        }
    }

    /// Whether the same call may succeed when repeated.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unknown { .. } | Self::Unavailable { .. } => true,
            Self::Rejected { .. } => false,
        }
    }
}

/// Why a read was not answered.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ReadError {
    /// Entries after the asked position are gone: never a silent gap. Reading goes on from a snapshot at or after
    /// `kept_after`.
    #[error("the log is trimmed: it holds only what comes after {kept_after}")]
    Trimmed {
        /// The smallest position from which reading works.
        kept_after: Lsn,
    },
    /// The log cannot answer now.
    #[error("the log cannot be read: {reason}")]
    Unavailable {
        /// What stands in the way.
        reason: String,
    },
    /// Stored bytes are not what was written. A person must look.
    #[error("the log is damaged: {reason}")]
    Corrupt {
        /// File, offset and what was found.
        reason: String,
    },
}

impl ReadError {
    /// Whether the same read may succeed when repeated.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::Trimmed { .. } | Self::Corrupt { .. } => false,
        }
    }
}

/// Why a metadata operation was not done.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum MetaError {
    /// A check did not hold; nothing was changed.
    #[error("metadata changed meanwhile: key {:?}", String::from_utf8_lossy(key))]
    Conflict {
        /// The first key whose check failed.
        key: Bytes,
    },
    /// The call itself is wrong (a limit); nothing was changed.
    #[error("metadata commit refused: {reason}")]
    Rejected {
        /// What is wrong with it.
        reason: String,
    },
    /// It did not happen; it may succeed later.
    #[error("metadata is not available: {reason}")]
    Unavailable {
        /// What stands in the way.
        reason: String,
    },
    /// A commit may have happened. Read the keys again before repeating it.
    #[error("the log cannot say whether the metadata commit happened: {reason}")]
    Unknown {
        /// What interrupted it.
        reason: String,
    },
}

impl MetaError {
    /// Whether the commit may be in force, now or later.
    #[must_use]
    pub const fn may_have_applied(&self) -> bool {
        match self {
            Self::Unknown { .. } => true,
            Self::Conflict { .. } | Self::Rejected { .. } | Self::Unavailable { .. } => false,
        }
    }
}
