//! A cluster of FoundationDB in memory, faithful in what the engine may rely on and hostile in everything else.
//!
//! # Consistency
//! Strictly serializable: every commit gets a version, in order; reads see the database at one version; a commit fails when
//! somebody wrote what it depended on between its read version and its own. Commits that are under way at the same time may
//! share a version, told apart by their place in the batch, as with the real one. Values are kept for 5,000,000 versions
//! ("five seconds"); reads and commits at older versions fail.
//!
//! # Faults
//! By seed: errors that ask for another try, ranges that end early, watches that fire for nothing or fail, and commits of
//! which nobody is told whether they happened: they did, they did not, or they will.

mod faults;
mod history;
#[cfg(test)]
mod tests;
mod transaction;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::oneshot;

use super::cluster::{Cluster, ErrorCode, Stamp, Transaction};
pub use faults::Faults;
use history::{History, Proposal};
use transaction::SimTransaction;

/// Largest transaction: keys, values and conflict ranges together.
const MAX_TRANSACTION_BYTES: usize = 10_000_000;
/// Largest key.
const MAX_KEY_BYTES: usize = 10_000;
/// Largest value.
const MAX_VALUE_BYTES: usize = 100_000;
/// How old a read version may be, in versions.
const WINDOW: u64 = 5_000_000;

/// A cluster that lives as long as its last clone; clones are the same cluster.
#[derive(Clone)]
pub struct SimCluster(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    faults: Faults,
}

struct State {
    history: History,
    random: StdRng,
    /// Commits that will make the next batch.
    waiting: Vec<Waiting>,
    /// Commits whose makers gave up on them, and which are still under way.
    limbo: Vec<Proposal>,
    watches: Vec<Watch>,
}

struct Waiting {
    proposal: Proposal,
    answer: oneshot::Sender<Result<Stamp, ErrorCode>>,
}

struct Watch {
    key: Vec<u8>,
    value: Option<bytes::Bytes>,
    fire: oneshot::Sender<Result<(), ErrorCode>>,
}

impl fmt::Debug for SimCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimCluster").field("faults", &self.0.faults).finish_non_exhaustive()
    }
}

impl SimCluster {
    /// An empty cluster with these faults, chosen by `seed`.
    #[must_use]
    pub fn new(faults: Faults, seed: u64) -> Self {
        let state = State {
            history: History::new(),
            random: StdRng::seed_from_u64(seed),
            waiting: Vec::new(),
            limbo: Vec::new(),
            watches: Vec::new(),
        };
        Self(Arc::new(Shared { state: Mutex::new(state), faults }))
    }

    /// A cluster in which nothing fails that need not.
    #[must_use]
    pub fn calm(seed: u64) -> Self {
        Self::new(Faults::default(), seed)
    }

    /// Lets so many versions ("microseconds") pass.
    pub fn pass(&self, versions: u64) {
        self.state().history.pass(versions);
    }

    /// How many keys are stored.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.state().history.keys()
    }

    /// How many transactions have committed, and how many versions they have.
    #[must_use]
    pub fn commits(&self) -> (u64, u64) {
        self.state().history.commits()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One in `of`; never if that is 0.
    fn chance(&self, of: u32) -> bool {
        of > 0 && self.state().random.random_range(0..of) == 0
    }

    fn random(&self, below: u64) -> u64 {
        self.state().random.random_range(0..below.max(1))
    }

    /// Gives others a chance to do something first.
    async fn wander(&self) {
        for _ in 0..self.random(4) {
            tokio::task::yield_now().await;
        }
    }

    /// Commits, together with whatever else is being committed at this time.
    async fn commit(&self, proposal: Proposal) -> Result<Stamp, ErrorCode> {
        let (answer, answered) = oneshot::channel();
        self.state().waiting.push(Waiting { proposal, answer });
        self.wander().await;
        self.state().commit_waiting();
        answered.await.unwrap_or(Err(ErrorCode::TRANSACTION_TIMED_OUT))
    }

    /// A commit that nobody waits for: it happens some time, or never.
    fn abandon(&self, proposal: Proposal) {
        self.state().limbo.push(proposal);
    }
}

impl State {
    /// Makes a batch of all commits that wait: one version for all of them.
    fn commit_waiting(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() {
            return;
        }
        let step = self.random.random_range(1..20_000);
        let version = self.history.new_version(step);
        let mut batch = 0;
        let mut changed = Vec::new();
        if !self.limbo.is_empty() && self.random.random_range(0..3) == 0 {
            let at = self.random.random_range(0..self.limbo.len());
            let late = self.limbo.swap_remove(at);
            if self.random.random_range(0..4) > 0 && self.history.check(&late).is_ok() {
                changed.extend(self.history.apply(late, Stamp { version, batch }));
                batch += 1;
            }
        }
        let mut answers = Vec::new();
        for Waiting { proposal, answer } in waiting {
            let result = self.history.check(&proposal).map(|()| {
                let stamp = Stamp { version, batch };
                changed.extend(self.history.apply(proposal, stamp));
                batch += 1;
                stamp
            });
            answers.push((answer, result));
        }
        self.history.publish(version);
        self.fire(&changed);
        for (answer, result) in answers {
            // Whoever does not wait any more is not told.
            let _ = answer.send(result);
        }
    }

    /// Fires the watches on keys that have another value now.
    fn fire(&mut self, changed: &[Vec<u8>]) {
        for at in (0..self.watches.len()).rev() {
            let watch = &self.watches[at];
            let gone = watch.fire.is_closed();
            let fires = changed.contains(&watch.key) && self.history.newest(&watch.key) != watch.value;
            if gone || fires {
                let watch = self.watches.swap_remove(at);
                let _ = watch.fire.send(Ok(()));
            }
        }
    }
}

impl Cluster for SimCluster {
    fn begin(&self) -> Result<Box<dyn Transaction>, ErrorCode> {
        Ok(Box::new(SimTransaction::new(self.clone())))
    }
}
