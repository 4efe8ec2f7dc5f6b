//! The seam between the engine and FoundationDB: exactly the operations of a transaction that it uses. Behind it stands the
//! real client, or a cluster in memory that keeps FoundationDB's promises, breaks off where it may, and nothing more.

use std::fmt;

use bytes::Bytes;
use futures::future::BoxFuture;
use thiserror::Error;

/// A database of FoundationDB.
pub trait Cluster: Send + Sync + fmt::Debug {
    /// A new transaction. Nothing is asked of the cluster yet.
    ///
    /// # Errors
    /// What the client says.
    fn begin(&self) -> Result<Box<dyn Transaction>, ErrorCode>;
}

/// What a call of the cluster answers, some time.
pub type Answer<T> = BoxFuture<'static, Result<T, ErrorCode>>;

/// A transaction for another try, when it is time.
pub type Again = Answer<Box<dyn Transaction>>;

/// Whether a write makes those transactions fail that have read the key and commit later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflicts {
    /// It does.
    Yes,
    /// It does not: nobody decides anything from reading this key.
    No,
}

/// A piece of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys and values in order.
    pub rows: Vec<(Bytes, Bytes)>,
    /// There may be more after the last one.
    pub more: bool,
}

/// One transaction: reads see the database at one version, writes happen together or not at all. All reads are snapshot
/// reads; what the commit depends on is said by [`Transaction::depend_on`].
pub trait Transaction: Send + Sync + fmt::Debug {
    /// Has reads, and what the commit depends on, stand at `version`, which must be that of a known commit.
    fn set_read_version(&self, version: u64);

    /// The version at which reads stand: at or after every commit that was acknowledged before.
    fn read_version(&self) -> Answer<u64>;

    /// The value of a key.
    fn get(&self, key: &[u8]) -> Answer<Option<Bytes>>;

    /// Keys from `begin` up to but not including `end`, about `bytes` of them, at least one if there is any.
    fn range(&self, begin: &[u8], end: &[u8], bytes: usize) -> Answer<Page>;

    /// Writes a value.
    fn set(&self, key: &[u8], value: &[u8], conflicts: Conflicts);

    /// Writes a value under a key in which the ten bytes at `at` become the commit's versionstamp. Conflicts with nobody.
    fn set_stamped_key(&self, key: &[u8], at: usize, value: &[u8]);

    /// Writes a value of which the first ten bytes become the commit's versionstamp.
    fn set_stamped_value(&self, key: &[u8], value: &[u8], conflicts: Conflicts);

    /// Removes a key.
    fn clear(&self, key: &[u8], conflicts: Conflicts);

    /// Removes the keys from `begin` up to but not including `end`. Conflicts with nobody.
    fn clear_range(&self, begin: &[u8], end: &[u8]);

    /// The commit happens only if nobody wrote keys from `begin` up to but not including `end` since the read version.
    ///
    /// # Errors
    /// What the client says.
    fn depend_on(&self, begin: &[u8], end: &[u8]) -> Result<(), ErrorCode>;

    /// Makes those fail that depend on keys in this range, read before this commit, and commit after it.
    ///
    /// # Errors
    /// What the client says.
    fn conflict_with(&self, begin: &[u8], end: &[u8]) -> Result<(), ErrorCode>;

    /// Ends when the key's value is no longer what this transaction read, after this transaction was committed; may end
    /// early, in success or error. Dropping it gives it up.
    fn watch(&self, key: &[u8]) -> Answer<()>;

    /// Makes the writes durable. The versionstamp is that of the commit; a transaction without writes has none.
    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<Stamp, CommitFailure>>;

    /// Waits as is proper after an error, and gives the transaction back for another try, empty; or the error, when trying
    /// again is of no use.
    fn on_error(self: Box<Self>, code: ErrorCode) -> Again;
}

/// A commit that was not acknowledged.
pub struct CommitFailure {
    /// Why.
    pub code: ErrorCode,
    /// As [`Transaction::on_error`] answers.
    pub again: Again,
}

impl fmt::Debug for CommitFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommitFailure").field("code", &self.code).finish_non_exhaustive()
    }
}

/// Where a commit stands among all commits: its version, and its place among those that share it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// The commit's version; what reads at it or later see.
    pub version: u64,
    /// Several transactions may commit at one version, in this order.
    pub batch: u16,
}

impl Stamp {
    /// Length of the byte form.
    pub const BYTES: usize = 10;

    /// Byte form; byte order is commit order.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..8].copy_from_slice(&self.version.to_be_bytes());
        out[8..].copy_from_slice(&self.batch.to_be_bytes());
        out
    }

    /// Reads the byte form.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j] = bytes;
        Self { version: u64::from_be_bytes([a, b, c, d, e, f, g, h]), batch: u16::from_be_bytes([i, j]) }
    }
}

