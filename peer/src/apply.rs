//! What the server sent, made part of the store: a batch of messages is one SQLite transaction, so documents and the
//! cursors that speak for them move together.
//!
//! # Consistency
//! Documents join, so hearing something twice changes nothing. Two things do more than join. A **rejected** write is
//! taken back: the document becomes the state that the server gave, joined with the later local changes. And a **first
//! sync** or **resynchronization** says what is there by what it names; see `first_sync.rs`.

mod first_sync;
mod leaving;
mod refused;

use std::collections::{BTreeMap, BTreeSet};

use bigpeer_crdt::{DocId, Document};
use bigpeer_dql::SelectPlan;
use bigpeer_protocol::{PeerEffect, pb};
use bigpeer_types::{CollectionName, Hlc, Lsn};

pub(crate) use first_sync::{Ready, prepare};

use crate::local::{Evaluation, decode, parse_arguments};
use crate::store::{StoredSubscription, Work};
use crate::{PeerError, PeerEvent, SubscriptionId};

/// The session's names of subscriptions.
pub(crate) type SessionIds = BTreeMap<u32, SubscriptionId>;

/// What the session has to do after a batch.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// Subscriptions whose documents cannot be trusted: to be asked for again, from the start.
    pub(crate) start_over: BTreeSet<SubscriptionId>,
    /// The server's newest question. What was said before it is stored now, as the answer has to have it.
    pub(crate) asked: Option<pb::AskHeld>,
}

/// Applies what the session said, in the order in which it came.
pub(crate) fn apply(
    work: &mut Work<'_>,
    effects: Vec<PeerEffect>,
    ids: &SessionIds,
    evaluation: &Evaluation,
) -> Result<Applied, PeerError> {
    let mut batch = Batch::begin(work, ids, evaluation)?;
    for effect in effects {
        batch.effect(effect)?;
    }
    batch.finish()
}

struct Batch<'b, 'a> {
    work: &'b mut Work<'a>,
    ids: &'b SessionIds,
    evaluation: &'b Evaluation,
    /// Subscriptions with their plans; read when first needed, and again after they changed.
    plans: Option<Vec<(StoredSubscription, SelectPlan)>>,
    /// Subscriptions whose first sync is not complete.
    first_syncs: BTreeSet<SubscriptionId>,
    /// Whether any document waits for its changes to come through before it goes.
    leaving: bool,
    /// Newest `Changes.through` that the cursors do not have yet.
    through: Option<Lsn>,
    /// Newest stamp seen, so that local writes come after it.
    newest: Hlc,
    applied: Applied,
}

impl<'b, 'a> Batch<'b, 'a> {
    fn begin(work: &'b mut Work<'a>, ids: &'b SessionIds, evaluation: &'b Evaluation) -> Result<Self, PeerError> {
        let first_syncs = work.tables().first_syncs()?;
        let leaving = work.tables().any_leaving()?;
        let (plans, through, newest, applied) = (None, None, Hlc::ZERO, Applied::default());
        Ok(Self { work, ids, evaluation, plans, first_syncs, leaving, through, newest, applied })
    }

    fn effect(&mut self, effect: PeerEffect) -> Result<(), PeerError> {
        match effect {
            PeerEffect::Apply { changes, .. } => self.changes(&changes),
            PeerEffect::Left { left, .. } => {
                // Outside of any transaction: every local change may be later.
                left.documents.iter().try_for_each(|document| self.left_document(Lsn::ZERO, document))
            }
            PeerEffect::CaughtUp { subscriptions, lsn } => self.caught_up(&subscriptions, lsn),
            PeerEffect::Resync { subscriptions } => {
                self.session_ids(&subscriptions).into_iter().try_for_each(|id| self.resync(id))
            }
            PeerEffect::Subscribed(subscribed) => {
                let known = self.session_ids(&[subscribed.id]);
                known.into_iter().try_for_each(|id| self.work.set_scope(id, subscribed.scope))
            }
            PeerEffect::Refused(refused) => self.refused(refused),
            PeerEffect::Accepted { seq, lsn } => {
                self.work.acknowledge(seq, Some(lsn))?;
                // Those that no subscription waits for any more.
                self.let_go(Lsn::ZERO)
            }
            PeerEffect::Rejected(rejected) => self.rejected(rejected),
            PeerEffect::AskHeld(ask) => {
                self.applied.asked = Some(ask);
                Ok(())
            }
            PeerEffect::Send(_) | PeerEffect::Welcomed(_) | PeerEffect::Closed(_) => Ok(()),
        }
    }

    fn finish(mut self) -> Result<Applied, PeerError> {
        self.advance()?;
        if self.newest > self.work.tables().clock()? {
            self.work.set_clock(self.newest)?;
        }
        Ok(self.applied)
    }

