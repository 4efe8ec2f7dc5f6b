//! Writing segments: documents in key order become one Parquet file. No I/O; run it off the async threads.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bigpeer_types::Lsn;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::{KeyValue, ParquetMetaData, SortingColumn};
use parquet::file::properties::{BloomFilterPosition, EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use roaring::RoaringBitmap;
use ulid::Ulid;

use super::batch::StateBatch;
use crate::columns::{self, Columns, FACTS_KEY, Facts};
use crate::error::TablesError;
use crate::manifest::SegmentMeta;

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
    group_rows: usize,
    group_bytes: usize,
    rows: u32,
    state_bytes: u64,
    keys: Option<(Vec<u8>, Vec<u8>)>,
    lsns: Option<(Lsn, Lsn)>,
    tombstones: RoaringBitmap,
    facts: Facts,
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
            group_rows: 0,
            group_bytes: 0,
            rows: 0,
            state_bytes: 0,
            keys: None,
            lsns: None,
            tombstones: RoaringBitmap::new(),
            facts: Facts::default(),
        })
    }

    /// Bytes of states so far.
    pub(crate) fn state_bytes(&self) -> u64 {
        self.state_bytes
    }

    /// Bytes of the file so far, and of the row group that is being encoded.
    pub(crate) fn file_bytes(&self) -> u64 {
        (self.parquet.inner().len() + self.parquet.in_progress_size()) as u64
    }

    /// Adds documents. Keys must ascend.
    pub(crate) fn write(&mut self, batch: &StateBatch) -> Result<(), TablesError> {
        let (Some(first), Some(last)) = (batch.first_key(), batch.last_key()) else { return Ok(()) };
        match &mut self.keys {
            Some((_, end)) if end.as_slice() >= first => {
                return Err(TablesError::Encoding("keys out of order".to_owned()));
            }
            Some((_, end)) => *end = last.to_vec(),
            None => self.keys = Some((first.to_vec(), last.to_vec())),
        }
        let (min, max) = self.lsns.unwrap_or(batch.lsns);
        self.lsns = Some((min.min(batch.lsns.0), max.max(batch.lsns.1)));
        let (rows, bytes) = (batch.rows(), batch.state_bytes);
        if self.group_rows > 0
            && (self.group_rows + rows > self.limits.rows || self.group_bytes + bytes > self.limits.bytes)
        {
            self.parquet.flush().map_err(encoding)?;
            (self.group_rows, self.group_bytes) = (0, 0);
        }
        self.parquet.write(&batch.to_record_batch(&self.schema, &self.columns)?).map_err(encoding)?;
        self.facts.join(&batch.facts);
        self.group_rows += rows;
        self.group_bytes += bytes;
        self.state_bytes += bytes as u64;
        self.tombstones.extend(batch.tombstones.iter().map(|row| self.rows.saturating_add(*row)));
        let count = u32::try_from(rows).ok().and_then(|rows| self.rows.checked_add(rows));
        self.rows = count.ok_or_else(|| TablesError::Encoding("too many rows".to_owned()))?;
        Ok(())
    }

    /// The file and what the manifest says of it; nothing if there are no rows.
    pub(crate) fn finish(mut self, ulid: Ulid, run: bool) -> Result<Option<(Vec<u8>, SegmentMeta)>, TablesError> {
        let (Some((min_key, max_key)), Some((min_lsn, max_lsn))) = (self.keys, self.lsns) else { return Ok(None) };
        if let Some(facts) = self.facts.stored() {
            self.parquet.append_key_value_metadata(KeyValue::new(FACTS_KEY.to_owned(), facts));
        }
        let metadata = self.parquet.finish().map_err(encoding)?;
        let file = std::mem::take(self.parquet.inner_mut());
        let tail = file.get(tail_start(&metadata, file.len())..).unwrap_or_default();
        let meta = SegmentMeta {
            ulid,
            home: None,
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

fn properties(limits: GroupLimits) -> Result<WriterProperties, TablesError> {
    let column = |name: &str| ColumnPath::new(vec![name.to_owned()]);
    let (key, version, crdt) = (column(columns::KEY), column(columns::VERSION), column(columns::CRDT));
    Ok(WriterProperties::builder()
        .set_created_by(concat!("bigpeer ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).map_err(encoding)?))
        .set_max_row_group_row_count(Some(limits.rows.max(1)))
        .set_bloom_filter_position(BloomFilterPosition::End)
        .set_statistics_truncate_length(Some(BOUND_BYTES))
        .set_column_index_truncate_length(Some(BOUND_BYTES))
        .set_sorting_columns(Some(vec![SortingColumn { column_idx: 0, descending: false, nulls_first: false }]))
        // Every key and state is different: small pages, so that one document costs one page; no dictionary.
        .set_write_batch_size(256)
        .set_data_page_row_count_limit(8192)
        // A dictionary of versions would have to be read for one document.
        .set_column_dictionary_enabled(version.clone(), false)
        .set_column_encoding(version.clone(), Encoding::DELTA_BINARY_PACKED)
        .set_column_data_page_size_limit(version, 8 << 10)
        .set_column_dictionary_enabled(key.clone(), false)
        .set_column_data_page_size_limit(key.clone(), 16 << 10)
        .set_column_bloom_filter_enabled(key.clone(), true)
        .set_column_bloom_filter_fpp(key.clone(), 0.01)
        .set_column_bloom_filter_max_ndv(key, limits.rows.max(1) as u64)
        .set_column_dictionary_enabled(crdt.clone(), false)
        .set_column_data_page_size_limit(crdt.clone(), 32 << 10)
        .set_column_statistics_enabled(crdt, EnabledStatistics::None)
        .build())
}
