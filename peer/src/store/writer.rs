//! The one thread that changes the store.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

use super::work::{Collections, Work};
use crate::PeerError;
use crate::signals::Signals;

/// What a committed change survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The loss of power, once the write has returned.
    Power,
    /// The kill of the process; a power loss may take back the newest changes, in order and each as a whole.
    Process,
}

type Job = Box<dyn FnOnce(&mut State) + Send>;

/// A handle on the thread.
pub(super) struct Writer {
    desk: Mutex<Desk>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Where jobs are done.
enum Desk {
    Thread(mpsc::Sender<Job>),
    /// By whoever brings one: in the simulation.
    Inline(Box<State>),
    Closed,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// What the thread owns.
struct State {
    connection: Connection,
    /// The connection's current `synchronous` setting; none when unknown.
    durability: Option<Durability>,
    /// Numbers of collections, as committed.
    collections: Collections,
    signals: Arc<Signals>,
}

impl Writer {
    pub(super) fn start(connection: Connection, signals: Arc<Signals>) -> Result<Self, PeerError> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let mut state = State { connection, durability: None, collections: Collections::default(), signals };
        state.run(Durability::Process, |work| work.load_status())?;
        if cfg!(bigpeer_sim) {
            return Ok(Self { desk: Mutex::new(Desk::Inline(Box::new(state))), thread: Mutex::default() });
        }
        let thread = std::thread::Builder::new()
            .name("bigpeer-store".to_owned())
            .spawn(move || {
                for job in queue {
                    job(&mut state);
                }
            })
            .map_err(|source| PeerError::Io { path: "bigpeer-store".into(), source: Arc::new(source) })?;
        Ok(Self { desk: Mutex::new(Desk::Thread(jobs)), thread: Mutex::new(Some(thread)) })
    }

    pub(super) async fn run<T, F>(&self, durability: Durability, change: F) -> Result<T, PeerError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Work<'_>) -> Result<T, PeerError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |state| {
            // Whoever asked may have stopped waiting; the change stands all the same.
            let _unread = answer.send(state.run(durability, change));
        });
        let sent = match &mut *self.desk.lock().unwrap_or_else(PoisonError::into_inner) {
            Desk::Thread(jobs) => jobs.send(job).is_ok(),
            Desk::Inline(state) => {
                job(state);
                true
            }
            Desk::Closed => false,
        };
        if !sent {
            return Err(PeerError::Closed);
        }
        if cfg!(bigpeer_sim) {
            // Others go on between the commit and its answer, as they do when a thread of its own commits.
            tokio::task::yield_now().await;
        }
        answered.await.map_err(|_| PeerError::Closed)?
    }

    /// Takes no more jobs, and waits for those that are queued. Blocks.
    pub(super) fn stop(&self) {
        *self.desk.lock().unwrap_or_else(PoisonError::into_inner) = Desk::Closed;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(_panic)) = thread.map(JoinHandle::join) {
            tracing::error!("the store's thread panicked");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl State {
    /// One change, one SQLite transaction; what it touched is announced after the commit.
    fn run<T>(
        &mut self,
        durability: Durability,
        change: impl FnOnce(&mut Work<'_>) -> Result<T, PeerError>,
    ) -> Result<T, PeerError> {
        self.set_durability(durability)?;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let status = self.signals.status.borrow().clone();
        let mut work = Work::new(&transaction, std::mem::take(&mut self.collections), status);
        // On an error the collection numbers are forgotten with what was rolled back, and read again.
        let result = change(&mut work)?;
        let outcome = work.finish();
        transaction.commit()?;
        self.collections = outcome.collections;
        self.signals.status.send_if_modified(|status| {
            let mut new = outcome.status;
            new.connection = status.connection.clone();
            let changed = *status != new;
            *status = new;
            changed
        });
        if !outcome.touched.is_empty() {
            self.signals.versions.send_modify(|versions| {
                for collection in outcome.touched {
                    *versions.entry(collection).or_default() += 1;
                }
            });
        }
        for event in outcome.events {
            self.signals.event(event);
        }
        Ok(result)
    }

    fn set_durability(&mut self, durability: Durability) -> Result<(), PeerError> {
        if self.durability != Some(durability) {
            let level = match durability {
                Durability::Power => "full",
                Durability::Process => "normal",
            };
            self.durability = None;
            self.connection.pragma_update(None, "synchronous", level)?;
            self.durability = Some(durability);
        }
        Ok(())
    }
}
