//! `FieldCondition`: what a scan may prune with.

use crate::value::Value;

/// One necessary condition on a field. A list of them is ANDed. A document that breaks one cannot match, so a scan may
/// leave it out; one that meets them all may still not match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldCondition {
    /// Which field; `_id` is a path like any other.
    pub path: Vec<Box<str>>,
    /// The comparison.
    pub op: ConditionOp,
    /// What to compare with: one value, any number for [`ConditionOp::In`], none for [`ConditionOp::Exists`].
    pub values: Vec<Value>,
}

/// How a [`FieldCondition`] compares the field (left) with its values (right). Numbers compare by their numeric value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConditionOp {
    /// Equal.
    Eq,
    /// Less than.
    Lt,
    /// Less than or equal.
    LtEq,
    /// Greater than.
    Gt,
    /// Greater than or equal.
    GtEq,
    /// Equal to one of the values.
    In,
    /// Present, `null` included.
    Exists,
}
