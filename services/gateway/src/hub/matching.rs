//! What a batch means for each session: `Documents` holds the changed documents as they are between the transactions of a
//! batch, `deliver` matches and queues.

use std::collections::BTreeMap;
use std::sync::Arc;

use bigpeer_crdt::{Change, DocId, Document};
use bigpeer_protocol::pb;
use bigpeer_tables::{AppliedBatch, AppliedTransaction, Snapshot, TablesError};
use bigpeer_types::{CollectionName, Lsn};
use bytes::Bytes;

use super::queue::SessionQueue;
use super::{State, Touched};
use crate::metrics;
use crate::rules::{Allowed, Rules};

/// Documents touched by a batch, as they are after the transactions that were looked at so far. None: never written.
#[derive(Debug, Default)]
pub(super) struct Documents {
    current: BTreeMap<CollectionName, BTreeMap<DocId, Option<Arc<Document>>>>,
}

impl Documents {
    /// What has to be loaded before the batch can be matched: what somebody listens to, and what sessions wrote themselves.
    pub(super) fn missing(&self, batch: &AppliedBatch, state: &State) -> Touched {
        let mut missing = Touched::new();
        if state.sessions.is_empty() {
            return missing;
        }
        for applied in &batch.transactions {
            let own = state.sites.contains_key(&applied.site);
            for change in applied.transaction.changes() {
                let wanted = own || state.collections.contains_key(&change.collection);
                if wanted && !self.has(change) {
                    missing.entry(change.collection.clone()).or_default().insert(change.id.clone());
                }
            }
        }
        missing
    }

    fn has(&self, change: &Change) -> bool {
        self.current.get(&change.collection).is_some_and(|documents| documents.contains_key(&change.id))
    }

    pub(super) async fn load(&mut self, before: &Snapshot, missing: Touched) -> Result<(), TablesError> {
        for (collection, ids) in missing {
            let ids: Vec<DocId> = ids.into_iter().collect();
            let found = before.get_many(&collection, &ids).await?;
            let documents = ids.into_iter().zip(found.into_iter().map(|found| found.map(|stored| stored.document)));
            self.current.entry(collection).or_default().extend(documents);
        }
        Ok(())
    }

    /// Applies a change: the document before and after it. None if it was not loaded, or the delta cannot be read.
    fn apply(&mut self, change: &Change) -> Option<(Option<Arc<Document>>, Arc<Document>)> {
        let slot = self.current.get_mut(&change.collection)?.get_mut(&change.id)?;
        let before = slot.clone();
        let mut after = before.as_deref().cloned().unwrap_or_default();
        after.join_encoded(&change.delta).ok()?;
        let after = Arc::new(after);
        *slot = Some(Arc::clone(&after));
        Some((before, after))
    }
}

/// Queues what a batch means for each session; answers whom to wake. Sessions without room are detached.
pub(super) fn deliver(state: &mut State, batch: &AppliedBatch, documents: &mut Documents) -> Vec<Arc<SessionQueue>> {
    let mut woken = BTreeMap::new();
    let mut before = state.snapshot.lsn();
    for applied in &batch.transactions {
        // The first batch of a feed may begin before the hub's position.
        let known = applied.lsn <= state.snapshot.lsn();
        let deliveries = transaction(state, applied, documents);
        for (session, transaction) in deliveries {
            if known {
                continue;
            }
            let Some(queue) = state.sessions.get(&session).map(|session| Arc::clone(&session.queue)) else { continue };
            metrics::delivered(transaction.changes.len() + transaction.left.len());
            if !queue.push(transaction, before) {
                metrics::put_back();
                state.detach_all(session);
            }
            woken.insert(session, queue);
        }
        before = before.max(applied.lsn);
    }
    woken.into_values().collect()
}

/// One session's part in one change.
#[derive(Debug, Default)]
struct Part {
    had: Vec<u32>,
    has: Vec<u32>,
}

fn transaction(
    state: &State,
    applied: &AppliedTransaction,
    documents: &mut Documents,
) -> BTreeMap<u64, pb::Transaction> {
    let mut deliveries: BTreeMap<u64, pb::Transaction> = BTreeMap::new();
    let writer = state.sites.get(&applied.site).copied();
    let empty = || envelope(applied.lsn, applied);
    for change in applied.transaction.changes() {
        let Some((before, after)) = documents.apply(change) else { continue };
        let mut parts: BTreeMap<u64, Part> = BTreeMap::new();
        if let Some(matchers) = state.collections.get(&change.collection) {
            matchers.hits(&change.id, before.as_deref(), &after, |(session, id), was, is| {
                let part = parts.entry(session).or_default();
                if was {
                    part.had.push(id);
                }
                if is {
                    part.has.push(id);
                }
            });
        }
        let unseen = writer.filter(|writer| !parts.contains_key(writer));
        let mut shown = Shown { change, before, after, id: None, state: None };
        for (session, part) in parts {
            shown.add(part, writer == Some(session), deliveries.entry(session).or_insert_with(empty));
        }
        if let Some(writer) = unseen
            && let Some(session) = state.sessions.get(&writer)
            && let Some(answer) = shown.answer(&session.rules)
        {
            deliveries.entry(writer).or_insert_with(empty).changes.push(answer);
        }
    }
    deliveries.retain(|_, delivery| !delivery.changes.is_empty() || !delivery.left.is_empty());
    for delivery in deliveries.values_mut().filter(|delivery| !delivery.left.is_empty()) {
        delivery.clock = applied.transaction.max_hlc().to_bits();
    }
    deliveries
}

fn envelope(lsn: Lsn, applied: &AppliedTransaction) -> pb::Transaction {
    pb::Transaction { lsn: Some(lsn.into()), site: applied.site.get(), seq: applied.seq, ..Default::default() }
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

    /// Adds a session's part of the change to its delivery.
    fn add(&mut self, mut part: Part, own: bool, delivery: &mut pb::Transaction) {
        part.had.sort_unstable();
        part.has.sort_unstable();
        let collection = self.change.collection.as_str();
        let left: Vec<u32> = part.had.iter().filter(|id| part.has.binary_search(id).is_err()).copied().collect();
        let tombstone = self.after.tombstone().filter(|_| !left.is_empty());
        if let Some(tombstone) = tombstone {
            // It left because it was deleted: the peer keeps the deletion, so that a later insert of its starts empty.
            let content = (!own).then(|| pb::change::Content::State(tombstone.encode().into()));
            let (collection, id) = (collection.to_owned(), self.id());
            delivery.changes.push(pb::Change { collection, id, content, subscriptions: part.had });
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
        delivery.changes.push(pb::Change { collection: collection.to_owned(), id, content, subscriptions: part.has });
    }
}
