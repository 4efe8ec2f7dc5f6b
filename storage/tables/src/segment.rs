//! Segments: immutable Parquet files of document states, sorted by key.
//!
//! **Layout**: the columns `_key` (order-preserving bytes of the `_id`), `_version`, `_order` (LSN of the last change),
//! `_deleted`, `_crdt` (full state), `_id`, then typed fields, then `_rest`. Row groups and pages are cut so that
//! one document can be read without its neighbours; `_key` has a page index and bloom filters. Rows are named by their
//! number in the file.

pub(crate) mod batch;
pub(crate) mod lookup;
pub(crate) mod prune;
pub(crate) mod read;
pub(crate) mod write;

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bigpeer_types::{AppId, CollectionName};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::bloom_filter::Sbbf;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::page_index::column_index::ColumnIndexMetaData;

use crate::error::TablesError;
use crate::manifest::SegmentMeta;
use crate::paths::ObjectPath;

/// Positions of the columns that every segment has.
pub(crate) const KEY_COLUMN: usize = 0;
pub(crate) const VERSION_COLUMN: usize = 1;
pub(crate) const ORDER_COLUMN: usize = 2;
pub(crate) const CRDT_COLUMN: usize = 4;

/// A file, and what is cached of it: footer and bloom filters, read when first needed.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    pub(crate) path: Path,
    size: u64,
    tail_bytes: u64,
    tail_crc32c: u32,
    footer: OnceLock<Arc<Footer>>,
}

/// What is known of a file without reading its rows.
#[derive(Debug)]
pub(crate) struct Footer {
    pub(crate) reader: ArrowReaderMetadata,
    pub(crate) groups: Vec<RowGroup>,
    /// Pages of the column `_key` over the whole file.
    pub(crate) key_pages: Vec<KeyPage>,
}

/// One row group.
pub(crate) struct RowGroup {
    /// Its rows, by their numbers in the file.
    pub(crate) rows: Range<u32>,
    bloom: Option<Sbbf>,
}

/// One page of keys.
#[derive(Debug)]
pub(crate) struct KeyPage {
    pub(crate) rows: Range<u32>,
    group: usize,
    /// Bounds of the keys; may be wider than the keys are.
    min: Vec<u8>,
    max: Vec<u8>,
}

impl std::fmt::Debug for RowGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowGroup").field("rows", &self.rows).field("bloom", &self.bloom.is_some()).finish()
    }
}

impl SegmentFile {
    pub(crate) fn new(app: &AppId, collection: &CollectionName, meta: &SegmentMeta) -> Self {
        let home = meta.home.as_ref().unwrap_or(app).clone();
        let path = ObjectPath::Segment(home, collection.clone(), meta.ulid).to_path();
        let (tail_bytes, tail_crc32c) = (meta.tail_bytes, meta.tail_crc32c);
        Self { path, size: meta.size, tail_bytes, tail_crc32c, footer: OnceLock::new() }
    }

    /// The footer, from the cache or the file. Nobody waits for somebody else's read: a scan that has begun one may not be
    /// polled for as long as its reader has something else to do, which may be to read this file.
    pub(crate) async fn footer(&self, objects: &Arc<dyn ObjectStore>) -> Result<Arc<Footer>, TablesError> {
        if let Some(known) = self.footer.get() {
            return Ok(Arc::clone(known));
        }
        let read = Arc::new(self.read_footer(objects).await?);
        Ok(Arc::clone(self.footer.get_or_init(|| read)))
    }

    pub(crate) fn reader(&self, objects: &Arc<dyn ObjectStore>) -> ObjectReader {
        ObjectReader { objects: Arc::clone(objects), path: self.path.clone(), size: self.size, tail: None }
    }

    /// Tells a damaged file from a store that does not answer.
    pub(crate) fn error(&self, error: ParquetError) -> TablesError {
        let ParquetError::External(source) = error else { return TablesError::corrupt(&self.path, error) };
        match source.downcast::<object_store::Error>() {
            Ok(source) => TablesError::objects(&self.path, *source),
            Err(source) => TablesError::corrupt(&self.path, source),
        }
    }

    async fn read_footer(&self, objects: &Arc<dyn ObjectStore>) -> Result<Footer, TablesError> {
        // One read for everything that says how to read the rest.
        let start = self.size.saturating_sub(self.tail_bytes);
        let tail = objects.get_range(&self.path, start..self.size).await;
        let tail = tail.map_err(|error| TablesError::objects(&self.path, error))?;
        let found = crc32c::crc32c(&tail);
        if found != self.tail_crc32c || tail.len() as u64 != self.tail_bytes {
            let expected = self.tail_crc32c;
            return Err(TablesError::corrupt(
                &self.path,
                format!("checksum {expected:08x} expected, {found:08x} found"),
            ));
        }
        let mut input = ObjectReader { tail: Some((start, tail)), ..self.reader(objects) };
        let options =
            ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required).with_skip_arrow_metadata(true);
        let reader = ArrowReaderMetadata::load_async(&mut input, options).await.map_err(|error| self.error(error))?;
        let mut groups = Vec::new();
        let mut first = 0_u32;
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(input, reader.clone());
        for (at, group) in reader.metadata().row_groups().iter().enumerate() {
            let bloom = builder.get_row_group_column_bloom_filter(at, KEY_COLUMN).await;
            let bloom = bloom.map_err(|error| self.error(error))?;
            let rows = u32::try_from(group.num_rows()).ok().and_then(|rows| first.checked_add(rows));
            let end = rows.ok_or_else(|| TablesError::corrupt(&self.path, "too many rows"))?;
            groups.push(RowGroup { rows: first..end, bloom });
            first = end;
        }
        let key_pages = key_pages(reader.metadata(), &groups)
            .ok_or_else(|| TablesError::corrupt(&self.path, "no page index for the keys"))?;
        Ok(Footer { reader, groups, key_pages })
    }
}

