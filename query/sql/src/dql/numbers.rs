//! Numbers of DQL in DataFusion: integers and floats are compared by their exact values, integers stay integers as long as
//! they fit, and division by zero is NULL.

use bigpeer_crdt::Value;
use bigpeer_dql::ast::BinaryOp;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::functions::core::expr_fn::nullif;
use datafusion::logical_expr::{Operator, binary_expr, cast, when};
use datafusion::prelude::{Expr, lit};

use super::typed::{Floats, Kind, Typed};

/// 2^63.
const BEYOND_INT: f64 = 9_223_372_036_854_775_808.0;

pub(super) fn is_number(value: &Value) -> bool {
    matches!(value, Value::Int(_) | Value::UInt(_) | Value::Float(_))
}

/// A null of the type of conditions.
pub(super) fn unknown() -> Expr {
    lit(ScalarValue::Boolean(None))
}

/// `flag` wherever `expr` is something.
pub(super) fn wherever(expr: &Expr, flag: bool) -> Option<Expr> {
    when(expr.clone().is_null(), unknown()).otherwise(lit(flag)).ok()
}

/// The comparison `op` of DataFusion.
pub(super) const fn operator(op: BinaryOp) -> Option<Operator> {
    Some(match op {
        BinaryOp::Eq => Operator::Eq,
        BinaryOp::NotEq => Operator::NotEq,
        BinaryOp::Lt => Operator::Lt,
        BinaryOp::LtEq => Operator::LtEq,
        BinaryOp::Gt => Operator::Gt,
        BinaryOp::GtEq => Operator::GtEq,
        BinaryOp::Add
        | BinaryOp::Subtract
        | BinaryOp::Multiply
        | BinaryOp::Divide
        | BinaryOp::Modulo
        | BinaryOp::Concat => return None,
    })
}

/// `op` with its sides exchanged.
pub(super) const fn flipped(op: BinaryOp) -> BinaryOp {
    match op {
        BinaryOp::Lt => BinaryOp::Gt,
        BinaryOp::LtEq => BinaryOp::GtEq,
        BinaryOp::Gt => BinaryOp::Lt,
        BinaryOp::GtEq => BinaryOp::LtEq,
        same => same,
    }
}

/// `typed op number`.
pub(super) fn compare_with(op: BinaryOp, typed: &Typed, number: &Value) -> Option<Expr> {
    let operator = operator(op)?;
    let less_than_all = |flag: bool| wherever(&typed.expr, flag);
    let with = |number: Expr| Some(binary_expr(typed.expr.clone(), operator, number));
    match (typed.kind, number) {
        (Kind::Int { .. }, Value::Int(number)) => with(lit(*number)),
        // Every integer of the column is less.
        (Kind::Int { .. }, Value::UInt(_)) => {
            less_than_all(matches!(op, BinaryOp::Lt | BinaryOp::LtEq | BinaryOp::NotEq))
        }
        (Kind::Int { .. }, Value::Float(number)) => int_with_float(op, &typed.expr, *number),
        (Kind::Float(Floats::Stored | Floats::Mixed), Value::Int(number)) => with(lit(exact(*number)?)),
        // -0.0 becomes 0.0.
        (Kind::Float(Floats::Stored | Floats::Mixed), Value::Float(number)) if !number.is_nan() => {
            with(lit(*number + 0.0))
        }
        (Kind::Float(_), _) => None,
        // Another type, or nothing.
        (Kind::Nothing | Kind::Bool | Kind::Text | Kind::Bytes | Kind::Container, _) => Some(unknown()),
        (Kind::Int { .. }, _) => None,
    }
}

/// The float that is this integer, if there is one.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "it is checked")]
pub(super) fn exact(number: i64) -> Option<f64> {
    let float = number as f64;
    (float as i128 == i128::from(number)).then_some(float)
}

#[allow(clippy::cast_possible_truncation, reason = "within 64 bits, and without fraction")]
fn int_with_float(op: BinaryOp, int: &Expr, float: f64) -> Option<Expr> {
    if float.is_nan() {
        return None;
    }
    let less = matches!(op, BinaryOp::Lt | BinaryOp::LtEq | BinaryOp::NotEq);
    let greater = matches!(op, BinaryOp::Gt | BinaryOp::GtEq | BinaryOp::NotEq);
    if float >= BEYOND_INT {
        return wherever(int, less);
    }
    if float < -BEYOND_INT {
        return wherever(int, greater);
    }
    let whole = lit(float.floor() as i64);
    if float.floor() == float {
        return Some(binary_expr(int.clone(), operator(op)?, whole));
    }
    match op {
        BinaryOp::Lt | BinaryOp::LtEq => Some(int.clone().lt_eq(whole)),
        BinaryOp::Gt | BinaryOp::GtEq => Some(int.clone().gt(whole)),
        BinaryOp::NotEq => wherever(int, true),
        _ => wherever(int, false),
    }
}

