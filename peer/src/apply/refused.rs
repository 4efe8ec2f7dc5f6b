//! What the server does not allow: subscriptions that it refuses, and writes that it rejects.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bigpeer_crdt::Document;
use bigpeer_protocol::pb;
use bigpeer_types::{CollectionName, Lsn};

use super::{Batch, parse_id, plan_of};
use crate::local::decode;
use crate::{PeerError, PeerEvent, SubscriptionId};

impl Batch<'_, '_> {
    pub(super) fn refused(&mut self, refused: pb::Refused) -> Result<(), PeerError> {
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

    pub(super) fn rejected(&mut self, rejected: pb::Rejected) -> Result<(), PeerError> {
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
    pub(super) fn distrust<'c>(
        &mut self,
        collections: impl Iterator<Item = &'c CollectionName>,
    ) -> Result<(), PeerError> {
        let collections: BTreeSet<&CollectionName> = collections.collect();
        let of_collection = self.plans()?.iter().filter(|(_, plan)| collections.contains(plan.collection()));
        let subscriptions: Vec<SubscriptionId> = of_collection.map(|(subscription, _)| subscription.id).collect();
        for subscription in subscriptions {
            self.resync(subscription)?;
            self.applied.start_over.insert(subscription);
        }
        Ok(())
    }
}
