//! A collection at one snapshot as a DataFusion table: its segments, read by DataFusion's Parquet source, and what is still
//! in memory, side by side. Every document is in exactly one of them.
//!
//! Segments are grouped by how their columns are stored. A group is one scan: its columns are projected to the table's
//! types, so that projections, filters and statistics mean the same above it whatever a file holds.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, max, min};
use arrow::datatypes::{Field, FieldRef, Float64Type, Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use bigpeer_tables::columns::{ColumnType, Columns, Facts, ID, REST, TRANSACTION, Traits, VERSION};
use bigpeer_tables::{SegmentPart, TableSnapshot};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{DataFusionError, ScalarValue, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::{FileScanConfigBuilder, FileSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::projection::{ProjectionExpr, ProjectionExprs};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::ObjectStore;

use crate::access::{Segment, pieces};
use crate::budget::ScanBudget;
use crate::expr::AsTable;
use crate::files::{Files, Readers};
use crate::objects::{Segments, store_url};
use crate::point;

/// Footers that are read at the same time when a snapshot is seen for the first time.
const FOOTERS_AT_ONCE: usize = 16;

/// A collection at one snapshot.
pub(crate) struct CollectionTable {
    schema: SchemaRef,
    columns: Arc<Columns>,
    /// What the columns do not say of the documents.
    facts: Facts,
    rows: u64,
    groups: Vec<Group>,
    /// Rows that are not in segments, in `schema`.
    memory: Vec<RecordBatch>,
    objects: Arc<dyn ObjectStore>,
}

/// Segments whose columns are stored in the same way.
struct Group {
    columns: Arc<Columns>,
    segments: Vec<Segment>,
    file_schema: SchemaRef,
    /// The table's columns, computed from the files'.
    projection: Vec<ProjectionExpr>,
    statistics: Statistics,
}

impl CollectionTable {
    /// The table of `snapshot`. Reads the footers that are not known yet.
    pub(crate) async fn open(files: &Files, snapshot: &TableSnapshot) -> Result<Self> {
        let objects = snapshot.snapshot().objects();
        let schema = table_schema(&snapshot.schema);
        let paths = snapshot.segments.iter().map(|part| part.path.clone());
        let objects: Arc<dyn ObjectStore> = Arc::new(Segments::new(Arc::clone(objects), paths));
        let mut segments = Vec::with_capacity(snapshot.segments.len());
        for part in &snapshot.segments {
            if part.excluded.len() < part.rows {
                segments.push(segment(files, part.clone()));
            }
        }
        let segments: Vec<_> = stream::iter(segments).buffered(FOOTERS_AT_ONCE).try_collect().await?;
        let mut facts = Facts::clone(&snapshot.overlay_facts);
        segments.iter().for_each(|(_, segment)| facts.join(&segment.facts.facts));
        let mut groups: Vec<(Arc<Columns>, Vec<Segment>)> = Vec::new();
        for (columns, segment) in segments {
            match groups.iter_mut().find(|(known, _)| **known == *columns) {
                Some((_, group)) => group.push(segment),
                None => groups.push((columns, vec![segment])),
            }
        }
        let groups =
            groups.into_iter().map(|(columns, segments)| Group::new(columns, segments, &schema, &snapshot.columns));
        let groups = groups.collect::<Result<_>>()?;
        let overlay = snapshot.overlay_batches().await.map_err(|error| DataFusionError::External(error.into()))?;
        let memory = overlay.iter().map(|batch| in_schema(batch, &schema)).collect::<Result<_>>()?;
        let (columns, rows) = (Arc::clone(&snapshot.columns), snapshot.rows());
        Ok(Self { schema, columns, facts, rows, groups, memory, objects })
    }

    /// How its columns are stored at the widest.
    pub(crate) fn columns(&self) -> &Columns {
        &self.columns
    }

    /// What the column of a top-level field does not say of the values in it.
    pub(crate) fn traits(&self, field: &str) -> Traits {
        self.facts.of(field)
    }

    /// How many documents it has.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Numbers between which all those of an integer column are; perhaps others, too.
    pub(crate) fn int_bounds(&self, column: &str) -> Option<(i64, i64)> {
        let of = |value: &ScalarValue| if let ScalarValue::Int64(value) = value { *value } else { None };
        let memory = |array: &ArrayRef| {
            let array = array.as_primitive_opt::<Int64Type>()?;
            min(array).zip(max(array))
        };
        self.bounds(column, of, memory)
    }

    /// As [`Self::int_bounds`], for a float column without NaN.
    pub(crate) fn float_bounds(&self, column: &str) -> Option<(f64, f64)> {
        #[allow(clippy::cast_precision_loss, reason = "the column's values were rounded in the same way")]
        let of = |value: &ScalarValue| match value {
            ScalarValue::Float64(value) => *value,
            ScalarValue::Int64(value) => value.map(|value| value as f64),
            _ => None,
        };
        let memory = |array: &ArrayRef| {
            let array = array.as_primitive_opt::<Float64Type>()?;
            min(array).zip(max(array))
        };
        self.bounds(column, of, memory)
    }

    /// The least and the greatest of what groups and memory have; none when one of them does not say.
    fn bounds<T: PartialOrd + Copy + Default>(
        &self,
        column: &str,
        of: impl Fn(&ScalarValue) -> Option<T>,
        memory: impl Fn(&ArrayRef) -> Option<(T, T)>,
    ) -> Option<(T, T)> {
        let mut all: Option<(T, T)> = None;
        let mut add = |(low, high): (T, T)| {
            all = Some(all.map_or((low, high), |(least, greatest)| {
                (if low < least { low } else { least }, if high > greatest { high } else { greatest })
            }));
        };
        for group in &self.groups {
            // A column that has only nulls, or is not there, has no bounds and needs none.
            let Ok(index) = group.file_schema.index_of(column) else { continue };
            if column != ID && matches!(group.columns.get(column), None | Some(ColumnType::Null)) {
                continue;
            }
            let statistics = group.statistics.column_statistics.get(index)?;
            let end = |value: &Precision<ScalarValue>| value.get_value().and_then(&of);
            add((end(&statistics.min_value)?, end(&statistics.max_value)?));
        }
        for batch in &self.memory {
            let array = batch.column_by_name(column)?;
            if array.null_count() < array.len() {
                add(memory(array)?);
            }
        }
        Some(all.unwrap_or_default())
    }

    fn scan_memory(&self, projection: &[usize]) -> Result<Arc<dyn ExecutionPlan>> {
        let source = MemorySourceConfig::try_new(
            std::slice::from_ref(&self.memory),
            Arc::clone(&self.schema),
            Some(projection.to_vec()),
        )?;
        Ok(DataSourceExec::from_data_source(source.with_show_sizes(false)))
    }
}

impl Group {
    fn new(columns: Arc<Columns>, segments: Vec<Segment>, schema: &SchemaRef, table: &Columns) -> Result<Self> {
        let empty = || Arc::new(Schema::empty());
        let file_schema = segments.first().map_or_else(empty, |segment| Arc::clone(&segment.facts.schema));
        let projection = schema
            .fields()
            .iter()
            .map(|field| Ok(ProjectionExpr::new(column(field, &file_schema, &columns, table)?, field.name())))
            .collect::<Result<Vec<_>>>()?;
        let statistics: Vec<_> =
            segments.iter().map(|segment| segment.facts.statistics_without(segment.excluded.len())).collect();
        let statistics = Statistics::try_merge_iter(&statistics, &file_schema)?;
        Ok(Self { columns, segments, file_schema, projection, statistics })
    }

    fn scan(
        &self,
        state: &dyn Session,
        readers: Arc<Readers>,
        Wanted { projection, rows, limit }: Wanted<'_>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let options = state.table_options().parquet.clone();
        let source = ParquetSource::new(Arc::clone(&self.file_schema))
            .with_table_parquet_options(options)
            // Pages and row groups are pruned all the same; a filter over decoded batches beats decoding row by row.
            .with_pushdown_filters(false)
            .with_parquet_file_reader_factory(readers);
        let columns = projection.iter().filter_map(|index| self.projection.get(*index)).cloned();
        let source = source.try_pushdown_projection(&ProjectionExprs::new(columns))?;
        let source = source.ok_or_else(|| DataFusionError::Internal("Parquet takes projections".to_owned()))?;
        let threads = state.config().target_partitions();
        let (segments, statistics) = match &rows {
            None => (&self.segments, self.statistics.clone()),
            Some(segments) => (segments, self.statistics.clone().to_inexact()),
        };
        let config = FileScanConfigBuilder::new(store_url()?, source)
            .with_file_groups(pieces(segments, threads))
            .with_statistics(statistics)
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// What a scan is asked for.
struct Wanted<'a> {
    projection: &'a [usize],
    /// The segments with all rows excluded that cannot match; none when every row may.
    rows: Option<Vec<Segment>>,
    limit: Option<usize>,
}

/// The segment `part` with what its footer says.
async fn segment(files: &Files, part: SegmentPart) -> Result<(Arc<Columns>, Segment)> {
    let facts = files.facts(&part).await?;
    let (columns, excluded) = (Arc::clone(&part.columns), Arc::clone(&part.excluded));
    Ok((columns, Segment { path: part.path.clone(), size: part.size, excluded, facts, part: Some(part) }))
}

/// The table's column `field`, computed from a file with `columns`.
fn column(field: &FieldRef, file_schema: &Schema, columns: &Columns, table: &Columns) -> Result<Arc<dyn PhysicalExpr>> {
    let (stored, types) = match field.name().as_str() {
        TRANSACTION => (VERSION, None),
        REST => (REST, None),
        ID => (ID, Some((&columns.id, &table.id))),
        name => (name, columns.get(name).zip(table.get(name))),
    };
    let Ok(index) = file_schema.index_of(stored) else { return Ok(Arc::new(AsTable::missing(Arc::clone(field)))) };
    let input: Arc<dyn PhysicalExpr> = Arc::new(Column::new(stored, index));
    let file_field = file_schema.field(index);
    if file_field.data_type() == field.data_type() && file_field.metadata() == field.metadata() {
        return Ok(input);
    }
    let json = ColumnType::Json;
    Ok(Arc::new(match types {
        Some((from, to)) => AsTable::widened(input, from.clone(), to.clone(), Arc::clone(field)),
        None if stored == REST => AsTable::widened(input, json.clone(), json, Arc::clone(field)),
        None => AsTable::missing(Arc::clone(field)),
    }))
}

/// The schema of SQL for `schema`: every column may be null, strings and bytes are views.
pub(crate) fn table_schema(schema: &Schema) -> SchemaRef {
    let fields = crate::files::views(schema);
    let nullable = |field: &FieldRef| -> Field { field.as_ref().clone().with_nullable(true) };
    Arc::new(Schema::new(fields.fields().iter().map(nullable).collect::<Vec<_>>()))
}

pub(crate) fn in_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        if column.data_type() == field.data_type() { Ok(Arc::clone(column)) } else { cast(column, field.data_type()) }
    });
    Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect::<std::result::Result<_, _>>()?)?)
}