/// `left op right`, for arithmetic.
pub(super) fn arithmetic(op: BinaryOp, left: Typed, right: Typed) -> Option<Typed> {
    match (left.kind, right.kind) {
        (Kind::Nothing | Kind::Bool | Kind::Text | Kind::Bytes | Kind::Container, _)
        | (_, Kind::Nothing | Kind::Bool | Kind::Text | Kind::Bytes | Kind::Container) => Some(Typed::nothing()),
        (Kind::Int { low, high }, Kind::Int { low: low2, high: high2 }) => {
            let (low, high) = bounds(op, (low, high), (low2, high2))?;
            let expr = apply(op, left.expr, right)?;
            Some(Typed { expr, kind: Kind::Int { low, high } })
        }
        // Whether it is an integer decides what becomes of it.
        (Kind::Float(Floats::Mixed), _) | (_, Kind::Float(Floats::Mixed)) => None,
        (Kind::Int { .. } | Kind::Float(_), Kind::Int { .. } | Kind::Float(_)) => {
            let float = |typed: Typed| match typed.kind {
                Kind::Int { .. } => Typed { expr: cast(typed.expr, DataType::Float64), ..typed },
                _ => typed,
            };
            let expr = apply(op, float(left).expr, float(right))?;
            Some(Typed { expr, kind: Kind::Float(Floats::Computed) })
        }
    }
}

fn apply(op: BinaryOp, left: Expr, right: Typed) -> Option<Expr> {
    let operator = match op {
        BinaryOp::Add => Operator::Plus,
        BinaryOp::Subtract => Operator::Minus,
        BinaryOp::Multiply => Operator::Multiply,
        BinaryOp::Divide => Operator::Divide,
        BinaryOp::Modulo => Operator::Modulo,
        _ => return None,
    };
    let divides = matches!(op, BinaryOp::Divide | BinaryOp::Modulo);
    let right = match right.kind {
        Kind::Int { low, high } if divides && low <= 0 && high >= 0 => nullif(right.expr, lit(0_i64)),
        Kind::Float(Floats::Stored) if divides => nullif(right.expr, lit(0.0_f64)),
        // It may be -0.0, which nothing here takes for 0.
        Kind::Float(Floats::Computed) if divides => return None,
        _ => right.expr,
    };
    Some(binary_expr(left, operator, right))
}

/// The bounds of the result, if all of it fits into 64 bits.
fn bounds(op: BinaryOp, a: (i64, i64), b: (i64, i64)) -> Option<(i64, i64)> {
    let wide = |(low, high): (i64, i64)| (i128::from(low), i128::from(high));
    let (a, b) = (wide(a), wide(b));
    let (low, high) = match op {
        BinaryOp::Add => (a.0 + b.0, a.1 + b.1),
        BinaryOp::Subtract => (a.0 - b.1, a.1 - b.0),
        BinaryOp::Multiply => {
            let corners = [a.0 * b.0, a.0 * b.1, a.1 * b.0, a.1 * b.1];
            (corners.into_iter().min()?, corners.into_iter().max()?)
        }
        BinaryOp::Divide | BinaryOp::Modulo => {
            let most = a.0.abs().max(a.1.abs());
            (-most, most)
        }
        _ => return None,
    };
    Some((i64::try_from(low).ok()?, i64::try_from(high).ok()?))
}

/// `-typed`
pub(super) fn negate(typed: Typed) -> Option<Typed> {
    let kind = match typed.kind {
        Kind::Nothing | Kind::Bool | Kind::Text | Kind::Bytes | Kind::Container => return Some(Typed::nothing()),
        Kind::Int { low, high } => Kind::Int { low: high.checked_neg()?, high: low.checked_neg()? },
        Kind::Float(Floats::Mixed) => return None,
        Kind::Float(_) => Kind::Float(Floats::Computed),
    };
    Some(Typed { expr: Expr::Negative(Box::new(typed.expr)), kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_every_result_and_are_none_when_one_needs_more_than_64_bits() {
        assert_eq!(bounds(BinaryOp::Add, (-1, 5), (10, 20)), Some((9, 25)));
        assert_eq!(bounds(BinaryOp::Subtract, (-1, 5), (10, 20)), Some((-21, -5)));
        assert_eq!(bounds(BinaryOp::Multiply, (-3, 5), (-7, 2)), Some((-35, 21)));
        assert_eq!(bounds(BinaryOp::Divide, (-3, 5), (0, 9)), Some((-5, 5)));
        assert_eq!(bounds(BinaryOp::Add, (0, i64::MAX), (0, 1)), None);
        assert_eq!(bounds(BinaryOp::Divide, (i64::MIN, 0), (-1, 1)), None);
    }

    #[test]
    fn floats_that_are_no_integers_lie_between_two() {
        let int = Expr::Column("x".into());
        let text = |op, float| int_with_float(op, &int, float).unwrap().to_string();
        assert_eq!(text(BinaryOp::Lt, 1.5), "x <= Int64(1)");
        assert_eq!(text(BinaryOp::GtEq, -1.5), "x > Int64(-2)");
        assert_eq!(text(BinaryOp::GtEq, 2.0), "x >= Int64(2)");
        assert!(text(BinaryOp::Eq, 1.5).contains("false"));
        assert!(text(BinaryOp::Lt, 1e300).contains("true"));
        assert_eq!(exact(9_007_199_254_740_993), None);
        assert_eq!(exact(-4), Some(-4.0));
    }
}
