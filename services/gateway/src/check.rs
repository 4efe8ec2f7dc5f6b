//! What a pushed transaction must pass before it is appended: shape, writers, clock, permissions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bigpeer_chassis::{collection_key, conflict_key};
use bigpeer_crdt::{DocId, Document, Transaction, Writers};
use bigpeer_log::ConflictKey;
use bigpeer_protocol::pb::{self, CloseCode, RejectCode};
use bigpeer_tables::{DocumentStore, TablesError};
use bigpeer_types::{Clock, CollectionName, HlcClock, SiteId};

use crate::rules::Rules;

/// Which document.
pub(crate) type Place = (CollectionName, DocId);

/// Why a transaction cannot be taken, told to the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: RejectCode,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(code: RejectCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Reads a transaction of `site`.
///
/// # Errors
/// The Close that a peer deserves that sends this: it cannot come from a correct one.
pub(crate) fn decode(pushed: &pb::PushedTransaction, site: SiteId) -> Result<Transaction, pb::Close> {
    let bad =
        |reason: String| pb::Close::new(CloseCode::CloseProtocolError, format!("transaction {}: {reason}", pushed.seq));
    let transaction = Transaction::decode(pushed.transaction.clone()).map_err(|error| bad(error.to_string()))?;
    match transaction.writers() {
        Writers::Nobody => Ok(transaction),
        Writers::One(writer) if writer == site => Ok(transaction),
        Writers::One(_) | Writers::Several => {
            let message = format!("transaction {} bears stamps of another site", pushed.seq);
            Err(pb::Close::new(CloseCode::CloseForeignSite, message))
        }
    }
}

/// What can be said without looking at documents.
pub(crate) fn refusal(
    transaction: &Transaction,
    clock: &dyn Clock,
    max_ahead_ms: u64,
    rules: &Rules,
) -> Option<Refusal> {
    if let Err(error) = HlcClock::check(clock, transaction.max_hlc(), max_ahead_ms) {
        return Some(Refusal::new(RejectCode::RejectClockAhead, error.to_string()));
    }
    let mut last: Option<&CollectionName> = None;
    for change in transaction.changes() {
        if last == Some(&change.collection) {
            continue;
        }
        last = Some(&change.collection);
        if change.collection.is_system() {
            let message = format!("only bigpeer writes '{}'", change.collection);
            return Some(Refusal::new(RejectCode::RejectSystemCollection, message));
        }
        if matches!(rules.write(&change.collection), crate::rules::Allowed::Nothing) {
            return Some(forbidden(&change.collection));
        }
    }
    None
}

/// Whether there is nothing in the transaction but deletions.
pub(crate) fn only_deletes(transaction: &Transaction) -> bool {
    transaction.changes().iter().all(|change| {
        Document::decode(&change.delta).is_ok_and(|delta| delta.deleted().is_some() && delta.newest().is_none())
    })
}

/// Whether it takes documents to decide on the transaction.
pub(crate) fn is_conditional(transaction: &Transaction, rules: &Rules) -> bool {
    transaction.changes().iter().any(|change| rules.write(&change.collection).is_conditional())
}

/// Checks conditions on documents, before and after. `in_flight` are transactions of the session that the store may not
/// show yet, in order.
///
/// # Errors
/// When documents cannot be read.
pub(crate) async fn refusal_on_documents(
    transaction: &Transaction,
    in_flight: &[Transaction],
    store: &DocumentStore,
    rules: &Rules,
) -> Result<Option<Refusal>, TablesError> {
    let mut by_collection: BTreeMap<&CollectionName, Vec<(&DocId, &[u8])>> = BTreeMap::new();
    for change in transaction.changes() {
        by_collection.entry(&change.collection).or_default().push((&change.id, &change.delta));
    }
    let snapshot = store.snapshot();
    for (collection, changes) in by_collection {
        let rule = rules.write(collection);
        if !rule.is_conditional() {
            continue;
        }
        let ids: Vec<DocId> = changes.iter().map(|(id, _)| (*id).clone()).collect();
        let stored = snapshot.get_many(collection, &ids).await?;
        for ((id, delta), stored) in changes.into_iter().zip(stored) {
            let mut document = stored.map_or_else(Document::new, |stored| Arc::unwrap_or_clone(stored.document));
            let earlier = in_flight.iter().flat_map(Transaction::changes);
            for change in earlier.filter(|change| change.collection == *collection && change.id == *id) {
                // It was validated when it was decoded.
                let _ = document.join_encoded(&change.delta);
            }
            let before = !document.is_visible() || rule.holds(id, &document);
            let joined = document.join_encoded(delta).is_ok();
            let after = !document.is_visible() || rule.holds(id, &document);
            if !(before && joined && after) {
                return Ok(Some(forbidden(collection)));
            }
        }
    }
    Ok(None)
}

fn forbidden(collection: &CollectionName) -> Refusal {
    let message = format!("the permissions do not allow this write to '{collection}'");
    Refusal::new(RejectCode::RejectForbidden, message)
}

/// The documents that the transaction touches.
pub(crate) fn places(transaction: &Transaction) -> BTreeSet<Place> {
    transaction.changes().iter().map(|change| (change.collection.clone(), change.id.clone())).collect()
}

/// The documents and their collections as the log names them.
pub(crate) fn conflict_keys(transaction: &Transaction) -> Vec<ConflictKey> {
    let collections: BTreeSet<&CollectionName> =
        transaction.changes().iter().map(|change| &change.collection).collect();
    let documents = transaction.changes().iter().map(|change| conflict_key(&change.collection, change.id.as_key()));
    documents.chain(collections.into_iter().map(collection_key)).collect()
}
