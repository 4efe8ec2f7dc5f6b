//! Tables for SQL: a collection at a snapshot, as typed columns.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bigpeer_crdt::{DocId, Document, Object, Value};
use bigpeer_types::{CollectionName, Lsn};
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::file::metadata::ParquetMetaData;
use roaring::RoaringBitmap;

use crate::columns::{Columns, Inference, TRANSACTION};
use crate::error::TablesError;
use crate::overlay::Overlay;
use crate::segment::lookup;
use crate::segment::write::typed_arrays;
use crate::snapshot::Snapshot;
use crate::version::{LiveSegment, Version};

/// Rows of one batch of the overlay.
const BATCH_ROWS: usize = 8192;

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

    /// The snapshot that the table is part of; it keeps the files from being deleted.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }
}

impl SegmentPart {
    /// The file's Parquet metadata with its page indexes, from the cache if it is there.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn metadata(&self) -> Result<Arc<ParquetMetaData>, TablesError> {
        Ok(Arc::clone(self.segment.file.footer(&self.objects).await?.reader.metadata()))
    }
}

/// The last table that was made of each collection: as long as nothing changes, it is made once.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<HashMap<CollectionName, Cached>>);

#[derive(Clone, Debug)]
struct Cached {
    /// Weak: what is cached must not keep files from being deleted.
    version: Weak<Version>,
    overlay: Overlay,
    made: Arc<Made>,
}

/// What the overlay adds to the segments.
#[derive(Debug)]
struct Made {
    schema: SchemaRef,
    columns: Arc<Columns>,
    excluded: Vec<Arc<RoaringBitmap>>,
    batches: Arc<Vec<RecordBatch>>,
}

impl Cache {
    fn get(&self, snapshot: &Snapshot, collection: &CollectionName, overlay: &Overlay) -> Option<Arc<Made>> {
        let cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache
            .get(collection)
            .filter(|cached| std::ptr::eq(cached.version.as_ptr(), Arc::as_ptr(&snapshot.view.version)))
            .filter(|cached| cached.overlay.entries.ptr_eq(&overlay.entries))
            .map(|cached| Arc::clone(&cached.made))
    }

    fn put(&self, collection: &CollectionName, cached: Cached) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(collection.clone(), cached);
    }

    /// Forgets everything: a cached table keeps its overlay in memory.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

pub(crate) async fn table(snapshot: &Snapshot, collection: &CollectionName) -> Result<TableSnapshot, TablesError> {
    let overlay = snapshot.view.overlay(collection);
    let made = match snapshot.context.tables.get(snapshot, collection, &overlay) {
        Some(made) => made,
        None => {
            let made = Arc::new(make(snapshot, collection, &overlay).await?);
            let version = Arc::downgrade(&snapshot.view.version);
            snapshot.context.tables.put(collection, Cached { version, overlay, made: Arc::clone(&made) });
            made
        }
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
        overlay: Arc::clone(&made.batches),
        snapshot: snapshot.clone(),
    })
}

async fn make(snapshot: &Snapshot, collection: &CollectionName, overlay: &Overlay) -> Result<Made, TablesError> {
    let segments = snapshot.view.version.segments(collection);
    let mut excluded: Vec<RoaringBitmap> =
        segments.iter().map(|segment| &*segment.meta.superseded | &*segment.meta.tombstones).collect();
    let columns = snapshot.view.version.columns(collection);
    let mut rows = Vec::new();
    let entries: Vec<_> = overlay.entries.iter().collect();
    for chunk in entries.chunks(BATCH_ROWS) {
        let keys: Vec<&[u8]> = chunk.iter().map(|(id, _)| id.as_key()).collect();
        let bases = lookup::find(&snapshot.context.objects, segments, &keys).await?;
        for (base, (id, entry)) in bases.into_iter().zip(chunk) {
            if let Some(base) = &base
                && let Some(excluded) = excluded.get_mut(base.segment)
            {
                excluded.insert(base.row);
            }
            rows.push(((*id).clone(), Arc::clone(entry), base.map(|base| base.state)));
        }
    }
    let made = tokio::task::spawn_blocking(move || batches(rows, columns)).await;
    let (columns, batches) = made.map_err(|error| TablesError::Encoding(error.to_string()))??;
    Ok(Made {
        schema: Arc::new(table_schema(&columns)),
        columns: Arc::new(columns),
        excluded: excluded.into_iter().map(Arc::new).collect(),
        batches: Arc::new(batches),
    })
}

type OverlayRow = (DocId, Arc<crate::overlay::Entry>, Option<bytes::Bytes>);

fn batches(rows: Vec<OverlayRow>, columns: Columns) -> Result<(Columns, Vec<RecordBatch>), TablesError> {
    let mut inference = Inference::new(columns);
    let mut documents: Vec<(Value, Object, Lsn)> = Vec::with_capacity(rows.len());
    for (id, entry, base) in rows {
        let document: Document = entry
            .document(base.as_deref())
            .map_err(|error| TablesError::corrupt(&format!("document {id:?}"), error))?;
        if document.is_visible() {
            let (id, object) = (id.to_value(), document.to_object());
            inference.observe(&id, &object);
            documents.push((id, object, entry.lsn));
        }
    }
    let columns = inference.finish();
    let schema = Arc::new(table_schema(&columns));
    let mut batches = Vec::new();
    let mut documents = documents.into_iter().peekable();
    while documents.peek().is_some() {
        let mut ids = Vec::new();
        let mut objects = Vec::new();
        let mut transactions = Vec::new();
        for (id, object, lsn) in documents.by_ref().take(BATCH_ROWS) {
            ids.push(id);
            objects.push(object);
            transactions.push(i64::try_from(lsn.version).unwrap_or(i64::MAX));
        }
        let mut arrays: Vec<ArrayRef> = typed_arrays(&columns, &ids, &objects)?;
        arrays.push(Arc::new(Int64Array::from(transactions)));
        batches.push(RecordBatch::try_new(Arc::clone(&schema), arrays)?);
    }
    Ok((columns, batches))
}

fn table_schema(columns: &Columns) -> Schema {
    let mut fields = columns.typed_fields();
    fields.push(Field::new(TRANSACTION, DataType::Int64, false));
    Schema::new(fields)
}
