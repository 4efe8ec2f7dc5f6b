//! What a batch means for each session: `Documents` holds the changed documents as they are between the transactions of a
//! batch, `deliver` matches and queues.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bigpeer_crdt::{Change, DocId, Document};
use bigpeer_protocol::pb;
use bigpeer_tables::{AppliedBatch, AppliedTransaction};
use bigpeer_types::{CollectionName, Lsn};
use bytes::Bytes;

use super::cache::Cache;
use super::delivery::Delivery;
use super::queue::SessionQueue;
use super::{Loaded, State, Touched};
use crate::budget::Budget;
use crate::metrics;
use crate::rules::{Allowed, Rules};

/// Documents touched by a batch, as they are after the transactions that were looked at so far. None: never written.
#[derive(Clone, Debug, Default)]
pub(super) struct Documents {
    current: BTreeMap<CollectionName, BTreeMap<DocId, Option<Arc<Document>>>>,
    /// What is being read, and not there yet.
    cold: Touched,
}

impl Documents {
    /// Takes what is known of the documents that somebody listens to, and those that sessions wrote themselves. Answers those
    /// that have to be read, and are not being read yet.
    pub(super) fn gather(&mut self, batch: &AppliedBatch, state: &State) -> Touched {
        let mut missing = Touched::new();
        if state.sessions.is_empty() {
            return missing;
        }
        for applied in &batch.transactions {
            let own = state.sites.contains_key(&applied.site);
            for change in applied.transaction.changes() {
                let wanted = own || state.collections.contains_key(&change.collection);
                if !wanted || self.has(change) || is_in(&self.cold, change) {
                    continue;
                }
                match state.cache.get(&change.collection, &change.id) {
                    Some(known) => self.insert(change.collection.clone(), change.id.clone(), known),
                    None => {
                        missing.entry(change.collection.clone()).or_default().insert(change.id.clone());
                    }
                }
            }
        }
        missing
    }

    fn has(&self, change: &Change) -> bool {
        self.current.get(&change.collection).is_some_and(|documents| documents.contains_key(&change.id))
    }

    fn insert(&mut self, collection: CollectionName, id: DocId, document: Option<Arc<Document>>) {
        self.current.entry(collection).or_default().insert(id, document);
    }

    /// These were read.
    pub(super) fn loaded(&mut self, loaded: Loaded) {
        for (collection, id, document) in loaded {
            if let Some(cold) = self.cold.get_mut(&collection) {
                cold.remove(&id);
            }
            self.insert(collection, id, document);
        }
        self.cold.retain(|_, ids| !ids.is_empty());
    }

    /// These are being read.
    pub(super) fn awaits(&mut self, collection: CollectionName, ids: BTreeSet<DocId>) {
        self.cold.entry(collection).or_default().extend(ids);
    }

    /// What is being read.
    pub(super) const fn cold(&self) -> &Touched {
        &self.cold
    }

    /// Applies a change: the document before and after it. None if it is not there, or the delta cannot be read.
    fn apply(&mut self, change: &Change) -> Option<(Option<Arc<Document>>, Arc<Document>)> {
        let slot = self.current.get_mut(&change.collection)?.get_mut(&change.id)?;
        let before = slot.clone();
        let mut after = before.as_deref().cloned().unwrap_or_default();
        after.join_encoded(&change.delta).ok()?;
        let after = Arc::new(after);
        *slot = Some(Arc::clone(&after));
        Some((before, after))
    }

    /// After a batch: what it made of the documents is where the hub stands; of others the cache knows nothing any more.
    pub(super) fn remember(&self, batch: &AppliedBatch, cache: &mut Cache) {
        for change in batch.transactions.iter().flat_map(|applied| applied.transaction.changes()) {
            match self.current.get(&change.collection).and_then(|documents| documents.get(&change.id)) {
                Some(document) => cache.put(&change.collection, &change.id, document.clone()),
                None => cache.forget(&change.collection, &change.id),
            }
        }
    }

    /// As [`Self::remember`], only of these.
    pub(super) fn remember_only(&self, which: &Touched, cache: &mut Cache) {
        for (collection, ids) in which {
            for id in ids {
                if let Some(document) = self.current.get(collection).and_then(|documents| documents.get(id)) {
                    cache.put(collection, id, document.clone());
                }
            }
        }
    }
}

