//! What may go wrong in the cluster, and how often.

use super::super::cluster::ErrorCode;

/// How often things fail: one in so many, 0 for never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Reads, and read versions, that fail and ask for another try.
    pub reads: u32,
    /// Ranges that are cut short, or claim that there is more when there is not.
    pub ranges: u32,
    /// Commits that conflict with nobody and fail all the same.
    pub conflicts: u32,
    /// Commits of which is not told whether they happened.
    pub unknown: u32,
    /// Watches that fire for nothing, or fail.
    pub watches: u32,
    /// Transactions during which five seconds pass.
    pub pauses: u32,
}

impl Faults {
    /// Everything fails, often enough for every test to see it, and seldom enough for the test to end.
    #[must_use]
    pub const fn many() -> Self {
        Self { reads: 40, ranges: 4, conflicts: 15, unknown: 10, watches: 5, pauses: 60 }
    }

    /// Nothing but commits of unknown outcome: every third.
    #[must_use]
    pub const fn unknown_commits() -> Self {
        Self { reads: 0, ranges: 0, conflicts: 0, unknown: 3, watches: 0, pauses: 0 }
    }
}

/// Errors of reads after which a transaction is tried again.
pub(crate) const OF_READS: [ErrorCode; 6] = [
    ErrorCode::TRANSACTION_TOO_OLD,
    ErrorCode::FUTURE_VERSION,
    ErrorCode::PROCESS_BEHIND,
    ErrorCode::BATCH_TRANSACTION_THROTTLED,
    ErrorCode::TAG_THROTTLED,
    // A read that takes longer than it was given: the transaction cannot be tried again, another may.
    ErrorCode::TRANSACTION_TIMED_OUT,
];

/// Whether `on_error` gives the transaction back for another try, as the real client does.
pub(crate) fn is_retryable(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::TRANSACTION_TOO_OLD
            | ErrorCode::FUTURE_VERSION
            | ErrorCode::NOT_COMMITTED
            | ErrorCode::COMMIT_UNKNOWN_RESULT
            | ErrorCode::PROCESS_BEHIND
            | ErrorCode::CLUSTER_VERSION_CHANGED
            | ErrorCode::BATCH_TRANSACTION_THROTTLED
            | ErrorCode::TAG_THROTTLED
    )
}
