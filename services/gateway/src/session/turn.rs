//! `Turn`: only so many sessions of a process read documents from a snapshot at a time, as each holds megabytes while it
//! does. The others wait in line: apps in turn, of each who came first.

use bigpeer_chassis::{Asker, NoTurn, Turns};
use bigpeer_types::AppId;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::{Duration, Instant};

/// A session that cannot go on for so long gives its turn to those who wait.
const PATIENCE: Duration = Duration::from_millis(200);

/// Where a session stands in line.
#[derive(Default)]
pub(super) enum Turn {
    /// Not at all.
    #[default]
    Out,
    Waiting(BoxFuture<'static, Result<bigpeer_chassis::Turn, NoTurn>>),
    /// It is its turn; since when it could not go on.
    In {
        since: Option<Instant>,
        _turn: bigpeer_chassis::Turn,
    },
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Out => "Out",
            Self::Waiting(_) => "Waiting",
            Self::In { .. } => "In",
        })
    }
}

impl Turn {
    /// Waits for the session's turn. Cancel safe: its place in line is kept.
    pub(super) async fn come(&mut self, turns: &Turns, app: &AppId) {
        loop {
            match self {
                Self::In { .. } => return,
                Self::Out => {
                    let (turns, asker) = (turns.clone(), Asker::new(app.clone()));
                    *self = Self::Waiting(async move { turns.take(asker).await }.boxed());
                }
                Self::Waiting(waiting) => match waiting.await {
                    Ok(_turn) => *self = Self::In { since: None, _turn },
                    // Nobody has so much patience; once more.
                    Err(_) => *self = Self::Out,
                },
            }
        }
    }

    /// Notes whether the session can go on; answers when its turn ends if it cannot.
    pub(super) fn note(&mut self, goes_on: bool) -> Option<Instant> {
        let Self::In { since, .. } = self else { return None };
        if goes_on {
            *since = None;
            return None;
        }
        Some(*since.get_or_insert_with(Instant::now) + PATIENCE)
    }

    /// The turn, or the place in line, goes to others.
    pub(super) fn leave(&mut self) {
        *self = Self::Out;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigpeer_chassis::TurnLimits;

    #[tokio::test(start_paused = true)]
    async fn who_waits_keeps_its_place_and_who_stands_still_is_told_when_to_leave() {
        let limits = TurnLimits { running: 1, waiting: 100, patience: Duration::from_secs(3600) };
        let (turns, app) = (Turns::new(limits), AppId::new("a").unwrap());
        let (mut first, mut second, mut third) = (Turn::default(), Turn::default(), Turn::default());
        first.come(&turns, &app).await;
        assert!(second.come(&turns, &app).now_or_never().is_none());
        assert!(third.come(&turns, &app).now_or_never().is_none());
        assert!(second.come(&turns, &app).now_or_never().is_none(), "it waits on, where it was");
        assert_eq!(first.note(true), None);
        assert_eq!(first.note(false), Some(Instant::now() + PATIENCE));
        tokio::time::advance(PATIENCE).await;
        assert_eq!(first.note(false), Some(Instant::now()), "since it began to stand still");
        first.leave();
        assert!(third.come(&turns, &app).now_or_never().is_none(), "the second is next");
        second.come(&turns, &app).await;
        second.leave();
        third.come(&turns, &app).await;
    }
}
