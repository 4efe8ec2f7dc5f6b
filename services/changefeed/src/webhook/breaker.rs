//! `Breaker`: when a receiver fails again and again, only one delivery at a time is tried, at growing intervals, until one
//! succeeds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bigpeer_types::Clock;
use tokio::sync::Notify;

/// Failures in a row that open it.
const THRESHOLD: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Breaker {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// How often the receiver has answered anything but a failure.
    alive: u64,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    /// By the monotonic clock.
    until: Duration,
    pause: Duration,
    probing: bool,
}

impl Breaker {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default(), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a delivery may be tried. Whoever was let through says what became of it.
    pub(super) async fn enter(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let wait = {
                let mut state = self.state();
                match &mut state.open {
                    None => return,
                    Some(open) if open.probing => Duration::MAX,
                    Some(open) => {
                        let rest = open.until.saturating_sub(self.clock.monotonic());
                        if rest.is_zero() {
                            open.probing = true;
                            return;
                        }
                        rest
                    }
                }
            };
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(wait.min(MAX_PAUSE)) => {}
            }
        }
    }

    /// The receiver has answered, if only to refuse this event.
    pub(super) fn alive(&self) {
        let mut state = self.state();
        state.alive += 1;
        state.failures = 0;
        state.open = None;
        drop(state);
        self.changed.notify_waiters();
    }

    /// The receiver has failed.
    pub(super) fn failed(&self) {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        let now = self.clock.monotonic();
        state.open = match state.open {
            Some(Open { probing: true, pause, .. }) => {
                let pause = (pause * 2).min(MAX_PAUSE);
                Some(Open { until: now + pause, pause, probing: false })
            }
            None if state.failures >= THRESHOLD => {
                Some(Open { until: now + FIRST_PAUSE, pause: FIRST_PAUSE, probing: false })
            }
            // One that was under way when it opened.
            open => open,
        };
        drop(state);
        self.changed.notify_waiters();
    }

    /// How often the receiver has answered anything but a failure.
    pub(super) fn times_alive(&self) -> u64 {
        self.state().alive
    }

    /// Whether only probes go through.
    #[cfg(test)]
    pub(super) fn is_open(&self) -> bool {
        self.state().open.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigpeer_types::ManualClock;
    use futures::FutureExt;

    #[tokio::test]
    async fn it_opens_lets_one_probe_through_at_growing_intervals_and_closes_at_once() {
        let clock = Arc::new(ManualClock::new(1_000));
        let breaker = Breaker::new(Arc::clone(&clock) as _);
        for _ in 0..THRESHOLD {
            assert!(breaker.enter().now_or_never().is_some());
            breaker.failed();
        }
        assert!(breaker.is_open() && breaker.enter().now_or_never().is_none());
        clock.advance(500);
        assert!(breaker.enter().now_or_never().is_some(), "a probe");
        assert!(breaker.enter().now_or_never().is_none(), "and only one");
        breaker.failed();
        clock.advance(999);
        assert!(breaker.enter().now_or_never().is_none(), "twice as long now");
        clock.advance(1);
        assert!(breaker.enter().now_or_never().is_some());
        breaker.alive();
        assert!(!breaker.is_open() && breaker.enter().now_or_never().is_some());
        assert_eq!(breaker.times_alive(), 1);
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_when_it_closes() {
        let breaker = Arc::new(Breaker::new(Arc::new(ManualClock::new(0))));
        for _ in 0..THRESHOLD {
            breaker.failed();
        }
        let waiting = Arc::clone(&breaker);
        let waiter = tokio::spawn(async move { waiting.enter().await });
        tokio::task::yield_now().await;
        breaker.alive();
        waiter.await.unwrap();
    }
}
