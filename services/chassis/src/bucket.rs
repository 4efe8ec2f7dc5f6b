//! `Bucket`: so much a second, and so much at once. Counts in time: what is spent is owed until as much time has passed as it
//! takes to earn it. Only whole numbers, on a clock that is handed in.

use std::time::Duration;

/// What was spent and not earned yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    per_second: u64,
    /// As much may be owed without waiting.
    at_once: Duration,
    owed: Duration,
    /// When `owed` was right.
    at: Duration,
}

impl Bucket {
    /// Full at `now`, a time of [`bigpeer_types::Clock::monotonic`]: `per_second`, and `at_once` after a silence; each one at
    /// least.
    #[must_use]
    pub fn new(per_second: u64, at_once: u64, now: Duration) -> Self {
        let per_second = per_second.max(1);
        Self { per_second, at_once: time_for(at_once.max(1), per_second), owed: Duration::ZERO, at: now }
    }

    /// The same debts under other limits.
    pub fn set(&mut self, per_second: u64, at_once: u64) {
        let per_second = per_second.max(1);
        if per_second != self.per_second {
            let owed = self.owed.as_nanos().saturating_mul(u128::from(self.per_second)) / u128::from(per_second);
            self.owed = nanos(owed);
            self.per_second = per_second;
        }
        self.at_once = time_for(at_once.max(1), per_second);
    }

    /// Spends `amount` if it is there.
    ///
    /// # Errors
    /// After how long it will be; nothing is spent.
    pub fn take(&mut self, amount: u64, now: Duration) -> Result<(), Duration> {
        self.pass(now);
        let owed = self.owed.saturating_add(time_for(amount, self.per_second));
        match owed.checked_sub(self.at_once) {
            Some(late) if !late.is_zero() => Err(late),
            Some(_) | None => {
                self.owed = owed;
                Ok(())
            }
        }
    }

    /// Spends `amount`, whether or not it is there. Answers how long to wait until it is.
    pub fn spend(&mut self, amount: u64, now: Duration) -> Duration {
        self.pass(now);
        self.owed = self.owed.saturating_add(time_for(amount, self.per_second));
        self.owed.saturating_sub(self.at_once)
    }

    /// How long to wait until nothing is owed that was not there.
    pub fn wait(&mut self, now: Duration) -> Duration {
        self.spend(0, now)
    }

    fn pass(&mut self, now: Duration) {
        self.owed = self.owed.saturating_sub(now.saturating_sub(self.at));
        self.at = self.at.max(now);
    }
}

/// How long it takes to earn `amount`.
fn time_for(amount: u64, per_second: u64) -> Duration {
    nanos(u128::from(amount).saturating_mul(1_000_000_000) / u128::from(per_second))
}

fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn what_a_second_allows_passes_and_more_is_told_when() {
        let mut bucket = Bucket::new(10, 20, ms(5000));
        for _ in 0..20 {
            assert_eq!(bucket.take(1, ms(5000)), Ok(()));
        }
        assert_eq!(bucket.take(1, ms(5000)), Err(ms(100)));
        assert_eq!(bucket.take(1, ms(5099)), Err(ms(1)));
        assert_eq!(bucket.take(1, ms(5100)), Ok(()));
        // After a long silence no more than was full.
        assert_eq!(bucket.take(21, ms(900_000)), Err(ms(100)));
        assert_eq!(bucket.spend(30, ms(900_000)), ms(1000));
        assert_eq!(bucket.wait(ms(900_400)), ms(600));
        // Time that goes back earns nothing.
        assert_eq!(bucket.wait(ms(1)), ms(600));
    }

    #[test]
    fn debts_stay_when_limits_change() {
        let mut bucket = Bucket::new(10, 10, ms(0));
        assert_eq!(bucket.spend(30, ms(0)), ms(2000));
        bucket.set(100, 10);
        assert_eq!(bucket.wait(ms(0)), ms(200));
        bucket.set(0, 0);
        assert_eq!(bucket.wait(ms(0)), ms(29_000));
    }

    proptest! {
        #[test]
        fn never_more_than_was_full_and_was_earned(
            per_second in 1..10_000_u64, at_once in 1..10_000_u64,
            asked in prop::collection::vec((0..500_u64, 1..2000_u64), 1..100),
        ) {
            let mut bucket = Bucket::new(per_second, at_once, Duration::ZERO);
            let (mut now, mut taken) = (0, 0);
            for (pause, amount) in asked {
                now += pause;
                if bucket.take(amount, ms(now)).is_ok() {
                    taken += amount;
                }
                // One for each that was rounded down.
                prop_assert!(taken <= at_once + per_second * now / 1000 + 2);
            }
        }
    }
}
