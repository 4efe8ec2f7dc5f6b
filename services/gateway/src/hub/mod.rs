//! `Hub`: one per app that has sessions. It follows the store's feed, computes each changed document before and after its
//! change once, matches it against the subscriptions of all sessions, and queues for each session what concerns it.
//!
//! # Consistency
//! The hub stands at one position. Subscriptions are attached at it, and get a snapshot of exactly that position: pages
//! of the snapshot and the live changes after it have neither gap nor overlap.

mod matcher;
mod matching;
mod queue;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bigpeer_chassis::Shutdown;
use bigpeer_tables::{AppliedBatch, DocumentStore, FeedError, Snapshot, TablesError};
use bigpeer_types::{CollectionName, Lsn, SiteId};
use tokio::sync::watch;

use crate::metrics;
use crate::rules::Rules;
use matcher::Matchers;
use matching::Documents;

pub(crate) use matcher::Matcher;
pub(crate) use queue::{SessionQueue, Taken};

/// An app's hub. The task behind it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Hub {
    shared: Arc<Shared>,
    stop: Shutdown,
}

#[derive(Debug)]
struct Shared {
    store: Arc<DocumentStore>,
    state: Mutex<State>,
    position: watch::Sender<Lsn>,
}

#[derive(Debug)]
struct State {
    /// The app where the hub stands.
    snapshot: Snapshot,
    collections: BTreeMap<CollectionName, Matchers>,
    sessions: BTreeMap<u64, Session>,
    /// The attached session of each site: it is told what became of its own writes.
    sites: BTreeMap<SiteId, u64>,
    failed: bool,
}

#[derive(Debug)]
struct Session {
    queue: Arc<SessionQueue>,
    rules: Arc<Rules>,
    attached: BTreeMap<u32, Arc<Matcher>>,
}

/// The session's queue was full; it must take out what is queued and catch up first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lagged;

impl Hub {
    pub(crate) fn spawn(store: Arc<DocumentStore>) -> Self {
        let snapshot = store.snapshot();
        let position = watch::Sender::new(snapshot.lsn());
        let state = State {
            snapshot,
            collections: BTreeMap::new(),
            sessions: BTreeMap::new(),
            sites: BTreeMap::new(),
            failed: false,
        };
        let shared = Arc::new(Shared { store, state: Mutex::new(state), position });
        let stop = Shutdown::new();
        let (task, stopped) = (Arc::clone(&shared), stop.clone());
        tokio::spawn(async move { stopped.run_until_cancelled(task.run()).await });
        Self { shared, stop }
    }

    /// Where the hub stands: everything up to here was queued for those whom it concerns.
    pub(crate) fn position(&self) -> Lsn {
        *self.shared.position.borrow()
    }

    /// Waits until the hub stands at or after `lsn`. Cancel safe.
    pub(crate) async fn reached(&self, lsn: Lsn) {
        // The sender lives as long as the hub.
        let _ = self.shared.position.subscribe().wait_for(|position| *position >= lsn).await;
    }

