//! `Budget`: how much memory the documents that wait for all sessions of the process may take together. Each session's queue has
//! a bound of its own; many slow ones at once have this one. When it is exceeded, those that wait for most lose what waits, and
//! catch up from a snapshot instead; and nobody reads more pages ahead until there is room.
//!
//! What many sessions wait for is counted once, as long as one of them needs it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::hub::SessionQueue;
use crate::metrics;

/// Bytes that wait, of all sessions.
#[derive(Debug)]
pub(crate) struct Budget {
    max: usize,
    used: AtomicUsize,
    /// Those that something may wait in, by session.
    queues: Mutex<BTreeMap<u64, Weak<SessionQueue>>>,
}

/// Bytes that are counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: AtomicUsize,
}

impl Charge {
    /// So many more.
    pub(crate) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.budget.used.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        let before = self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
        metrics::waiting_bytes(before.saturating_sub(bytes));
    }
}

impl Budget {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, used: AtomicUsize::new(0), queues: Mutex::default() })
    }

    /// Counts something that waits.
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        let charge = Charge { budget: Arc::clone(self), bytes: AtomicUsize::new(0) };
        charge.add(bytes);
        metrics::waiting_bytes(self.used());
        charge
    }

    /// Bytes that wait now.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether more waits than may.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.used() > self.max
    }

    fn queues(&self) -> MutexGuard<'_, BTreeMap<u64, Weak<SessionQueue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session begins.
    pub(crate) fn enter(&self, queue: &Arc<SessionQueue>) {
        self.queues().insert(queue.number(), Arc::downgrade(queue));
    }

    /// A session ends.
    pub(crate) fn leave(&self, session: u64) {
        self.queues().remove(&session);
    }

    /// If too much waits: empties the fullest queues until a quarter of the budget is free, or nothing waits in any.
    pub(crate) fn relieve(&self) {
        if !self.is_exceeded() {
            return;
        }
        let queues: Vec<Arc<SessionQueue>> = self.queues().values().filter_map(Weak::upgrade).collect();
        let mut by_bytes: Vec<(usize, Arc<SessionQueue>)> =
            queues.into_iter().map(|queue| (queue.bytes(), queue)).filter(|(bytes, _)| *bytes > 0).collect();
        by_bytes.sort_by_key(|(bytes, queue)| (Reverse(*bytes), queue.number()));
        for (_, queue) in by_bytes {
            if self.used() <= self.max / 4 * 3 {
                break;
            }
            if queue.drop_all() {
                metrics::put_back();
                metrics::relieved();
                queue.notify();
            }
        }
    }
}
