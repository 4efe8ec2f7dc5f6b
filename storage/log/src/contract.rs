//! The contract of a transaction log. Every engine passes the suite in `conformance` unchanged.

use std::fmt;

use async_trait::async_trait;
use bigpeer_types::{AppId, Lsn, SiteId};
use bytes::Bytes;

use crate::{AppendError, Metadata, ReadError};

/// What an entry writes or depends on, as the caller's 64-bit hash (of a collection and a document id, say). Two things
/// with one hash conflict needlessly, which is harmless: the caller tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConflictKey(pub u64);

/// One transaction to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendEntry {
    /// Who writes.
    pub site: SiteId,
    /// The site's own number of this transaction: 1, 2, 3, … without gaps.
    pub seq: u64,
    /// What it writes, for the `unchanged` of others. May be empty when nobody will depend on it.
    pub writes: Vec<ConflictKey>,
    /// What it depends on: each key must not have been written after the position beside it.
    pub unchanged: Vec<(ConflictKey, Lsn)>,
    /// The transaction itself; the log does not look inside.
    pub payload: Bytes,
}

/// What became of one entry of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// It stands in the log at this position, durably.
    Applied(Lsn),
    /// The site's `seq` was applied before, durably; nothing was written. Preconditions in `unchanged` are not looked at.
    Duplicate {
        /// The site's last applied `seq`.
        through_seq: u64,
        /// A position at or after the original's.
        lsn: Lsn,
    },
    /// `seq` is not the next of its site; nothing was written.
    SeqGap {
        /// The site's last applied `seq` (0: none).
        last_seq: u64,
    },
    /// A key of `unchanged` was written after the position given for it; nothing was written, and `seq` is not used up.
    Conflict {
        /// One such key.
        key: ConflictKey,
    },
    /// A position in `unchanged` is older than what the log remembers of writes; nothing was written, and `seq` is not
    /// used up. Read again at a newer snapshot.
    SnapshotTooOld,
}

/// One transaction in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Where it stands.
    pub lsn: Lsn,
    /// Who wrote it.
    pub site: SiteId,
    /// The site's number of it.
    pub seq: u64,
    /// What was appended.
    pub payload: Bytes,
}

/// What one read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBatch {
    /// In order of their LSNs. Never ends inside one `version`.
    pub entries: Vec<LogEntry>,
    /// Every entry after the asked position and up to here is in `entries`. Where the next read goes on; never before
    /// the asked position.
    pub through: Lsn,
}

/// A log of transactions per app, and a small strongly consistent key-value space.
///
/// **Order.** An app's entries have strictly increasing [`Lsn`]s, in the order in which they were applied; a call's entries
/// in the order given. LSNs are never reused, and **not dense**: they can be compared, not counted. Several entries may
/// share a `version`; they become readable together. Apps are independent: nothing of one can be seen through another.
///
/// **Durability.** What an `Ok` acknowledges survives the loss of the process at any later instant (for `MemoryLog`: as
/// long as the log itself lives). What is readable is durable: no reader ever sees an entry that a crash takes back.
///
/// **Exactly once.** An entry is applied only if `seq` is its site's last applied `seq` plus one, checked in the same step
/// as it is written. So an append that is repeated, or raced by another connection of the same site, is applied once. A
/// site's last `seq` is remembered for ever, behind any trim.
///
/// **Cancellation.** A dropped `append`, `trim` or metadata commit may still happen, as after an `Unknown` error. Dropping
/// a `read` or `wait_past` has no effect.
#[async_trait]
pub trait TransactionLog: Send + Sync + fmt::Debug {
    /// Appends entries of one app, each with its own preconditions, and returns when the outcome of every one is durable:
    /// one outcome per entry, in the order given. Each is judged after those before it were applied; one that is not
    /// applied does not stop those after it (though a site's later `seq` will then be a gap). The call is **not** one
    /// atomic unit: after [`AppendError::Unknown`] any number of its entries may have been applied, from the first on;
    /// an entry itself is whole or absent.
    ///
    /// # Errors
    /// [`AppendError::Rejected`] (limits; `seq` 0) and [`AppendError::Unavailable`] applied nothing;
    /// [`AppendError::Unknown`] may have. The cure is the same append again under the same `(site, seq)`.
    async fn append(&self, app: &AppId, entries: Vec<AppendEntry>) -> Result<Vec<AppendOutcome>, AppendError>;

    /// Reads what comes after `after`, at once: at least one entry if there is any, more while their payloads sum up to
    /// at most `max_bytes` (a `version` is never cut, whatever its size), nothing at the tail or beyond it.
    ///
    /// # Errors
    /// [`ReadError::Trimmed`] when entries after `after` may be gone, that is when `after` is below the trim point.
    async fn read(&self, app: &AppId, after: Lsn, max_bytes: usize) -> Result<ReadBatch, ReadError>;

    /// Returns when an entry after `after` has been applied, at once if it has (even if it was trimmed meanwhile). No
    /// wake-up is lost: `read` until empty, then `wait_past` the last position, sees everything.
    ///
    /// # Errors
    /// When the log is closed or can no longer take entries.
    async fn wait_past(&self, app: &AppId, after: Lsn) -> Result<(), ReadError>;

    /// The last entry's position ([`Lsn::ZERO`]: none ever); trimming does not move it.
    ///
    /// # Errors
    /// When the log cannot be read.
    async fn head(&self, app: &AppId) -> Result<Lsn, ReadError>;

    /// The trim point: reading works from here on ([`Lsn::ZERO`]: nothing was trimmed).
    ///
    /// # Errors
    /// When the log cannot be read.
    async fn trimmed(&self, app: &AppId) -> Result<Lsn, ReadError>;

    /// The last applied `seq` of a site, 0 if there is none. Durable: never takes into account what a crash could take
    /// back. Survives trimming.
    ///
    /// # Errors
    /// When the log cannot be read.
    async fn last_seq(&self, app: &AppId, site: SiteId) -> Result<u64, ReadError>;

    /// Gives up entries up to and including `through`. The trim point moves to the lesser of `through` and the head, and
    /// never back, durably; the space is freed at some time after. Sequence numbers and what conflict checks
    /// remember do not suffer.
    ///
    /// # Errors
    /// When the log cannot be written; the trim may or may not have happened, and may be repeated.
    async fn trim(&self, app: &AppId, through: Lsn) -> Result<(), ReadError>;

    /// Stops taking appends, and returns when what was accepted is done and the log may be opened again. By default there is
    /// nothing to do.
    async fn close(&self) {}

    /// The metadata space.
    fn metadata(&self) -> &dyn Metadata;
}