    fn changes(&mut self, changes: &pb::Changes) -> Result<(), PeerError> {
        for transaction in &changes.transactions {
            self.newest = self.newest.max(Hlc::from_bits(transaction.clock));
            for change in &transaction.changes {
                self.change(change)?;
            }
            let lsn = transaction.lsn.map_or(Lsn::ZERO, Lsn::from);
            transaction.left.iter().try_for_each(|document| self.left_document(lsn, document))?;
        }
        if let Some(page) = &changes.page {
            self.page(page)?;
        }
        self.through = self.through.max(changes.through.map(Lsn::from));
        Ok(())
    }

    fn change(&mut self, change: &pb::Change) -> Result<(), PeerError> {
        let (collection, number) = self.collection(&change.collection)?;
        let subscriptions = self.session_ids(&change.subscriptions);
        // Without subscriptions it is the answer to a write of this peer: what became of a document that it has without
        // being sent it. If it is gone by now, so be it.
        let answer = change.subscriptions.is_empty();
        if answer && self.work.tables().document(number, &change.id)?.is_none() {
            return Ok(());
        }
        if let Some(pb::change::Content::Delta(state) | pb::change::Content::State(state)) = &change.content {
            self.join(number, &change.id, state)?;
            self.work.touch(&collection);
        }
        if answer { Ok(()) } else { self.stays(number, &change.id, &subscriptions) }
    }

    fn page(&mut self, page: &pb::Page) -> Result<(), PeerError> {
        let (collection, number) = self.collection(&page.collection)?;
        let subscriptions = self.session_ids(&page.subscriptions);
        self.newest = self.newest.max(Hlc::from_bits(page.clock));
        self.put_back(&subscriptions)?;
        let snapshot = page.snapshot.map_or(Lsn::ZERO, Lsn::from);
        for id in &subscriptions {
            self.work.forget_reached_after(*id, snapshot)?;
        }
        for state in &page.states {
            self.page_state(&collection, number, state)?;
            if self.leaving || !self.first_syncs.is_empty() {
                let named = self.session_ids(&state.subscriptions);
                self.stays(number, &state.id, if named.is_empty() { &subscriptions } else { &named })?;
            }
        }
        if !page.states.is_empty() {
            self.work.touch(&collection);
        }
        for left in &page.left {
            let named = self.session_ids(&left.subscriptions);
            let of_key = if named.is_empty() { &subscriptions } else { &named };
            self.left(snapshot, &collection, number, &left.id, of_key)?;
        }
        if !page.position.is_empty() {
            check_key(&page.position)?;
            for id in &subscriptions {
                self.work.set_page(*id, snapshot, &page.position)?;
            }
        }
        if !page.reached.is_empty() {
            check_key(&page.reached)?;
            for id in &subscriptions {
                self.work.reach(*id, &page.reached, snapshot)?;
            }
        }
        Ok(())
    }

    /// A document of a page. The first sight of it costs one insert and no read.
    fn page_state(&mut self, collection: &CollectionName, number: i64, state: &pb::State) -> Result<(), PeerError> {
        self.check(&state.id, &state.state)?;
        if self.work.insert_document(number, &state.id, &state.state)? {
            return Ok(());
        }
        if !self.first_syncs.is_empty() && self.work.tables().is_stale(number, &state.id)? {
            return self.replace_stale(collection, number, state);
        }
        self.join_known(number, &state.id, &state.state)
    }

    /// Joins a state or a delta into the document, which may be new here.
    fn join(&mut self, number: i64, key: &[u8], state: &[u8]) -> Result<(), PeerError> {
        self.check(key, state)?;
        if self.work.insert_document(number, key, state)? { Ok(()) } else { self.join_known(number, key, state) }
    }

    /// Joins into a document that is here.
    fn join_known(&mut self, number: i64, key: &[u8], state: &[u8]) -> Result<(), PeerError> {
        let Some(known) = self.work.tables().document(number, key)? else {
            return Err(PeerError::Damaged("a document that is there and is not".to_owned()));
        };
        if known == state {
            return Ok(());
        }
        let mut document = decode(&known)?;
        document.join_encoded(state).map_err(|error| PeerError::Protocol(error.to_string()))?;
        let joined = document.encode();
        if joined != known {
            self.work.put_document(number, key, &joined)?;
        }
        Ok(())
    }

    /// Nothing that does not decode is ever stored.
    fn check(&mut self, key: &[u8], state: &[u8]) -> Result<(), PeerError> {
        check_key(key)?;
        let header = Document::validate_encoded(state).map_err(|error| PeerError::Protocol(error.to_string()))?;
        self.newest = self.newest.max(header.max_hlc);
        Ok(())
    }

