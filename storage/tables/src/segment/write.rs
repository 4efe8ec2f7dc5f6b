//! Writing segments: documents in key order become one Parquet file. No I/O; run it off the async threads.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, BooleanArray, Int64Array, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bigpeer_crdt::{Document, Object, Value};
use bigpeer_types::Lsn;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::{ParquetMetaData, SortingColumn};
use parquet::file::properties::{BloomFilterPosition, EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use roaring::RoaringBitmap;
use ulid::Ulid;

use crate::columns::{self, Columns, build_column, pick};
use crate::error::TablesError;
use crate::manifest::SegmentMeta;
use crate::snapshot::ScannedDocument;

/// Rows that become one record batch.
const BATCH_ROWS: usize = 4096;

/// Bytes of states that become one record batch.
const BATCH_BYTES: usize = 4 << 20;

/// Length to which bounds in statistics are cut.
const BOUND_BYTES: usize = 64;

/// Where row groups are cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupLimits {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

/// Writes one segment file into memory.
pub(crate) struct SegmentWriter {
    columns: Arc<Columns>,
    schema: SchemaRef,
    parquet: ArrowWriter<Vec<u8>>,
    limits: GroupLimits,
    pending: Vec<ScannedDocument>,
    pending_bytes: usize,
    group_rows: usize,
    group_bytes: usize,
    rows: u32,
    state_bytes: u64,
    keys: Option<(Vec<u8>, Vec<u8>)>,
    lsns: Option<(Lsn, Lsn)>,
    tombstones: RoaringBitmap,
}

impl std::fmt::Debug for SegmentWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentWriter").field("rows", &self.rows).field("state_bytes", &self.state_bytes).finish()
    }
}

impl SegmentWriter {
    pub(crate) fn new(columns: Arc<Columns>, limits: GroupLimits) -> Result<Self, TablesError> {
        let schema = Arc::new(file_schema(&columns));
        let options = ArrowWriterOptions::new().with_properties(properties(limits)?).with_skip_arrow_metadata(true);
        let parquet = ArrowWriter::try_new_with_options(Vec::new(), Arc::clone(&schema), options).map_err(encoding)?;
        Ok(Self {
            columns,
            schema,
            parquet,
            limits,
            pending: Vec::new(),
            pending_bytes: 0,
            group_rows: 0,
            group_bytes: 0,
            rows: 0,
            state_bytes: 0,
            keys: None,
            lsns: None,
            tombstones: RoaringBitmap::new(),
        })
    }

    /// Bytes of states so far.
    pub(crate) fn state_bytes(&self) -> u64 {
        self.state_bytes
    }

    /// Adds the next document. Keys must ascend.
    pub(crate) fn push(&mut self, row: ScannedDocument) -> Result<(), TablesError> {
        let key = row.id.as_key();
        match &mut self.keys {
            Some((_, last)) if last.as_slice() >= key => {
                return Err(TablesError::Encoding("keys out of order".to_owned()));
            }
            Some((_, last)) => {
                last.clear();
                last.extend_from_slice(key);
            }
            None => self.keys = Some((key.to_vec(), key.to_vec())),
        }
        let (min, max) = self.lsns.unwrap_or((row.lsn, row.lsn));
        self.lsns = Some((min.min(row.lsn), max.max(row.lsn)));
        self.pending_bytes += row.state.len();
        self.state_bytes += row.state.len() as u64;
        self.pending.push(row);
        if self.pending.len() >= BATCH_ROWS || self.pending_bytes >= BATCH_BYTES {
            self.write_pending()?;
        }
        Ok(())
    }

    fn write_pending(&mut self) -> Result<(), TablesError> {
        let rows = std::mem::take(&mut self.pending);
        let bytes = std::mem::take(&mut self.pending_bytes);
        let count = u32::try_from(rows.len()).map_err(|error| TablesError::Encoding(error.to_string()))?;
        let mut documents = Vec::with_capacity(rows.len());
        for (row, number) in rows.iter().zip(self.rows..) {
            let document = Document::decode(&row.state)
                .map_err(|error| TablesError::Encoding(format!("the state of {:?}: {error}", row.id)))?;
            if !document.is_visible() {
                self.tombstones.insert(number);
            }
            documents.push(document.to_object());
        }
        let deleted = (self.rows..).take(rows.len()).map(|number| self.tombstones.contains(number)).collect();
        let batch = batch(&self.schema, &self.columns, &rows, &documents, deleted)?;
        if self.group_rows > 0
            && (self.group_rows + rows.len() > self.limits.rows || self.group_bytes + bytes > self.limits.bytes)
        {
            self.parquet.flush().map_err(encoding)?;
            (self.group_rows, self.group_bytes) = (0, 0);
        }
        self.parquet.write(&batch).map_err(encoding)?;
        self.group_rows += rows.len();
        self.group_bytes += bytes;
        self.rows = self.rows.checked_add(count).ok_or_else(|| TablesError::Encoding("too many rows".to_owned()))?;
        Ok(())
    }

    /// The file and what the manifest says of it; nothing if there are no rows.
    pub(crate) fn finish(mut self, ulid: Ulid, run: bool) -> Result<Option<(Vec<u8>, SegmentMeta)>, TablesError> {
        if !self.pending.is_empty() {
            self.write_pending()?;
        }
        let (Some((min_key, max_key)), Some((min_lsn, max_lsn))) = (self.keys, self.lsns) else { return Ok(None) };
        let metadata = self.parquet.finish().map_err(encoding)?;
        let file = std::mem::take(self.parquet.inner_mut());
        let tail = file.get(tail_start(&metadata, file.len())..).unwrap_or_default();
        let meta = SegmentMeta {
            ulid,
            size: file.len() as u64,
            crc32c: crc32c::crc32c(&file),
            tail_bytes: tail.len() as u64,
            tail_crc32c: crc32c::crc32c(tail),
            rows: self.rows,
            state_bytes: self.state_bytes,
            run,
            min_key,
            max_key,
            min_lsn,
            max_lsn,
            columns: self.columns,
            superseded: Arc::default(),
            tombstones: Arc::new(self.tombstones),
        };
        Ok(Some((file, meta)))
    }
}

