//! How long to wait before the next attempt.

use std::time::Duration;

use bigpeer_types::IdGenerator;

/// Exponential, with jitter: between half of the delay and all of it, so that a thousand peers that lost the same
/// server do not come back in the same instant.
#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, failures: 0 }
    }

    /// Attempts that failed in a row.
    pub(crate) const fn failures(&self) -> u32 {
        self.failures
    }

    /// A session stood: the next failure is the first.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Counts a failure; answers how long to wait after it.
    pub(crate) fn next(&mut self, ids: &dyn IdGenerator) -> Duration {
        let delay = self.min.saturating_mul(1_u32.checked_shl(self.failures.min(31)).unwrap_or(u32::MAX)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        let share = u32::try_from(ids.next_u64() % 1024).unwrap_or(0);
        delay / 2 + (delay / 2).saturating_mul(share) / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigpeer_types::SeededIds;

    #[test]
    fn delays_double_with_jitter_up_to_the_longest() {
        let ids = SeededIds::new(1);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        for expected in [100_u64, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let delay = backoff.next(&ids);
            let full = Duration::from_millis(expected);
            assert!(delay >= full / 2 && delay <= full, "{delay:?} for {full:?}");
        }
        for _ in 0..100 {
            assert!(backoff.next(&ids) <= Duration::from_secs(5));
        }
        backoff.reset();
        assert!(backoff.next(&ids) <= Duration::from_millis(100));
    }
}
