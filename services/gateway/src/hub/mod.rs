//! `Hub`: one per app that has sessions. It follows the store's feed, computes each changed document before and after its
//! change once, matches it against the subscriptions of all sessions, and queues for each session what concerns it.
//!
//! # Consistency
//! The hub stands at one position. Subscriptions are attached at it, and get a snapshot of exactly that position: pages
//! of the snapshot and the live changes after it have neither gap nor overlap.
//!
//! A changed document that is not in memory has to be read. Sessions that listen to its collection wait for that, in order;
//! all others go on, and the hub's position with them. A session that waits is **held**: it is told no cursor past the
//! position up to which it has everything, and attaches nothing until it has caught up with the hub.

mod cache;
mod cold;
mod delivery;
mod matcher;
mod matching;
mod queue;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bigpeer_chassis::Shutdown;
use bigpeer_crdt::{DocId, Document};
use bigpeer_tables::{AppliedBatch, DocumentStore, FeedError, Snapshot, TablesError};
use bigpeer_types::{CollectionName, Lsn, SiteId};
use futures::FutureExt;
use tokio::sync::watch;

use crate::budget::Budget;
use crate::metrics;
use crate::rules::Rules;
use cache::Cache;
use cold::{Cold, Loads, Waiting};
use matcher::Matchers;
use matching::{Documents, To};

pub(crate) use delivery::Delivery;
pub(crate) use matcher::Matcher;
pub(crate) use queue::{Outcomes, SessionQueue, Taken};

/// Most bytes of changed documents that are kept in memory, estimated.
const CACHE_BYTES: usize = 64 << 20;

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
    /// Of everything that waits for sessions.
    budget: Arc<Budget>,
    /// The app where the hub stands.
    snapshot: Snapshot,
    collections: BTreeMap<CollectionName, Matchers>,
    sessions: BTreeMap<u64, Session>,
    /// The attached session of each site: it is told what became of its own writes.
    sites: BTreeMap<SiteId, u64>,
    /// Documents where the hub stands.
    cache: Cache,
    /// What some sessions wait for.
    cold: Cold,
    failed: bool,
}

#[derive(Debug)]
struct Session {
    queue: Arc<SessionQueue>,
    rules: Arc<Rules>,
    attached: BTreeMap<u32, Arc<Matcher>>,
}

/// The session's queue was full, or it is held: it has to take out what is queued first, or what will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotYet;

