//! `Pace`: how fast a session may send. One that is too fast is not read from for a while; its socket fills, and it waits.

use bigpeer_chassis::Bucket;
use tokio::time::{Duration, Instant};

/// Messages and bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    messages: Bucket,
    bytes: Bucket,
    /// What the buckets' time is counted from.
    begun: Instant,
    /// Nothing may be read before.
    not_before: Option<Instant>,
}

impl Pace {
    pub(super) fn new(messages_per_second: u32, bytes_per_second: u32, now: Instant) -> Self {
        let bucket = |per_second: u32| Bucket::new(per_second.into(), per_second.into(), Duration::ZERO);
        Self { messages: bucket(messages_per_second), bytes: bucket(bytes_per_second), begun: now, not_before: None }
    }

    /// A message came, which counts as so many. `least`: how long nothing may be read in any case.
    pub(super) fn spend(&mut self, messages: u32, bytes: usize, least: Duration, now: Instant) {
        let time = now.saturating_duration_since(self.begun);
        let wait = self.messages.spend(messages.into(), time).max(self.bytes.spend(bytes as u64, time)).max(least);
        self.not_before = (wait > Duration::ZERO).then(|| now + wait);
    }

    /// When the session may be read from again; none: now.
    pub(super) const fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    /// The wait is over.
    pub(super) fn go_on(&mut self) {
        self.not_before = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_a_second_allows_passes_and_more_waits() {
        let begun = Instant::now();
        let mut pace = Pace::new(10, 1000, begun);
        for _ in 0..10 {
            pace.spend(1, 10, Duration::ZERO, begun);
            assert_eq!(pace.not_before(), None);
        }
        pace.spend(5, 10, Duration::ZERO, begun);
        assert_eq!(pace.not_before(), Some(begun + Duration::from_millis(500)));
        pace.go_on();
        // After a long silence no more than a second's worth is saved.
        let later = begun + Duration::from_secs(60);
        pace.spend(1, 3000, Duration::ZERO, later);
        assert_eq!(pace.not_before(), Some(later + Duration::from_secs(2)), "bytes count, too");
        pace.spend(1, 0, Duration::from_secs(9), later);
        assert_eq!(pace.not_before(), Some(later + Duration::from_secs(9)), "and what the app has used");
    }
}
