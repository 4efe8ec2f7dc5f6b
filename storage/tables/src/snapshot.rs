//! `Snapshot`: an app at one LSN, for as long as somebody holds it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bigpeer_crdt::{DocId, Document, FieldCondition};
use bigpeer_types::{AppId, CollectionName, Lsn};
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::ObjectStore;

use crate::bases::{Base, Bases};
use crate::error::TablesError;
use crate::overlay::{Entry, Overlay, Overlays};
use crate::segment::lookup;
use crate::table::TableSnapshot;
use crate::version::Version;
use crate::written::Written;
use crate::{scan, table};

/// What all snapshots of a store share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) app: AppId,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) tables: table::Cache,
    pub(crate) bases: Bases,
}

/// The state of an app at one LSN.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) lsn: Lsn,
    pub(crate) version: Arc<Version>,
    pub(crate) overlays: Overlays,
    /// How much was written up to the LSN; kept in the store's own views only, not in those of the past.
    pub(crate) written: Written,
}

impl View {
    pub(crate) fn overlay(&self, collection: &CollectionName) -> Overlay {
        self.overlays.get(collection).cloned().unwrap_or_default()
    }
}

/// An app at one LSN. Cheap to take and to clone; it stays as it is whatever is written, flushed or compacted, and keeps
/// the files that it needs from being deleted in this process. Hold it for a request, not for ever.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(crate) context: Arc<Context>,
    pub(crate) view: Arc<View>,
}

/// A document as a snapshot has it, visible or not.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredDocument {
    /// Where its last change stands.
    pub lsn: Lsn,
    /// Its state.
    pub document: Arc<Document>,
}

/// What a scan returns. The default is every visible document.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// Leave out documents that break one of these, where that is cheap: a superset of the matches is returned, never
    /// less.
    pub conditions: Vec<FieldCondition>,
    /// Only ids after this.
    pub after: Option<DocId>,
    /// Only documents whose last change is after this. Complete if it is not before [`Snapshot::forgotten`].
    pub changed_since: Option<Lsn>,
    /// Only documents whose last change is at or before this.
    pub unchanged_since: Option<Lsn>,
    /// Also documents that are not visible: deleted ones.
    pub deleted: bool,
}

/// One document of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedDocument {
    /// Its id.
    pub id: DocId,
    /// Where its last change stands.
    pub lsn: Lsn,
    /// Its full state, encoded.
    pub state: Bytes,
}

impl Snapshot {
    /// Everything up to here is in the snapshot, nothing after it.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.view.lsn
    }

    /// The manifest whose segments the snapshot reads: flushes and compactions change them at the same LSN.
    #[must_use]
    pub fn manifest_number(&self) -> u64 {
        self.view.version.manifest.number
    }

    /// Rows that count in the segments of a collection, without reading anything: about as many documents as it has.
    #[must_use]
    pub fn segment_rows(&self, collection: &CollectionName) -> u64 {
        self.view.version.segments(collection).iter().map(|segment| segment.meta.live_rows()).sum()
    }

    /// Deletions of the collection up to here may be forgotten: what has changed since an earlier position cannot be told
    /// completely.
    #[must_use]
    pub fn forgotten(&self, collection: &CollectionName) -> Lsn {
        let known = self.view.version.manifest.collections.get(collection);
        known.map_or(Lsn::ZERO, |collection| collection.forgotten)
    }

    /// The app.
    #[must_use]
    pub fn app(&self) -> &AppId {
        &self.context.app
    }

    /// Where the segments of [`TableSnapshot`]s are.
    #[must_use]
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.context.objects
    }

    /// The collections that anything was ever written to, in order of their names.
    #[must_use]
    pub fn collections(&self) -> Vec<CollectionName> {
        let names: BTreeSet<&CollectionName> =
            self.view.version.collections().chain(self.view.overlays.keys()).collect();
        names.into_iter().cloned().collect()
    }

    /// One document, visible or not; none if nothing was ever written to it.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub async fn get(&self, collection: &CollectionName, id: &DocId) -> Result<Option<StoredDocument>, TablesError> {
        Ok(self.get_many(collection, std::slice::from_ref(id)).await?.pop().flatten())
    }

    /// Many documents, in the order asked for: one pass over the segments for all of them.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub async fn get_many(
        &self,
        collection: &CollectionName,
        ids: &[DocId],
    ) -> Result<Vec<Option<StoredDocument>>, TablesError> {
        let overlay = self.view.overlays.get(collection);
        let bases = self.bases(collection, ids).await?;
        let stored = bases.into_iter().zip(ids).map(|(base, id)| {
            let entry = overlay.and_then(|overlay| overlay.entries.get(id));
            stored(entry.map(Arc::as_ref), base)
        });
        stored.collect()
    }

    /// What segments have of many documents, in the order asked for.
    async fn bases(&self, collection: &CollectionName, ids: &[DocId]) -> Result<Vec<Option<Base>>, TablesError> {
        let version = &self.view.version;
        let segments = version.segments(collection);
        if segments.is_empty() {
            return Ok(vec![None; ids.len()]);
        }
        let mut known = self.context.bases.get(version, collection, ids);
        let mut unknown: Vec<usize> =
            known.iter().enumerate().filter(|(_, base)| base.is_none()).map(|(at, _)| at).collect();
        if !unknown.is_empty() {
            unknown.sort_by_key(|at| ids.get(*at));
            let keys: Vec<&[u8]> = unknown.iter().filter_map(|at| ids.get(*at)).map(DocId::as_key).collect();
            let found = lookup::find(&self.context.objects, segments, &keys).await?;
            for (at, found) in unknown.iter().zip(found) {
                if let Some(slot) = known.get_mut(*at) {
                    *slot = Some(found.map(decoded).transpose()?);
                }
            }
            let new = unknown.iter().filter_map(|at| Some((ids.get(*at)?.clone(), known.get(*at)?.clone()?)));
            self.context.bases.add(version, collection, new);
        }
        Ok(known.into_iter().map(Option::flatten).collect())
    }

    /// All documents of a collection in key order, in batches of about a megabyte. Memory is bounded by a few row groups;
    /// dropping the stream stops the work.
    ///
    /// A stream that ends with an error has returned only documents that are right, up to somewhere.
    #[must_use]
    pub fn scan(
        &self,
        collection: &CollectionName,
        scan: Scan,
    ) -> BoxStream<'static, Result<Vec<ScannedDocument>, TablesError>> {
        scan::run(self.clone(), collection, scan)
    }

    /// A collection as a table for SQL: typed columns, the segments to read and the rows of them to leave out, and what
    /// is in memory. A collection that does not exist is a table with no rows.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub async fn table(&self, collection: &CollectionName) -> Result<TableSnapshot, TablesError> {
        table::table(self, collection).await
    }
}

fn decoded(found: lookup::Found) -> Result<Base, TablesError> {
    let document = Document::decode(&found.state).map_err(|error| TablesError::corrupt(&"a document", error))?;
    Ok(Base { lsn: found.lsn, document: Arc::new(document) })
}

fn stored(entry: Option<&Entry>, base: Option<Base>) -> Result<Option<StoredDocument>, TablesError> {
    let Some(entry) = entry else {
        return Ok(base.map(|base| StoredDocument { lsn: base.lsn, document: base.document }));
    };
    let document = entry.over(base.map(|base| base.document));
    let document = document.map_err(|error| TablesError::corrupt(&"a document", error))?;
    Ok(Some(StoredDocument { lsn: entry.lsn, document: Arc::new(document) }))
}
