//! Feeds: applied transactions, live, with the state before and after.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bigpeer_crdt::Transaction;
use bigpeer_types::{Lsn, SiteId};
use thiserror::Error;
use tokio::sync::watch;

use crate::error::TablesError;
use crate::snapshot::{Snapshot, View};

/// Transactions that became visible together.
#[derive(Debug)]
pub struct AppliedBatch {
    /// In order of their LSNs.
    pub transactions: Vec<AppliedTransaction>,
    /// The state before the first of them.
    pub before: Snapshot,
    /// The state after the last of them.
    pub after: Snapshot,
    /// Everything up to here has been seen with this batch.
    pub through: Lsn,
}

/// One transaction of a batch.
#[derive(Clone, Debug)]
pub struct AppliedTransaction {
    /// Where it stands in the log.
    pub lsn: Lsn,
    /// Who wrote it.
    pub site: SiteId,
    /// The writer's number of it.
    pub seq: u64,
    /// What it changes.
    pub transaction: Transaction,
}

/// Why a feed ended.
#[derive(Clone, Debug, Error)]
pub enum FeedError {
    /// What the feed has not seen is no longer at hand. Catch up from a snapshot with `changed_since`, then ask for a
    /// new feed from the snapshot's LSN.
    #[error("the feed has fallen behind; what comes after {after} is only in snapshots")]
    Lagged {
        /// Where the feed stands.
        after: Lsn,
    },
    /// The store has stopped applying.
    #[error(transparent)]
    Failed(#[from] TablesError),
}

/// Recent batches, bounded by the bytes of their transactions.
#[derive(Debug)]
pub(crate) struct Ring {
    inner: Mutex<RingState>,
    max_bytes: usize,
}

#[derive(Debug)]
struct RingState {
    /// Numbers count up without gaps.
    batches: VecDeque<Kept>,
    /// The number of the first batch in the ring.
    first: u64,
    bytes: usize,
    /// Everything after this is in the ring.
    since: Lsn,
}

#[derive(Debug)]
struct Kept {
    batch: Arc<AppliedBatch>,
    bytes: usize,
    /// When it was applied, by the monotonic clock.
    at: Duration,
}

impl Ring {
    pub(crate) fn new(since: Lsn, max_bytes: usize) -> Self {
        let state = RingState { batches: VecDeque::new(), first: 0, bytes: 0, since };
        Self { inner: Mutex::new(state), max_bytes }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, RingState> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, batch: Arc<AppliedBatch>, bytes: usize, at: Duration) {
        let mut state = self.state();
        state.batches.push_back(Kept { batch, bytes, at });
        state.bytes += bytes;
        while state.bytes > self.max_bytes && state.batches.len() > 1 {
            state.pop();
        }
    }

    /// Forgets batches up to `through` that were applied before `before`: they hold on to overlays and files that are
    /// long gone otherwise.
    pub(crate) fn forget(&self, through: Lsn, before: Duration) {
        let mut state = self.state();
        while state.batches.front().is_some_and(|kept| kept.batch.through <= through && kept.at < before) {
            state.pop();
        }
    }

    /// The state jumped to `lsn` without batches.
    pub(crate) fn jump(&self, lsn: Lsn) {
        let mut state = self.state();
        while state.pop() {}
        state.since = lsn;
    }

    /// The first batch with something after `after`; `at` is its number if it is known.
    fn find(&self, after: Lsn, at: Option<u64>) -> Result<Option<(u64, Arc<AppliedBatch>)>, FeedError> {
        let state = self.state();
        if after < state.since {
            return Err(FeedError::Lagged { after });
        }
        let index = match at.and_then(|at| at.checked_sub(state.first)) {
            Some(index) => usize::try_from(index).unwrap_or(usize::MAX),
            None => state.batches.partition_point(|kept| kept.batch.through <= after),
        };
        let found = state.batches.get(index).map(|kept| Arc::clone(&kept.batch));
        Ok(found.map(|batch| (state.first + index as u64, batch)))
    }
}

impl RingState {
    fn pop(&mut self) -> bool {
        let Some(kept) = self.batches.pop_front() else { return false };
        self.first += 1;
        self.bytes = self.bytes.saturating_sub(kept.bytes);
        self.since = kept.batch.through;
        true
    }
}

/// One reader of applied transactions. It keeps its place; dropping a call to [`Self::next`] loses nothing.
#[derive(Debug)]
pub struct Feed {
    ring: Arc<Ring>,
    views: watch::Receiver<Published>,
    after: Lsn,
    next: Option<u64>,
}

/// What the store shows to its readers.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) view: Arc<View>,
    /// Why nothing more will be applied.
    pub(crate) failed: Option<TablesError>,
}

impl Feed {
    pub(crate) fn new(ring: Arc<Ring>, views: watch::Receiver<Published>, after: Lsn) -> Self {
        Self { ring, views, after, next: None }
    }

    /// Where the feed stands: everything up to here has been given out.
    #[must_use]
    pub const fn position(&self) -> Lsn {
        self.after
    }

    /// The next batch; waits for one. The first batch may hold transactions at or before the LSN that the feed started
    /// from, if it started in the middle of a batch. Cancel safe.
    ///
    /// # Errors
    /// [`FeedError::Lagged`] when the batch is no longer at hand, [`FeedError::Failed`] when the store has stopped.
    pub async fn next(&mut self) -> Result<Arc<AppliedBatch>, FeedError> {
        loop {
            let failed = self.views.borrow_and_update().failed.clone();
            if let Some((number, batch)) = self.ring.find(self.after, self.next)? {
                self.after = self.after.max(batch.through);
                self.next = Some(number + 1);
                return Ok(batch);
            }
            if let Some(failed) = failed {
                return Err(failed.into());
            }
            self.views.changed().await.map_err(|_| TablesError::Stopped)?;
        }
    }
}
