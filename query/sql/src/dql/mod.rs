//! Large scans of DQL on typed columns: DataFusion finds groups, distinct values and documents; everything that a
//! statement does with them is DQL's own.
//!
//! Columns are used where they say exactly what the documents say ([`typed`], [`translate`]). What they cannot answer is
//! answered by nobody here: the caller then lets the evaluator go through the documents. For documents a condition that
//! follows from WHERE is enough, because the evaluator looks at what was found.

mod aggregates;
mod answer;
mod numbers;
mod top;
mod translate;
mod typed;

use std::sync::Arc;

use arrow::array::RecordBatch;
use bigpeer_chassis::{ApiError, Asker, ErrorCode, TurnLimits, Turns};
use bigpeer_crdt::{DocId, Value};
use bigpeer_dql::{ByColumns, ByColumnsWanted, Found, SelectPlan};
use bigpeer_tables::Snapshot;
use bigpeer_tables::columns::{ColumnType, ID};
use bigpeer_types::CollectionName;
use datafusion::common::{Column, DataFusionError, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::prelude::Expr;
use futures::StreamExt;

use crate::SqlSettings;
use crate::engine::Engine;
use crate::error::api_error;
use crate::metrics;
use crate::table::CollectionTable;
use aggregates::{Aggregation, named, nothing, path_key};
use top::Top;
use translate::Translator;
use typed::TABLE;

/// Most groups that are taken from columns.
const MAX_GROUPS: usize = 1_000_000;

/// Most documents that are looked up one by one; when more match, a scan is as good.
const MAX_DOCUMENTS: usize = 10_000;

/// Answers SELECTs of DQL from columns.
#[derive(Clone)]
pub struct DqlColumns {
    engine: Arc<Engine>,
    /// In each of them a statement holds a turn of its own already, which is not waited for without end.
    turns: Turns,
}

impl std::fmt::Debug for DqlColumns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DqlColumns").finish_non_exhaustive()
    }
}

/// Whether `error` is about what is stored, and not about what was made of a statement.
fn is_of_storage(error: &DataFusionError) -> bool {
    matches!(
        error.find_root(),
        DataFusionError::External(_)
            | DataFusionError::ObjectStore(_)
            | DataFusionError::ParquetError(_)
            | DataFusionError::IoError(_)
    )
}

/// What DataFusion is asked, and what is made of its answer.
struct Question {
    plan: LogicalPlan,
    reading: Reading,
}

enum Reading {
    Groups(Aggregation),
    Values(usize),
    Documents { json: bool },
}

impl DqlColumns {
    pub(crate) fn new(engine: Arc<Engine>, settings: &SqlSettings) -> Self {
        let (running, patience) = (settings.max_concurrent, settings.time_limit);
        Self { engine, turns: Turns::new(TurnLimits { running, waiting: usize::MAX, patience }) }
    }

    /// What the columns of `snapshot` say to `plan`; nothing when they cannot say it exactly, or when it is too much.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub async fn find(&self, snapshot: &Snapshot, plan: &SelectPlan) -> std::result::Result<Option<Found>, ApiError> {
        let Some(wanted) = plan.by_columns() else { return Ok(None) };
        self.ask(snapshot, plan.collection(), Some(plan), wanted).await
    }

    /// The only documents of a collection that a statement other than SELECT can mean; nothing as in [`Self::find`].
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub async fn documents(
        &self,
        snapshot: &Snapshot,
        collection: &CollectionName,
        wanted: ByColumns<'_>,
    ) -> std::result::Result<Option<Vec<DocId>>, ApiError> {
        match self.ask(snapshot, collection, None, wanted).await? {
            Some(Found::Documents(ids)) => Ok(Some(ids)),
            Some(Found::Groups(_) | Found::Values(_)) | None => Ok(None),
        }
    }

    async fn ask(
        &self,
        snapshot: &Snapshot,
        collection: &CollectionName,
        plan: Option<&SelectPlan>,
        wanted: ByColumns<'_>,
    ) -> std::result::Result<Option<Found>, ApiError> {
        let turn = self.turns.take(Asker::new(snapshot.app().clone())).await;
        let _turn =
            turn.map_err(|_| ApiError::new(ErrorCode::TooManyRequests, "too many scans are running; try again"))?;
        let found = match self.answer(snapshot, collection, plan, wanted).await {
            Ok(found) => found,
            // The evaluator has limits of its own.
            Err(DataFusionError::ResourcesExhausted(_)) => None,
            Err(error) if is_of_storage(&error) => return Err(api_error(&error)),
            Err(error) => {
                tracing::warn!(%error, "a statement cannot be answered from columns; documents are read instead");
                None
            }
        };
        metrics::dql(found.is_some());
        Ok(found)
    }

    async fn run(&self, plan: LogicalPlan, snapshot: &Snapshot) -> Result<SendableRecordBatchStream> {
        Arc::clone(&self.engine).plan_built(plan, snapshot.lsn()).await?.run()
    }

    async fn answer(
        &self,
        snapshot: &Snapshot,
        collection: &CollectionName,
        plan: Option<&SelectPlan>,
        wanted: ByColumns<'_>,
    ) -> Result<Option<Found>> {
        let table = self.engine.table(snapshot, collection).await?;
        let mut filter = None;
        let top = plan.filter(|_| matches!(wanted.wanted, ByColumnsWanted::Documents));
        if let Some(top) = top.and_then(|plan| Top::of(&table, plan, wanted)) {
            let mut last = self.run(top.last_one()?, snapshot).await?;
            let mut values = Vec::new();
            while let Some(batch) = last.next().await {
                values.push(batch?);
            }
            filter = Some(top.within(&values)?);
        }
        let Some(question) = question(&table, plan, wanted, filter)? else { return Ok(None) };
        let mut batches = self.run(question.plan, snapshot).await?;
        let (mut rows, mut ids) = (Vec::new(), Vec::new());
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            let read = match &question.reading {
                Reading::Groups(aggregation) => aggregation.groups(&batch, &mut rows),
                Reading::Values(columns) => values(&batch, *columns, &mut rows),
                Reading::Documents { json } => documents(&batch, *json, &mut ids),
            };
            if read.is_none() || rows.len() > MAX_GROUPS || ids.len() > MAX_DOCUMENTS {
                return Ok(None);
            }
        }
        Ok(Some(match question.reading {
            Reading::Groups(_) => Found::Groups(rows),
            Reading::Values(_) => Found::Values(rows),
            Reading::Documents { .. } => {
                ids.sort_unstable();
                Found::Documents(ids)
            }
        }))
    }
}

