//! `Images`: the documents that a walker has touched, as they are where it stands.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bigpeer_crdt::{DecodeError, DocId, Document};
use bigpeer_types::CollectionName;
use bytes::Bytes;

/// What an entry takes apart from its document, estimated.
const ENTRY_BYTES: usize = 160;

/// Documents by collection and id. None: never written.
#[derive(Debug, Default)]
pub(crate) struct Images {
    documents: BTreeMap<CollectionName, HashMap<DocId, Option<Arc<Document>>>>,
    bytes: usize,
}

impl Images {
    pub(crate) fn has(&self, collection: &CollectionName, id: &DocId) -> bool {
        self.documents.get(collection).is_some_and(|documents| documents.contains_key(id))
    }

    /// A document was read.
    pub(crate) fn insert(&mut self, collection: &CollectionName, id: DocId, document: Option<Arc<Document>>) {
        self.bytes += ENTRY_BYTES + id.as_key().len() + document.as_deref().map_or(0, Document::heap_bytes);
        let documents = match self.documents.get_mut(collection) {
            Some(documents) => documents,
            None => self.documents.entry(collection.clone()).or_default(),
        };
        documents.insert(id, document);
    }

    /// Applies a delta to a document that is here: before and after.
    #[allow(clippy::type_complexity, reason = "before and after")]
    pub(crate) fn apply(
        &mut self,
        collection: &CollectionName,
        id: &DocId,
        delta: &Bytes,
    ) -> Result<Option<(Option<Arc<Document>>, Arc<Document>)>, DecodeError> {
        let Some(slot) = self.documents.get_mut(collection).and_then(|documents| documents.get_mut(id)) else {
            return Ok(None);
        };
        let before = slot.clone();
        let mut after = before.as_deref().cloned().unwrap_or_default();
        after.join_encoded(delta)?;
        let after = Arc::new(after);
        self.bytes += 2 * delta.len();
        *slot = Some(Arc::clone(&after));
        Ok(Some((before, after)))
    }

    /// Bytes in memory, estimated; rather more than less.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}
