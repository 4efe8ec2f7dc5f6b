//! The parts of an expression, for passes that treat most kinds alike.

use bigpeer_crdt::{Object, Value};

use crate::ast::{CounterOp, Expr, InsertInput, Order, Projection, Select, Source, Statement, UseIds};
use crate::error::{DqlError, shown};

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

    /// The same with the members of `object` in the place of `:name.member`: constants, and `MISSING` for members that it does
    /// not have.
    ///
    /// # Errors
    /// Names another parameter that is in it.
    pub fn with_object(mut self, name: &str, object: &Object) -> Result<Self, DqlError> {
        self.put_object(name, object)?;
        Ok(self)
    }

    fn put_object(&mut self, name: &str, object: &Object) -> Result<(), DqlError> {
        if let Self::Parameter(parameter) = self {
            if parameter != name {
                return Err(DqlError::new(format!("The parameter :{} has no value", shown(parameter)))
                    .hint(format!("only :{name} is known here")));
            }
            *self = Self::Literal(Value::Object(object.clone()).normalized());
            return Ok(());
        }
        self.children_mut().into_iter().try_for_each(|child| child.put_object(name, object))?;
        if let Self::Member(base, key) = self
            && let Self::Literal(value) = base.as_ref()
        {
            let member = value.as_object().and_then(|object| object.get(key));
            *self = member.map_or(Self::Missing, |member| Self::Literal(member.clone()));
        }
        Ok(())
    }

    /// The name of a parameter in it.
    pub(crate) fn parameter(&self) -> Option<&str> {
        if let Self::Parameter(name) = self {
            return Some(name);
        }
        self.children().into_iter().find_map(Self::parameter)
    }

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

impl Statement {
    /// Calls `each` with every whole expression of the statement.
    ///
    /// # Errors
    /// The first of `each`.
    pub(crate) fn each_expr<E>(&mut self, each: &mut dyn FnMut(&mut Expr) -> Result<(), E>) -> Result<(), E> {
        match self {
            Self::Select(select) => of_select(select, each),
            Self::Insert(insert) => {
                match &mut insert.input {
                    InsertInput::Documents(documents) => documents.iter_mut().try_for_each(&mut *each)?,
                    InsertInput::Select(select) => of_select(select, each)?,
                }
                of_projections(&mut insert.returning, each)
            }
            Self::Update(update) => {
                of_source(&mut update.source, each)?;
                for (_, op) in &mut update.apply {
                    match op {
                        CounterOp::Increment(by) | CounterOp::PnIncrement(by) | CounterOp::Restart(Some(by)) => {
                            each(by)?
                        }
                        CounterOp::Restart(None) => {}
                    }
                }
                update.set.iter_mut().map(|(_, value)| value).chain(&mut update.filter).try_for_each(&mut *each)?;
                of_projections(&mut update.returning, each)
            }
            Self::Delete(delete) | Self::Evict(delete) => {
                of_source(&mut delete.source, each)?;
                delete.filter.iter_mut().try_for_each(&mut *each)?;
                of_order(&mut delete.order, each)?;
                of_projections(&mut delete.returning, each)
            }
            Self::Explain(inner) | Self::Profile(inner) | Self::Advise(inner) => inner.each_expr(each),
            Self::Show(_) | Self::Alter(_) => Ok(()),
        }
    }
}

type Each<'e, E> = &'e mut dyn FnMut(&mut Expr) -> Result<(), E>;

fn of_select<E>(select: &mut Select, each: Each<'_, E>) -> Result<(), E> {
    of_projections(&mut select.projections, each)?;
    of_source(&mut select.source, each)?;
    for join in &mut select.joins {
        of_source(&mut join.source, each)?;
        each(&mut join.on)?;
    }
    select.filter.iter_mut().chain(&mut select.group_by).chain(&mut select.having).try_for_each(&mut *each)?;
    of_order(&mut select.order, each)
}

fn of_source<E>(source: &mut Source, each: Each<'_, E>) -> Result<(), E> {
    match &mut source.ids {
        None => Ok(()),
        Some(UseIds::Each(ids)) => ids.iter_mut().try_for_each(each),
        Some(UseIds::List(list)) => each(list),
    }
}

fn of_order<E>(order: &mut Order, each: Each<'_, E>) -> Result<(), E> {
    order.by.iter_mut().map(|term| &mut term.expr).chain(&mut order.limit).chain(&mut order.offset).try_for_each(each)
}

fn of_projections<E>(projections: &mut [Projection], each: Each<'_, E>) -> Result<(), E> {
    projections.iter_mut().try_for_each(|projection| match projection {
        Projection::Expr { expr, .. } => each(expr),
        Projection::All | Projection::AllOf(_) | Projection::Missing(_) => Ok(()),
    })
}
