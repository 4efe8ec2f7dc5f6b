//! Types: asking for them, and casting.

#![allow(clippy::wildcard_enum_match_arm, reason = "each of these modules names its own functions")]

use bigpeer_crdt::Value;

use super::Function;
use crate::ast::CastType;
use crate::eval::Cell;
use crate::eval::number::Number;

/// None when `function` is not one of these.
pub(super) fn call<'a>(function: Function, cells: &[Cell<'a>]) -> Option<Cell<'a>> {
    let value = cells.first().and_then(Cell::get);
    let is = |holds: fn(&Value) -> bool| match value {
        None => Cell::Missing,
        Some(Value::Null) => Cell::NULL,
        Some(value) => Cell::of(holds(value)),
    };
    Some(match function {
        Function::Type => Cell::of(type_name(value)),
        Function::JsonType => Cell::of(match value {
            Some(Value::Int(_) | Value::UInt(_) | Value::Float(_)) => "number",
            other => type_name(other),
        }),
        Function::IsNumber => is(|value| Number::of(value).is_some()),
        Function::IsString => is(|value| matches!(value, Value::String(_))),
        Function::IsBoolean => is(|value| matches!(value, Value::Bool(_))),
        _ => return None,
    })
}

const fn type_name(value: Option<&Value>) -> &'static str {
    match value {
        None => "missing",
        Some(Value::Null) => "null",
        Some(Value::Bool(_)) => "boolean",
        Some(Value::Int(_) | Value::UInt(_)) => "integer",
        Some(Value::Float(_)) => "float",
        Some(Value::String(_)) => "string",
        Some(Value::Bytes(_)) => "binary",
        Some(Value::Array(_)) => "array",
        Some(Value::Object(_)) => "object",
    }
}

/// `CAST`; what cannot be cast is MISSING.
pub(crate) fn cast<'a>(cell: &Cell<'a>, to: CastType) -> Cell<'a> {
    let Some(value) = cell.get() else { return Cell::Missing };
    if value.is_null() {
        return Cell::NULL;
    }
    let cast = match to {
        CastType::String => to_text(value).map(Value::from),
        CastType::Integer => to_integer(value),
        CastType::Float => to_float(value).map(Value::Float),
        CastType::Boolean => to_boolean(value).map(Value::Bool),
        CastType::Binary => match value {
            Value::Bytes(_) => Some(value.clone()),
            Value::String(text) => Some(Value::from(text.as_bytes().to_vec())),
            _ => None,
        },
    };
    cast.map_or(Cell::Missing, Cell::Own)
}

fn to_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Int(number) => Some(number.to_string()),
        Value::UInt(number) => Some(number.to_string()),
        Value::Float(number) => Some(format!("{number:?}")),
        Value::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok(),
        Value::Array(_) | Value::Object(_) => serde_json::to_string(&value.to_json()).ok(),
        Value::Null => None,
    }
}

#[allow(clippy::cast_possible_truncation, reason = "in range, and already without fraction")]
fn to_integer(value: &Value) -> Option<Value> {
    match value {
        Value::Int(_) | Value::UInt(_) => Some(value.clone()),
        Value::Bool(flag) => Some(Value::Int((*flag).into())),
        // Below 2^64 and above -2^63, else it is no 64-bit integer.
        Value::Float(number)
            if number.trunc() < 18_446_744_073_709_551_616.0 && number.trunc() >= -9_223_372_036_854_775_808.0 =>
        {
            Some(Number::Int(number.trunc() as i128).value())
        }
        Value::String(text) => {
            let text = text.trim();
            let exact = text.parse::<i64>().map(Value::Int).or_else(|_| text.parse::<u64>().map(Value::from));
            exact.ok().or_else(|| to_integer(&Value::Float(text.parse().ok()?)))
        }
        Value::Null | Value::Float(_) | Value::Bytes(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn to_float(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(flag) => Some(if *flag { 1.0 } else { 0.0 }),
        Value::String(text) => text.trim().parse().ok(),
        other => Number::of(other).map(Number::to_float),
    }
}

fn to_boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) if text.trim().eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.trim().eq_ignore_ascii_case("false") => Some(false),
        other => Number::of(other).map(|number| number.to_float() != 0.0),
    }
}
