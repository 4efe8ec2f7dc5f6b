//! `Turns`: who may run now. So many run at once, of all apps, of one app and of one key; the rest wait in line, not too many and
//! not for ever. A turn that becomes free goes to the **app** that has fewest, of several to the next in a circle, and in the app to
//! who waits longest: an app that asks for a hundred times as much waits a hundred times as long, and the others do not notice.
//!
//! # Cancellation
//! Who does not wait any more leaves the line; a turn that it was given meanwhile goes to the next.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bigpeer_types::AppId;
use tokio::sync::oneshot;

use crate::Account;

/// How many turns there are, and how they are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnLimits {
    /// Most turns at once.
    pub running: usize,
    /// Most that wait. Of an app that waits alone half of them, of each of three a quarter; the first of an app always may.
    pub waiting: usize,
    /// How long one waits.
    pub patience: Duration,
}

/// Who asks for a turn.
#[derive(Clone, Debug)]
pub struct Asker {
    app: AppId,
    /// Most turns of the app.
    of_app: usize,
    /// Most turns of the key or user.
    of_key: Option<(Account, usize)>,
}

impl Asker {
    /// Somebody of `app`.
    #[must_use]
    pub const fn new(app: AppId) -> Self {
        Self { app, of_app: usize::MAX, of_key: None }
    }

    /// No more than `most` turns of the app.
    #[must_use]
    pub fn of_app(self, most: usize) -> Self {
        Self { of_app: most, ..self }
    }

    /// No more than `most` turns of the key or user `key`.
    #[must_use]
    pub fn of_key(self, key: Account, most: usize) -> Self {
        Self { of_key: Some((key, most)), ..self }
    }
}

/// What there was no turn of. With how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTurn {
    /// Of the key.
    OfKey(usize),
    /// Of the app.
    OfApp(usize),
    /// Of anybody.
    OfAll(usize),
}

/// The turns of a process. Clones are the same.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: TurnLimits,
    /// An app takes no more than this: there is always one left for another.
    share: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    waiting: usize,
    apps: BTreeMap<AppId, OfApp>,
    /// The apps in which somebody waits: whose turn is next is first.
    circle: VecDeque<AppId>,
    /// Names of those who wait.
    next: u64,
}

#[derive(Debug, Default)]
struct OfApp {
    running: usize,
    keys: BTreeMap<Account, usize>,
    line: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    name: u64,
    asker: Asker,
    called: oneshot::Sender<()>,
}

/// A turn; it ends when this is dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Shared>,
    asker: Asker,
}

/// A place in line.
struct Waiting {
    turns: Arc<Shared>,
    asker: Asker,
    name: u64,
    /// The turn has been taken: nothing is left to do.
    done: bool,
}

impl Turns {
    /// With nobody in them.
    #[must_use]
    pub fn new(limits: TurnLimits) -> Self {
        // Three quarters of many; where there are few nobody is helped by one that nobody uses.
        let share = limits.running - limits.running / 4;
        Self(Arc::new(Shared { limits, share, state: Mutex::default() }))
    }

    /// Turns that are taken.
    #[must_use]
    pub fn running(&self) -> usize {
        self.0.state().running
    }

    /// Those who wait for one.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.state().waiting
    }

    /// A turn at once, or after a wait.
    ///
    /// # Errors
    /// When too many wait already, or it took too long.
    pub async fn take(&self, asker: Asker) -> Result<Turn, NoTurn> {
        let (mut place, called, none) = match self.0.enter(asker)? {
            Entered::Turn(turn) => return Ok(turn),
            Entered::Line(place, called, none) => (place, called, none),
        };
        match tokio::time::timeout(self.0.limits.patience, called).await {
            Ok(Ok(())) => Ok(place.take()),
            // Not called: the sender goes with the line, which goes with this.
            Ok(Err(_)) | Err(_) => match place.called_after_all() {
                Some(turn) => Ok(turn),
                None => Err(self.0.room(&self.0.state(), &place.asker).err().unwrap_or(none)),
            },
        }
    }
}

enum Entered {
    Turn(Turn),
    /// With what there was no turn of.
    Line(Waiting, oneshot::Receiver<()>, NoTurn),
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a turn, or a place in line.
    fn enter(self: &Arc<Self>, asker: Asker) -> Result<Entered, NoTurn> {
        let mut state = self.state();
        // Who waits meanwhile waits for something else: whenever a turn ends whoever can take it is given it.
        let none = match self.room(&state, &asker) {
            Ok(()) => {
                state.run(&asker);
                return Ok(Entered::Turn(Turn { turns: Arc::clone(self), asker }));
            }
            Err(none) => none,
        };
        let of_app = state.apps.get(&asker.app).map_or(0, |app| app.line.len());
        let others = state.circle.len() - usize::from(of_app > 0);
        let limit = self.limits.waiting / (others + 2);
        let room = self.limits.waiting > 0 && (of_app == 0 || (state.waiting < self.limits.waiting && of_app < limit));
        if !room || self.limits.patience.is_zero() || matches!(none, NoTurn::OfKey(0) | NoTurn::OfApp(0)) {
            return Err(none);
        }
        let (called, receiver) = oneshot::channel();
        let name = state.next;
        state.next += 1;
        state.waiting += 1;
        if of_app == 0 {
            state.circle.push_back(asker.app.clone());
        }
        let waiter = Waiter { name, asker: asker.clone(), called };
        state.apps.entry(asker.app.clone()).or_default().line.push_back(waiter);
        Ok(Entered::Line(Waiting { turns: Arc::clone(self), asker, name, done: false }, receiver, none))
    }

