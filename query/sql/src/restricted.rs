//! A collection of which the caller may see a part. Its documents are read and judged one by one, by the rules that hold
//! over sync and the HTTP API, before anything of them becomes a row: no query can be written that sees the others.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bigpeer_crdt::Document;
use bigpeer_tables::{Scan, ScannedDocument, TableSnapshot, TablesError};
use bigpeer_types::CollectionName;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::DataFusionError;
use datafusion::datasource::TableType;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::{StreamExt, TryStreamExt};

use crate::budget::ScanBudget;
use crate::rules::Allowed;
use crate::table::{in_schema, table_schema};

/// The part of a collection that may be seen.
pub(crate) struct RestrictedTable(Arc<Part>);

struct Part {
    collection: CollectionName,
    table: TableSnapshot,
    allowed: Allowed,
    schema: SchemaRef,
}

impl RestrictedTable {
    pub(crate) fn new(collection: CollectionName, table: TableSnapshot, allowed: Allowed) -> Self {
        let schema = table_schema(&table.schema);
        Self(Arc::new(Part { collection, table, allowed, schema }))
    }
}

impl fmt::Debug for RestrictedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RestrictedTable").field(&self.0.collection).finish()
    }
}

#[async_trait]
impl TableProvider for RestrictedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let budget = state.config().get_extension::<ScanBudget>();
        let rows: Arc<dyn PartitionStream> = Arc::new(AllowedRows { part: Arc::clone(&self.0), budget });
        let schema = Arc::clone(&self.0.schema);
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![rows], projection, [], false, limit)?))
    }
}

/// The rows that may be seen.
struct AllowedRows {
    part: Arc<Part>,
    budget: Option<Arc<ScanBudget>>,
}

impl fmt::Debug for AllowedRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AllowedRows").field(&self.part.collection).finish()
    }
}

impl PartitionStream for AllowedRows {
    fn schema(&self) -> &SchemaRef {
        &self.part.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (part, budget) = (Arc::clone(&self.part), self.budget.clone());
        let documents = part.table.snapshot().scan(&part.collection, Scan::default());
        let rows = documents.map_err(external).and_then(move |documents| {
            let (part, budget) = (Arc::clone(&part), budget.clone());
            async move {
                if let Some(budget) = budget {
                    let bytes: usize = documents.iter().map(|document| document.state.len()).sum();
                    budget.take(bytes as u64).map_err(|error| DataFusionError::External(Box::new(error)))?;
                }
                let judged = tokio::task::spawn_blocking(move || part.judge(&documents)).await;
                judged.map_err(|error| DataFusionError::External(Box::new(error)))?
            }
        });
        let rows = rows.try_filter(|batch| std::future::ready(batch.num_rows() > 0));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.part.schema), rows.boxed()))
    }
}

impl Part {
    /// Those of `documents` that may be seen, as rows.
    fn judge(&self, documents: &[ScannedDocument]) -> Result<RecordBatch> {
        let mut seen = Vec::with_capacity(documents.len());
        for found in documents {
            let document = Document::decode(&found.state).map_err(|error| DataFusionError::External(error.into()))?;
            if self.allowed.holds(&found.id, &document) {
                seen.push((found.id.clone(), found.lsn, document));
            }
        }
        in_schema(&self.table.batch(&seen).map_err(external)?, &self.schema)
    }
}

fn external(error: TablesError) -> DataFusionError {
    DataFusionError::External(error.into())
}
