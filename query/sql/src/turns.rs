//! Who may run now: a bounded number of queries, and of each key's. The rest wait, a bounded number of them, for a bounded
//! time, and are then told to come back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bigpeer_chassis::{Account, ApiError, ErrorCode};
use bigpeer_types::{AppId, Clock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::SqlSettings;
use crate::metrics::{self, Door, Outcome};
use crate::settings::Share;

/// Keys that are remembered; beyond it those without a query are forgotten.
const MAX_KEYS: usize = 1024;

/// The turns of a process.
#[derive(Debug)]
pub(crate) struct Turns {
    all: Arc<Semaphore>,
    keys: Mutex<BTreeMap<(AppId, Account), OfKey>>,
    waiting: AtomicUsize,
    clock: Arc<dyn Clock>,
    most: usize,
    most_waiting: usize,
    queue_wait: Duration,
}

/// The turns of a key, and how many they are.
type OfKey = (usize, Arc<Semaphore>);

impl Turns {
    pub(crate) fn new(settings: &SqlSettings, clock: Arc<dyn Clock>) -> Self {
        Self {
            all: Arc::new(Semaphore::new(settings.max_concurrent)),
            keys: Mutex::default(),
            waiting: AtomicUsize::new(0),
            clock,
            most: settings.max_concurrent,
            most_waiting: settings.max_waiting,
            queue_wait: settings.queue_wait,
        }
    }

    /// Queries that run now.
    pub(crate) fn running(&self) -> usize {
        self.most.saturating_sub(self.all.available_permits())
    }

    /// Waits for a turn of the key or user `key` of `app`, which has `share`.
    ///
    /// # Errors
    /// `too_many_requests` with a time to wait.
    pub(crate) async fn take(&self, app: &AppId, key: &Account, share: Share, door: Door) -> Result<Turn, ApiError> {
        let deadline = Instant::now() + self.queue_wait;
        let of_key = self.of_key(app, key, share.concurrent);
        let of_key = self.permit(&of_key, deadline).await.ok_or_else(|| {
            busy(&format!("as many queries of this key are running as may at once, {}", share.concurrent))
        })?;
        let of_all = self.permit(&self.all, deadline).await;
        let of_all =
            of_all.ok_or_else(|| busy(&format!("{} queries are running, which is the most at once", self.most)))?;
        metrics::running(1.0);
        Ok(Turn {
            door,
            clock: Arc::clone(&self.clock),
            started: self.clock.monotonic(),
            deadline: Instant::now() + share.time,
            limit: share.time,
            outcome: Outcome::Abandoned,
            _permits: [of_key, of_all],
        })
    }

    /// The turns of a key. When their number has changed they are new, and those that run do not count.
    fn of_key(&self, app: &AppId, key: &Account, most: usize) -> Arc<Semaphore> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= MAX_KEYS {
            keys.retain(|_, (_, turns)| Arc::strong_count(turns) > 1);
        }
        let new = || (most, Arc::new(Semaphore::new(most)));
        let of_key = keys.entry((app.clone(), key.clone())).or_insert_with(new);
        if of_key.0 != most {
            *of_key = new();
        }
        Arc::clone(&of_key.1)
    }

    /// A permit at once or, if there is room to wait, until `deadline`.
    async fn permit(&self, turns: &Arc<Semaphore>, deadline: Instant) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(turns).try_acquire_owned() {
            return Some(permit);
        }
        let waits = Waits::new(&self.waiting, self.most_waiting)?;
        let permit = timeout_at(deadline, Arc::clone(turns).acquire_owned()).await;
        drop(waits);
        permit.ok().and_then(Result::ok)
    }
}

fn busy(message: &str) -> ApiError {
    ApiError::new(ErrorCode::TooManyRequests, message).retry_after(5)
}

/// A place in the queue.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(waiting: &'a AtomicUsize, most: usize) -> Option<Self> {
        let waits = Self(waiting);
        (waiting.fetch_add(1, Ordering::SeqCst) < most).then_some(waits)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A query's turn: held while it runs, counted when it ends.
