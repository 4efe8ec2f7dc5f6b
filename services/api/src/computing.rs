//! `Computing`: what computes for long (scans, and whatever is done with many documents), away from what is asked for little. It has
//! threads of its own, and turns: so many pieces of work at once as keep the cores busy while some wait for files. The line is fair
//! between apps, and a scan gives its turn back after each batch.
//!
//! Without it the scans of one app that floods are in one queue with every lookup of another, and each waits behind all of them.

use std::future::Future;
use std::num::NonZero;
use std::time::Duration;

use bigpeer_chassis::{ApiError, Asker, ErrorCode, Turn, TurnLimits, Turns};
use bigpeer_types::AppId;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// Pieces of work at once for each core: while one waits for files another computes.
const PER_CORE: usize = 2;

/// The threads, as statements of one app ask for them.
#[derive(Clone, Debug)]
pub(crate) struct Computing {
    turns: Turns,
    threads: Handle,
    app: AppId,
}

/// Turns for this machine. Whoever is let in waits for one as long as its time lasts.
pub(crate) fn turns(patience: Duration) -> Turns {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    Turns::new(TurnLimits { running: cores.saturating_mul(PER_CORE), waiting: usize::MAX, patience })
}

impl Computing {
    pub(crate) const fn new(turns: Turns, threads: Handle, app: AppId) -> Self {
        Self { turns, threads, app }
    }

    /// A turn, for as long as it is held.
    ///
    /// # Errors
    /// `timeout` when none became free.
    pub(crate) async fn turn(&self) -> Result<Turn, ApiError> {
        let busy = |_| ApiError::new(ErrorCode::Timeout, "nothing was free to compute it in time; try again");
        self.turns.take(Asker::new(self.app.clone())).await.map_err(busy)
    }

    /// Runs `work`, which takes its turns itself, on the threads. It ends at its next wait when nobody waits for it any more.
    ///
    /// # Errors
    /// Those of `work`; an internal error when it panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        // A set of one is ended when it is dropped.
        let mut task = JoinSet::new();
        task.spawn_on(work, &self.threads);
        match task.join_next().await {
            Some(Ok(done)) => done,
            Some(Err(error)) => Err(ApiError::internal(&error)),
            None => Err(ApiError::internal(&"a task that was started is not there")),
        }
    }

    /// Does `work` in one turn.
    ///
    /// # Errors
    /// As [`Self::turn`] and [`Self::run`].
    pub(crate) async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = self.turn().await?;
        self.run(async move {
            let done = work();
            drop(turn);
            Ok(done)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn one() -> Turns {
        Turns::new(TurnLimits { running: 1, waiting: usize::MAX, patience: Duration::from_secs(600) })
    }

    fn of(turns: &Turns, app: &str) -> Computing {
        Computing::new(turns.clone(), Handle::current(), AppId::new(app).unwrap())
    }

    #[tokio::test]
    async fn the_only_statement_of_an_app_is_next_whatever_another_has_in_line() {
        let turns = one();
        let (ended, order) = mpsc::channel();
        let held = of(&turns, "flood").turn().await.unwrap();
        let begin = |app: &str, name: &'static str| {
            let (computing, ended) = (of(&turns, app), ended.clone());
            tokio::spawn(async move { computing.compute(move || ended.send(name)).await })
        };
        let flood: Vec<_> = (0..20).map(|_| begin("flood", "flood")).collect();
        while turns.waiting() < 20 {
            tokio::task::yield_now().await;
        }
        let calm = begin("calm", "calm");
        while turns.waiting() < 21 {
            tokio::task::yield_now().await;
        }
        drop(held);
        for task in flood.into_iter().chain([calm]) {
            task.await.unwrap().unwrap().unwrap();
        }
        drop(ended);
        let order: Vec<_> = order.iter().collect();
        // When the turn ended neither of the two had one.
        assert_eq!(order.len(), 21);
        assert!(order[..2].contains(&"calm"), "{order:?}");
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_ends_and_gives_its_turn_back() {
        let turns = one();
        let computing = of(&turns, "a");
        let task = tokio::spawn(async move {
            let turn = computing.turn().await?;
            let waits = async move {
                let _turn = turn;
                std::future::pending::<Result<(), ApiError>>().await
            };
            computing.run(waits).await
        });
        while turns.running() == 0 {
            tokio::task::yield_now().await;
        }
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        of(&turns, "b").compute(|| ()).await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_gives_its_turn_back() {
        let turns = one();
        assert!(of(&turns, "a").compute(|| panic!("on purpose")).await.is_err());
        assert_eq!(turns.running(), 0);
    }
}