    /// Makes the document `base` and the local changes that are not known to be in the log by `after`; nothing if there
    /// is neither.
    fn reset(
        &mut self,
        after: Lsn,
        collection: &CollectionName,
        number: i64,
        id: &DocId,
        base: Option<Document>,
    ) -> Result<(), PeerError> {
        let mut state = base;
        for delta in self.work.tables().deltas_after(after, (collection, number), id)? {
            let document = state.get_or_insert_with(Document::new);
            document.join_encoded(&delta).map_err(|error| PeerError::Damaged(error.to_string()))?;
        }
        match state {
            Some(document) => self.work.put_document(number, id.as_key(), &document.encode())?,
            None => self.work.remove_document(number, id.as_key())?,
        }
        self.work.touch(collection);
        Ok(())
    }

    /// Whether one of the subscriptions that `which` picks matches the document.
    fn is_matched(
        &mut self,
        collection: &CollectionName,
        id: &DocId,
        document: &Document,
        which: impl Fn(&StoredSubscription) -> bool,
    ) -> Result<bool, PeerError> {
        Ok(self.plans()?.iter().any(|(subscription, plan)| {
            which(subscription) && plan.collection() == collection && plan.matches(id, document)
        }))
    }

    fn plans(&mut self) -> Result<&[(StoredSubscription, SelectPlan)], PeerError> {
        let plans = match self.plans.take() {
            Some(plans) => plans,
            None => {
                let stored = self.work.tables().subscriptions()?.into_iter();
                stored.map(|subscription| plan_of(subscription, self.evaluation)).collect::<Result<Vec<_>, _>>()?
            }
        };
        Ok(self.plans.insert(plans))
    }

    fn caught_up(&mut self, subscriptions: &[u32], lsn: Lsn) -> Result<(), PeerError> {
        // Cursors of the others first: what came through so far was not sent to these.
        self.advance()?;
        let mut in_doubt = BTreeSet::new();
        for subscription in self.session_ids(subscriptions) {
            if self.first_syncs.remove(&subscription) {
                in_doubt.extend(self.end_first_sync(subscription, lsn)?);
            }
            self.work.set_cursor(subscription, lsn)?;
            self.work.forget_reached(subscription)?;
            if let Some(status) = self.work.status.subscriptions.get_mut(&subscription)
                && !status.caught_up
            {
                status.caught_up = true;
                self.work.event(PeerEvent::CaughtUp { subscription, lsn });
            }
        }
        self.let_go(lsn)?;
        self.work.forget_passed()?;
        self.distrust(in_doubt.iter())
    }

    /// A page is for subscriptions that are catching up, maybe again: what is here is newer than their cursors now, which
    /// stand still until the server says that they have caught up.
    fn put_back(&mut self, subscriptions: &[SubscriptionId]) -> Result<(), PeerError> {
        let status = &self.work.status.subscriptions;
        if subscriptions.iter().all(|id| status.get(id).is_none_or(|status| !status.caught_up)) {
            return Ok(());
        }
        // What came through before was sent to them.
        self.advance()?;
        for id in subscriptions {
            if let Some(status) = self.work.status.subscriptions.get_mut(id) {
                status.caught_up = false;
            }
        }
        Ok(())
    }

    /// Moves the cursors of the live subscriptions to what has come through.
    fn advance(&mut self) -> Result<(), PeerError> {
        let Some(through) = self.through.take() else { return Ok(()) };
        let live = self.work.status.subscriptions.iter().filter(|(_, status)| status.caught_up);
        let live: Vec<SubscriptionId> = live.map(|(id, _)| *id).collect();
        for subscription in live {
            self.work.set_cursor(subscription, through)?;
        }
        self.let_go(through)?;
        self.work.forget_passed()
    }

    fn collection(&mut self, name: &str) -> Result<(CollectionName, i64), PeerError> {
        let collection = CollectionName::new(name).map_err(|error| PeerError::Protocol(error.to_string()))?;
        let number = self.work.number_of(&collection)?;
        Ok((collection, number))
    }

    /// The store's names for the session's. Those that were ended meanwhile, or are to be started over, are left out:
    /// what is still said about them counts no more.
    fn session_ids(&self, ids: &[u32]) -> Vec<SubscriptionId> {
        let counts = |id: &SubscriptionId| {
            self.work.status.subscriptions.contains_key(id) && !self.applied.start_over.contains(id)
        };
        ids.iter().filter_map(|id| self.ids.get(id).copied()).filter(counts).collect()
    }
}

fn plan_of(
    subscription: StoredSubscription,
    evaluation: &Evaluation,
) -> Result<(StoredSubscription, SelectPlan), PeerError> {
    let arguments = parse_arguments(&subscription.arguments)?;
    let plan = evaluation.select(&subscription.query, &arguments)?;
    Ok((subscription, plan))
}

/// Keys that the server sends.
fn check_key(key: &[u8]) -> Result<(), PeerError> {
    DocId::from_key(key).map(drop).map_err(|error| PeerError::Protocol(error.to_string()))
}

fn parse_id(key: &[u8]) -> Result<DocId, PeerError> {
    DocId::from_key(key).map_err(|error| PeerError::Damaged(error.to_string()))
}

#[cfg(test)]
mod tests;
