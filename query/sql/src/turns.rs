//! Who may run now: a bounded number of queries, of each app's and of each key's ([`bigpeer_chassis::Turns`]). A turn has an end: its
//! time is counted from when it was given.

use std::sync::Arc;
use std::time::Duration;

use bigpeer_chassis::{Account, ApiError, Asker, ErrorCode, Meter, NoTurn, TurnLimits};
use bigpeer_types::{AppId, Clock};
use tokio::time::{Instant, timeout_at};

use crate::SqlSettings;
use crate::metrics::{self, Door, Outcome};
use crate::settings::Share;

/// The turns of a process.
#[derive(Debug)]
pub(crate) struct Turns {
    turns: bigpeer_chassis::Turns,
    clock: Arc<dyn Clock>,
}

impl Turns {
    pub(crate) fn new(settings: &SqlSettings, clock: Arc<dyn Clock>) -> Self {
        let turns = bigpeer_chassis::Turns::new(TurnLimits {
            running: settings.max_concurrent,
            waiting: settings.max_waiting,
            patience: settings.queue_wait,
        });
        Self { turns, clock }
    }

    /// Queries that run now.
    pub(crate) fn running(&self) -> usize {
        self.turns.running()
    }

    /// Waits for a turn of the key or user `key` of `app`, which has `share` and `meter`.
    ///
    /// # Errors
    /// `too_many_requests` with a time to wait.
    pub(crate) async fn take(
        &self,
        app: &AppId,
        key: &Account,
        share: Share,
        meter: &Arc<Meter>,
        door: Door,
    ) -> Result<Turn, ApiError> {
        let of_app = meter.quota().sql_queries.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        let asker = Asker::new(app.clone()).of_app(of_app).of_key(key.clone(), share.concurrent);
        let turn = self.turns.take(asker).await.map_err(busy)?;
        metrics::running(1.0);
        Ok(Turn {
            door,
            clock: Arc::clone(&self.clock),
            meter: Arc::clone(meter),
            started: self.clock.monotonic(),
            deadline: Instant::now() + share.time,
            limit: share.time,
            outcome: Outcome::Abandoned,
            _turn: turn,
        })
    }
}

fn busy(none: NoTurn) -> ApiError {
    let message = match none {
        NoTurn::OfKey(most) => format!("as many queries of this key are running as may at once, {most}"),
        NoTurn::OfApp(most) => format!("as many queries of this app are running as may at once, {most}"),
        NoTurn::OfAll(most) => format!("{most} queries are running, which is the most at once"),
    };
    ApiError::new(ErrorCode::TooManyRequests, message).retry_after(5)
}

/// A query's turn: held while it runs, counted when it ends.
#[derive(Debug)]
pub(crate) struct Turn {
    door: Door,
    clock: Arc<dyn Clock>,
    meter: Arc<Meter>,
    started: Duration,
    deadline: Instant,
    limit: Duration,
    outcome: Outcome,
    _turn: bigpeer_chassis::Turn,
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
        self.meter.sql(self.elapsed());
        metrics::running(-1.0);
        metrics::query_ended(self.door, self.outcome, self.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigpeer_chassis::{Catalogue, KeyLimits, Name, Quota};
    use bigpeer_log::MemoryLog;
    use bigpeer_types::{ManualClock, RandomIds};

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_key_and_an_app_have_so_many_turns_and_their_time_is_counted() {
        let clock = Arc::new(ManualClock::new(0));
        let log = Arc::new(MemoryLog::new());
        let catalogue = Catalogue::open(log, Arc::clone(&clock) as _, Arc::new(RandomIds)).await.unwrap();
        catalogue.create_tenant(&name("t")).await.unwrap();
        let app = catalogue.create_app(&name("t"), &name("a")).await.unwrap().id;
        let settings = SqlSettings {
            max_concurrent: 3,
            max_concurrent_per_key: 2,
            queue_wait: Duration::ZERO,
            ..SqlSettings::default()
        };
        let turns = Turns::new(&settings, Arc::clone(&clock) as _);
        let share = Share::new(&settings, KeyLimits::default());
        let meter = catalogue.meter(&app);
        let (greedy, modest) = (Account::Key(name("greedy")), Account::Key(name("modest")));
        let first = turns.take(&app, &greedy, share, &meter, Door::Postgres).await.unwrap();
        let second = turns.take(&app, &greedy, share, &meter, Door::Postgres).await.unwrap();
        let refused = turns.take(&app, &greedy, share, &meter, Door::Postgres).await.unwrap_err();
        assert!(refused.message.contains("of this key") && refused.retry_after_secs.is_some());
        let third = turns.take(&app, &modest, share, &meter, Door::Postgres).await.unwrap();
        assert_eq!(turns.running(), 3);
        clock.advance(20);
        drop((first, second, third));
        assert_eq!((turns.running(), catalogue.usage(&app).await.unwrap().sql_ms), (0, 60));
        catalogue.put_quota(&app, Quota { sql_queries: Some(1), ..Quota::default() }).await.unwrap();
        let _one = turns.take(&app, &greedy, share, &meter, Door::Postgres).await.unwrap();
        let refused = turns.take(&app, &modest, share, &meter, Door::Postgres).await.unwrap_err();
        assert!(refused.message.contains("of this app"), "{}", refused.message);
    }
}