impl Hub {
    pub(crate) fn spawn(store: Arc<DocumentStore>, budget: Arc<Budget>) -> Self {
        let snapshot = store.snapshot();
        let position = watch::Sender::new(snapshot.lsn());
        let state = State {
            budget,
            snapshot,
            collections: BTreeMap::new(),
            sessions: BTreeMap::new(),
            sites: BTreeMap::new(),
            cache: Cache::new(CACHE_BYTES),
            cold: Cold::default(),
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

    /// The matcher that somebody is attached with and that is equal to this one, so that equal ones are held once; or this one.
    pub(crate) fn shared(&self, matcher: Matcher) -> Arc<Matcher> {
        let state = self.shared.state();
        let known = state.collections.get(matcher.collection()).and_then(|matchers| matchers.equal(&matcher));
        known.unwrap_or_else(|| Arc::new(matcher))
    }

    /// Attaches subscriptions of a session: changes after the snapshot that is answered will be queued.
    pub(crate) fn attach(
        &self,
        queue: &Arc<SessionQueue>,
        rules: &Arc<Rules>,
        subscriptions: &[(u32, Arc<Matcher>)],
    ) -> Result<Snapshot, NotYet> {
        let mut state = self.shared.state();
        // Asked under the hub's lock, under which queues fill.
        if queue.has_lagged() || queue.is_held() {
            return Err(NotYet);
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
        self.cold.forget(session);
        entry.queue.release();
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
        self.cache.clear();
        self.cold.clear();
        self.snapshot = snapshot;
        queues
    }

    /// Who may be concerned by documents that are being read, or waits already.
    fn blocked(&self, batch: &AppliedBatch, cold: &Touched) -> BTreeSet<u64> {
        let mut blocked = self.cold.sessions();
        for collection in cold.keys() {
            blocked.extend(self.collections.get(collection).into_iter().flat_map(Matchers::sessions));
        }
        for applied in &batch.transactions {
            let Some(writer) = self.sites.get(&applied.site) else { continue };
            if applied.transaction.changes().iter().any(|change| matching::is_in(cold, change)) {
                blocked.insert(*writer);
            }
        }
        blocked
    }

    /// Matches a batch for everybody who does not have to wait, and moves behind it. Answers whom to wake, and whether
    /// somebody waits.
    fn pass(&mut self, batch: &Arc<AppliedBatch>, mut documents: Documents) -> (Vec<Arc<SessionQueue>>, bool) {
        let from = self.snapshot.lsn();
        let cold = documents.cold().clone();
        let mut blocked = BTreeSet::new();
        let before = documents.clone();
        if !cold.is_empty() || !self.cold.is_empty() {
            blocked = self.blocked(batch, &cold);
            for session in blocked.iter().filter_map(|session| self.sessions.get(session)) {
                session.queue.hold(from);
            }
        }
        let woken = matching::deliver(self, batch, &mut documents, from, To::AllBut(&blocked));
        documents.remember(batch, &mut self.cache);
        if self.sessions.is_empty() {
            self.cache.clear();
        }
        self.snapshot = batch.after.clone();
        let waits = !blocked.is_empty();
        if waits {
            let (number, ready) = (self.cold.next(), cold.is_empty());
            let batch = Arc::clone(batch);
            self.cold.push(Waiting { number, batch, from, documents: before, cold, ready, sessions: blocked });
        } else {
            self.cold.clear();
        }
        (woken, waits)
    }

    /// Gives the batches that have everything to those who wait for them. Answers whom to wake.
    fn thaw(&mut self) -> Vec<Arc<SessionQueue>> {
        let mut woken = Vec::new();
        while let Some(Waiting { batch, from, mut documents, cold, sessions, .. }) = self.cold.pop_ready() {
            matching::deliver(self, &batch, &mut documents, from, To::Only(&sessions));
            let known = self.cold.without_later(cold);
            documents.remember_only(&known, &mut self.cache);
            for session in sessions {
                let Some(entry) = self.sessions.get(&session) else { continue };
                if self.cold.still_waits(session) {
                    entry.queue.hold_on(batch.through);
                } else {
                    entry.queue.release();
                }
                woken.push(Arc::clone(&entry.queue));
            }
        }
        woken
    }

    /// Documents cannot be read: who waits for them catches up from a snapshot.
    fn give_up(&mut self) -> Vec<Arc<SessionQueue>> {
        let at = self.snapshot.lsn();
        let mut woken = Vec::new();
        for session in self.cold.sessions() {
            let Some(entry) = self.sessions.get(&session) else { continue };
            let queue = Arc::clone(&entry.queue);
            // Where it is held, if that is earlier.
            queue.lagged(at);
            metrics::put_back();
            self.detach_all(session);
            woken.push(queue);
        }
        self.cold.clear();
        woken
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self) {
        let mut feed = self.store.feed(*self.position.borrow());
        let mut loads = Loads::new();
        loop {
            // A busy app must leave its turn to others.
            tokio::task::coop::consume_budget().await;
            let full = self.state().cold.is_full();
            let batch = tokio::select! {
                biased;
                (number, loaded) = cold::next(&mut loads) => {
                    self.loaded(number, loaded);
                    continue;
                }
                batch = feed.next(), if !full => batch,
            };
            match batch {
                Ok(batch) => self.dispatch(&batch, &mut loads),
                Err(FeedError::Lagged { .. }) => {
                    metrics::hub_lagged();
                    let snapshot = self.store.snapshot();
                    feed = self.store.feed(snapshot.lsn());
                    loads.clear();
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
        wake(queues);
    }

    /// Matches a batch, and moves behind it. What is not in memory is waited for by those whom it may concern.
    fn dispatch(&self, batch: &Arc<AppliedBatch>, loads: &mut Loads) {
        let mut documents = Documents::default();
        let mut begun = Vec::new();
        loop {
            let mut state = self.state();
            let missing = documents.gather(batch, &state);
            if missing.is_empty() {
                let number = state.cold.next();
                let (woken, waits) = state.pass(batch, documents);
                drop(state);
                if waits && !begun.is_empty() {
                    metrics::cold_batch();
                    loads.push(cold::numbered(number, begun));
                }
                self.position.send_replace(batch.through);
                return wake(woken);
            }
            drop(state);
            // Without the lock: sessions may come and go meanwhile, and with them collections. What is in memory below is
            // there at once. Each collection by itself: who listens to one does not wait for another of the same batch.
            for (collection, ids) in missing {
                let mut load = cold::load(&batch.before, collection.clone(), ids.clone());
                match load.as_mut().now_or_never() {
                    Some(Ok(loaded)) => documents.loaded(loaded),
                    // The error is met where the others are.
                    Some(Err(error)) => {
                        documents.awaits(collection, ids);
                        begun.push(async move { Err(error) }.boxed());
                    }
                    None => {
                        documents.awaits(collection, ids);
                        begun.push(load);
                    }
                }
            }
        }
    }

    /// What a batch waited for was read, or cannot be.
    fn loaded(&self, number: u64, loaded: Result<Loaded, TablesError>) {
        let mut state = self.state();
        let woken = match loaded {
            Ok(loaded) => {
                state.cold.loaded(number, loaded);
                state.thaw()
            }
            Err(error) => {
                tracing::warn!(%error, "documents cannot be read to match a change; sessions catch up instead");
                state.give_up()
            }
        };
        drop(state);
        wake(woken);
    }
}

fn wake(queues: Vec<Arc<SessionQueue>>) {
    for queue in queues {
        queue.notify();
    }
}

/// Documents of collections that somebody listens to.
type Touched = BTreeMap<CollectionName, BTreeSet<DocId>>;

/// Documents that were read. None: never written.
type Loaded = Vec<(CollectionName, DocId, Option<Arc<Document>>)>;