/// What to ask for `wanted`; `filter` holds of all documents that can be in the result, if that is known already.
fn question(
    table: &Arc<CollectionTable>,
    plan: Option<&SelectPlan>,
    wanted: ByColumns<'_>,
    filter: Option<Expr>,
) -> Result<Option<Question>> {
    let mut translator = Translator::new(table, wanted.strict);
    let scan = scan(table)?;
    if let ByColumnsWanted::Documents = wanted.wanted {
        let json = match table.columns().id {
            ColumnType::Int | ColumnType::Text => false,
            ColumnType::Json => true,
            _ => return Ok(None),
        };
        let necessary = |filter| translator.necessary(filter);
        let Some(filter) = filter.or_else(|| wanted.filter.and_then(necessary)) else { return Ok(None) };
        let id = Expr::Column(Column::new(Some(TableReference::bare(TABLE)), ID));
        let scan = scan.filter(filter)?.project(vec![id])?.limit(0, Some(MAX_DOCUMENTS + 1))?;
        return Ok(Some(Question { plan: scan.build()?, reading: Reading::Documents { json } }));
    }
    let scan = match wanted.filter {
        None => scan,
        Some(filter) => match translator.truth(filter) {
            Some(filter) => scan.filter(filter)?,
            None => return Ok(None),
        },
    };
    let (keys, columns, reading) = match wanted.wanted {
        ByColumnsWanted::Groups { keys, aggregates } => {
            let Some(made) = Aggregation::new(&mut translator, keys, aggregates, table.rows()) else {
                return Ok(None);
            };
            (named(&made.keys, "k"), named(&made.columns, "a"), Reading::Groups(made))
        }
        ByColumnsWanted::Distinct | ByColumnsWanted::Documents => {
            let paths = plan.and_then(SelectPlan::distinct_paths).unwrap_or_default();
            let keys = paths.iter().map(|path| path_key(&translator, path)).collect::<Option<Vec<_>>>();
            let Some(keys) = keys else { return Ok(None) };
            (named(&keys, "k"), Vec::new(), Reading::Values(keys.len()))
        }
    };
    let plan = if keys.is_empty() && columns.is_empty() {
        // Groups without keys are one, and all that is asked of it is the same whatever it holds.
        LogicalPlanBuilder::empty(true).project(vec![nothing()])?
    } else {
        scan.aggregate(keys, columns)?
    };
    Ok(Some(Question { plan: plan.build()?, reading }))
}

/// All documents of the table.
fn scan(table: &Arc<CollectionTable>) -> Result<LogicalPlanBuilder> {
    LogicalPlanBuilder::scan(TableReference::bare(TABLE), provider_as_source(Arc::clone(table) as _), None)
}

fn values(batch: &RecordBatch, columns: usize, out: &mut Vec<Vec<Option<Value>>>) -> Option<()> {
    for row in 0..batch.num_rows() {
        let cells = batch.columns().iter().take(columns).map(|column| answer::cell(column, row));
        out.push(cells.map(|cell| Some(cell?.map(answer::Number::into_value))).collect::<Option<_>>()?);
    }
    Some(())
}

fn documents(batch: &RecordBatch, json: bool, out: &mut Vec<DocId>) -> Option<()> {
    let column = batch.columns().first()?;
    for row in 0..batch.num_rows() {
        let value = answer::cell(column, row)??.into_value();
        let value = match &value {
            Value::String(text) if json => Value::from_json(serde_json::from_str(text).ok()?).ok()?,
            _ => value,
        };
        out.push(DocId::from_value(&value).ok()?);
    }
    Some(())
}
