//! System collections as tables: what another role says at the moment when the query is planned.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use bigpeer_chassis::{ColumnKind, SystemCollection};
use bigpeer_types::AppId;
use datafusion::datasource::MemTable;
use datafusion::error::Result;
use serde_json::Value;

/// The rows of `app`. Arrays and objects are columns of JSON text.
pub(crate) fn table(system: &dyn SystemCollection, app: &AppId) -> Result<MemTable> {
    let (columns, rows) = (system.columns(), system.rows(app));
    let mut fields = Vec::with_capacity(columns.len());
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(columns.len());
    for column in columns {
        let values = rows.iter().map(|row| row.get(column.name).unwrap_or(&Value::Null));
        let array: ArrayRef = match column.kind {
            ColumnKind::Text => Arc::new(values.map(Value::as_str).collect::<StringArray>()),
            ColumnKind::Integer => Arc::new(values.map(Value::as_i64).collect::<Int64Array>()),
            ColumnKind::Boolean => Arc::new(values.map(Value::as_bool).collect::<BooleanArray>()),
            ColumnKind::Json => Arc::new(values.map(|value| Some(value.to_string())).collect::<StringArray>()),
        };
        let kind = match column.kind {
            ColumnKind::Text | ColumnKind::Json => DataType::Utf8,
            ColumnKind::Integer => DataType::Int64,
            ColumnKind::Boolean => DataType::Boolean,
        };
        fields.push(Field::new(column.name, kind, true));
        arrays.push(array);
    }
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays)?;
    MemTable::try_new(schema, vec![vec![batch]])
}
