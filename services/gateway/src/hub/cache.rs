//! `Cache`: documents as they are where the hub stands, so that a document that changes often is read from a segment once.
//! Bounded by bytes: two generations, of which the older one is dropped when the younger one is full.

use std::collections::HashMap;
use std::sync::Arc;

use bigpeer_crdt::{DocId, Document};
use bigpeer_types::CollectionName;

type Key = (CollectionName, DocId);

/// Bytes that an entry takes apart from its document, estimated.
const ENTRY_BYTES: usize = 256;

/// Recently changed documents. None: the document was never written.
#[derive(Debug)]
pub(super) struct Cache {
    young: HashMap<Key, Option<Arc<Document>>>,
    old: HashMap<Key, Option<Arc<Document>>>,
    /// Of the young ones.
    bytes: usize,
    max_bytes: usize,
}

impl Cache {
    /// Holds about so many bytes, estimated.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), bytes: 0, max_bytes }
    }

    /// The document, if it is known.
    #[allow(clippy::option_option, reason = "not known, or known not to exist")]
    pub(super) fn get(&self, collection: &CollectionName, id: &DocId) -> Option<Option<Arc<Document>>> {
        let key = (collection.clone(), id.clone());
        self.young.get(&key).or_else(|| self.old.get(&key)).cloned()
    }

    /// The document has changed, or was read.
    pub(super) fn put(&mut self, collection: &CollectionName, id: &DocId, document: Option<Arc<Document>>) {
        let key = (collection.clone(), id.clone());
        let bytes = ENTRY_BYTES + document.as_ref().map_or(0, |document| document.heap_bytes());
        // What replaces an entry is counted again: it makes generations shorter, and no bound wrong.
        self.bytes += bytes;
        self.old.remove(&key);
        self.young.insert(key, document);
        if self.bytes > self.max_bytes / 2 {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
    }

    /// What is known of the document is not true any more.
    pub(super) fn forget(&mut self, collection: &CollectionName, id: &DocId) {
        let key = (collection.clone(), id.clone());
        self.young.remove(&key);
        self.old.remove(&key);
    }

    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> DocId {
        DocId::from_value(&bigpeer_crdt::Value::Int(i64::try_from(number).unwrap())).unwrap()
    }

    #[test]
    fn what_is_used_stays_and_the_bound_holds() {
        let flights = CollectionName::new("flights").unwrap();
        let mut cache = Cache::new(100 * ENTRY_BYTES);
        for number in 0..10_000 {
            cache.put(&flights, &id(number), None);
            cache.put(&flights, &id(0), Some(Arc::new(Document::new())));
            assert!(cache.young.len() + cache.old.len() <= 102, "{number}");
            assert_eq!(cache.get(&flights, &id(0)), Some(Some(Arc::new(Document::new()))));
        }
        assert_eq!(cache.get(&flights, &id(1)), None);
        assert_eq!(cache.get(&flights, &id(9_999)), Some(None));
        cache.forget(&flights, &id(9_999));
        assert_eq!(cache.get(&flights, &id(9_999)), None);
        cache.clear();
        assert_eq!(cache.get(&flights, &id(0)), None);
    }
}
