//! First syncs: what the server names is there, and what it does not name is not.
//!
//! When one begins, the documents that are here and match are noted as **unnamed**. Pages and changes name them. What is
//! left when it is complete does not match at the server, whatever it looks like here (someone deleted it, and this peer
//! has not heard of that), and goes. Local transactions that are not known to be in the log by then keep their documents
//! until they have come through: what became of the documents then is told, if they match.
//!
//! A **resynchronization** is a first sync in which what is here is also **stale**: the server may have forgotten the
//! tombstones that would have made old local content dead. So the first state that it sends replaces what is here, and
//! local changes that may not be in it are joined again.

use std::ops::ControlFlow;

use bigpeer_dql::SelectPlan;
use bigpeer_protocol::pb;
use bigpeer_types::{CollectionName, Lsn};
use bytes::Bytes;

use super::{Batch, parse_id, plan_of};
use crate::local::{Evaluation, decode};
use crate::store::{StoredSubscription, Work};
use crate::{PeerError, PeerEvent, SubscriptionId};

/// A subscription as it is to be asked for.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) subscription: StoredSubscription,
    /// Where it is ahead of its cursor, or its page: keys, and what is here of the documents up to them.
    pub(crate) reached: Vec<(Bytes, Lsn)>,
}

/// Makes subscriptions ready to be asked for: those that have nothing to resume from begin a first sync.
pub(crate) fn prepare(
    work: &mut Work<'_>,
    ids: &[SubscriptionId],
    evaluation: &Evaluation,
) -> Result<Vec<Ready>, PeerError> {
    let mut ready = Vec::new();
    for id in ids {
        // One that was ended a moment ago is not there any more.
        let Some(subscription) = work.tables().subscription(*id)? else { continue };
        let (mut subscription, plan) = plan_of(subscription, evaluation)?;
        // A cursor from before everything has seen nothing: a first sync says as much in fewer words.
        subscription.cursor = subscription.cursor.filter(|cursor| *cursor > Lsn::ZERO);
        if subscription.cursor.is_none() && subscription.page.is_none() {
            begin(work, *id, &plan, false)?;
        }
        let reached = work.tables().reached(*id)?;
        ready.push(Ready { subscription, reached });
    }
    Ok(ready)
}

/// Notes what is here. What was noted by a first sync that came to nothing stays noted.
fn begin(work: &mut Work<'_>, id: SubscriptionId, plan: &SelectPlan, stale: bool) -> Result<(), PeerError> {
    work.begin_first_sync(id)?;
    let Some(number) = work.tables().collection_number(plan.collection())? else { return Ok(()) };
    let mut here = Vec::new();
    work.tables().scan_documents(number, |key, state| {
        let (document_id, document) = (parse_id(key)?, decode(state)?);
        // A tombstone that the server has forgotten is of no use here either.
        if plan.matches(&document_id, &document) || stale && !document.is_visible() {
            here.push(key.to_vec());
        }
        Ok(ControlFlow::Continue(()))
    })?;
    here.iter().try_for_each(|key| work.add_unnamed(id, number, key, stale))
}

impl Batch<'_, '_> {
    /// The server cannot resume the subscription: it starts over.
    pub(super) fn resync(&mut self, subscription: SubscriptionId) -> Result<(), PeerError> {
        self.advance()?;
        let Some(stored) = self.work.tables().subscription(subscription)? else { return Ok(()) };
        let (_, plan) = plan_of(stored, self.evaluation)?;
        begin(self.work, subscription, &plan, true)?;
        self.work.event(PeerEvent::Resync { subscription });
        self.first_syncs.insert(subscription);
        self.plans = None;
        Ok(())
    }

    /// The first state of a stale document replaces it, unless a subscription that is complete vouches for what is here.
    pub(super) fn replace_stale(
        &mut self,
        collection: &CollectionName,
        number: i64,
        state: &pb::State,
    ) -> Result<(), PeerError> {
        let (id, document) = (parse_id(&state.id)?, decode(&state.state)?);
        if self.is_matched(collection, &id, &document, |subscription| !subscription.first_sync)? {
            self.join_known(number, &state.id, &state.state)?;
        } else {
            self.reset(Lsn::ZERO, collection, number, &id, Some(document))?;
        }
        self.work.refresh(number, &state.id)
    }

    /// Everything up to `lsn` that matches has been named: what has not been goes. Answers the collection if it has to be
    /// asked for again, because something was dropped that may be what another subscription brought.
    pub(super) fn end_first_sync(
        &mut self,
        subscription: SubscriptionId,
        lsn: Lsn,
    ) -> Result<Option<CollectionName>, PeerError> {
        let mut in_doubt = false;
        let Some(stored) = self.work.tables().subscription(subscription)? else { return Ok(None) };
        let (_, plan) = plan_of(stored, self.evaluation)?;
        for (number, key, stale) in self.work.tables().unnamed(subscription)? {
            let Some(state) = self.work.tables().document(number, &key)? else { continue };
            let (id, document) = (parse_id(&key)?, decode(&state)?);
            let collection = plan.collection();
            // It may have moved on since it was noted, by a local change or another subscription's news.
            let of_here = plan.matches(&id, &document) || stale && !document.is_visible();
            if !of_here {
                continue;
            }
            // With a local change it does not show what the server sees, and so not whether another one vouches for it.
            let is_changed = stale && self.work.tables().has_changes_after(lsn, number, &key)?;
            if !is_changed && self.is_matched(collection, &id, &document, |other| !other.first_sync)? {
                continue;
            }
            if stale {
                // Only the local changes are left of it.
                self.reset(lsn, collection, number, &id, None)?;
                in_doubt |= is_changed && self.work.tables().document(number, &key)? != Some(state);
            }
            self.goes(lsn, collection, number, &key)?;
        }
        self.work.end_first_sync(subscription)?;
        self.plans = None;
        // The server takes for known what it has sent for any of them, and will send no more of it.
        let of_collection = |(other, with): &(StoredSubscription, SelectPlan)| {
            other.id != subscription && with.collection() == plan.collection()
        };
        let in_doubt = in_doubt && self.plans()?.iter().any(of_collection);
        Ok(in_doubt.then(|| plan.collection().clone()))
    }
}