#[derive(Debug)]
pub(crate) struct Turn {
    door: Door,
    clock: Arc<dyn Clock>,
    started: Duration,
    deadline: Instant,
    limit: Duration,
    outcome: Outcome,
    _permits: [OwnedSemaphorePermit; 2],
}

impl Turn {
    /// Waits for `work`, at most until this turn's time is up.
    pub(crate) async fn within<T>(&self, work: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
        match timeout_at(self.deadline, work).await {
            Ok(result) => result,
            Err(_) => Err(self.timed_out()),
        }
    }

    /// When this turn's time is up.
    pub(crate) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What a client is told when its time is up.
    pub(crate) fn timed_out(&self) -> ApiError {
        let message =
            format!("the query took longer than {} s; read fewer rows, or fewer columns", self.limit.as_secs());
        ApiError::new(ErrorCode::Timeout, message)
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.started)
    }

    /// Notes how the query ended, for whoever counts.
    pub(crate) const fn ends(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        metrics::running(-1.0);
        metrics::query_ended(self.door, self.outcome, self.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigpeer_chassis::KeyLimits;
    use bigpeer_types::ManualClock;

    fn turns(settings: SqlSettings) -> (Turns, Share) {
        (Turns::new(&settings, Arc::new(ManualClock::new(0))), Share::new(&settings, KeyLimits::default()))
    }

    fn key(name: &str) -> Account {
        Account::Key(name.parse().unwrap())
    }

    #[tokio::test]
    async fn one_key_does_not_take_every_turn() {
        let (turns, share) = turns(SqlSettings {
            max_concurrent: 3,
            max_concurrent_per_key: 2,
            queue_wait: Duration::ZERO,
            ..SqlSettings::default()
        });
        let app = AppId::new("a").unwrap();
        let first = turns.take(&app, &key("greedy"), share, Door::Postgres).await.unwrap();
        let _second = turns.take(&app, &key("greedy"), share, Door::Postgres).await.unwrap();
        let refused = turns.take(&app, &key("greedy"), share, Door::Postgres).await.unwrap_err();
        assert!(refused.message.contains("of this key") && refused.retry_after_secs.is_some());
        let modest = turns.take(&app, &key("modest"), share, Door::Postgres).await.unwrap();
        assert!(turns.take(&AppId::new("b").unwrap(), &key("greedy"), share, Door::Postgres).await.is_err());
        assert_eq!(turns.running(), 3);
        drop(first);
        assert_eq!(turns.running(), 2);
        let third = turns.take(&app, &key("greedy"), share, Door::Postgres).await;
        assert!(third.is_ok());
        // A key's number changes.
        let one = Share { concurrent: 1, ..share };
        drop((third, modest));
        let _one = turns.take(&app, &key("modest"), one, Door::Postgres).await.unwrap();
        let refused = turns.take(&app, &key("modest"), one, Door::Postgres).await.unwrap_err();
        assert!(refused.message.contains("at once, 1"), "{}", refused.message);
    }

    #[tokio::test]
    async fn who_waits_gets_the_next_turn_and_the_queue_is_bounded() {
        let (turns, share) = turns(SqlSettings {
            max_concurrent: 1,
            max_waiting: 1,
            queue_wait: Duration::from_secs(600),
            ..SqlSettings::default()
        });
        let app = AppId::new("a").unwrap();
        let first = turns.take(&app, &key("k"), share, Door::Postgres).await.unwrap();
        let name = key("k");
        let mut waiting = Box::pin(turns.take(&app, &name, share, Door::Postgres));
        assert!(futures::poll!(&mut waiting).is_pending());
        let refused = turns.take(&app, &key("other"), share, Door::Postgres).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::TooManyRequests);
        drop(first);
        drop(waiting.await.unwrap());
        assert_eq!((turns.running(), turns.waiting.load(Ordering::SeqCst)), (0, 0));
    }
}