pub(super) fn is_in(touched: &Touched, change: &Change) -> bool {
    touched.get(&change.collection).is_some_and(|ids| ids.contains(&change.id))
}

/// For whom a batch is matched.
#[derive(Clone, Copy, Debug)]
pub(super) enum To<'a> {
    AllBut(&'a BTreeSet<u64>),
    Only(&'a BTreeSet<u64>),
}

impl To<'_> {
    fn has(self, session: u64) -> bool {
        match self {
            Self::AllBut(sessions) => !sessions.contains(&session),
            Self::Only(sessions) => sessions.contains(&session),
        }
    }
}

/// Queues what a batch means for sessions that have got everything up to `from`; answers whom to wake. Sessions without room
/// are detached.
pub(super) fn deliver(
    state: &mut State,
    batch: &AppliedBatch,
    documents: &mut Documents,
    from: Lsn,
    to: To<'_>,
) -> Vec<Arc<SessionQueue>> {
    let mut woken = BTreeMap::new();
    let mut before = from;
    let mut delivered = 0;
    for applied in &batch.transactions {
        let deliveries = transaction(state, applied, documents, to);
        // The first batch of a feed may begin before the hub's position.
        if applied.lsn <= from {
            continue;
        }
        for (session, delivery) in deliveries {
            let Some(queue) = state.sessions.get(&session).map(|session| Arc::clone(&session.queue)) else { continue };
            delivered += delivery.transaction().changes.len() + delivery.transaction().left.len();
            if !queue.push(delivery, before) {
                metrics::put_back();
                state.detach_all(session);
            }
            woken.insert(session, queue);
        }
        before = applied.lsn;
    }
    if delivered > 0 {
        metrics::delivered(delivered);
        state.budget.relieve();
    }
    woken.into_values().collect()
}

/// One session's part in one change: the subscriptions that had the document, and those that have it.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    had: Vec<u32>,
    has: Vec<u32>,
}

/// What each session gets of a transaction. Sessions with the same part in every change share one delivery.
fn transaction(
    state: &State,
    applied: &AppliedTransaction,
    documents: &mut Documents,
    to: To<'_>,
) -> Vec<(u64, Arc<Delivery>)> {
    let writer = state.sites.get(&applied.site).copied().filter(|writer| to.has(*writer));
    let mut shown = Vec::new();
    let mut parts: BTreeMap<u64, Vec<(usize, Part)>> = BTreeMap::new();
    for change in applied.transaction.changes() {
        let Some((before, after)) = documents.apply(change) else { continue };
        let number = shown.len();
        if let Some(matchers) = state.collections.get(&change.collection) {
            matchers.hits(&change.id, before.as_deref(), &after, |(session, id), was, is| {
                if !to.has(session) {
                    return;
                }
                let parts = parts.entry(session).or_default();
                if parts.last().is_none_or(|(of, _)| *of != number) {
                    parts.push((number, Part::default()));
                }
                if let Some((_, part)) = parts.last_mut() {
                    if was {
                        part.had.push(id);
                    }
                    if is {
                        part.has.push(id);
                    }
                }
            });
        }
        shown.push(Shown { change, before, after, id: None, state: None });
    }
    let own = writer.and_then(|writer| {
        let rules = &state.sessions.get(&writer)?.rules;
        let parts = parts.remove(&writer).unwrap_or_default();
        let transaction = own_part(applied, &mut shown, parts, rules);
        finished(transaction, applied, &state.budget).map(|own| (writer, own))
    });
    let mut shared: BTreeMap<Vec<(usize, Part)>, Option<Arc<Delivery>>> = BTreeMap::new();
    let mut deliveries = Vec::with_capacity(parts.len() + 1);
    for (session, mut part) in parts {
        for (_, part) in &mut part {
            part.had.sort_unstable();
            part.has.sort_unstable();
        }
        let delivery = match shared.get(&part) {
            Some(delivery) => delivery.clone(),
            None => {
                let mut transaction = envelope(applied);
                for (number, part) in &part {
                    if let Some(shown) = shown.get_mut(*number) {
                        shown.add(part, false, &mut transaction);
                    }
                }
                let delivery = finished(transaction, applied, &state.budget);
                shared.insert(part, delivery.clone());
                delivery
            }
        };
        deliveries.extend(delivery.map(|delivery| (session, delivery)));
    }
    deliveries.extend(own);
    deliveries
}

