//! `SessionQueue`: what others leave for one session: live transactions, outcomes of its appends, and the word that the site
//! has a newer session. The session waits for one thing, that there is news.
//!
//! Live transactions are bounded by bytes: when the queue is full the session has lagged; what is queued stays good, what comes
//! after is in snapshots only. When too much waits in the whole process, what is queued goes, too ([`SessionQueue::drop_all`]).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bigpeer_log::{AppendError, AppendOutcome};
use bigpeer_types::{Lsn, SiteId};
use tokio::sync::Notify;

use super::Delivery;
use super::delivery::OVERHEAD_BYTES;

/// What became of the entries of one append, in their order; or the error that it ended with.
pub(crate) type Outcomes = Result<Vec<AppendOutcome>, AppendError>;

/// One session's queue; others fill it, the session empties it.
#[derive(Debug)]
pub(crate) struct SessionQueue {
    number: u64,
    site: SiteId,
    max_bytes: usize,
    inner: Mutex<Inner>,
    /// The site has opened a newer session.
    replaced: AtomicBool,
    /// Told when there is something to look at.
    news: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    transactions: VecDeque<Arc<Delivery>>,
    bytes: usize,
    /// Everything up to here was queued before the first of `transactions`.
    before: Lsn,
    outcomes: VecDeque<Outcomes>,
    /// Everything up to here was queued; what comes after will be, when documents have been read.
    held: Option<Lsn>,
    /// Everything up to here was queued; what comes after was not.
    lagged_at: Option<Lsn>,
    failed: bool,
}

/// What was taken out.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// In log order.
    pub(crate) transactions: Vec<Arc<Delivery>>,
    /// Whether nothing is left.
    pub(crate) emptied: bool,
    /// Everything that was queued is from here or before, if the queue is held.
    pub(crate) held: Option<Lsn>,
    /// Set with the last of a queue that was full: catch up from here, after [`SessionQueue::begin_again`].
    pub(crate) lagged_at: Option<Lsn>,
}

