//! The transaction log: one contract, its engines, and the suite that every engine passes.
//!
//! Everything that is acknowledged to a device or an HTTP client is promised by this crate. [`TransactionLog`] is the
//! contract; [`MemoryLog`] keeps it for as long as the process lives, [`EmbeddedLog`] on a local disk, `FdbLog` (feature
//! `foundationdb`) in a cluster. The log does not know what a document is: payloads are bytes to it.

#![warn(missing_docs)]

#[cfg(feature = "conformance")]
pub mod conformance;
mod contract;
pub mod embedded;
mod error;
#[cfg(any(feature = "foundationdb", feature = "conformance"))]
pub mod fdb;
mod lease;
mod memory;
mod metadata;
mod metrics;
mod preconditions;
mod tail;
mod watchers;

pub use contract::{AppendEntry, AppendOutcome, ConflictKey, LogEntry, ReadBatch, TransactionLog};
pub use embedded::{EmbeddedLog, EmbeddedSettings, OpenError};
pub use error::{AppendError, MetaError, ReadError};
#[cfg(any(feature = "foundationdb", feature = "conformance"))]
pub use fdb::{FdbLog, FdbOpenError, FdbSettings};
pub use lease::{Lease, LeaseError};
pub use memory::MemoryLog;
pub use metadata::{MetaOp, MetaWatch, Metadata, Versioned, check_ops};
pub use tail::tail;

/// Limits of the log itself; those shared with other crates are in `bigpeer_types::limits`.
pub mod limits {
    /// Largest payload of one entry, in bytes.
    pub const MAX_PAYLOAD_BYTES: usize = bigpeer_types::limits::MAX_TRANSACTION_BYTES;

    /// Most conflict keys that one entry may write, and most that it may depend on.
    pub const MAX_CONFLICT_KEYS: usize = bigpeer_types::limits::MAX_TRANSACTION_CHANGES;

    /// Longest key of the metadata space, in bytes.
    pub const MAX_META_KEY_BYTES: usize = 1024;

    /// Largest value of the metadata space, in bytes (FoundationDB ends at 100,000).
    pub const MAX_META_VALUE_BYTES: usize = 64 * 1024;

    /// Most bytes of keys and values in one metadata commit.
    pub const MAX_META_COMMIT_BYTES: usize = 1024 * 1024;
}
