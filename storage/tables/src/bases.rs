//! `Bases`: what lookups by id found in segments lately, that there is nothing included. A lookup costs two pages of a file;
//! this costs a hash.
//!
//! **Consistency**: what a version's segments hold never changes, so what was found in them is true for every snapshot of
//! that version, whatever was written since. It is kept for one version, the newest that was asked about; lookups in
//! another neither see it nor add to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bigpeer_crdt::{DocId, Document};
use bigpeer_types::{CollectionName, Lsn};

use crate::version::Version;

/// Bytes that an entry takes apart from its key and document, estimated.
const ENTRY_BYTES: usize = 160;

/// A document as segments have it.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    pub(crate) lsn: Lsn,
    pub(crate) document: Arc<Document>,
}

/// The bases of one version.
#[derive(Debug)]
pub(crate) struct Bases {
    max_bytes: usize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Weak: what is cached must not keep files from being deleted. As long as it is here nothing else has its address.
    version: Weak<Version>,
    number: u64,
    /// What was asked for since the last turn, and before it. What is found in the second moves to the first.
    new: Generation,
    old: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    found: HashMap<CollectionName, HashMap<DocId, Option<Base>>>,
    bytes: usize,
}

impl Bases {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, known: Mutex::default() }
    }

    /// For each id what is known; nothing for one about which nothing is.
    pub(crate) fn get(
        &self,
        version: &Arc<Version>,
        collection: &CollectionName,
        ids: &[DocId],
    ) -> Vec<Option<Option<Base>>> {
        let mut known = self.lock();
        if !known.is_of(version) {
            return vec![None; ids.len()];
        }
        ids.iter().map(|id| known.get(collection, id, self.max_bytes)).collect()
    }

    /// Keeps what was found in `version`.
    pub(crate) fn add(
        &self,
        version: &Arc<Version>,
        collection: &CollectionName,
        found: impl Iterator<Item = (DocId, Option<Base>)>,
    ) {
        let mut known = self.lock();
        if !known.is_of(version) {
            let gone = known.version.strong_count() == 0;
            if !gone && version.manifest.number <= known.number {
                return;
            }
            let number = version.manifest.number;
            *known = Known { version: Arc::downgrade(version), number, ..Known::default() };
        }
        for (id, base) in found {
            known.add(collection, id, base, self.max_bytes);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn is_of(&self, version: &Arc<Version>) -> bool {
        std::ptr::eq(self.version.as_ptr(), Arc::as_ptr(version))
    }

    fn get(&mut self, collection: &CollectionName, id: &DocId, max_bytes: usize) -> Option<Option<Base>> {
        if let Some(base) = self.new.found.get(collection).and_then(|found| found.get(id)) {
            return Some(base.clone());
        }
        let (id, base) = self.old.found.get_mut(collection)?.remove_entry(id)?;
        self.add(collection, id, base.clone(), max_bytes);
        Some(base)
    }

    fn add(&mut self, collection: &CollectionName, id: DocId, base: Option<Base>, max_bytes: usize) {
        let bytes = ENTRY_BYTES + id.as_key().len() + base.as_ref().map_or(0, |base| base.document.heap_bytes());
        if bytes > max_bytes / 16 {
            return;
        }
        if self.new.bytes + bytes > max_bytes / 2 {
            self.old = std::mem::take(&mut self.new);
        }
        let found = match self.new.found.get_mut(collection) {
            Some(found) => found,
            None => self.new.found.entry(collection.clone()).or_default(),
        };
        if found.insert(id, base).is_none() {
            self.new.bytes += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;
    use bigpeer_crdt::Value;
    use bigpeer_types::AppId;

    fn version(number: u64) -> Arc<Version> {
        let app = AppId::new("a").unwrap();
        Arc::new(Version::new(&app, Manifest { number, ..Manifest::empty() }, None))
    }

    fn id(n: i64) -> DocId {
        DocId::from_value(&Value::Int(n)).unwrap()
    }

    fn known(bases: &Bases, version: &Arc<Version>, n: i64) -> Option<Option<u64>> {
        let collection = CollectionName::new("c").unwrap();
        let found = bases.get(version, &collection, &[id(n)]).pop().unwrap();
        found.map(|base| base.map(|base| base.lsn.version))
    }

    fn add(bases: &Bases, version: &Arc<Version>, n: i64, lsn: Option<u64>) {
        let base = lsn.map(|lsn| Base { lsn: Lsn::new(lsn, 0), document: Arc::default() });
        bases.add(version, &CollectionName::new("c").unwrap(), std::iter::once((id(n), base)));
    }

    #[test]
    fn what_was_found_in_one_version_is_not_known_of_another() {
        let (bases, old, new) = (Bases::new(1 << 20), version(1), version(2));
        add(&bases, &old, 1, Some(10));
        add(&bases, &old, 2, None);
        assert_eq!((known(&bases, &old, 1), known(&bases, &old, 2)), (Some(Some(10)), Some(None)));
        assert_eq!((known(&bases, &old, 3), known(&bases, &new, 1)), (None, None));
        add(&bases, &new, 1, Some(20));
        assert_eq!(
            (known(&bases, &new, 1), known(&bases, &new, 2), known(&bases, &old, 1)),
            (Some(Some(20)), None, None)
        );
        // A reader of the past neither sees what is newer nor takes its place.
        add(&bases, &old, 1, Some(10));
        assert_eq!((known(&bases, &new, 1), known(&bases, &old, 1)), (Some(Some(20)), None));
        // Another version of the same number: of a store that was opened anew, say.
        assert_eq!(known(&bases, &version(2), 1), None);
    }

    #[test]
    fn memory_is_bounded_and_what_is_asked_for_stays() {
        let (bases, version) = (Bases::new(64 * ENTRY_BYTES), version(1));
        add(&bases, &version, -1, Some(1));
        for n in 0..10_000 {
            add(&bases, &version, n, Some(1));
            assert_eq!(known(&bases, &version, -1), Some(Some(1)), "{n}");
        }
        let known = bases.lock();
        let entries = |generation: &Generation| generation.found.values().map(HashMap::len).sum::<usize>();
        assert!(entries(&known.new) + entries(&known.old) <= 64);
    }
}
