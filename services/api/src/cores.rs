//! `Cores`: who computes. As many statements as the process has cores; the rest wait in line, and the line is fair between apps. A
//! statement computes until it first waits for something else (the log, a file, a thread), and again on a thread that may block.
//! What waits holds no core, so that neither commits nor cold reads hold up anybody.
//!
//! Without it the statements of one app that floods would all be on threads at once, and the operating system would give each of
//! them as much as the only one of another app.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use bigpeer_chassis::{ApiError, Asker, TurnLimits, Turns};
use bigpeer_types::AppId;

/// The cores, as statements of one app ask for them.
#[derive(Clone, Debug)]
pub(crate) struct Cores {
    turns: Turns,
    app: AppId,
}

/// Turns for as many as compute at once. Whoever is let in waits for as long as its time lasts.
pub(crate) fn turns(cores: usize, patience: Duration) -> Turns {
    Turns::new(TurnLimits { running: cores.max(1), waiting: usize::MAX, patience })
}

impl Cores {
    pub(crate) const fn new(turns: Turns, app: AppId) -> Self {
        Self { turns, app }
    }

    async fn turn(&self) -> Result<bigpeer_chassis::Turn, ApiError> {
        let busy = |_| ApiError::new(bigpeer_chassis::ErrorCode::Timeout, "no core became free in time; try again");
        self.turns.take(Asker::new(self.app.clone())).await.map_err(busy)
    }

    /// Runs `work`, with a core until it first waits.
    ///
    /// # Errors
    /// `timeout` when no core became free.
    pub(crate) async fn run<T, E: From<ApiError>>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let mut turn = Some(self.turn().await?);
        let mut work = pin!(work);
        std::future::poll_fn(|context| {
            let polled = work.as_mut().poll(context);
            turn = None;
            polled
        })
        .await
    }

    /// Does `work` on a thread that may block, with a core until it is done, even when nobody waits for it any more.
    ///
    /// # Errors
    /// `timeout` when no core became free; an internal error when it panicked.
    pub(crate) async fn block<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = self.turn().await?;
        let with_turn = move || {
            let done = work();
            drop(turn);
            done
        };
        tokio::task::spawn_blocking(with_turn).await.map_err(|error| ApiError::internal(&error))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::sync::oneshot;

    use super::*;

    fn of(turns: &Turns, app: &str) -> Cores {
        Cores::new(turns.clone(), AppId::new(app).unwrap())
    }

    fn one() -> Turns {
        turns(1, Duration::from_secs(600))
    }

    #[tokio::test]
    async fn what_waits_holds_no_core() {
        let turns = one();
        let (a, b) = (of(&turns, "a"), of(&turns, "b"));
        let (answer, waited_for) = oneshot::channel();
        let waits = a.run(async { waited_for.await.map_err(|error| ApiError::internal(&error)) });
        // Begun first, and waiting: the other one has the core, and ends what is waited for.
        let (number, sent) = tokio::join!(waits, b.run::<_, ApiError>(async { Ok(answer.send(7)) }));
        assert_eq!((number.unwrap(), sent.unwrap()), (7, Ok(())));
        assert_eq!(turns.running(), 0);
    }

    #[tokio::test]
    async fn the_only_statement_of_an_app_is_next_whatever_another_has_in_line() {
        let turns = one();
        let (ended, order) = mpsc::channel();
        let (finish, finished) = mpsc::channel::<()>();
        let first = of(&turns, "flood");
        let first = tokio::spawn(async move { first.block(move || finished.recv()).await });
        while turns.running() == 0 {
            tokio::task::yield_now().await;
        }
        let begin = |app: &str, name: &'static str| {
            let (cores, ended) = (of(&turns, app), ended.clone());
            tokio::spawn(async move { cores.block(move || ended.send(name)).await })
        };
        let flood: Vec<_> = (0..20).map(|_| begin("flood", "flood")).collect();
        while turns.waiting() < 20 {
            tokio::task::yield_now().await;
        }
        let calm = begin("calm", "calm");
        while turns.waiting() < 21 {
            tokio::task::yield_now().await;
        }
        finish.send(()).unwrap();
        first.await.unwrap().unwrap().unwrap();
        for task in flood.into_iter().chain([calm]) {
            task.await.unwrap().unwrap().unwrap();
        }
        drop(ended);
        let order: Vec<_> = order.iter().collect();
        // When the first ended neither of the two had a core.
        assert_eq!(order.len(), 21);
        assert!(order[..2].contains(&"calm"), "{order:?}");
    }

    #[tokio::test]
    async fn a_thread_keeps_its_core_when_nobody_waits_for_it_any_more() {
        let turns = one();
        let (finish, finished) = mpsc::channel::<()>();
        let cores = of(&turns, "a");
        let task = tokio::spawn(async move { cores.block(move || finished.recv()).await });
        while turns.running() == 0 {
            tokio::task::yield_now().await;
        }
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(turns.running(), 1);
        finish.send(()).unwrap();
        of(&turns, "b").block(|| ()).await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_gives_its_core_back() {
        let turns = one();
        let cores = of(&turns, "a");
        assert!(cores.block(|| panic!("on purpose")).await.is_err());
        assert_eq!(turns.running(), 0);
    }
}
