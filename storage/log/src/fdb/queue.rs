//! Who waits to append: makes few commits of many requests.
//!
//! Requests that come while commits are under way make the next ones, so that commits grow with the load. Of one site only
//! one commit is under way at a time, and its requests are done in the order in which they came: commits of one process do
//! not conflict with one another.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bigpeer_types::AppId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::core::Core;
use super::known::SiteOf;
use super::{commit, plan};
use crate::{AppendEntry, AppendError, AppendOutcome};

/// Most commits under way.
const MOST_UNDER_WAY: usize = 4;
/// A commit takes no more requests when it has this many bytes.
const COMMIT_BYTES: usize = 128 * 1024;
/// Most entries in a commit: their places must fit into 16 bits.
const MOST_ENTRIES: usize = 4096;
/// Most requests that wait; more wait to be let in.
const MOST_REQUESTS: usize = 4096;

/// Entries of one app that wait to be appended, small enough for one commit.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) app: AppId,
    pub(crate) number: u32,
    pub(crate) entries: Vec<AppendEntry>,
    pub(crate) reply: oneshot::Sender<Result<Vec<AppendOutcome>, AppendError>>,
    _permit: OwnedSemaphorePermit,
}

impl Request {
    pub(crate) fn sites(&self) -> impl Iterator<Item = SiteOf> {
        self.entries.iter().map(|entry| (self.number, entry.site))
    }
}

/// How many of `entries`, from the first on, make one request.
pub(crate) fn piece(entries: &[AppendEntry]) -> usize {
    let mut bytes = 0;
    let fits = entries.iter().take(MOST_ENTRIES).take_while(|entry| {
        let before = bytes;
        bytes += plan::most_bytes(entry);
        before < COMMIT_BYTES
    });
    fits.count()
}

/// The queue of one log.
#[derive(Debug)]
pub(crate) struct Queue {
    core: Arc<Core>,
    room: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Request>,
    under_way: usize,
    /// Sites of the commits under way.
    busy: HashSet<SiteOf>,
}

impl Queue {
    pub(crate) fn new(core: Arc<Core>) -> Arc<Self> {
        let room = Arc::new(Semaphore::new(MOST_REQUESTS));
        Arc::new(Self { core, room, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends one piece.
    pub(crate) async fn append(
        self: &Arc<Self>,
        app: &AppId,
        number: u32,
        entries: Vec<AppendEntry>,
    ) -> Result<Vec<AppendOutcome>, AppendError> {
        let (reply, answer) = oneshot::channel();
        let permit = Arc::clone(&self.room).acquire_owned().await;
        let closed = || AppendError::Unavailable { reason: "the log is closed".to_owned() };
        let permit = permit.map_err(|_| closed())?;
        self.state().waiting.push_back(Request { app: app.clone(), number, entries, reply, _permit: permit });
        self.start();
        let gone = |_| AppendError::Unknown { reason: "the process is shutting down".to_owned() };
        answer.await.unwrap_or_else(|error| Err(gone(error)))
    }

    /// Lets nobody in any more, and waits until all that was let in is done.
    pub(crate) async fn close(&self) {
        // A permit is held by every request until it is done. An error says that this was called before.
        if let Ok(all) = self.room.acquire_many(u32::try_from(MOST_REQUESTS).unwrap_or(u32::MAX)).await {
            self.room.close();
            drop(all);
        }
    }

    /// Starts as many commits as may be under way.
    fn start(self: &Arc<Self>) {
        while let Some(requests) = self.gather() {
            let queue = Arc::clone(self);
            tokio::spawn(async move {
                let ended = Ended { queue, sites: requests.iter().flat_map(Request::sites).collect() };
                commit::run(&ended.queue.core, requests).await;
                drop(ended);
            });
        }
    }

    /// Takes what waits for the next commit, leaving out requests of sites that are busy.
    fn gather(&self) -> Option<Vec<Request>> {
        let mut state = self.state();
        if state.under_way >= MOST_UNDER_WAY {
            return None;
        }
        let (mut batch, mut bytes, mut count) = (Vec::new(), 0, 0);
        let mut left = VecDeque::new();
        let mut passed_over: HashSet<SiteOf> = HashSet::new();
        while let Some(request) = state.waiting.pop_front() {
            let full = bytes >= COMMIT_BYTES || count + request.entries.len() > MOST_ENTRIES && count > 0;
            if full {
                left.push_back(request);
                break;
            }
            if request.sites().any(|site| state.busy.contains(&site) || passed_over.contains(&site)) {
                passed_over.extend(request.sites());
                left.push_back(request);
                continue;
            }
            bytes += request.entries.iter().map(plan::most_bytes).sum::<usize>();
            count += request.entries.len();
            batch.push(request);
        }
        left.append(&mut state.waiting);
        state.waiting = left;
        if batch.is_empty() {
            return None;
        }
        state.under_way += 1;
        state.busy.extend(batch.iter().flat_map(Request::sites));
        Some(batch)
    }
}

/// Ends a commit, however its task ends.
struct Ended {
    queue: Arc<Queue>,
    sites: Vec<SiteOf>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        {
            let mut state = self.queue.state();
            state.under_way -= 1;
            for site in &self.sites {
                state.busy.remove(site);
            }
        }
        // Without a runtime nothing can be started any more: the process is ending.
        if tokio::runtime::Handle::try_current().is_ok() {
            self.queue.start();
        }
    }
}