/// Where the bloom filters and indexes begin, behind the rows.
fn tail_start(metadata: &ParquetMetaData, length: usize) -> usize {
    let chunks = metadata.row_groups().iter().flat_map(|group| group.columns());
    let offsets = chunks.flat_map(|chunk| {
        [chunk.bloom_filter_offset(), chunk.column_index_offset(), chunk.offset_index_offset()].into_iter().flatten()
    });
    offsets.min().and_then(|offset| usize::try_from(offset).ok()).unwrap_or(length)
}

fn encoding(error: parquet::errors::ParquetError) -> TablesError {
    TablesError::Encoding(error.to_string())
}

/// The Arrow schema of a file with these columns.
pub(crate) fn file_schema(columns: &Columns) -> Schema {
    let mut fields = vec![
        Field::new(columns::KEY, DataType::Binary, false),
        Field::new(columns::VERSION, DataType::Int64, false),
        Field::new(columns::ORDER, DataType::Int64, false),
        Field::new(columns::DELETED, DataType::Boolean, false),
        Field::new(columns::CRDT, DataType::Binary, false),
    ];
    fields.extend(columns.typed_fields());
    Schema::new(fields)
}

fn batch(
    schema: &SchemaRef,
    columns: &Columns,
    rows: &[ScannedDocument],
    documents: &[Object],
    deleted: Vec<bool>,
) -> Result<RecordBatch, TablesError> {
    let versions = rows.iter().map(|row| i64::try_from(row.lsn.version)).collect::<Result<Int64Array, _>>();
    let versions = versions.map_err(|_| TablesError::Encoding("an LSN's version is above 2^63".to_owned()))?;
    let mut arrays: Vec<ArrayRef> = vec![
        Arc::new(BinaryArray::from_iter_values(rows.iter().map(|row| row.id.as_key()))),
        Arc::new(versions),
        Arc::new(rows.iter().map(|row| i64::from(row.lsn.order)).collect::<Int64Array>()),
        Arc::new(BooleanArray::from(deleted)),
        Arc::new(BinaryArray::from_iter_values(rows.iter().map(|row| &row.state))),
    ];
    let ids: Vec<Value> = rows.iter().map(|row| row.id.to_value()).collect();
    arrays.extend(typed_arrays(columns, &ids, documents)?);
    Ok(RecordBatch::try_new(Arc::clone(schema), arrays)?)
}

/// `_id`, the fields, and the rest: the arrays of [`Columns::typed_fields`].
pub(crate) fn typed_arrays(
    columns: &Columns,
    ids: &[Value],
    documents: &[Object],
) -> Result<Vec<ArrayRef>, TablesError> {
    let ids: Vec<Option<&Value>> = ids.iter().map(Some).collect();
    let mut arrays = vec![build_column(&columns.id, &ids)?];
    let objects: Vec<Option<&Object>> = documents.iter().map(Some).collect();
    for (name, kind) in &columns.fields {
        arrays.push(build_column(kind, &pick(&objects, name))?);
    }
    if columns.rest {
        let names: std::collections::HashSet<&str> = columns.fields.iter().map(|(name, _)| &**name).collect();
        let mut out = StringBuilder::new();
        for document in documents {
            let rest: Object = (document.iter())
                .filter(|(name, _)| !names.contains(name))
                .map(|(name, value)| (name, value.clone()))
                .collect();
            out.append_option((!rest.is_empty()).then(|| rest.to_json().to_string()));
        }
        arrays.push(Arc::new(out.finish()));
    }
    Ok(arrays)
}

fn properties(limits: GroupLimits) -> Result<WriterProperties, TablesError> {
    let column = |name: &str| ColumnPath::new(vec![name.to_owned()]);
    let (key, crdt) = (column(columns::KEY), column(columns::CRDT));
    Ok(WriterProperties::builder()
        .set_created_by(concat!("bigpeer ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).map_err(encoding)?))
        .set_max_row_group_row_count(Some(limits.rows.max(BATCH_ROWS)))
        .set_bloom_filter_position(BloomFilterPosition::End)
        .set_statistics_truncate_length(Some(BOUND_BYTES))
        .set_column_index_truncate_length(Some(BOUND_BYTES))
        .set_sorting_columns(Some(vec![SortingColumn { column_idx: 0, descending: false, nulls_first: false }]))
        // Every key and state is different: small pages, so that one document costs one page; no dictionary.
        .set_write_batch_size(256)
        .set_column_dictionary_enabled(key.clone(), false)
        .set_column_data_page_size_limit(key.clone(), 16 << 10)
        .set_column_bloom_filter_enabled(key.clone(), true)
        .set_column_bloom_filter_fpp(key.clone(), 0.01)
        .set_column_bloom_filter_max_ndv(key, limits.rows.max(BATCH_ROWS) as u64)
        .set_column_dictionary_enabled(crdt.clone(), false)
        .set_column_data_page_size_limit(crdt.clone(), 64 << 10)
        .set_column_statistics_enabled(crdt, EnabledStatistics::None)
        .build())
}