    /// Whether there is a turn for `asker`; else of what there is none.
    fn room(&self, state: &State, asker: &Asker) -> Result<(), NoTurn> {
        let nobody = OfApp::default();
        let app = state.apps.get(&asker.app).unwrap_or(&nobody);
        app.room(self.share, asker)?;
        if state.running < self.limits.running { Ok(()) } else { Err(NoTurn::OfAll(self.limits.running)) }
    }

    /// A turn has ended: whoever is next takes it.
    fn end(&self, asker: &Asker) {
        let mut state = self.state();
        state.ends(asker);
        self.call(&mut state);
    }

    /// Calls those who may run now: of the apps in which somebody may, that which has fewest turns; of several the first in the
    /// circle, which goes to its end.
    fn call(&self, state: &mut State) {
        while state.running < self.limits.running {
            let who = |(at, app): (usize, &AppId)| {
                let of_app = state.apps.get(app)?;
                let first = of_app.line.iter().position(|waiter| of_app.room(self.share, &waiter.asker).is_ok())?;
                Some((of_app.running, at, first))
            };
            let Some((_, at, first)) = state.circle.iter().enumerate().filter_map(who).min() else { return };
            let Some(app) = state.circle.remove(at) else { return };
            let Some(of_app) = state.apps.get_mut(&app) else { return };
            let Some(waiter) = of_app.line.remove(first) else { return };
            if !of_app.line.is_empty() {
                state.circle.push_back(app);
            }
            state.waiting -= 1;
            state.run(&waiter.asker);
            // One that has just left finds that it was called, and ends its turn.
            let _left = waiter.called.send(());
        }
    }
}

impl OfApp {
    fn room(&self, share: usize, asker: &Asker) -> Result<(), NoTurn> {
        if let Some((key, most)) = &asker.of_key
            && self.keys.get(key).copied().unwrap_or(0) >= *most
        {
            return Err(NoTurn::OfKey(*most));
        }
        let most = share.min(asker.of_app);
        if self.running < most { Ok(()) } else { Err(NoTurn::OfApp(most)) }
    }
}

impl State {
    fn run(&mut self, asker: &Asker) {
        self.running += 1;
        let app = self.apps.entry(asker.app.clone()).or_default();
        app.running += 1;
        if let Some((key, _)) = &asker.of_key {
            *app.keys.entry(key.clone()).or_default() += 1;
        }
    }

    fn ends(&mut self, asker: &Asker) {
        self.running -= 1;
        let Some(app) = self.apps.get_mut(&asker.app) else { return };
        app.running -= 1;
        if let Some((key, _)) = &asker.of_key
            && let Some(count) = app.keys.get_mut(key)
        {
            *count -= 1;
            if *count == 0 {
                app.keys.remove(key);
            }
        }
        self.tidy(&asker.app);
    }

    /// Forgets an app in which nobody runs or waits.
    fn tidy(&mut self, app: &AppId) {
        if self.apps.get(app).is_some_and(|app| app.running == 0 && app.line.is_empty()) {
            self.apps.remove(app);
        }
    }

    /// Takes somebody out of the line; whether it was there.
    fn leave(&mut self, app: &AppId, name: u64) -> bool {
        let Some(of_app) = self.apps.get_mut(app) else { return false };
        let Some(at) = of_app.line.iter().position(|waiter| waiter.name == name) else { return false };
        of_app.line.remove(at);
        self.waiting -= 1;
        if of_app.line.is_empty() {
            self.circle.retain(|other| other != app);
        }
        self.tidy(app);
        true
    }
}

impl Waiting {
    fn take(&mut self) -> Turn {
        self.done = true;
        Turn { turns: Arc::clone(&self.turns), asker: self.asker.clone() }
    }

    /// Leaves the line; the turn, if it was called in the last moment.
    fn called_after_all(&mut self) -> Option<Turn> {
        let was_in_line = self.turns.state().leave(&self.asker.app, self.name);
        if was_in_line {
            self.done = true;
            return None;
        }
        Some(self.take())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.done {
            drop(self.called_after_all());
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.end(&self.asker);
    }
}

#[cfg(test)]
mod tests;