fn key_pages(metadata: &ParquetMetaData, groups: &[RowGroup]) -> Option<Vec<KeyPage>> {
    let mut pages = Vec::new();
    for (at, group) in groups.iter().enumerate() {
        let ColumnIndexMetaData::BYTE_ARRAY(bounds) = metadata.column_index()?.get(at)?.get(KEY_COLUMN)? else {
            return None;
        };
        let ranges = page_rows(metadata, at, KEY_COLUMN, &group.rows)?;
        for (page, rows) in ranges.into_iter().enumerate() {
            let (min, max) = (bounds.min_value(page)?.to_vec(), bounds.max_value(page)?.to_vec());
            pages.push(KeyPage { rows, group: at, min, max });
        }
    }
    Some(pages)
}

/// The rows of each page of a column in a row group, by their numbers in the file.
pub(crate) fn page_rows(
    metadata: &ParquetMetaData,
    group: usize,
    column: usize,
    rows: &Range<u32>,
) -> Option<Vec<Range<u32>>> {
    let locations = metadata.offset_index()?.get(group)?.get(column)?.page_locations();
    let starts: Option<Vec<u32>> =
        locations.iter().map(|page| rows.start.checked_add(u32::try_from(page.first_row_index).ok()?)).collect();
    let starts = starts?;
    let ends = starts.iter().skip(1).copied().chain([rows.end]);
    let pages: Vec<Range<u32>> = starts.iter().zip(ends).map(|(start, end)| *start..end).collect();
    pages.iter().all(|page| page.start <= page.end && page.end <= rows.end).then_some(pages)
}

impl Footer {
    /// Pages that may hold `key`. Sorted keys give sorted pages.
    pub(crate) fn pages_of(&self, key: &[u8]) -> impl Iterator<Item = &KeyPage> {
        let from = self.key_pages.partition_point(|page| page.max.as_slice() < key);
        let pages = self.key_pages.get(from..).unwrap_or_default();
        pages.iter().take_while(move |page| page.min.as_slice() <= key).filter(move |page| {
            let bloom = self.groups.get(page.group).and_then(|group| group.bloom.as_ref());
            bloom.is_none_or(|bloom| bloom.check(key))
        })
    }

    /// How many rows from the start have keys up to and including `key` for sure, and how many at most.
    pub(crate) fn rows_around(&self, key: &[u8]) -> (u32, u32) {
        let sure = self.rows_through(key);
        let pages = self.key_pages.partition_point(|page| page.min.as_slice() <= key);
        let most = pages.checked_sub(1).and_then(|last| self.key_pages.get(last)).map_or(0, |page| page.rows.end);
        (sure, most.max(sure))
    }

    /// How many rows from the start can only have keys up to and including `key`.
    pub(crate) fn rows_through(&self, key: &[u8]) -> u32 {
        let pages = self.key_pages.partition_point(|page| page.max.as_slice() <= key);
        pages.checked_sub(1).and_then(|last| self.key_pages.get(last)).map_or(0, |page| page.rows.end)
    }
}

/// Reads byte ranges of one object for the Parquet reader.
#[derive(Clone, Debug)]
pub(crate) struct ObjectReader {
    objects: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
    /// The end of the object, and where it starts, if it is at hand.
    tail: Option<(u64, Bytes)>,
}

impl ObjectReader {
    /// A range, if it is at hand.
    fn at_hand(&self, range: &Range<u64>) -> Option<Bytes> {
        let (start, tail) = self.tail.as_ref()?;
        let from = usize::try_from(range.start.checked_sub(*start)?).ok()?;
        let to = usize::try_from(range.end.checked_sub(*start)?).ok()?;
        (from <= to && to <= tail.len()).then(|| tail.slice(from..to))
    }
}

impl AsyncFileReader for ObjectReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move {
            if let Some(bytes) = self.at_hand(&range) {
                return Ok(bytes);
            }
            let read = self.objects.get_range(&self.path, range).await;
            read.map_err(|error| ParquetError::External(Box::new(error)))
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move {
            let read = self.objects.get_ranges(&self.path, &ranges).await;
            read.map_err(|error| ParquetError::External(Box::new(error)))
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let size = self.size;
            let mut reader = ParquetMetaDataReader::new();
            if let Some(options) = options {
                reader = reader
                    .with_column_index_policy(options.column_index_policy())
                    .with_offset_index_policy(options.offset_index_policy());
            }
            Ok(Arc::new(reader.load_and_finish(self, size).await?))
        }
        .boxed()
    }
}
