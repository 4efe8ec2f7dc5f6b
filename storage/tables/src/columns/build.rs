//! Arrays of typed columns from values.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanArray, Decimal128Array, Float64Array, Int64Array, ListArray, StringBuilder,
    StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::error::ArrowError;
use bigpeer_crdt::{Object, Value};

use super::{ColumnType, json, list_field, struct_fields};

/// One array of type `kind` from values that it holds. A value that does not fit, which inference rules out, is null.
pub(super) fn build_column(kind: &ColumnType, values: &[Option<&Value>]) -> Result<ArrayRef, ArrowError> {
    Ok(match kind {
        ColumnType::Null => text_column(values, |_| None),
        ColumnType::Bool => Arc::new(values.iter().map(|value| bool_of(*value)).collect::<BooleanArray>()),
        ColumnType::Int => Arc::new(values.iter().map(|value| int_of(*value)).collect::<Int64Array>()),
        ColumnType::Float => Arc::new(values.iter().map(|value| float_of(*value)).collect::<Float64Array>()),
        ColumnType::Decimal => {
            let array: Decimal128Array = values.iter().map(|value| decimal_of(*value)).collect();
            Arc::new(array.with_precision_and_scale(20, 0)?)
        }
        ColumnType::Text => {
            let bytes = values.iter().flatten().map(|value| value.as_str().map_or(0, str::len)).sum();
            let mut out = StringBuilder::with_capacity(values.len(), bytes);
            values.iter().for_each(|value| out.append_option(value.and_then(Value::as_str)));
            Arc::new(out.finish())
        }
        ColumnType::Bytes => {
            let mut out = BinaryBuilder::new();
            values.iter().for_each(|value| out.append_option(bytes_of(*value)));
            Arc::new(out.finish())
        }
        ColumnType::Json => text_column(values, |value| (!value.is_null()).then(|| json::text_of(value))),
        ColumnType::List(element) => build_list(element, values)?,
        ColumnType::Struct(fields) if fields.is_empty() => {
            text_column(values, |value| value.as_object().map(|_| "{}".to_owned()))
        }
        ColumnType::Struct(fields) => build_struct(fields, values)?,
    })
}

fn text_column(values: &[Option<&Value>], text: impl Fn(&Value) -> Option<String>) -> ArrayRef {
    let mut out = StringBuilder::new();
    values.iter().for_each(|value| out.append_option(value.and_then(&text)));
    Arc::new(out.finish())
}

fn build_list(element: &ColumnType, values: &[Option<&Value>]) -> Result<ArrayRef, ArrowError> {
    let lists = values.iter().map(|value| match value {
        Some(Value::Array(values)) => Some(values.as_slice()),
        _ => None,
    });
    let elements: Vec<Option<&Value>> = lists.clone().flatten().flatten().map(Some).collect();
    let lengths = lists.clone().map(|list| list.map_or(0, <[Value]>::len));
    let nulls: NullBuffer = lists.clone().map(|list| list.is_some()).collect();
    let elements = build_column(element, &elements)?;
    Ok(Arc::new(ListArray::try_new(list_field(element), OffsetBuffer::from_lengths(lengths), elements, Some(nulls))?))
}

fn build_struct(fields: &[(Box<str>, ColumnType)], values: &[Option<&Value>]) -> Result<ArrayRef, ArrowError> {
    let objects: Vec<Option<&Object>> = values.iter().map(|value| value.and_then(Value::as_object)).collect();
    let nulls: NullBuffer = objects.iter().map(Option::is_some).collect();
    let names: Vec<&str> = fields.iter().map(|(name, _)| &**name).collect();
    let values = transpose(&names, &objects);
    let columns = fields.iter().zip(&values).map(|((_, kind), values)| build_column(kind, values));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(StructArray::try_new(struct_fields(fields), columns, Some(nulls))?))
}

/// The values of each named field in each of the objects. One walk over each object, which is in the cache then: both
/// its fields and the sorted names ascend.
pub(super) fn transpose<'a>(names: &[&str], objects: &[Option<&'a Object>]) -> Vec<Vec<Option<&'a Value>>> {
    let mut sorted: Vec<(&str, usize)> = names.iter().copied().zip(0..).collect();
    sorted.sort_unstable();
    let mut columns = vec![vec![None; objects.len()]; names.len()];
    for (row, object) in objects.iter().enumerate() {
        let mut names = sorted.iter();
        let mut next = names.next();
        for (field, value) in object.iter().flat_map(|object| object.iter()) {
            let order = loop {
                match next.map(|(name, _)| name.cmp(&field)) {
                    Some(Ordering::Less) => next = names.next(),
                    order => break order,
                }
            };
            if let (Some(Ordering::Equal), Some((_, column))) = (order, next) {
                if let Some(slot) = columns.get_mut(*column).and_then(|column| column.get_mut(row)) {
                    *slot = Some(value);
                }
                next = names.next();
            }
        }
    }
    columns
}

fn bool_of(value: Option<&Value>) -> Option<bool> {
    match value {
        Some(Value::Bool(value)) => Some(*value),
        _ => None,
    }
}

fn int_of(value: Option<&Value>) -> Option<i64> {
    match value {
        Some(Value::Int(value)) => Some(*value),
        _ => None,
    }
}

fn decimal_of(value: Option<&Value>) -> Option<i128> {
    match value {
        Some(Value::Int(value)) => Some(i128::from(*value)),
        Some(Value::UInt(value)) => Some(i128::from(*value)),
        _ => None,
    }
}

#[allow(clippy::cast_precision_loss, reason = "a float column holds the nearest float")]
fn float_of(value: Option<&Value>) -> Option<f64> {
    match value {
        Some(Value::Int(value)) => Some(*value as f64),
        Some(Value::UInt(value)) => Some(*value as f64),
        Some(Value::Float(value)) => Some(*value),
        _ => None,
    }
}

fn bytes_of(value: Option<&Value>) -> Option<&[u8]> {
    match value {
        Some(Value::Bytes(value)) => Some(value),
        _ => None,
    }
}
