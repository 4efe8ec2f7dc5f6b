//! `Snapshot`: an app at one LSN, for as long as somebody holds it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bigpeer_crdt::{DocId, Document, FieldCondition};
use bigpeer_types::{AppId, CollectionName, Lsn};
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::ObjectStore;

use crate::error::TablesError;
use crate::overlay::{Entry, Overlay, Overlays};
use crate::segment::lookup;
use crate::table::TableSnapshot;
use crate::version::Version;
use crate::{scan, table};

/// What all snapshots of a store share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) app: AppId,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) tables: table::Cache,
}

/// The state of an app at one LSN.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) lsn: Lsn,
    pub(crate) version: Arc<Version>,
    pub(crate) overlays: Overlays,
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
    /// Only documents whose last change is after this.
    pub changed_since: Option<Lsn>,
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
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|at| ids.get(*at));
        let keys: Vec<&[u8]> = order.iter().filter_map(|at| ids.get(*at)).map(DocId::as_key).collect();
        let bases = lookup::find(&self.context.objects, self.view.version.segments(collection), &keys).await?;
        let overlay = self.view.overlays.get(collection);
        let mut out = vec![None; ids.len()];
        for (at, base) in order.into_iter().zip(bases) {
            let entry = overlay.zip(ids.get(at)).and_then(|(overlay, id)| overlay.entries.get(id));
            if let Some(slot) = out.get_mut(at) {
                *slot = stored(entry.map(Arc::as_ref), base)?;
            }
        }
        Ok(out)
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

fn stored(entry: Option<&Entry>, base: Option<lookup::Found>) -> Result<Option<StoredDocument>, TablesError> {
    let damaged = |error: bigpeer_crdt::DecodeError| TablesError::corrupt(&"a document", error);
    Ok(match (entry, base) {
        (None, None) => None,
        (None, Some(base)) => {
            let document = Document::decode(&base.state).map_err(damaged)?;
            Some(StoredDocument { lsn: base.lsn, document: Arc::new(document) })
        }
        (Some(entry), base) => {
            let document = entry.document(base.as_ref().map(|base| &*base.state)).map_err(damaged)?;
            Some(StoredDocument { lsn: entry.lsn, document: Arc::new(document) })
        }
    })
}
