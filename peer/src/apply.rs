//! What the server sent, made part of the store: a batch of messages is one SQLite transaction, so documents and the
//! cursors that speak for them move together.
//!
//! # Consistency
//! Documents join, so hearing something twice changes nothing. Two things do more than join. A **rejected** write is
//! taken back: the document becomes the state that the server gave, joined with the later local changes. And a **first
//! sync** or **resynchronization** says what is there by what it names; see `first_sync.rs`.

mod first_sync;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

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
        let snapshot = page.snapshot.map_or(Lsn::ZERO, Lsn::from);
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

    fn left_document(&mut self, lsn: Lsn, left: &pb::LeftDocument) -> Result<(), PeerError> {
        let (collection, number) = self.collection(&left.collection)?;
        let subscriptions = self.session_ids(&left.subscriptions);
        self.left(lsn, &collection, number, &left.id, &subscriptions)
    }

    /// As of `lsn` the document does not match `subscriptions` any more: it goes, unless another one matches it. With local
    /// changes that come later it goes when those have come through.
    fn left(
        &mut self,
        lsn: Lsn,
        collection: &CollectionName,
        number: i64,
        key: &[u8],
        subscriptions: &[SubscriptionId],
    ) -> Result<(), PeerError> {
        let Some(state) = self.work.tables().document(number, key)? else { return Ok(()) };
        let (id, document) = (parse_id(key)?, decode(&state)?);
        if self.is_vouched_for(collection, &id, &document, subscriptions)? {
            return Ok(());
        }
        self.goes(lsn, collection, number, key)
    }

    /// The document goes; if there are local changes to it that come later, when those have come through.
    fn goes(&mut self, lsn: Lsn, collection: &CollectionName, number: i64, key: &[u8]) -> Result<(), PeerError> {
        if self.work.tables().has_changes_after(lsn, number, key)? {
            self.leaving = true;
            return self.work.mark_leaving(number, key);
        }
        self.work.touch(collection);
        self.work.remove_document(number, key)
    }

    /// Whether a subscription matches the document that does not match `left` any more. What is here may be older than what
    /// made it leave: then it still matches `left`, and only those that have caught up know better. The others are still
    /// going to hear of it, and to be sent all of it if it matches them; two of them must not keep it for each other.
    fn is_vouched_for(
        &mut self,
        collection: &CollectionName,
        id: &DocId,
        document: &Document,
        left: &[SubscriptionId],
    ) -> Result<bool, PeerError> {
        let is_old = self.is_matched(collection, id, document, |one| left.contains(&one.id))?;
        let status = &self.work.status.subscriptions;
        let knowing: BTreeSet<SubscriptionId> =
            status.iter().filter(|(_, status)| !is_old || status.caught_up).map(|(id, _)| *id).collect();
        self.is_matched(collection, id, document, |other| !left.contains(&other.id) && knowing.contains(&other.id))
    }

    /// The server has named the document as one that matches these subscriptions: it is not to go.
    fn stays(&mut self, number: i64, key: &[u8], subscriptions: &[SubscriptionId]) -> Result<(), PeerError> {
        if self.leaving {
            self.work.unmark_leaving(number, key)?;
        }
        for subscription in subscriptions {
            if self.first_syncs.contains(subscription) {
                self.work.name(*subscription, number, key)?;
            }
        }
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

    /// Documents that left and had later local changes go when those have come through without bringing them back.
    fn let_go(&mut self, through: Lsn) -> Result<(), PeerError> {
        if !self.leaving {
            return Ok(());
        }
        for (collection, number, id) in self.work.tables().ready_to_leave(through)? {
            self.work.remove_document(number, id.as_key())?;
            self.work.unmark_leaving(number, id.as_key())?;
            self.work.touch(&collection);
        }
        self.leaving = self.work.tables().any_leaving()?;
        Ok(())
    }

    fn refused(&mut self, refused: pb::Refused) -> Result<(), PeerError> {
        let Some(subscription) = self.ids.get(&refused.id).copied() else { return Ok(()) };
        // What came through before was sent to it, too.
        self.advance()?;
        let code = refused.code();
        if let Some(status) = self.work.status.subscriptions.get_mut(&subscription) {
            status.refused = Some(refused.message.clone());
            status.caught_up = false;
        }
        if code == pb::RefuseCode::RefuseForbidden {
            self.forget_unreadable(subscription)?;
        }
        self.work.event(PeerEvent::SubscriptionRefused { subscription, reason: refused.message });
        Ok(())
    }

    /// What the subscription brought may not be read any more: it goes, unless another one matches it.
    fn forget_unreadable(&mut self, subscription: SubscriptionId) -> Result<(), PeerError> {
        let Some(stored) = self.work.tables().subscription(subscription)? else { return Ok(()) };
        if stored.cursor.is_none() && stored.page.is_none() {
            return Ok(());
        }
        let (_, plan) = plan_of(stored, self.evaluation)?;
        let Some(number) = self.work.tables().collection_number(plan.collection())? else { return Ok(()) };
        let mut here = Vec::new();
        self.work.tables().scan_documents(number, |key, state| {
            let (id, document) = (parse_id(key)?, decode(state)?);
            if plan.matches(&id, &document) {
                here.push((id, document));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        // Nothing is known to have changed, so others need not have caught up to know.
        let status = self.work.status.subscriptions.iter();
        let others: BTreeSet<SubscriptionId> =
            status.filter(|(_, status)| status.refused.is_none()).map(|(id, _)| *id).collect();
        for (id, document) in here {
            if !self.is_matched(plan.collection(), &id, &document, |other| others.contains(&other.id))? {
                self.goes(Lsn::ZERO, plan.collection(), number, id.as_key())?;
            }
        }
        self.work.begin_first_sync(subscription)?;
        self.first_syncs.insert(subscription);
        self.plans = None;
        Ok(())
    }

    fn rejected(&mut self, rejected: pb::Rejected) -> Result<(), PeerError> {
        let documents = self.work.tables().documents_of(rejected.seq)?;
        self.work.forget_rejected(rejected.seq)?;
        let mut given: BTreeMap<(&str, &[u8]), Option<&[u8]>> = BTreeMap::new();
        for restore in &rejected.restore {
            given.insert((&restore.collection, &restore.id), restore.state.as_deref());
        }
        for (collection, number, id) in &documents {
            let base = given.get(&(collection.as_str(), id.as_key())).copied().flatten();
            let base = match base {
                Some(state) => {
                    self.check(id.as_key(), state)?;
                    Some(decode(state)?)
                }
                None => None,
            };
            let is_visible = base.as_ref().is_some_and(Document::is_visible);
            self.reset(Lsn::ZERO, collection, *number, id, base)?;
            // What this state says of belonging here is newer than what was said before.
            self.stays(*number, id.as_key(), &[])?;
            if is_visible {
                // If no subscription matches it, nobody would tell how it goes on: the write may have brought it here, or
                // have kept it when it left.
                self.left(Lsn::ZERO, collection, *number, id.as_key(), &[])?;
            }
        }
        let code = rejected.code().as_str_name();
        self.work.add_rejection((rejected.seq, code, &rejected.message), &documents)?;
        if rejected.incomplete {
            self.distrust(documents.iter().map(|(collection, _, _)| collection))?;
        }
        self.work.event(PeerEvent::WriteRejected {
            seq: rejected.seq,
            code: rejected.code().as_str_name().to_owned(),
            message: rejected.message,
            documents: documents.into_iter().map(|(collection, _, id)| (collection, id)).collect(),
        });
        Ok(())
    }

    /// Starts every subscription to these collections over.
    fn distrust<'c>(&mut self, collections: impl Iterator<Item = &'c CollectionName>) -> Result<(), PeerError> {
        let collections: BTreeSet<&CollectionName> = collections.collect();
        let of_collection = self.plans()?.iter().filter(|(_, plan)| collections.contains(plan.collection()));
        let subscriptions: Vec<SubscriptionId> = of_collection.map(|(subscription, _)| subscription.id).collect();
        for subscription in subscriptions {
            self.resync(subscription)?;
            self.applied.start_over.insert(subscription);
        }
        Ok(())
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
