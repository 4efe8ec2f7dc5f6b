//! `Pace`: how fast a session may send. One that is too fast is not read from for a while; its socket fills, and it waits.

use tokio::time::{Duration, Instant};

/// How much a second allows. A second's worth may be saved up.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    per_second: f64,
    /// Below zero: owed.
    left: f64,
}

impl Bucket {
    fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self { per_second, left: per_second }
    }

    fn pass(&mut self, time: Duration) {
        self.left = (self.left + self.per_second * time.as_secs_f64()).min(self.per_second);
    }

    fn spend(&mut self, cost: u32) {
        self.left -= f64::from(cost);
    }

    /// Until nothing is owed.
    fn wait(&self) -> Duration {
        if self.left >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-self.left / self.per_second) }
    }
}

/// Messages and bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    messages: Bucket,
    bytes: Bucket,
    at: Instant,
    /// Nothing may be read before.
    not_before: Option<Instant>,
}

impl Pace {
    pub(super) fn new(messages_per_second: u32, bytes_per_second: u32, now: Instant) -> Self {
        let (messages, bytes) = (Bucket::new(messages_per_second), Bucket::new(bytes_per_second));
        Self { messages, bytes, at: now, not_before: None }
    }

    /// A message came, which counts as so many.
    pub(super) fn spend(&mut self, messages: u32, bytes: usize, now: Instant) {
        let time = now.saturating_duration_since(self.at);
        self.at = now;
        self.messages.pass(time);
        self.bytes.pass(time);
        self.messages.spend(messages);
        self.bytes.spend(u32::try_from(bytes).unwrap_or(u32::MAX));
        let wait = self.messages.wait().max(self.bytes.wait());
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
            pace.spend(1, 10, begun);
            assert_eq!(pace.not_before(), None);
        }
        pace.spend(5, 10, begun);
        assert_eq!(pace.not_before(), Some(begun + Duration::from_millis(500)));
        pace.go_on();
        // After a long silence no more than a second's worth is saved.
        let later = begun + Duration::from_secs(60);
        pace.spend(1, 3000, later);
        assert_eq!(pace.not_before(), Some(later + Duration::from_secs(2)), "bytes count, too");
    }
}
