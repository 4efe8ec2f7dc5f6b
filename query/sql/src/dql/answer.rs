//! What DataFusion has found, as values of DQL.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};
use bigpeer_crdt::Value;

/// A value of a column, with integers that may need more than 64 bits.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Number {
    Int(i128),
    Other(Value),
}

impl Number {
    /// An integer if it fits into 64 bits, else a float, as sums of DQL are.
    #[allow(clippy::cast_precision_loss, reason = "this is what becoming a float means")]
    pub(super) fn into_value(self) -> Value {
        match self {
            Self::Int(number) => match (i64::try_from(number), u64::try_from(number)) {
                (Ok(number), _) => Value::Int(number),
                (Err(_), Ok(number)) => Value::UInt(number),
                (Err(_), Err(_)) => Value::Float(number as f64),
            },
            Self::Other(value) => value,
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "this is what becoming a float means")]
    pub(super) fn to_float(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Other(Value::Float(number)) => Some(*number),
            Self::Other(_) => None,
        }
    }
}

/// The value in `row`, none where it is null; nothing at all for a type that no translation gives.
#[allow(clippy::option_option, reason = "a type that is not known is not a null")]
pub(super) fn cell(array: &ArrayRef, row: usize) -> Option<Option<Number>> {
    if array.is_null(row) {
        return Some(None);
    }
    let other = |value: Value| Some(Some(Number::Other(value)));
    match array.data_type() {
        DataType::Boolean => other(Value::Bool(array.as_boolean().value(row))),
        DataType::Int64 => Some(Some(Number::Int(array.as_primitive::<Int64Type>().value(row).into()))),
        DataType::Decimal128(_, 0) => Some(Some(Number::Int(array.as_primitive::<Decimal128Type>().value(row)))),
        DataType::Float64 => other(Value::Float(array.as_primitive::<Float64Type>().value(row)).normalized()),
        DataType::Utf8 => other(Value::from(array.as_string::<i32>().value(row))),
        DataType::LargeUtf8 => other(Value::from(array.as_string::<i64>().value(row))),
        DataType::Utf8View => other(Value::from(array.as_string_view().value(row))),
        DataType::Binary => other(Value::Bytes(array.as_binary::<i32>().value(row).into())),
        DataType::LargeBinary => other(Value::Bytes(array.as_binary::<i64>().value(row).into())),
        DataType::BinaryView => other(Value::Bytes(array.as_binary_view().value(row).into())),
        _ => None,
    }
}
