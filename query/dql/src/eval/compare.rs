//! Comparisons: `=` and `<` of queries, where types must agree, and the total order of ORDER BY.

use std::cmp::Ordering;

use bigpeer_crdt::Value;

use super::Truth;
use super::number::{Number, compare as compare_numbers};
use crate::ast::BinaryOp;

/// Where a type stands in the total order.
const fn rank(value: Option<&Value>) -> u8 {
    match value {
        Some(Value::Bool(_)) => 0,
        Some(Value::Int(_) | Value::UInt(_) | Value::Float(_)) => 1,
        Some(Value::Bytes(_)) => 2,
        Some(Value::String(_)) => 3,
        Some(Value::Array(_)) => 4,
        Some(Value::Object(_)) => 5,
        Some(Value::Null) => 6,
        None => 7,
    }
}

/// The total order: `false < true < numbers < binary < strings < arrays < objects < null < missing`. Integers and
/// floats are compared by their exact numeric values; NaN is the least number.
pub(crate) fn total(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => total_values(a, b),
        (a, b) => rank(a).cmp(&rank(b)),
    }
}

/// [`total`] for values.
pub(crate) fn total_values(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            let differing = a.iter().zip(b).map(|(a, b)| total_values(a, b)).find(|order| order.is_ne());
            differing.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Value::Object(a), Value::Object(b)) => {
            let entry = |(a, b): ((&str, &Value), (&str, &Value))| a.0.cmp(b.0).then_with(|| total_values(a.1, b.1));
            let differing = a.iter().zip(b.iter()).map(entry).find(|order| order.is_ne());
            differing.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (a, b) => match (Number::of(a), Number::of(b)) {
            (Some(a), Some(b)) => compare_numbers(a, b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan())),
            _ => rank(Some(a)).cmp(&rank(Some(b))),
        },
    }
}

/// An operator of a comparison applied to an order.
fn holds(op: BinaryOp, order: Ordering) -> bool {
    match op {
        BinaryOp::Eq => order.is_eq(),
        BinaryOp::NotEq => order.is_ne(),
        BinaryOp::Lt => order.is_lt(),
        BinaryOp::LtEq => order.is_le(),
        BinaryOp::Gt => order.is_gt(),
        BinaryOp::GtEq => order.is_ge(),
        BinaryOp::Add
        | BinaryOp::Subtract
        | BinaryOp::Multiply
        | BinaryOp::Divide
        | BinaryOp::Modulo
        | BinaryOp::Concat => false,
    }
}

/// `a op b`: MISSING if either is or the types differ, else NULL if either is null.
pub(crate) fn comparison(op: BinaryOp, a: Option<&Value>, b: Option<&Value>) -> Truth {
    let (Some(a), Some(b)) = (a, b) else { return Truth::Missing };
    if a.is_null() || b.is_null() {
        return Truth::Null;
    }
    if rank(Some(a)) != rank(Some(b)) {
        return Truth::Missing;
    }
    match (Number::of(a), Number::of(b)) {
        // NaN equals nothing, and is in no order with anything.
        (Some(a), Some(b)) => Truth::from_bool(match compare_numbers(a, b) {
            Some(order) => holds(op, order),
            None => op == BinaryOp::NotEq,
        }),
        _ => Truth::from_bool(holds(op, total_values(a, b))),
    }
}

/// Whether `a` equals one of a list's values; unlike `=`, another type is just not equal.
pub(crate) fn equals(a: &Value, b: &Value) -> bool {
    comparison(BinaryOp::Eq, Some(a), Some(b)) == Truth::True
}

/// A value or MISSING in the total order, for keys of maps.
#[derive(Clone, Debug)]
pub(crate) struct Key(pub(crate) Option<Value>);

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        total(self.0.as_ref(), other.0.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigpeer_crdt::Object;

    fn in_order() -> Vec<Option<Value>> {
        vec![
            Some(false.into()),
            Some(true.into()),
            Some(Value::Float(f64::NAN)),
            Some(Value::Float(f64::NEG_INFINITY)),
            Some(Value::Int(i64::MIN)),
            Some(Value::Int(-1)),
            Some(Value::Float(-0.5)),
            Some(Value::Int(0)),
            Some(Value::Float(0.5)),
            Some(Value::Int(9_007_199_254_740_993)),
            Some(Value::Float(9_007_199_254_740_994.0)),
            Some(Value::Int(i64::MAX)),
            Some(Value::UInt(1 << 63)),
            Some(Value::Float(1e300)),
            Some(Value::Float(f64::INFINITY)),
            Some(Value::from(vec![0_u8])),
            Some(Value::from(vec![0_u8, 0])),
            Some("".into()),
            Some("A".into()),
            Some("a".into()),
            Some("ß".into()),
            Some(Value::Array(vec![])),
            Some(Value::Array(vec![false.into()])),
            Some(Value::Array(vec![1.into()])),
            Some(Value::Object(Object::new())),
            Some(Value::Object([("a", Value::from(1))].into_iter().collect())),
            Some(Value::Null),
            None,
        ]
    }

    #[test]
    fn the_type_order_of_the_reference() {
        let values = in_order();
        for (at, a) in values.iter().enumerate() {
            for (bt, b) in values.iter().enumerate() {
                assert_eq!(total(a.as_ref(), b.as_ref()), at.cmp(&bt), "{a:?} and {b:?}");
            }
        }
    }

    #[test]
    fn integers_and_floats_compare_exactly() {
        let compare = |op, a: Value, b: Value| comparison(op, Some(&a), Some(&b));
        assert_eq!(compare(BinaryOp::Eq, 1.into(), 1.0.into()), Truth::True);
        // 2^53 + 1 is no float; as floats both would be equal.
        assert_eq!(
            compare(BinaryOp::Gt, 9_007_199_254_740_993_i64.into(), 9_007_199_254_740_992.0.into()),
            Truth::True
        );
        assert_eq!(compare(BinaryOp::Lt, i64::MAX.into(), 9_223_372_036_854_775_808.0.into()), Truth::True);
        assert_eq!(compare(BinaryOp::Eq, Value::UInt(1 << 63), 9_223_372_036_854_775_808.0.into()), Truth::True);
        assert_eq!(compare(BinaryOp::Eq, 0.into(), (-0.0).into()), Truth::True);
        assert_eq!(compare(BinaryOp::Eq, f64::NAN.into(), f64::NAN.into()), Truth::False);
        assert_eq!(compare(BinaryOp::NotEq, f64::NAN.into(), 1.into()), Truth::True);
    }

    #[test]
    fn different_types_are_missing_and_null_is_null() {
        for op in [BinaryOp::Eq, BinaryOp::NotEq, BinaryOp::Lt] {
            assert_eq!(comparison(op, Some(&1.into()), Some(&"1".into())), Truth::Missing);
            assert_eq!(comparison(op, Some(&1.into()), Some(&Value::Null)), Truth::Null);
            assert_eq!(comparison(op, Some(&Value::Null), Some(&Value::Null)), Truth::Null);
            assert_eq!(comparison(op, None, Some(&Value::Null)), Truth::Missing);
        }
    }
}
