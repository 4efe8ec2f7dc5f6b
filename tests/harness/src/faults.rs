//! `Faults`: how often things fail and how long they take, by chance of a seed; changed while they are in use.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bigpeer_types::{IdGenerator, SeededIds};

/// Shared by whoever is to fail. Needs a tokio runtime for delays.
pub struct Faults {
    chance: SeededIds,
    /// In thousandths.
    failures: AtomicU64,
    longest_delay_ms: AtomicU64,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").finish_non_exhaustive()
    }
}

impl Faults {
    /// No failures and no delays, for now.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { chance: SeededIds::new(seed), failures: AtomicU64::new(0), longest_delay_ms: AtomicU64::new(0) }
    }

    /// From now on so many of a thousand operations fail, and each takes up to `longest_delay`.
    pub fn set(&self, failures_per_mille: u64, longest_delay: Duration) {
        self.failures.store(failures_per_mille, Ordering::SeqCst);
        self.longest_delay_ms.store(u64::try_from(longest_delay.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// A number below `n`.
    #[must_use]
    pub fn below(&self, n: u64) -> u64 {
        self.chance.next_u64() % n.max(1)
    }

    /// Whether this one fails.
    #[must_use]
    pub fn strikes(&self) -> bool {
        self.below(1000) < self.failures.load(Ordering::SeqCst)
    }

    /// Takes some time.
    pub async fn delay(&self) {
        let longest = self.longest_delay_ms.load(Ordering::SeqCst);
        if longest > 0 {
            tokio::time::sleep(Duration::from_millis(self.below(longest + 1))).await;
        }
    }
}
