//! `CompactorError`: why a compactor stopped.

use bigpeer_log::ReadError;
use bigpeer_tables::TablesError;
use thiserror::Error;

/// Why the compactor could not go on.
#[derive(Clone, Debug, Error)]
pub enum CompactorError {
    /// The tables.
    #[error(transparent)]
    Tables(#[from] TablesError),
    /// The log could not be read or trimmed.
    #[error("the log cannot be read or trimmed")]
    Log(#[from] ReadError),
    /// It is not known what readers need.
    #[error("it is not known what readers of the past need: {0}")]
    Readers(String),
    /// Documents could not be removed.
    #[error("documents cannot be removed: {0}")]
    Removal(String),
}

impl CompactorError {
    /// Whether the same may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Tables(error) => error.is_retryable(),
            Self::Log(error) => error.is_retryable(),
            Self::Readers(_) => true,
            Self::Removal(_) => true,
        }
    }
}
