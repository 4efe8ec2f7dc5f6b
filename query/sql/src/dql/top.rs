//! ORDER BY with LIMIT: the documents that can be among the first, by the value that the last of them has. Which of those
//! with that value are among them is not decided here.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bigpeer_dql::ast::Expr as Dql;
use bigpeer_dql::{ByColumns, SelectPlan};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{Expr, lit};

use super::translate::Translator;
use super::typed::{Floats, Kind};
use super::{MAX_DOCUMENTS, scan};
use crate::table::CollectionTable;

/// The first documents by a column.
pub(super) struct Top {
    table: Arc<CollectionTable>,
    filter: Option<Expr>,
    column: Expr,
    descending: bool,
    count: usize,
}

impl Top {
    /// Those of `plan`, if columns say exactly which match, and what they are sorted by.
    pub(super) fn of(table: &Arc<CollectionTable>, plan: &SelectPlan, wanted: ByColumns<'_>) -> Option<Self> {
        let (by, descending, count) = plan.first_by()?;
        let Dql::Path(path) = by else { return None };
        let mut translator = Translator::new(table, wanted.strict);
        let field = translator.field(path)?.typed;
        let ordered = match field.kind {
            Kind::Bool | Kind::Int { .. } | Kind::Float(Floats::Stored | Floats::Mixed) | Kind::Text | Kind::Bytes => {
                true
            }
            Kind::Nothing | Kind::Float(Floats::Computed) | Kind::Container => false,
        };
        if !ordered || count == 0 || count > MAX_DOCUMENTS {
            return None;
        }
        let filter = match wanted.filter {
            None => None,
            Some(filter) => Some(translator.truth(filter)?),
        };
        Some(Self { table: Arc::clone(table), filter, column: field.expr, descending, count })
    }

    /// Asks for the value of the last document that can be among them.
    pub(super) fn last_one(&self) -> Result<LogicalPlan> {
        let some = self.column.clone().is_not_null();
        let filter = self.filter.clone().map_or_else(|| some.clone(), |filter| filter.and(some.clone()));
        let sort = self.column.clone().sort(!self.descending, false);
        let sorted = scan(&self.table)?.filter(filter)?.sort_with_limit(vec![sort], Some(self.count))?;
        sorted.project(vec![self.column.clone().alias("v")])?.limit(self.count - 1, Some(1))?.build()
    }

    /// What holds of all documents that can be among them, when `last` is the answer to [`Self::last_one`].
    pub(super) fn within(self, last: &[RecordBatch]) -> Result<Expr> {
        let found = last.iter().find(|batch| batch.num_rows() > 0).and_then(|batch| batch.columns().first());
        let bound = match found.map(|column| ScalarValue::try_from_array(column, 0)).transpose()? {
            // NULL and MISSING come behind everything, or before it when descending.
            Some(value) if self.descending => self.column.clone().gt_eq(lit(value)).or(self.column.is_null()),
            Some(value) => self.column.lt_eq(lit(value)),
            // There are fewer than that.
            None => lit(true),
        };
        Ok(match self.filter {
            Some(filter) => filter.and(bound),
            None => bound,
        })
    }
}