    /// The app where the hub stands.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.shared.state().snapshot.clone()
    }

    /// Attaches subscriptions of a session: changes after the snapshot that is answered will be queued.
    pub(crate) fn attach(
        &self,
        queue: &Arc<SessionQueue>,
        rules: &Arc<Rules>,
        subscriptions: &[(u32, Arc<Matcher>)],
    ) -> Result<Snapshot, Lagged> {
        let mut state = self.shared.state();
        // Asked under the hub's lock, under which queues fill.
        if queue.has_lagged() {
            return Err(Lagged);
        }
        if state.failed {
            queue.fail();
            queue.notify();
        }
        let session = Session { queue: Arc::clone(queue), rules: Arc::clone(rules), attached: BTreeMap::new() };
        state.sites.insert(queue.site(), queue.number());
        for (id, matcher) in subscriptions {
            let matchers = state.collections.entry(matcher.collection().clone()).or_default();
            matchers.add(matcher, (queue.number(), *id));
        }
        let session = state.sessions.entry(queue.number()).or_insert(session);
        session.rules = Arc::clone(rules);
        session.attached.extend(subscriptions.iter().map(|(id, matcher)| (*id, Arc::clone(matcher))));
        Ok(state.snapshot.clone())
    }

    /// Detaches one subscription, if it is attached.
    pub(crate) fn detach(&self, session: u64, id: u32) {
        let mut state = self.shared.state();
        let Some(entry) = state.sessions.get_mut(&session) else { return };
        let matcher = entry.attached.remove(&id);
        let last = entry.attached.is_empty();
        if let Some(matcher) = matcher {
            state.forget(&matcher, (session, id));
        }
        if last {
            state.detach_all(session);
        }
    }

    /// What a session may read has changed.
    pub(crate) fn set_rules(&self, session: u64, rules: &Arc<Rules>) {
        if let Some(session) = self.shared.state().sessions.get_mut(&session) {
            session.rules = Arc::clone(rules);
        }
    }

    /// Detaches all of a session.
    pub(crate) fn detach_all(&self, session: u64) {
        self.shared.state().detach_all(session);
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl State {
    fn forget(&mut self, matcher: &Matcher, listener: matcher::Listener) {
        if let Some(matchers) = self.collections.get_mut(matcher.collection()) {
            matchers.remove(matcher, listener);
            if matchers.is_empty() {
                self.collections.remove(matcher.collection());
            }
        }
    }

    fn detach_all(&mut self, session: u64) {
        let Some(entry) = self.sessions.remove(&session) else { return };
        let site = entry.queue.site();
        if self.sites.get(&site) == Some(&session) {
            self.sites.remove(&site);
        }
        for (id, matcher) in entry.attached {
            self.forget(&matcher, (session, id));
        }
    }

    /// Puts every session back to catching up from where the hub stands, and moves the hub.
    fn jump(&mut self, snapshot: Snapshot) -> Vec<Arc<SessionQueue>> {
        let at = self.snapshot.lsn();
        let queues: Vec<_> = self.sessions.values().map(|session| Arc::clone(&session.queue)).collect();
        for queue in &queues {
            queue.lagged(at);
            metrics::put_back();
        }
        self.sessions.clear();
        self.sites.clear();
        self.collections.clear();
        self.snapshot = snapshot;
        queues
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self) {
        let mut feed = self.store.feed(*self.position.borrow());
        loop {
            match feed.next().await {
                Ok(batch) => self.dispatch(&batch).await,
                Err(FeedError::Lagged { .. }) => {
                    metrics::hub_lagged();
                    let snapshot = self.store.snapshot();
                    feed = self.store.feed(snapshot.lsn());
                    self.jump(snapshot);
                }
                Err(FeedError::Failed(error)) => {
                    if !matches!(error, TablesError::Stopped) {
                        tracing::error!(%error, "the store has stopped; its sessions are closed");
                    }
                    let mut state = self.state();
                    state.failed = true;
                    for session in state.sessions.values() {
                        session.queue.fail();
                        session.queue.notify();
                    }
                    return;
                }
            }
        }
    }

    fn jump(&self, snapshot: Snapshot) {
        let lsn = snapshot.lsn();
        let queues = self.state().jump(snapshot);
        self.position.send_replace(lsn);
        for queue in queues {
            queue.notify();
        }
    }

    /// Matches a batch, and moves behind it.
    async fn dispatch(&self, batch: &AppliedBatch) {
        let mut documents = Documents::default();
        loop {
            let missing = {
                let mut state = self.state();
                let missing = documents.missing(batch, &state);
                if missing.is_empty() {
                    let woken = matching::deliver(&mut state, batch, &mut documents);
                    state.snapshot = batch.after.clone();
                    drop(state);
                    self.position.send_replace(batch.through);
                    for queue in woken {
                        queue.notify();
                    }
                    return;
                }
                missing
            };
            // Without the lock: sessions may come and go meanwhile, and with them collections.
            if let Err(error) = documents.load(&batch.before, missing).await {
                tracing::warn!(%error, "documents cannot be read to match a change; sessions catch up instead");
                self.jump(batch.after.clone());
                return;
            }
        }
    }
}

/// The collections that a batch touches and somebody listens to, with the documents touched.
type Touched = BTreeMap<CollectionName, BTreeSet<bigpeer_crdt::DocId>>;
