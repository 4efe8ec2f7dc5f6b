//! The expression that turns a segment's column into the table's: wider, marked as JSON, or missing and so null. DataFusion
//! knows nothing about it, so it prunes nothing by it and pushes nothing wrong through it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Schema};
use bigpeer_tables::columns::{ColumnType, widen};
use datafusion::common::Result;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_plan::PhysicalExpr;

/// A column of a segment as a column of the table.
#[derive(Debug)]
pub(crate) struct AsTable {
    /// The segment's column; none where it has none.
    input: Option<Arc<dyn PhysicalExpr>>,
    from: ColumnType,
    to: ColumnType,
    /// The table's column.
    field: FieldRef,
}

impl AsTable {
    pub(crate) fn widened(input: Arc<dyn PhysicalExpr>, from: ColumnType, to: ColumnType, field: FieldRef) -> Self {
        Self { input: Some(input), from, to, field }
    }

    pub(crate) fn missing(field: FieldRef) -> Self {
        Self { input: None, from: ColumnType::Null, to: ColumnType::Null, field }
    }

    fn convert(&self, array: &ArrayRef) -> Result<ArrayRef> {
        let plain = self.from.data_type();
        let array = if array.data_type() == &plain { Arc::clone(array) } else { cast(array, &plain)? };
        let array = widen(&array, &self.from, &self.to)?;
        Ok(if array.data_type() == self.field.data_type() { array } else { cast(&array, self.field.data_type())? })
    }
}

impl fmt::Display for AsTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.input {
            Some(input) => write!(f, "as_table({input})"),
            None => write!(f, "missing({})", self.field.name()),
        }
    }
}

impl PartialEq for AsTable {
    fn eq(&self, other: &Self) -> bool {
        self.input == other.input && self.from == other.from && self.to == other.to && self.field == other.field
    }
}

impl Eq for AsTable {}

impl Hash for AsTable {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.input.hash(state);
        self.field.hash(state);
    }
}

impl PhysicalExpr for AsTable {
    fn data_type(&self, _input: &Schema) -> Result<DataType> {
        Ok(self.field.data_type().clone())
    }

    fn nullable(&self, _input: &Schema) -> Result<bool> {
        Ok(true)
    }

    fn return_field(&self, _input: &Schema) -> Result<FieldRef> {
        Ok(Arc::clone(&self.field))
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let rows = batch.num_rows();
        Ok(ColumnarValue::Array(match &self.input {
            Some(input) => self.convert(&input.evaluate(batch)?.into_array(rows)?)?,
            None => new_null_array(self.field.data_type(), rows),
        }))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.input.iter().collect()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(Arc::new(Self {
            input: children.into_iter().next(),
            from: self.from.clone(),
            to: self.to.clone(),
            field: Arc::clone(&self.field),
        }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
