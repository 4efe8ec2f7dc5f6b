//! The parts of an expression, for passes that treat most kinds alike.

use crate::ast::Expr;

macro_rules! children {
    ($name:ident, $($r:tt)+) => {
        /// The direct parts.
        pub(crate) fn $name($($r)+ self) -> Vec<$($r)+ Expr> {
            match self {
                Self::Literal(_) | Self::Missing | Self::Parameter(_) | Self::Path(_) => Vec::new(),
                Self::Member(base, _) | Self::Not(base) | Self::Negate(base) | Self::Cast(base, _) => vec![base],
                Self::Is { expr, .. } => vec![expr],
                Self::Index(left, right) | Self::Binary(_, left, right) => vec![left, right],
                Self::Array(items) | Self::And(items) | Self::Or(items) | Self::Call(_, items) => items.into_iter().collect(),
                Self::Object(entries) => entries.into_iter().map(|entry| $($r)+ entry.1).collect(),
                Self::Between { expr, low, high, .. } => vec![expr, low, high],
                Self::In { expr, list, .. } => {
                    let mut all: Vec<$($r)+ Expr> = vec![expr];
                    all.extend(list);
                    all
                }
                Self::InArray { expr, array, .. } => vec![expr, array],
                Self::Like { expr, pattern, .. } => vec![expr, pattern],
                Self::Case { operand, branches, otherwise } => {
                    let mut all: Vec<$($r)+ Expr> = Vec::new();
                    if let Some(operand) = operand {
                        all.push(operand);
                    }
                    for (when, then) in branches {
                        all.push(when);
                        all.push(then);
                    }
                    if let Some(otherwise) = otherwise {
                        all.push(otherwise);
                    }
                    all
                }
                Self::Aggregate { arg, .. } => match arg {
                    Some(arg) => vec![arg],
                    None => Vec::new(),
                },
                Self::Quantified { binding, condition, .. } => vec![$($r)+ binding.source, condition],
                Self::Comprehension { key, element, binding, condition } => {
                    let mut all: Vec<$($r)+ Expr> = vec![$($r)+ binding.source, element];
                    if let Some(key) = key {
                        all.push(key);
                    }
                    if let Some(condition) = condition {
                        all.push(condition);
                    }
                    all
                }
            }
        }
    };
}

impl Expr {
    children!(children, &);
    children!(children_mut, &mut);

    /// Whether `is` holds for this or any part of it.
    pub(crate) fn any(&self, is: &impl Fn(&Self) -> bool) -> bool {
        is(self) || self.children().into_iter().any(|child| child.any(is))
    }

    /// Whether an aggregate is in it.
    pub(crate) fn has_aggregate(&self) -> bool {
        self.any(&|expr| matches!(expr, Self::Aggregate { .. }))
    }

    /// Whether it has the same value for every row.
    pub(crate) fn is_constant(&self) -> bool {
        !self.any(&|expr| matches!(expr, Self::Path(_) | Self::Parameter(_) | Self::Aggregate { .. }))
    }
}
