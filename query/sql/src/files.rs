//! What is known about segment files: schema, statistics and row groups, derived from their footers. Segments are
//! immutable, so it is kept between queries, up to a limit.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bigpeer_tables::SegmentPart;
use bigpeer_tables::columns::Facts;
use bytes::Bytes;
use datafusion::common::Statistics;
use datafusion::common::stats::Precision;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::physical_plan::{ParquetFileMetrics, ParquetFileReaderFactory};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::parquet_to_arrow_schema;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

use crate::budget::ScanBudget;

/// Files about which derived facts are kept. Beyond it everything derived is forgotten at once, and derived again.
const MAX_FILES: usize = 4096;

/// What a segment's footer says, as the scan needs it.
#[derive(Debug)]
pub(crate) struct FileFacts {
    /// The footer itself, with page indexes.
    footer: Arc<ParquetMetaData>,
    /// The file's columns, strings and bytes as views.
    pub(crate) schema: SchemaRef,
    /// Of all its rows, over `schema`.
    pub(crate) statistics: Arc<Statistics>,
    /// Rows in each row group.
    pub(crate) row_groups: Vec<u32>,
    /// What its columns do not say.
    pub(crate) facts: Facts,
}

/// Facts of the files that queries have read.
#[derive(Debug, Default)]
pub(crate) struct Files(Mutex<HashMap<Path, Arc<FileFacts>>>);

impl Files {
    /// What the footer of `part` says.
    pub(crate) async fn facts(&self, part: &SegmentPart) -> Result<Arc<FileFacts>> {
        if let Some(known) = self.lock().get(&part.path) {
            return Ok(Arc::clone(known));
        }
        let footer = part.metadata().await.map_err(|error| DataFusionError::External(error.into()))?;
        let facts = Arc::new(FileFacts::new(footer)?);
        let mut known = self.lock();
        if known.len() >= MAX_FILES {
            known.clear();
        }
        known.insert(part.path.clone(), Arc::clone(&facts));
        Ok(facts)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Path, Arc<FileFacts>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileFacts {
    pub(crate) fn new(footer: Arc<ParquetMetaData>) -> Result<Self> {
        let physical = parquet_to_arrow_schema(footer.file_metadata().schema_descr(), None)?;
        let schema = Arc::new(views(&physical));
        let mut statistics = DFParquetMetadata::statistics_from_parquet_metadata(&footer, &schema)?;
        for (column, field) in statistics.column_statistics.iter_mut().zip(schema.fields()) {
            // Parquet's bounds leave NaN out: they are true for pruning, and not the least and the greatest value.
            if field.data_type() == &DataType::Float64 {
                column.min_value = std::mem::take(&mut column.min_value).to_inexact();
                column.max_value = std::mem::take(&mut column.max_value).to_inexact();
            }
        }
        let row_groups = footer.row_groups().iter().map(|group| u32::try_from(group.num_rows()).unwrap_or(u32::MAX));
        let row_groups = row_groups.collect();
        let facts = Facts::of_footer(&footer);
        Ok(Self { facts, footer, schema, statistics: Arc::new(statistics), row_groups })
    }

    /// The statistics when `excluded` of the rows are not read.
    pub(crate) fn statistics_without(&self, excluded: u64) -> Statistics {
        let statistics = self.statistics.as_ref().clone();
        if excluded == 0 {
            return statistics;
        }
        let rows: u64 = self.row_groups.iter().map(|rows| u64::from(*rows)).sum();
        let kept = usize::try_from(rows.saturating_sub(excluded)).unwrap_or(usize::MAX);
        statistics.to_inexact().with_num_rows(Precision::Exact(kept))
    }
}

/// Opens files of a scan. Their facts travel with them, so no footer is read or parsed again.
#[derive(Debug)]
pub(crate) struct Readers {
    pub(crate) objects: Arc<dyn ObjectStore>,
    /// What the query may read; none without a limit.
    pub(crate) budget: Option<Arc<ScanBudget>>,
}

impl ParquetFileReaderFactory for Readers {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        _metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let facts = file.extension::<Arc<FileFacts>>();
        let facts = facts.ok_or_else(|| DataFusionError::Internal("a file without its facts".to_owned()))?;
        let path = file.object_meta.location.clone();
        let metrics = ParquetFileMetrics::new(partition, path.as_ref(), metrics);
        let (objects, budget) = (Arc::clone(&self.objects), self.budget.clone());
        Ok(Box::new(Reader { objects, path, footer: Arc::clone(&facts.footer), metrics, budget }))
    }
}

struct Reader {
    objects: Arc<dyn ObjectStore>,
    path: Path,
    footer: Arc<ParquetMetaData>,
    metrics: ParquetFileMetrics,
    budget: Option<Arc<ScanBudget>>,
}

impl Reader {
    fn count(&self, ranges: &[Range<u64>]) -> parquet::errors::Result<()> {
        let bytes: u64 = ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum();
        if let Some(budget) = &self.budget {
            budget.take(bytes).map_err(|error| ParquetError::External(Box::new(error)))?;
        }
        self.metrics.bytes_scanned.add(usize::try_from(bytes).unwrap_or(usize::MAX));
        Ok(())
    }
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        let counted = self.count(std::slice::from_ref(&range));
        async move {
            counted?;
            let bytes = self.objects.get_range(&self.path, range).await;
            bytes.map_err(|error| ParquetError::External(Box::new(error)))
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        let counted = self.count(&ranges);
        async move {
            counted?;
            let bytes = self.objects.get_ranges(&self.path, &ranges).await;
            bytes.map_err(|error| ParquetError::External(Box::new(error)))
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        let footer = Arc::clone(&self.footer);
        async move { Ok(footer) }.boxed()
    }
}

/// `schema` with top-level strings and bytes as views, which are faster to filter and group by.
pub(crate) fn views(schema: &Schema) -> Schema {
    let view = |field: &Arc<Field>| match view_type(field.data_type()) {
        Some(data_type) => Arc::new(field.as_ref().clone().with_data_type(data_type)),
        None => Arc::clone(field),
    };
    Schema::new(schema.fields().iter().map(view).collect::<Vec<_>>())
}

fn view_type(data_type: &DataType) -> Option<DataType> {
    match data_type {
        DataType::Utf8 => Some(DataType::Utf8View),
        DataType::Binary => Some(DataType::BinaryView),
        _ => None,
    }
}
