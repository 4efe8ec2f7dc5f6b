//! Documents that leave: at once, or when the local changes to them have come through.

use std::collections::BTreeSet;

use bigpeer_crdt::{DocId, Document};
use bigpeer_protocol::pb;
use bigpeer_types::{CollectionName, Lsn};

use super::{Batch, parse_id};
use crate::local::decode;
use crate::{PeerError, SubscriptionId};

impl Batch<'_, '_> {
    pub(super) fn left_document(&mut self, lsn: Lsn, left: &pb::LeftDocument) -> Result<(), PeerError> {
        let (collection, number) = self.collection(&left.collection)?;
        let subscriptions = self.session_ids(&left.subscriptions);
        self.left(lsn, &collection, number, &left.id, &subscriptions)
    }

    /// As of `lsn` the document does not match `subscriptions` any more: it goes, unless another one matches it. With local
    /// changes that come later it goes when those have come through.
    pub(super) fn left(
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
    pub(super) fn goes(
        &mut self,
        lsn: Lsn,
        collection: &CollectionName,
        number: i64,
        key: &[u8],
    ) -> Result<(), PeerError> {
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
    pub(super) fn stays(&mut self, number: i64, key: &[u8], subscriptions: &[SubscriptionId]) -> Result<(), PeerError> {
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

    /// Documents that left and had later local changes go when those have come through without bringing them back.
    pub(super) fn let_go(&mut self, through: Lsn) -> Result<(), PeerError> {
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
}