/// What the writer of a transaction gets of it: what left and what it did not know.
fn own_part(
    applied: &AppliedTransaction,
    shown: &mut [Shown<'_>],
    parts: Vec<(usize, Part)>,
    rules: &Rules,
) -> pb::Transaction {
    let mut transaction = envelope(applied);
    let mut parts: BTreeMap<usize, Part> = parts.into_iter().collect();
    for (number, shown) in shown.iter_mut().enumerate() {
        match parts.get_mut(&number) {
            Some(part) => {
                part.had.sort_unstable();
                part.has.sort_unstable();
                shown.add(part, true, &mut transaction);
            }
            None => transaction.changes.extend(shown.answer(rules)),
        }
    }
    transaction
}

fn envelope(applied: &AppliedTransaction) -> pb::Transaction {
    pb::Transaction { lsn: Some(applied.lsn.into()), site: applied.site.get(), seq: applied.seq, ..Default::default() }
}

/// Nothing, if there is nothing in it.
fn finished(
    mut transaction: pb::Transaction,
    applied: &AppliedTransaction,
    budget: &Arc<Budget>,
) -> Option<Arc<Delivery>> {
    if transaction.changes.is_empty() && transaction.left.is_empty() {
        return None;
    }
    if !transaction.left.is_empty() {
        transaction.clock = applied.transaction.max_hlc().to_bits();
    }
    Some(Arc::new(Delivery::new(transaction, budget)))
}

/// A change, with what is made of it once for all sessions.
struct Shown<'a> {
    change: &'a Change,
    before: Option<Arc<Document>>,
    after: Arc<Document>,
    id: Option<Bytes>,
    state: Option<Bytes>,
}

impl Shown<'_> {
    fn id(&mut self) -> Bytes {
        self.id.get_or_insert_with(|| Bytes::copy_from_slice(self.change.id.as_key())).clone()
    }

    fn state(&mut self) -> Bytes {
        self.state.get_or_insert_with(|| self.after.encode().into()).clone()
    }

    /// What became of a document that its writer wrote to without being sent it: there was something that it did not know.
    /// Nothing, if it may not read that.
    fn answer(&mut self, rules: &Rules) -> Option<pb::Change> {
        let known = self.before.as_deref().is_none_or(Document::is_empty);
        let readable = match rules.read(&self.change.collection) {
            Allowed::Everything => true,
            Allowed::Nothing => false,
            rule @ Allowed::AnyOf(..) => self.after.is_visible() && rule.holds(&self.change.id, &self.after),
        };
        (!known && readable).then(|| pb::Change {
            collection: self.change.collection.as_str().to_owned(),
            id: self.id(),
            content: Some(pb::change::Content::State(self.state())),
            subscriptions: Vec::new(),
        })
    }

    /// Adds a session's part of the change, sorted, to its delivery.
    fn add(&mut self, part: &Part, own: bool, delivery: &mut pb::Transaction) {
        let collection = self.change.collection.as_str();
        let left: Vec<u32> = part.had.iter().filter(|id| part.has.binary_search(id).is_err()).copied().collect();
        let tombstone = self.after.tombstone().filter(|_| !left.is_empty());
        if let Some(tombstone) = tombstone {
            // It left because it was deleted: the peer keeps the deletion, so that a later insert of its starts empty.
            let content = (!own).then(|| pb::change::Content::State(tombstone.encode().into()));
            let (collection, id) = (collection.to_owned(), self.id());
            delivery.changes.push(pb::Change { collection, id, content, subscriptions: part.had.clone() });
            return;
        }
        if !left.is_empty() {
            delivery.left.push(pb::LeftDocument {
                collection: collection.to_owned(),
                id: self.id(),
                subscriptions: left,
            });
        }
        if part.has.is_empty() || own && part.had == part.has {
            return;
        }
        // What the peer has: through a live subscription the document as it was; of its own writes, the delta.
        let has_base = !part.had.is_empty() || self.before.as_deref().is_none_or(Document::is_empty);
        let content = match (has_base, own) {
            (true, true) => None,
            (true, false) => Some(pb::change::Content::Delta(self.change.delta.clone())),
            (false, _) => Some(pb::change::Content::State(self.state())),
        };
        let id = self.id();
        let subscriptions = part.has.clone();
        delivery.changes.push(pb::Change { collection: collection.to_owned(), id, content, subscriptions });
    }
}