impl SessionQueue {
    pub(crate) fn new(number: u64, site: SiteId, max_bytes: usize) -> Self {
        let (inner, replaced, news) = (Mutex::default(), AtomicBool::new(false), Notify::new());
        Self { number, site, max_bytes, inner, replaced, news }
    }

    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    pub(crate) const fn site(&self) -> SiteId {
        self.site
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a transaction; false when there is no room, and nothing will be queued any more. `before` is a position
    /// before the transaction up to which everything was queued.
    pub(super) fn push(&self, delivery: Arc<Delivery>, before: Lsn) -> bool {
        let bytes = cost(&delivery);
        let mut inner = self.inner();
        if inner.lagged_at.is_some() {
            return false;
        }
        // One that is larger than the whole queue must pass, or it never would.
        if inner.bytes + bytes > self.max_bytes && !inner.transactions.is_empty() {
            Self::lag(&mut inner, before);
            return false;
        }
        if inner.transactions.is_empty() {
            inner.before = before;
        }
        inner.bytes += bytes;
        inner.transactions.push_back(delivery);
        true
    }

    /// Everything up to `at` was queued, and what comes after will be later. One that is held already stays where it is.
    pub(super) fn hold(&self, at: Lsn) {
        let mut inner = self.inner();
        if inner.lagged_at.is_none() {
            inner.held.get_or_insert(at);
        }
    }

    /// It is still held, with everything up to `at`.
    pub(super) fn hold_on(&self, at: Lsn) {
        let mut inner = self.inner();
        inner.held = inner.held.map(|held| held.max(at));
    }

    /// Everything up to where the hub stands was queued, or will not be.
    pub(super) fn release(&self) {
        self.inner().held = None;
    }

    /// Whether something is still to be queued that lies before where the hub stands.
    pub(crate) fn is_held(&self) -> bool {
        self.held().is_some()
    }

    /// Up to where everything was queued, if that is not where the hub stands.
    pub(crate) fn held(&self) -> Option<Lsn> {
        self.inner().held
    }

    /// Nothing after `at` will be queued, nor after where it is held.
    pub(super) fn lagged(&self, at: Lsn) {
        let mut inner = self.inner();
        let at = inner.held.take().map_or(at, |held| held.min(at));
        Self::lag(&mut inner, at);
    }

    fn lag(inner: &mut Inner, before: Lsn) {
        let queued = inner.transactions.back().map_or(Lsn::ZERO, |last| last.lsn());
        inner.lagged_at.get_or_insert(queued.max(before));
    }

    /// Drops what is queued, if anything is: the session has lagged where the first of it stood. Answers whether it was so.
    pub(crate) fn drop_all(&self) -> bool {
        let mut inner = self.inner();
        if inner.transactions.is_empty() {
            return false;
        }
        inner.transactions = VecDeque::new();
        inner.bytes = 0;
        // Not later than where it is held, and earlier than where it was full.
        inner.held = None;
        inner.lagged_at = Some(inner.before);
        true
    }

    /// Nothing will ever be queued again: the store has stopped.
    pub(super) fn fail(&self) {
        self.inner().failed = true;
    }

    /// Leaves what became of an append, and wakes the session.
    pub(crate) fn answer(&self, outcomes: Outcomes) {
        self.inner().outcomes.push_back(outcomes);
        self.notify();
    }

    /// The next append's outcomes.
    pub(crate) fn take_outcomes(&self) -> Option<Outcomes> {
        let mut inner = self.inner();
        let outcomes = inner.outcomes.pop_front();
        if inner.outcomes.is_empty() {
            inner.outcomes = VecDeque::new();
        }
        outcomes
    }

    /// The site has opened a newer session; wakes this one.
    pub(crate) fn replace(&self) {
        self.replaced.store(true, Ordering::Release);
        self.notify();
    }

    /// Whether the site has a newer session.
    pub(crate) fn is_replaced(&self) -> bool {
        self.replaced.load(Ordering::Acquire)
    }

    /// Wakes the session.
    pub(crate) fn notify(&self) {
        self.news.notify_one();
    }

    /// Waits until there is something to look at. Cancel safe; wakes are not lost.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// The session is attached to nothing any more, and knows where it lagged: it may be queued for again.
    pub(crate) fn begin_again(&self) {
        self.inner().lagged_at = None;
    }

    /// Whether the queue was full; until [`Self::begin_again`] nothing can be attached.
    pub(crate) fn has_lagged(&self) -> bool {
        self.inner().lagged_at.is_some()
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.inner().failed
    }

    /// Memory of what is queued, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.inner().bytes
    }

    /// Whether there is something to take out.
    pub(crate) fn has_news(&self) -> bool {
        let inner = self.inner();
        !inner.transactions.is_empty() || inner.lagged_at.is_some()
    }

    /// The position of the first transaction.
    pub(crate) fn front(&self) -> Option<Lsn> {
        self.inner().transactions.front().map(|first| first.lsn())
    }

    /// Takes out transactions up to and including `through`, until they are `max_bytes` or more.
    pub(crate) fn take(&self, max_bytes: usize, through: Lsn) -> Taken {
        let mut taken = Taken::default();
        let mut total = 0;
        let mut inner = self.inner();
        while total < max_bytes {
            if inner.transactions.front().is_none_or(|first| first.lsn() > through) {
                break;
            }
            let Some(delivery) = inner.transactions.pop_front() else { break };
            let bytes = cost(&delivery);
            total += bytes;
            inner.bytes -= bytes;
            inner.before = inner.before.max(delivery.lsn());
            taken.transactions.push(delivery);
        }
        taken.held = inner.held;
        if inner.transactions.is_empty() {
            // An idle session keeps nothing.
            inner.transactions = VecDeque::new();
        }
        taken.emptied = inner.transactions.is_empty();
        if taken.emptied {
            taken.lagged_at = inner.lagged_at;
        }
        taken
    }
}

