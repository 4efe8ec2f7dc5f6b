//! Numbers: exact comparison of integers with floats, and arithmetic that stays integer while it can.

use std::cmp::Ordering;

use bigpeer_crdt::Value;

use super::Cell;
use crate::ast::BinaryOp;

/// A number of any of the three types. 64-bit integers of either sign are exact in `i128`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    pub(crate) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Int(number) => Some(Self::Int((*number).into())),
            Value::UInt(number) => Some(Self::Int((*number).into())),
            Value::Float(number) => Some(Self::Float(*number)),
            Value::Null | Value::Bool(_) | Value::String(_) | Value::Bytes(_) | Value::Array(_) | Value::Object(_) => {
                None
            }
        }
    }

    pub(crate) fn is_nan(self) -> bool {
        matches!(self, Self::Float(number) if number.is_nan())
    }

    #[allow(clippy::cast_precision_loss, reason = "this is what becoming a float means")]
    pub(crate) fn to_float(self) -> f64 {
        match self {
            Self::Int(number) => number as f64,
            Self::Float(number) => number,
        }
    }

    /// The value of this number: an integer if it fits into 64 bits, else a float.
    pub(crate) fn value(self) -> Value {
        match self {
            Self::Int(number) => match (i64::try_from(number), u64::try_from(number)) {
                (Ok(number), _) => Value::Int(number),
                (Err(_), Ok(number)) => Value::UInt(number),
                (Err(_), Err(_)) => Value::Float(self.to_float()),
            },
            Self::Float(number) => Value::Float(number),
        }
    }
}

/// The order of the exact numeric values; none if one is NaN.
pub(crate) fn compare(a: Number, b: Number) -> Option<Ordering> {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) => Some(a.cmp(&b)),
        (Number::Float(a), Number::Float(b)) => a.partial_cmp(&b),
        (Number::Int(a), Number::Float(b)) => int_with_float(a, b),
        (Number::Float(a), Number::Int(b)) => int_with_float(b, a).map(Ordering::reverse),
    }
}

#[allow(clippy::cast_possible_truncation, reason = "in range, and already without fraction")]
fn int_with_float(int: i128, float: f64) -> Option<Ordering> {
    if float.is_nan() {
        return None;
    }
    // Beyond every 64-bit integer, far within i128.
    const BEYOND: f64 = 36_893_488_147_419_103_232.0;
    if float >= BEYOND {
        return Some(Ordering::Less);
    }
    if float <= -BEYOND {
        return Some(Ordering::Greater);
    }
    let whole = float.trunc();
    Some(int.cmp(&(whole as i128)).then_with(|| 0.0_f64.partial_cmp(&(float - whole)).unwrap_or(Ordering::Equal)))
}

/// `a op b` for `+ - * / %`. Integers stay integers, also when divided, until the result needs more than 64 bits;
/// division by zero is NULL.
pub(crate) fn arithmetic<'a>(op: BinaryOp, a: Option<&Value>, b: Option<&Value>) -> Cell<'a> {
    let (Some(a), Some(b)) = (a, b) else { return Cell::Missing };
    if a.is_null() || b.is_null() {
        return Cell::NULL;
    }
    let (Some(a), Some(b)) = (Number::of(a), Number::of(b)) else { return Cell::Missing };
    if let (Number::Int(a), Number::Int(b)) = (a, b) {
        let exact = match op {
            BinaryOp::Add => a.checked_add(b),
            BinaryOp::Subtract => a.checked_sub(b),
            BinaryOp::Multiply => a.checked_mul(b),
            BinaryOp::Divide | BinaryOp::Modulo if b == 0 => return Cell::NULL,
            BinaryOp::Divide => a.checked_div(b),
            BinaryOp::Modulo => a.checked_rem(b),
            BinaryOp::Eq
            | BinaryOp::NotEq
            | BinaryOp::Lt
            | BinaryOp::LtEq
            | BinaryOp::Gt
            | BinaryOp::GtEq
            | BinaryOp::Concat => {
                return Cell::Missing;
            }
        };
        if let Some(exact) = exact {
            return Cell::Own(Number::Int(exact).value());
        }
    }
    let (a, b) = (a.to_float(), b.to_float());
    Cell::of(match op {
        BinaryOp::Add => a + b,
        BinaryOp::Subtract => a - b,
        BinaryOp::Multiply => a * b,
        BinaryOp::Divide | BinaryOp::Modulo if b == 0.0 => return Cell::NULL,
        BinaryOp::Divide => a / b,
        BinaryOp::Modulo => a % b,
        BinaryOp::Eq
        | BinaryOp::NotEq
        | BinaryOp::Lt
        | BinaryOp::LtEq
        | BinaryOp::Gt
        | BinaryOp::GtEq
        | BinaryOp::Concat => {
            return Cell::Missing;
        }
    })
}

/// `-a`
pub(crate) fn negate<'a>(a: Option<&Value>) -> Cell<'a> {
    match a {
        None => Cell::Missing,
        Some(Value::Null) => Cell::NULL,
        Some(value) => match Number::of(value) {
            Some(Number::Int(number)) => Cell::Own(Number::Int(-number).value()),
            Some(Number::Float(number)) => Cell::of(-number),
            None => Cell::Missing,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_stay_integers_until_they_do_not_fit() {
        let of = |op, a: Value, b: Value| arithmetic(op, Some(&a), Some(&b)).into_value();
        assert_eq!(of(BinaryOp::Divide, 7.into(), 2.into()), Some(Value::Int(3)));
        assert_eq!(of(BinaryOp::Divide, 7.into(), 2.0.into()), Some(Value::Float(3.5)));
        assert_eq!(of(BinaryOp::Add, i64::MAX.into(), 1.into()), Some(Value::UInt(1 << 63)));
        assert_eq!(of(BinaryOp::Subtract, Value::UInt(1 << 63), 1.into()), Some(Value::Int(i64::MAX)));
        assert_eq!(
            of(BinaryOp::Multiply, i64::MAX.into(), 4.into()),
            Some(Value::Float(9_223_372_036_854_775_807.0 * 4.0))
        );
        assert_eq!(of(BinaryOp::Modulo, (-7).into(), 2.into()), Some(Value::Int(-1)));
        assert_eq!(of(BinaryOp::Divide, 1.into(), 0.into()), Some(Value::Null));
        assert_eq!(of(BinaryOp::Add, 1.into(), "1".into()), None);
        assert_eq!(of(BinaryOp::Add, 1.into(), Value::Null), Some(Value::Null));
        assert_eq!(negate(Some(&Value::Int(i64::MIN))).into_value(), Some(Value::UInt(1 << 63)));
    }
}
