//! A manifest that is in use: its segments, opened. Whoever holds a version keeps its files from being deleted.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bigpeer_types::{AppId, CollectionName};
use ulid::Ulid;

use crate::columns::Columns;
use crate::manifest::{Manifest, SegmentMeta};
use crate::segment::SegmentFile;

/// A manifest and handles on its segments.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) manifest: Manifest,
    /// Of its files.
    pub(crate) bytes: u64,
    collections: BTreeMap<CollectionName, Vec<Arc<LiveSegment>>>,
}

/// A segment as one manifest sees it.
#[derive(Clone, Debug)]
pub(crate) struct LiveSegment {
    pub(crate) meta: SegmentMeta,
    /// Shared between versions, with what is cached of the file.
    pub(crate) file: Arc<SegmentFile>,
}

impl Version {
    /// Opens a manifest, with the handles of `previous` where it has the same files. Reads nothing.
    pub(crate) fn new(app: &AppId, manifest: Manifest, previous: Option<&Self>) -> Self {
        let known: HashMap<Ulid, &Arc<SegmentFile>> = previous
            .into_iter()
            .flat_map(|version| version.collections.values().flatten())
            .map(|segment| (segment.meta.ulid, &segment.file))
            .collect();
        let mut collections: BTreeMap<CollectionName, Vec<Arc<LiveSegment>>> = BTreeMap::new();
        for (name, meta) in manifest.segments() {
            let file = match known.get(&meta.ulid) {
                Some(file) => Arc::clone(file),
                None => Arc::new(SegmentFile::new(app, name, meta)),
            };
            let segment = Arc::new(LiveSegment { meta: meta.clone(), file });
            collections.entry(name.clone()).or_default().push(segment);
        }
        let bytes = manifest.segments().map(|(_, segment)| segment.size).sum();
        Self { manifest, bytes, collections }
    }

    /// The segments of a collection.
    pub(crate) fn segments(&self, collection: &CollectionName) -> &[Arc<LiveSegment>] {
        self.collections.get(collection).map_or(&[], Vec::as_slice)
    }

    /// The columns of a collection, over all its segments.
    pub(crate) fn columns(&self, collection: &CollectionName) -> Columns {
        self.manifest.collections.get(collection).map(|collection| collection.columns.clone()).unwrap_or_default()
    }

    /// The collections that have segments.
    pub(crate) fn collections(&self) -> impl Iterator<Item = &CollectionName> {
        self.collections.keys()
    }
}
