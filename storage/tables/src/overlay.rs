//! The overlay: documents changed since the last manifest, in memory, derived from the log's tail.
//!
//! An entry is the join of the deltas since the manifest; the document's older state, if there is one, lies in a segment
//! and is joined when somebody reads. Joins are idempotent, so a delta that is in both does no harm. The maps are
//! persistent: a copy costs nothing, and shares what does not change.

use std::sync::Arc;

use bigpeer_crdt::{Change, DecodeError, DocId, Document, Transaction};
use bigpeer_types::{CollectionName, Lsn};
use bytes::Bytes;
use imbl::OrdMap;

use crate::error::TablesError;

/// Deltas that an entry collects before it joins them: joining costs as much as the state is large, so a large document
/// that is changed often must not be joined for each change.
const MAX_PENDING: usize = 16;

/// Bytes that an entry takes apart from its key and its deltas, estimated.
const ENTRY_BYTES: usize = 192;

/// Overlays of all collections.
pub(crate) type Overlays = OrdMap<CollectionName, Overlay>;

/// Changed documents of one collection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overlay {
    pub(crate) entries: OrdMap<DocId, Arc<Entry>>,
    /// Bytes in memory, estimated.
    pub(crate) bytes: usize,
}

/// What changed of one document since the last manifest.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The last change.
    pub(crate) lsn: Lsn,
    /// A join of deltas, encoded.
    state: Bytes,
    /// Further deltas, to be joined with it.
    pending: Vec<Bytes>,
}

impl Entry {
    fn new(lsn: Lsn, delta: &[u8]) -> Self {
        Self { lsn, state: Bytes::copy_from_slice(delta), pending: Vec::new() }
    }

    fn push(&mut self, lsn: Lsn, delta: &[u8]) -> Result<(), DecodeError> {
        self.lsn = lsn;
        self.pending.push(Bytes::copy_from_slice(delta));
        let pending: usize = self.pending.iter().map(Bytes::len).sum();
        if self.pending.len() >= MAX_PENDING || pending > self.state.len() + 1024 {
            self.state = Bytes::from(self.document(None)?.encode());
            self.pending = Vec::new();
        }
        Ok(())
    }

    fn bytes(&self, id: &DocId) -> usize {
        let pending: usize = self.pending.iter().map(|delta| delta.len() + 64).sum();
        ENTRY_BYTES + id.as_key().len() + self.state.len() + pending
    }

    /// The document: these changes over its state in a segment, if it has one.
    pub(crate) fn document(&self, base: Option<&[u8]>) -> Result<Document, DecodeError> {
        self.over(base.map(Document::decode).transpose()?.map(Arc::new))
    }

    /// As [`Self::document`], of a decoded state.
    pub(crate) fn over(&self, base: Option<Arc<Document>>) -> Result<Document, DecodeError> {
        let mut document = match base {
            Some(base) => {
                let mut document = Arc::unwrap_or_clone(base);
                document.join_encoded(&self.state)?;
                document
            }
            None => Document::decode(&self.state)?,
        };
        for delta in &self.pending {
            document.join_encoded(delta)?;
        }
        Ok(document)
    }

    /// The encoded document; without decoding where there is only one part.
    pub(crate) fn encoded(&self, base: Option<&[u8]>) -> Result<Bytes, DecodeError> {
        if base.is_none() && self.pending.is_empty() {
            return Ok(self.state.clone());
        }
        Ok(Bytes::from(self.document(base)?.encode()))
    }

    /// As [`Self::encoded`], where `document` is what [`Self::document`] returned.
    pub(crate) fn encoded_as(&self, has_base: bool, document: &Document) -> Bytes {
        if !has_base && self.pending.is_empty() { self.state.clone() } else { Bytes::from(document.encode()) }
    }
}

impl Overlay {
    fn apply(&mut self, lsn: Lsn, change: &Change) -> Result<(), DecodeError> {
        if let Some(entry) = self.entries.get_mut(&change.id) {
            let before = entry.bytes(&change.id);
            let entry = Arc::make_mut(entry);
            entry.push(lsn, &change.delta)?;
            self.bytes = (self.bytes + entry.bytes(&change.id)).saturating_sub(before);
        } else {
            let entry = Entry::new(lsn, &change.delta);
            self.bytes += entry.bytes(&change.id);
            self.entries.insert(change.id.clone(), Arc::new(entry));
        }
        Ok(())
    }
}

/// Applies one change of the transaction at `lsn`.
fn apply(overlays: &mut Overlays, lsn: Lsn, change: &Change) -> Result<(), DecodeError> {
    if let Some(overlay) = overlays.get_mut(&change.collection) {
        return overlay.apply(lsn, change);
    }
    let mut overlay = Overlay::default();
    overlay.apply(lsn, change)?;
    overlays.insert(change.collection.clone(), overlay);
    Ok(())
}

/// Decodes and applies the transaction at `lsn`.
pub(crate) fn apply_entry(overlays: &mut Overlays, lsn: Lsn, payload: Bytes) -> Result<Transaction, TablesError> {
    let bad = |error: DecodeError| TablesError::BadTransaction { lsn, reason: error.to_string() };
    let transaction = Transaction::decode(payload).map_err(bad)?;
    for change in transaction.changes() {
        apply(overlays, lsn, change).map_err(bad)?;
    }
    Ok(transaction)
}

/// What remains when everything up to `through` is in segments.
pub(crate) fn after(overlays: &Overlays, through: Lsn) -> Overlays {
    let remaining = overlays.iter().filter_map(|(name, overlay)| {
        let mut bytes = 0;
        let entries: OrdMap<DocId, Arc<Entry>> = (overlay.entries.iter())
            .filter(|(_, entry)| entry.lsn > through)
            .inspect(|(id, entry)| bytes += entry.bytes(id))
            .map(|(id, entry)| (id.clone(), Arc::clone(entry)))
            .collect();
        (!entries.is_empty()).then(|| (name.clone(), Overlay { entries, bytes }))
    });
    remaining.collect()
}

/// Bytes in memory, estimated.
pub(crate) fn bytes(overlays: &Overlays) -> usize {
    overlays.values().map(|overlay| overlay.bytes).sum()
}