/// Memory of a queued transaction. One that many sessions share is counted by each: it lives as long as one of them needs it.
fn cost(delivery: &Delivery) -> usize {
    delivery.bytes() + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use bigpeer_protocol::pb;

    fn at(version: u64) -> Arc<Delivery> {
        let transaction = pb::Transaction { lsn: Some(Lsn::new(version, 0).into()), ..Default::default() };
        Arc::new(Delivery::new(transaction, &Budget::new(usize::MAX)))
    }

    #[test]
    fn a_queue_that_is_emptied_goes_back_to_where_its_first_transaction_stood() {
        let queue = SessionQueue::new(1, SiteId::new(1), usize::MAX);
        assert!(!queue.drop_all(), "nothing waits");
        queue.push(at(5), Lsn::new(4, 0));
        queue.push(at(6), Lsn::new(5, 0));
        queue.push(at(9), Lsn::new(8, 0));
        queue.hold(Lsn::new(10, 0));
        assert_eq!(queue.take(1, Lsn::MAX).transactions.len(), 1);
        assert!(queue.drop_all());
        assert!(!queue.push(at(11), Lsn::new(10, 0)), "nothing is queued behind a gap");
        let taken = queue.take(usize::MAX, Lsn::MAX);
        assert_eq!((taken.transactions.len(), taken.emptied, taken.held), (0, true, None));
        assert_eq!(taken.lagged_at, Some(Lsn::new(5, 0)), "up to here it was taken out");
        assert!(!queue.push(at(12), Lsn::new(11, 0)), "not before the session is detached");
        queue.begin_again();
        assert!(queue.push(at(12), Lsn::new(11, 0)));
        assert!(queue.drop_all());
        assert_eq!(queue.take(1, Lsn::MAX).lagged_at, Some(Lsn::new(11, 0)));
    }

    #[test]
    fn a_held_queue_that_lags_goes_back_to_where_it_was_held() {
        let queue = SessionQueue::new(1, SiteId::new(1), usize::MAX);
        queue.hold_on(Lsn::new(3, 0));
        assert!(!queue.is_held());
        queue.hold(Lsn::new(3, 0));
        queue.hold(Lsn::new(5, 0));
        assert_eq!(queue.held(), Some(Lsn::new(3, 0)), "a later batch does not move it");
        queue.hold_on(Lsn::new(4, 0));
        queue.lagged(Lsn::new(9, 0));
        assert!(!queue.is_held());
        assert_eq!(queue.take(1, Lsn::MAX).lagged_at, Some(Lsn::new(4, 0)));
    }

    #[test]
    fn a_full_queue_keeps_what_it_has_and_says_where_it_stopped() {
        let queue = SessionQueue::new(1, SiteId::new(1), 2 * OVERHEAD_BYTES + 100);
        assert!(queue.push(at(5), Lsn::new(4, 0)));
        assert!(queue.push(at(6), Lsn::new(4, 0)));
        assert!(!queue.push(at(9), Lsn::new(8, 0)));
        assert!(!queue.push(at(10), Lsn::new(9, 0)), "nothing is queued behind a gap");
        let first = queue.take(1, Lsn::MAX);
        assert_eq!((first.transactions.len(), first.emptied, first.lagged_at), (1, false, None));
        let rest = queue.take(usize::MAX, Lsn::MAX);
        assert_eq!((rest.transactions.len(), rest.emptied, rest.lagged_at), (1, true, Some(Lsn::new(8, 0))));
        queue.begin_again();
        assert!(!queue.has_lagged() && queue.push(at(11), Lsn::new(10, 0)));
    }

    #[test]
    fn nothing_after_the_barrier_is_taken() {
        let queue = SessionQueue::new(1, SiteId::new(1), usize::MAX);
        for version in 1..=3 {
            queue.push(at(version), Lsn::ZERO);
        }
        assert_eq!(queue.take(usize::MAX, Lsn::new(2, 0)).transactions.len(), 2);
        assert_eq!(queue.front(), Some(Lsn::new(3, 0)));
    }

    #[test]
    fn a_transaction_larger_than_the_queue_passes() {
        let queue = SessionQueue::new(1, SiteId::new(1), 1);
        assert!(queue.push(at(1), Lsn::ZERO));
        assert!(!queue.push(at(2), Lsn::new(1, 0)));
        assert_eq!(queue.take(1, Lsn::MAX).lagged_at, Some(Lsn::new(1, 0)));
    }
}
