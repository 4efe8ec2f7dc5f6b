//! Widening: what a segment holds, as the wider type that the table has by now.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StringBuilder, StructArray, new_null_array};
use arrow::compute::cast;
use arrow::error::ArrowError;

use super::{ColumnType, json, list_field, struct_fields};

/// Turns an array of type `from` into one of type `to`, where `to` is `from` or wider.
///
/// # Errors
/// When `to` is not wider than `from`, or the array is not of type `from`.
pub fn widen(array: &ArrayRef, from: &ColumnType, to: &ColumnType) -> Result<ArrayRef, ArrowError> {
    if from == to {
        return Ok(Arc::clone(array));
    }
    match (from, to) {
        (ColumnType::Null, to) => Ok(new_null_array(&to.data_type(), array.len())),
        (ColumnType::Int, ColumnType::Decimal | ColumnType::Float) | (ColumnType::Decimal, ColumnType::Float) => {
            cast(array, &to.data_type())
        }
        (ColumnType::List(from), ColumnType::List(to)) => {
            let list = array.as_list_opt::<i32>().ok_or_else(|| not_of(array, "a list"))?;
            let values = widen(list.values(), from, to)?;
            Ok(Arc::new(ListArray::try_new(list_field(to), list.offsets().clone(), values, list.nulls().cloned())?))
        }
        (ColumnType::Struct(from), ColumnType::Struct(to)) => widen_struct(array, from, to),
        (_, ColumnType::Json) => {
            let mut out = StringBuilder::new();
            let mut text = String::new();
            for row in 0..array.len() {
                if array.is_null(row) {
                    out.append_null();
                } else {
                    text.clear();
                    json::append(array, from, row, &mut text);
                    out.append_value(&text);
                }
            }
            Ok(Arc::new(out.finish()))
        }
        (from, to) => Err(ArrowError::CastError(format!("{to:?} is not wider than {from:?}"))),
    }
}

type NamedTypes = [(Box<str>, ColumnType)];

fn widen_struct(array: &ArrayRef, from: &NamedTypes, to: &NamedTypes) -> Result<ArrayRef, ArrowError> {
    let children: &[ArrayRef] =
        if from.is_empty() { &[] } else { array.as_struct_opt().ok_or_else(|| not_of(array, "a struct"))?.columns() };
    let columns = to.iter().map(|(name, kind)| {
        let old = from.iter().zip(children).find(|((old, _), _)| old == name);
        match old {
            Some(((_, old), child)) => widen(child, old, kind),
            None => Ok(new_null_array(&kind.data_type(), array.len())),
        }
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(StructArray::try_new(struct_fields(to), columns, array.nulls().cloned())?))
}

fn not_of(array: &ArrayRef, what: &str) -> ArrowError {
    ArrowError::CastError(format!("expected {what}, found {}", array.data_type()))
}