impl fmt::Debug for CollectionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups: Vec<_> =
            self.groups.iter().map(|group| (group.segments.len(), group.columns.fields.len())).collect();
        f.debug_struct("CollectionTable").field("groups", &groups).field("memory", &self.memory.len()).finish()
    }
}

#[async_trait]
impl TableProvider for CollectionTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Every filter stays above the scan in the logical plan. The physical optimizer then moves it into the scans that can
    /// evaluate it, each by its own means.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let projection = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let ids = point::ids(filters, &self.columns.id);
        let readers = Arc::new(Readers {
            objects: Arc::clone(&self.objects),
            budget: state.config().get_extension::<ScanBudget>(),
        });
        let mut scans = Vec::with_capacity(self.groups.len() + 1);
        for group in &self.groups {
            let rows = match &ids {
                None => None,
                Some(ids) => Some(point::segments_with(&group.segments, ids).await?),
            };
            if rows.as_ref().is_some_and(Vec::is_empty) {
                continue;
            }
            scans.push(group.scan(state, Arc::clone(&readers), Wanted { projection: &projection, rows, limit })?);
        }
        if !self.memory.is_empty() {
            scans.push(self.scan_memory(&projection)?);
        }
        match scans.len() {
            0 => Ok(Arc::new(EmptyExec::new(Arc::new(self.schema.project(&projection)?)))),
            1 => Ok(scans.swap_remove(0)),
            _ => UnionExec::try_new(scans),
        }
    }
}
