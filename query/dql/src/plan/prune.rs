//! What follows from a condition: which ids it pins, what a scan may prune with. All of it is conservative: a document
//! that matches is never excluded.

#![allow(clippy::wildcard_enum_match_arm, reason = "whatever is not named says nothing about ids and fields")]

use bigpeer_crdt::{ConditionOp, DocId, FieldCondition, Value};

use crate::ast::{BinaryOp, Expr};

/// Most ids that are looked up one by one; more are found by a scan.
pub(super) const MAX_POINT_LOOKUPS: usize = 10_000;

/// Conditions on fields that must hold for `filter` to be true.
pub(crate) fn conditions(filter: Option<&Expr>) -> Vec<FieldCondition> {
    let mut out = Vec::new();
    if let Some(filter) = filter {
        necessary(filter, &mut out);
    }
    out
}

fn necessary(expr: &Expr, out: &mut Vec<FieldCondition>) {
    let mut add = |path: &[String], op: ConditionOp, values: Vec<Value>| {
        if !path.is_empty() && values.iter().all(is_prunable) {
            out.push(FieldCondition { path: path.iter().map(|key| key.as_str().into()).collect(), op, values });
        }
    };
    match expr {
        Expr::And(terms) => terms.iter().for_each(|term| necessary(term, out)),
        Expr::Path(path) => add(path, ConditionOp::Eq, vec![Value::Bool(true)]),
        Expr::Not(inner) => {
            if let Expr::Path(path) = &**inner {
                add(path, ConditionOp::Eq, vec![Value::Bool(false)]);
            }
        }
        Expr::Binary(op, left, right) => match (&**left, &**right) {
            (Expr::Path(path), Expr::Literal(value)) => {
                if let Some(op) = condition_op(*op) {
                    add(path, op, vec![value.clone()]);
                }
            }
            (Expr::Literal(value), Expr::Path(path)) => {
                if let Some(op) = condition_op(*op).map(flipped) {
                    add(path, op, vec![value.clone()]);
                }
            }
            _ => {}
        },
        Expr::Between { expr, low, high, negated: false } => {
            if let Expr::Path(path) = &**expr {
                for (bound, op) in [(low, ConditionOp::GtEq), (high, ConditionOp::LtEq)] {
                    if let Expr::Literal(value) = &**bound {
                        add(path, op, vec![value.clone()]);
                    }
                }
            }
        }
        Expr::In { .. } | Expr::InArray { .. } => {
            if let Some((path, values)) = membership(expr) {
                add(path, ConditionOp::In, values);
            }
        }
        Expr::Is { expr, missing: true, negated: true } => {
            if let Expr::Path(path) = &**expr {
                add(path, ConditionOp::Exists, Vec::new());
            }
        }
        _ => {}
    }
}

/// `path IN (constants)`, without nulls, which equal nothing.
fn membership(expr: &Expr) -> Option<(&[String], Vec<Value>)> {
    let (path, values) = match expr {
        Expr::In { expr, list, negated: false } => {
            let values =
                list.iter().map(|item| if let Expr::Literal(value) = item { Some(value.clone()) } else { None });
            (&**expr, values.collect::<Option<Vec<Value>>>()?)
        }
        Expr::InArray { expr, array, negated: false } => match &**array {
            Expr::Literal(Value::Array(items)) => (&**expr, items.clone()),
            _ => return None,
        },
        _ => return None,
    };
    let Expr::Path(path) = path else { return None };
    Some((path, values.into_iter().filter(|value| !value.is_null()).collect()))
}

/// Scalars only: how containers and NaN are kept in statistics is nobody's business here.
pub(super) fn is_prunable(value: &Value) -> bool {
    match value {
        Value::Bool(_) | Value::Int(_) | Value::UInt(_) | Value::String(_) | Value::Bytes(_) => true,
        Value::Float(number) => !number.is_nan(),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

const fn condition_op(op: BinaryOp) -> Option<ConditionOp> {
    match op {
        BinaryOp::Eq => Some(ConditionOp::Eq),
        BinaryOp::Lt => Some(ConditionOp::Lt),
        BinaryOp::LtEq => Some(ConditionOp::LtEq),
        BinaryOp::Gt => Some(ConditionOp::Gt),
        BinaryOp::GtEq => Some(ConditionOp::GtEq),
        BinaryOp::NotEq
        | BinaryOp::Add
        | BinaryOp::Subtract
        | BinaryOp::Multiply
        | BinaryOp::Divide
        | BinaryOp::Modulo
        | BinaryOp::Concat => None,
    }
}

const fn flipped(op: ConditionOp) -> ConditionOp {
    match op {
        ConditionOp::Lt => ConditionOp::Gt,
        ConditionOp::LtEq => ConditionOp::GtEq,
        ConditionOp::Gt => ConditionOp::Lt,
        ConditionOp::GtEq => ConditionOp::LtEq,
        ConditionOp::Eq => ConditionOp::Eq,
        ConditionOp::In => ConditionOp::In,
        ConditionOp::Exists => ConditionOp::Exists,
    }
}

/// The only ids for which `filter` can be true, sorted; none if it does not say, or there are too many.
pub(crate) fn ids(filter: Option<&Expr>) -> Option<Vec<DocId>> {
    pinned(filter?).filter(|ids| ids.len() <= MAX_POINT_LOOKUPS)
}

fn pinned(expr: &Expr) -> Option<Vec<DocId>> {
    let is_id = |expr: &Expr| matches!(expr, Expr::Path(path) if path.len() == 1 && path.first().is_some_and(|key| key == "_id"));
    match expr {
        Expr::And(terms) => terms.iter().filter_map(pinned).reduce(|mut both, other| {
            both.retain(|id| other.binary_search(id).is_ok());
            both
        }),
        Expr::Or(terms) => {
            let mut all = Vec::new();
            for term in terms {
                all.extend(pinned(term)?);
            }
            Some(sorted(all))
        }
        Expr::Binary(BinaryOp::Eq, left, right) => match (&**left, &**right) {
            (id, Expr::Literal(value)) | (Expr::Literal(value), id) if is_id(id) => {
                Some(known(std::slice::from_ref(value)))
            }
            _ => None,
        },
        Expr::In { .. } | Expr::InArray { .. } => match membership(expr) {
            Some((path, values)) if path.len() == 1 && path.first().is_some_and(|key| key == "_id") => {
                Some(known(&values))
            }
            _ => None,
        },
        // Never true.
        Expr::Literal(Value::Null | Value::Bool(false)) | Expr::Missing => Some(Vec::new()),
        _ => None,
    }
}

/// The ids that are these values; a value that cannot be an id is no document's.
pub(crate) fn known(values: &[Value]) -> Vec<DocId> {
    sorted(values.iter().filter(|value| !value.is_null()).filter_map(|value| DocId::from_value(value).ok()).collect())
}

fn sorted(mut ids: Vec<DocId>) -> Vec<DocId> {
    ids.sort();
    ids.dedup();
    ids
}
