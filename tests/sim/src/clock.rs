//! `SimClock`: a host's clock, which may be wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bigpeer_types::Clock;

/// When simulations begin, in milliseconds since the Unix epoch: 2026-01-01.
const BEGINNING_MS: u64 = 1_767_225_600_000;

/// The simulation's time; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Time(Arc<AtomicU64>);

impl Time {
    /// Milliseconds since the beginning.
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// Moves on.
    pub fn set(&self, now: u64) {
        self.0.store(now, Ordering::SeqCst);
    }
}

/// One host's clock.
#[derive(Debug)]
pub struct SimClock {
    time: Time,
    skew_ms: AtomicI64,
}

impl SimClock {
    /// A clock that is right.
    pub fn new(time: &Time) -> Arc<Self> {
        Arc::new(Self { time: time.clone(), skew_ms: AtomicI64::new(0) })
    }

    /// From now on it is wrong by so much.
    pub fn skew(&self, ms: i64) {
        self.skew_ms.store(ms, Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        (BEGINNING_MS + self.time.now()).saturating_add_signed(self.skew_ms.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.time.now())
    }
}
