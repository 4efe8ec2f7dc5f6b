//! JSON text from values, and from arrays that turn out to have been too narrow.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{Decimal128Type, Float64Type, Int64Type};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bigpeer_crdt::Value;

use super::ColumnType;

/// JSON text of a value.
pub(super) fn text_of(value: &Value) -> String {
    value.to_json().to_string()
}

/// Appends the JSON of `array[row]`, stored as `kind`.
pub(super) fn append(array: &ArrayRef, kind: &ColumnType, row: usize, out: &mut String) {
    if array.is_null(row) {
        out.push_str("null");
        return;
    }
    match kind {
        ColumnType::Null => out.push_str("null"),
        ColumnType::Bool => out.push_str(if array.as_boolean().value(row) { "true" } else { "false" }),
        ColumnType::Int => out.push_str(&array.as_primitive::<Int64Type>().value(row).to_string()),
        ColumnType::Decimal => out.push_str(&array.as_primitive::<Decimal128Type>().value(row).to_string()),
        ColumnType::Float => {
            out.push_str(&serde_json::Value::from(array.as_primitive::<Float64Type>().value(row)).to_string());
        }
        ColumnType::Text => append_text(array.as_string::<i32>().value(row), out),
        ColumnType::Bytes => {
            out.push_str("{\"$binary\":");
            append_text(&STANDARD.encode(array.as_binary::<i32>().value(row)), out);
            out.push('}');
        }
        ColumnType::Json => out.push_str(array.as_string::<i32>().value(row)),
        ColumnType::List(element) => {
            let values = array.as_list::<i32>().value(row);
            out.push('[');
            for at in 0..values.len() {
                if at > 0 {
                    out.push(',');
                }
                append(&values, element, at, out);
            }
            out.push(']');
        }
        ColumnType::Struct(fields) if fields.is_empty() => out.push_str("{}"),
        ColumnType::Struct(fields) => {
            out.push('{');
            let mut first = true;
            for ((name, kind), values) in fields.iter().zip(array.as_struct().columns()) {
                if values.is_null(row) {
                    continue;
                }
                if !std::mem::take(&mut first) {
                    out.push(',');
                }
                append_text(name, out);
                out.push(':');
                append(values, kind, row, out);
            }
            out.push('}');
        }
    }
}

pub(super) fn append_text(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}
