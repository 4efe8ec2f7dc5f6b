//! Tables for SQL: a collection at a snapshot, as typed columns.

mod overlaid;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use bigpeer_crdt::{DocId, Document, Object, Value};
use bigpeer_types::{CollectionName, Lsn};
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::file::metadata::ParquetMetaData;
use roaring::RoaringBitmap;

use crate::columns::{Columns, Facts, TypedBatch};
use crate::error::TablesError;
use crate::segment::lookup;
use crate::snapshot::Snapshot;
use crate::version::LiveSegment;
use overlaid::Overlaid;

/// A collection as a table, at one LSN: the rows of [`Self::segments`] that are not excluded, and the rows of
/// [`Self::overlay_batches`]. Every visible document is exactly one of these rows.
#[derive(Clone, Debug)]
pub struct TableSnapshot {
    /// `_id`, the fields, `_rest` if there is one, and `_transaction` (the transaction id of the last change). Columns of
    /// JSON text are marked by [`crate::columns::JSON_MARK`] in their metadata.
    pub schema: SchemaRef,
    /// The types behind the schema: what to [`crate::columns::widen`] the segments' columns to.
    pub columns: Arc<Columns>,
    /// The files to read.
    pub segments: Vec<SegmentPart>,
    /// What columns do not say of the documents of [`Self::overlay_batches`]; that of segments is in their footers.
    pub overlay_facts: Arc<Facts>,
    overlay: Arc<Vec<RecordBatch>>,
    snapshot: Snapshot,
}

/// One Parquet file of a table.
#[derive(Clone, Debug)]
pub struct SegmentPart {
    /// Where it is in [`Snapshot::objects`].
    pub path: Path,
    /// Its length in bytes.
    pub size: u64,
    /// Its rows.
    pub rows: u64,
    /// Rows that are not to be read: superseded by another segment or by the overlay, or deleted.
    pub excluded: Arc<RoaringBitmap>,
    /// How its columns are stored; `_transaction` is stored as `_version`. A column of the table that is not among them is
    /// null.
    pub columns: Arc<Columns>,
    segment: Arc<LiveSegment>,
    objects: Arc<dyn ObjectStore>,
}

impl TableSnapshot {
    /// The documents that are not in segments, or not as they are there, in batches of [`Self::schema`].
    ///
    /// # Errors
    /// None for now; kept for stores that spill.
    #[allow(clippy::unused_async, reason = "callers are async, and a later overlay may not be in memory")]
    pub async fn overlay_batches(&self) -> Result<Vec<RecordBatch>, TablesError> {
        Ok(self.overlay.to_vec())
    }

    /// Rows of the table, without reading anything.
    #[must_use]
    pub fn rows(&self) -> u64 {
        let segments: u64 = self.segments.iter().map(|part| part.rows.saturating_sub(part.excluded.len())).sum();
        segments + self.overlay.iter().map(|batch| batch.num_rows() as u64).sum::<u64>()
    }

    /// Documents of this collection at this snapshot as a batch of [`Self::schema`]: for readers that look at documents one
    /// by one.
    ///
    /// # Errors
    /// When a document does not fit the columns; those of the snapshot do.
    pub fn batch(&self, documents: &[(DocId, Lsn, Document)]) -> Result<RecordBatch, TablesError> {
        let ids: Vec<Value> = documents.iter().map(|(id, ..)| id.to_value()).collect();
        let objects: Vec<Object> = documents.iter().map(|(.., document)| document.to_object()).collect();
        let typed = TypedBatch::infer(&self.columns, &ids, &objects)?;
        let mut arrays = typed.widened(&self.columns)?;
        let transactions = documents.iter().map(|(_, lsn, _)| i64::try_from(lsn.version).unwrap_or(i64::MAX));
        arrays.push(Arc::new(Int64Array::from_iter_values(transactions)));
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), arrays)?)
    }

    /// The snapshot that the table is part of; it keeps the files from being deleted.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }
}

impl SegmentPart {
    /// Rows that may be those of one of `ids`, by bloom filters and the bounds of pages: all that are, and few others.
    /// `ids` in ascending order.
    ///
    /// # Errors
    /// When the file's footer cannot be read.
    pub async fn candidates(&self, ids: &[DocId]) -> Result<RoaringBitmap, TablesError> {
        let meta = &self.segment.meta;
        let (first, last) = (meta.min_key.as_slice(), meta.max_key.as_slice());
        let keys: Vec<&[u8]> = ids.iter().map(DocId::as_key).filter(|key| (first..=last).contains(key)).collect();
        if keys.is_empty() {
            return Ok(RoaringBitmap::new());
        }
        let footer = self.segment.file.footer(&self.objects).await?;
        Ok(lookup::candidate_rows(&footer, keys.into_iter()))
    }

    /// The file's Parquet metadata with its page indexes, from the cache if it is there.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn metadata(&self) -> Result<Arc<ParquetMetaData>, TablesError> {
        Ok(Arc::clone(self.segment.file.footer(&self.objects).await?.reader.metadata()))
    }
}

/// What the overlay of each collection adds to its segments. As long as nothing changes it is made once; when something
/// does, only that is added.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<HashMap<CollectionName, Arc<tokio::sync::Mutex<Overlaid>>>>);

impl Cache {
    /// The cached state of a collection; whoever holds its lock works on it.
    fn of(&self, collection: &CollectionName) -> Arc<tokio::sync::Mutex<Overlaid>> {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(cache.entry(collection.clone()).or_default())
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

pub(crate) async fn table(snapshot: &Snapshot, collection: &CollectionName) -> Result<TableSnapshot, TablesError> {
    let cached = snapshot.context.tables.of(collection);
    let mut cached = cached.lock().await;
    let made = if cached.is_behind(snapshot) {
        cached.advance(snapshot, collection).await?
    } else {
        // An old snapshot must not take the place of what newer ones share.
        drop(cached);
        Overlaid::default().advance(snapshot, collection).await?
    };
    let parts = snapshot.view.version.segments(collection).iter().zip(&made.excluded);
    let segments = parts.map(|(segment, excluded)| SegmentPart {
        path: segment.file.path.clone(),
        size: segment.meta.size,
        rows: u64::from(segment.meta.rows),
        excluded: Arc::clone(excluded),
        columns: Arc::clone(&segment.meta.columns),
        segment: Arc::clone(segment),
        objects: Arc::clone(&snapshot.context.objects),
    });
    Ok(TableSnapshot {
        schema: Arc::clone(&made.schema),
        columns: Arc::clone(&made.columns),
        segments: segments.collect(),
        overlay_facts: Arc::clone(&made.facts),
        overlay: Arc::clone(&made.batches),
        snapshot: snapshot.clone(),
    })
}
