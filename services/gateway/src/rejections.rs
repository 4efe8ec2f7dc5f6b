//! Rejected transactions, as documents of the system collection `__rejections`. A rejection is appended under the `seq` of
//! the transaction that it refuses, in its place: so the number is used up in the same step, a push that is repeated is
//! recognized, and the outcome can be told after any crash. Which of two sessions of one site decides first is decided
//! by the log.
//!
//! A document's `_id` is `[site, seq]`; its fields are `code`, `message`, `at_ms` and `documents`, an array of
//! `[collection, key]`; `incomplete` when that would be too long.

use std::collections::BTreeSet;
use std::sync::Arc;

use bigpeer_crdt::{DocId, Document, Editor, Object, ObjectMode, TransactionBuilder, Value, Visible};
use bigpeer_protocol::pb::{self, RejectCode};
use bigpeer_tables::{Scan, Snapshot, TablesError};
use bigpeer_types::{Clock, CollectionName, Hlc, HlcClock, SiteId};
use bytes::Bytes;
use futures::StreamExt;

use crate::check::{Place, Refusal};
use crate::rules::Rules;

/// Most documents named in a rejection, and restored with it.
const MAX_DOCUMENTS: usize = 1000;

/// A rejected transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) seq: u64,
    pub(crate) refusal: Refusal,
    /// What it touched.
    pub(crate) places: BTreeSet<Place>,
    /// There were more.
    pub(crate) incomplete: bool,
}

/// The collection, if its name is good, which it is.
fn collection() -> Option<CollectionName> {
    CollectionName::new("__rejections").ok()
}

fn id_of(site: SiteId, seq: u64) -> Option<DocId> {
    let seq = i64::try_from(seq).ok()?;
    DocId::from_value(&Value::Array(vec![Value::String(site.to_string().into()), Value::Int(seq)])).ok()
}

impl Rejection {
    pub(crate) fn new(seq: u64, refusal: Refusal, mut places: BTreeSet<Place>) -> Self {
        let mut incomplete = false;
        while places.len() > MAX_DOCUMENTS {
            places.pop_last();
            incomplete = true;
        }
        Self { seq, refusal, places, incomplete }
    }

    /// The transaction that stands in the log in place of the refused one.
    pub(crate) fn payload(&self, site: SiteId, clock: &Arc<dyn Clock>) -> Option<Bytes> {
        let documents = self.places.iter().map(|(collection, id)| {
            Value::Array(vec![Value::String(collection.as_str().into()), Value::Bytes(id.as_key().into())])
        });
        let fields: Object = [
            ("code", Value::Int(i32::from(self.refusal.code).into())),
            ("message", Value::String(self.refusal.message.as_str().into())),
            ("at_ms", Value::Int(i64::try_from(clock.now_ms()).unwrap_or(i64::MAX))),
            ("documents", Value::Array(documents.collect())),
            ("incomplete", Value::Bool(self.incomplete)),
        ]
        .into_iter()
        .collect();
        let mut hlc = HlcClock::new(site, Hlc::ZERO, Arc::clone(clock));
        let nothing = Document::new();
        let mut editor = Editor::new(&nothing, &mut hlc);
        editor.insert(&fields, ObjectMode::Register).ok()?;
        let mut transaction = TransactionBuilder::new();
        transaction.change(&collection()?, &id_of(site, self.seq)?, &editor.finish()?);
        transaction.finish().ok()
    }

    fn read(seq: u64, document: &Document) -> Option<Self> {
        let field = |name: &str| match document.get(&[name]) {
            Some(Visible::Value(value)) => Some(value),
            Some(Visible::Map(_) | Visible::Counter(_) | Visible::Attachment(_)) | None => None,
        };
        let Some(Value::Int(code)) = field("code") else { return None };
        let code = i32::try_from(*code).ok().and_then(|code| RejectCode::try_from(code).ok())?;
        let Some(Value::String(message)) = field("message") else { return None };
        let places = match field("documents") {
            Some(Value::Array(documents)) => documents.iter().filter_map(read_place).collect(),
            Some(_) | None => BTreeSet::new(),
        };
        let incomplete = matches!(field("incomplete"), Some(Value::Bool(true)));
        Some(Self { seq, refusal: Refusal::new(code, &**message), places, incomplete })
    }

    /// The message to the peer, with the states that are to stand where it wrote.
    ///
    /// # Errors
    /// When documents cannot be read.
    pub(crate) async fn message(
        &self,
        snapshot: &Snapshot,
        rules: &Rules,
        now_ms: u64,
    ) -> Result<pb::Rejected, TablesError> {
        let mut restore = Vec::with_capacity(self.places.len());
        for (collection, id) in &self.places {
            let stored = snapshot.get(collection, id).await?;
            let readable = stored
                .filter(|stored| stored.document.is_visible() && rules.read(collection).holds(id, &stored.document));
            restore.push(pb::Restore {
                collection: collection.as_str().to_owned(),
                id: Bytes::copy_from_slice(id.as_key()),
                state: readable.map(|stored| stored.document.encode().into()),
            });
        }
        Ok(pb::Rejected {
            seq: self.seq,
            code: self.refusal.code.into(),
            message: self.refusal.message.clone(),
            restore,
            server_time_ms: now_ms,
            incomplete: self.incomplete,
        })
    }
}

fn read_place(value: &Value) -> Option<Place> {
    let Value::Array(parts) = value else { return None };
    let [Value::String(collection), Value::Bytes(key)] = parts.as_slice() else { return None };
    Some((CollectionName::new(collection).ok()?, DocId::from_key(key).ok()?))
}

/// The rejection of the site's transaction `seq`, if it was rejected.
///
/// # Errors
/// When it cannot be read.
pub(crate) async fn find(snapshot: &Snapshot, site: SiteId, seq: u64) -> Result<Option<Rejection>, TablesError> {
    let (Some(collection), Some(id)) = (collection(), id_of(site, seq)) else { return Ok(None) };
    let stored = snapshot.get(&collection, &id).await?;
    Ok(stored.and_then(|stored| Rejection::read(seq, &stored.document)))
}

/// The site's rejections with a seq greater than `after`, in order.
///
/// # Errors
/// When they cannot be read.
pub(crate) async fn after(snapshot: &Snapshot, site: SiteId, after: u64) -> Result<Vec<Rejection>, TablesError> {
    let mut found = Vec::new();
    let Some(collection) = collection() else { return Ok(found) };
    let mut batches = snapshot.scan(&collection, Scan { after: id_of(site, after), ..Scan::default() });
    while let Some(batch) = batches.next().await {
        for scanned in batch? {
            let Some(seq) = seq_of(site, &scanned.id) else { return Ok(found) };
            let rejection = Document::decode(&scanned.state).ok().and_then(|document| Rejection::read(seq, &document));
            found.extend(rejection);
        }
    }
    Ok(found)
}

/// The seq in an id, if it is one of the site's.
fn seq_of(site: SiteId, id: &DocId) -> Option<u64> {
    let Value::Array(parts) = id.to_value() else { return None };
    match parts.as_slice() {
        [Value::String(name), Value::Int(seq)] if **name == *site.to_string() => u64::try_from(*seq).ok(),
        _ => None,
    }
}
