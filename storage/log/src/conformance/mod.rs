//! The suite that every engine, and every wrapper around one, passes unchanged.
//!
//! A case is an async function that takes an [`Engine`]; it panics where the contract is broken. [`suite!`](crate::suite)
//! makes a test of each. The suite assumes nothing that the contract does not promise: not that LSNs are dense, not that a
//! call's entries have versions of their own, not how long writes are remembered for conflict checks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "these are tests")]

pub mod appending;
pub mod leases;
pub mod metadata;
pub mod model;
pub mod racing;
pub mod reading;
pub mod trimming;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bigpeer_types::{AppId, Lsn, SiteId};
use bytes::Bytes;

use crate::{AppendEntry, AppendOutcome, ConflictKey, LogEntry, TransactionLog};

/// Makes one log, and opens it again.
#[async_trait]
pub trait Engine: Send + Sync + fmt::Debug {
    /// Opens the log: empty the first time, then as it was left. Logs opened before were closed, or dropped.
    async fn open(&self) -> Arc<dyn TransactionLog>;

    /// Ends a log as an orderly process does. By default just drops it, which every log must bear.
    async fn close(&self, log: Arc<dyn TransactionLog>) {
        drop(log);
    }
}

/// A test of every case of the suite, for the engine that an expression makes (a new, empty one each time).
///
/// ```ignore
/// bigpeer_log::suite!(memory, MemoryEngine::default());
/// ```
#[macro_export]
macro_rules! suite {
    ($module:ident, $engine:expr) => {
        mod $module {
            #[allow(unused_imports, reason = "the engine's expression may need it")]
            use super::*;
            $crate::suite_cases!($engine;
                appending: outcomes_come_in_order_and_positions_increase, a_repeated_append_is_recognized,
                    a_gap_is_refused_and_does_not_stop_what_follows, dependencies_are_checked,
                    dependencies_are_checked_within_one_call, a_duplicate_is_told_before_its_dependencies_are_looked_at,
                    what_breaks_a_limit_is_refused_whole, large_transactions_come_back_whole,
                    apps_are_isolated, everything_survives_reopening;
                racing: concurrent_appenders_are_ordered, raced_pushes_are_applied_once, a_serial_counter_counts_right,
                    an_append_that_ended_stands_before_one_that_began_later;
                reading: an_empty_log_answers, small_reads_add_up_to_the_whole, a_follower_misses_nothing,
                    waiting_ends_when_something_comes, a_slow_reader_gets_everything, reading_from_anywhere_goes_on_from_there,
                    the_tail_stream_waits_and_goes_on;
                trimming: reading_below_the_trim_point_says_so, trimming_forgets_no_sequence_number,
                    trimming_forgets_no_conflict, the_trim_point_survives_reopening, a_reader_raced_by_trims_sees_no_silent_gap;
                metadata: keys_have_values_and_revisions, ranges_are_ordered_and_paged, checks_hold_or_nothing_happens,
                    concurrent_increments_add_up, limits_of_metadata_are_kept, watches_miss_nothing, metadata_survives_reopening;
                leases: a_lease_has_one_owner, tokens_increase_over_takeover_release_and_reopening, a_lost_lease_fences,
                    owners_racing_for_a_lease_get_different_tokens;
                model: random_histories_match_the_model
            );
        }
    };
}

/// Part of [`suite!`](crate::suite).
#[doc(hidden)]
#[macro_export]
macro_rules! suite_cases {
    ($engine:expr; $($group:ident: $($case:ident),+);+) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let engine = $engine;
                $crate::conformance::$group::$case(&engine).await;
            }
        )+)+
    };
}

/// An app by a short name.
pub(crate) fn app(name: &str) -> AppId {
    AppId::new(name).unwrap()
}

/// An entry without keys.
pub(crate) fn entry(site: u64, seq: u64, payload: impl Into<Bytes>) -> AppendEntry {
    AppendEntry { site: SiteId::new(site), seq, writes: Vec::new(), unchanged: Vec::new(), payload: payload.into() }
}

/// An entry with keys.
pub(crate) fn keyed(site: u64, seq: u64, writes: &[u64], unchanged: &[(u64, Lsn)]) -> AppendEntry {
    AppendEntry {
        writes: writes.iter().copied().map(ConflictKey).collect(),
        unchanged: unchanged.iter().map(|&(key, lsn)| (ConflictKey(key), lsn)).collect(),
        ..entry(site, seq, format!("{site}/{seq}"))
    }
}

/// Appends one entry.
pub(crate) async fn append(log: &dyn TransactionLog, app: &AppId, entry: AppendEntry) -> AppendOutcome {
    let outcomes = log.append(app, vec![entry]).await.unwrap();
    assert_eq!(outcomes.len(), 1);
    outcomes[0]
}

/// Appends one entry that must be applied.
pub(crate) async fn applied(log: &dyn TransactionLog, app: &AppId, entry: AppendEntry) -> Lsn {
    lsn_of(append(log, app, entry).await)
}

/// The position of an entry that must have been applied.
pub(crate) fn lsn_of(outcome: AppendOutcome) -> Lsn {
    match outcome {
        AppendOutcome::Applied(lsn) => lsn,
        AppendOutcome::Duplicate { .. }
        | AppendOutcome::SeqGap { .. }
        | AppendOutcome::Conflict { .. }
        | AppendOutcome::SnapshotTooOld => panic!("not applied: {outcome:?}"),
    }
}

/// Everything of an app after a position.
pub(crate) async fn read_all(log: &dyn TransactionLog, app: &AppId, after: Lsn) -> Vec<LogEntry> {
    read_in_steps(log, app, after, 64 * 1024).await
}

/// Everything of an app after a position, in reads of at most so many bytes; checks what every read promises.
pub(crate) async fn read_in_steps(
    log: &dyn TransactionLog,
    app: &AppId,
    mut after: Lsn,
    bytes: usize,
) -> Vec<LogEntry> {
    let mut all: Vec<LogEntry> = Vec::new();
    let mut ended_in = None;
    loop {
        let batch = log.read(app, after, bytes).await.unwrap();
        let Some(last) = batch.entries.last() else {
            assert!(batch.through >= after);
            return all;
        };
        assert!(batch.through >= last.lsn && last.lsn > after);
        for entry in batch.entries {
            assert!(all.last().is_none_or(|before| before.lsn < entry.lsn), "positions must increase");
            assert_ne!(ended_in, Some(entry.lsn.version), "a read ended inside a version");
            all.push(entry);
        }
        after = batch.through;
        ended_in = Some(after.version);
    }
}

/// Site and `seq` of entries.
pub(crate) fn ids(entries: &[LogEntry]) -> Vec<(u64, u64)> {
    entries.iter().map(|entry| (entry.site.get(), entry.seq)).collect()
}