/// An error of FoundationDB, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("FoundationDB error {0}{name}", name = name(*self))]
pub struct ErrorCode(pub i32);

fn name(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::TRANSACTION_TOO_OLD => " (transaction_too_old)",
        ErrorCode::FUTURE_VERSION => " (future_version)",
        ErrorCode::NOT_COMMITTED => " (not_committed)",
        ErrorCode::COMMIT_UNKNOWN_RESULT => " (commit_unknown_result)",
        ErrorCode::TRANSACTION_CANCELLED => " (transaction_cancelled)",
        ErrorCode::TRANSACTION_TIMED_OUT => " (transaction_timed_out)",
        ErrorCode::ACCESSED_UNREADABLE => " (accessed_unreadable)",
        ErrorCode::PROCESS_BEHIND => " (process_behind)",
        ErrorCode::CLUSTER_VERSION_CHANGED => " (cluster_version_changed)",
        ErrorCode::BATCH_TRANSACTION_THROTTLED => " (batch_transaction_throttled)",
        ErrorCode::TAG_THROTTLED => " (tag_throttled)",
        ErrorCode::OPERATION_CANCELLED => " (operation_cancelled)",
        ErrorCode::TRANSACTION_TOO_LARGE => " (transaction_too_large)",
        ErrorCode::KEY_TOO_LARGE => " (key_too_large)",
        ErrorCode::VALUE_TOO_LARGE => " (value_too_large)",
        ErrorCode::NO_COMMIT_VERSION => " (no_commit_version)",
        _ => "",
    }
}

impl ErrorCode {
    /// The read version is more than five seconds old.
    pub const TRANSACTION_TOO_OLD: Self = Self(1007);
    /// A storage server has not come as far as the read version.
    pub const FUTURE_VERSION: Self = Self(1009);
    /// Somebody wrote what the commit depended on. It did not happen.
    pub const NOT_COMMITTED: Self = Self(1020);
    /// It happened or it did not; it is not under way any more.
    pub const COMMIT_UNKNOWN_RESULT: Self = Self(1021);
    /// The transaction was given up.
    pub const TRANSACTION_CANCELLED: Self = Self(1025);
    /// It took longer than it was given. A commit may have happened, and may happen yet.
    pub const TRANSACTION_TIMED_OUT: Self = Self(1031);
    /// A key was read that this transaction writes with a versionstamp.
    pub const ACCESSED_UNREADABLE: Self = Self(1036);
    /// A storage server is too far behind.
    pub const PROCESS_BEHIND: Self = Self(1037);
    /// The client changed over to another library or cluster. A commit may have happened, and may happen yet.
    pub const CLUSTER_VERSION_CHANGED: Self = Self(1039);
    /// The cluster has no room for work of this priority.
    pub const BATCH_TRANSACTION_THROTTLED: Self = Self(1051);
    /// The cluster slows transactions of this kind down.
    pub const TAG_THROTTLED: Self = Self(1213);
    /// A watch or call was given up.
    pub const OPERATION_CANCELLED: Self = Self(1101);
    /// More than 10,000,000 bytes.
    pub const TRANSACTION_TOO_LARGE: Self = Self(2101);
    /// A key of more than 10,000 bytes.
    pub const KEY_TOO_LARGE: Self = Self(2102);
    /// A value of more than 100,000 bytes.
    pub const VALUE_TOO_LARGE: Self = Self(2103);
    /// A transaction without writes has no commit version.
    pub const NO_COMMIT_VERSION: Self = Self(2021);

    /// Whether a commit that ended so may have happened, or may happen yet.
    #[must_use]
    pub fn may_have_committed(self) -> bool {
        matches!(
            self,
            Self::COMMIT_UNKNOWN_RESULT
                | Self::CLUSTER_VERSION_CHANGED
                | Self::TRANSACTION_TIMED_OUT
                | Self::TRANSACTION_CANCELLED
                | Self::OPERATION_CANCELLED
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_byte_order_of_stamps_is_their_order(a in any::<(u64, u16)>(), b in any::<(u64, u16)>()) {
            let (a, b) = (Stamp { version: a.0, batch: a.1 }, Stamp { version: b.0, batch: b.1 });
            prop_assert_eq!(Stamp::from_bytes(a.to_bytes()), a);
            prop_assert_eq!(a.to_bytes().cmp(&b.to_bytes()), a.cmp(&b));
        }
    }

    #[test]
    fn errors_have_number_and_name() {
        assert_eq!(ErrorCode::NOT_COMMITTED.to_string(), "FoundationDB error 1020 (not_committed)");
        assert_eq!(ErrorCode(4100).to_string(), "FoundationDB error 4100");
        assert!(ErrorCode::COMMIT_UNKNOWN_RESULT.may_have_committed());
        assert!(!ErrorCode::NOT_COMMITTED.may_have_committed());
    }
}
