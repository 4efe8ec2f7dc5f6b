//! DQL's expressions as DataFusion's, where both mean the same on the columns of a table; nothing otherwise.
//!
//! A condition of DQL is true, false, NULL or MISSING. Columns, and DataFusion, have one null for the last two. Where only
//! "is it true?" is asked, and "what is it, if it is something?", that makes no difference: AND, OR and NOT of DQL map
//! onto SQL's when NULL and MISSING both are null. What tells the two apart (IS NULL, IS MISSING) is translated where the
//! column is known to have only one of them.

use bigpeer_crdt::Value;
use bigpeer_dql::Function;
use bigpeer_dql::ast::{BinaryOp, Expr as Dql, LikeKind};
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions::string::expr_fn::{contains, ends_with, starts_with};
use datafusion::logical_expr::{Operator, binary_expr, when};
use datafusion::prelude::{Expr, lit};

use super::numbers::{arithmetic, compare_with, exact, flipped, is_number, negate, operator, unknown, wherever};
use super::typed::{Field, Floats, Kind, Typed};
use crate::table::CollectionTable;

/// Most parts of the expressions of one statement: planning recurses and is not linear.
const MAX_PARTS: usize = 400;

/// Translates the expressions of one statement.
pub(super) struct Translator<'t> {
    table: &'t CollectionTable,
    strict: bool,
    left: usize,
}

impl<'t> Translator<'t> {
    pub(super) fn new(table: &'t CollectionTable, strict: bool) -> Self {
        Self { table, strict, left: MAX_PARTS }
    }

    /// The field at `path`.
    pub(super) fn field(&self, path: &[String]) -> Option<Field> {
        Field::of(self.table, path, self.strict)
    }

    /// The value of `expr`, null where it is NULL or MISSING.
    pub(super) fn value(&mut self, expr: &Dql) -> Option<Typed> {
        self.left = self.left.checked_sub(1)?;
        match expr {
            Dql::Literal(value) => Typed::literal(value),
            Dql::Missing => Some(Typed::nothing()),
            Dql::Path(path) => self.field(path).map(|field| field.typed),
            Dql::Negate(inner) => negate(self.value(inner)?),
            Dql::Binary(op, left, right) if operator(*op).is_none() && *op != BinaryOp::Concat => {
                arithmetic(*op, self.value(left)?, self.value(right)?)
            }
            Dql::Case { operand, branches, otherwise } => self.case(operand.as_deref(), branches, otherwise.as_deref()),
            Dql::Call(Function::Coalesce | Function::IfMissingOrNull, args) => {
                let args = args.iter().map(|arg| self.value(arg)).collect::<Option<Vec<_>>>()?;
                let mut args: Vec<Typed> = args.into_iter().filter(|arg| arg.kind != Kind::Nothing).collect();
                if args.len() < 2 {
                    return Some(args.pop().unwrap_or_else(Typed::nothing));
                }
                // Bytes of several layouts have no common type there.
                let kind = common(&args).filter(|kind| *kind != Kind::Bytes)?;
                Some(Typed { expr: coalesce(args.into_iter().map(|arg| arg.expr).collect()), kind })
            }
            _ => Some(Typed { expr: self.condition(expr)?, kind: Kind::Bool }),
        }
    }

    /// Whether `expr` is true; null where it is NULL or MISSING.
    pub(super) fn truth(&mut self, expr: &Dql) -> Option<Expr> {
        match expr {
            Dql::Literal(_)
            | Dql::Missing
            | Dql::Path(_)
            | Dql::Negate(_)
            | Dql::Case { .. }
            | Dql::Call(Function::Coalesce | Function::IfMissingOrNull, _) => {
                let value = self.value(expr)?;
                // What is no truth value is MISSING.
                Some(if value.kind == Kind::Bool { value.expr } else { unknown() })
            }
            _ => self.condition(expr),
        }
    }

    fn condition(&mut self, expr: &Dql) -> Option<Expr> {
        self.left = self.left.checked_sub(1)?;
        match expr {
            Dql::Not(inner) => Some(Expr::Not(Box::new(self.truth(inner)?))),
            Dql::And(terms) => self.all(terms, Operator::And),
            Dql::Or(terms) => self.all(terms, Operator::Or),
            Dql::Binary(op, left, right) if operator(*op).is_some() => self.compare(*op, left, right),
            Dql::Between { expr, low, high, negated } => {
                let low = self.compare(BinaryOp::GtEq, expr, low)?;
                let high = self.compare(BinaryOp::LtEq, expr, high)?;
                Some(negate_if(low.and(high), *negated))
            }
            Dql::In { expr, list, negated } => {
                let values = list.iter().map(|item| if let Dql::Literal(value) = item { Some(value) } else { None });
                let values = values.collect::<Option<Vec<_>>>()?;
                self.member(expr, values.into_iter()).map(|found| negate_if(found, *negated))
            }
            Dql::InArray { expr, array, negated } => match &**array {
                Dql::Literal(Value::Array(items)) => {
                    self.member(expr, items.iter()).map(|found| negate_if(found, *negated))
                }
                _ => None,
            },
            Dql::Is { expr, missing, negated } => self.is(expr, *missing).map(|is| negate_if(is, *negated)),
            Dql::Like { expr, pattern, escape, kind: LikeKind::Like, negated } => match &**pattern {
                Dql::Literal(Value::String(pattern))
                    if !pattern.contains('\\') && escape.is_none_or(|escape| !pattern.contains(escape)) =>
                {
                    let value = self.value(expr)?;
                    let like = if value.kind == Kind::Text { value.expr.like(lit(&**pattern)) } else { unknown() };
                    Some(negate_if(like, *negated))
                }
                _ => None,
            },
            Dql::Call(Function::IsMissingOrNull, args) => match args.as_slice() {
                [arg] => Some(self.value(arg)?.expr.is_null()),
                _ => None,
            },
            Dql::Call(function @ (Function::StartsWith | Function::EndsWith | Function::Contains), args) => {
                self.text_condition(*function, args)
            }
            _ => None,
        }
    }

    /// The terms as a tree that is as flat as it can be.
    fn all(&mut self, terms: &[Dql], op: Operator) -> Option<Expr> {
        let terms = terms.iter().map(|term| self.truth(term)).collect::<Option<Vec<_>>>()?;
        balanced(terms, op)
    }

    fn compare(&mut self, op: BinaryOp, left: &Dql, right: &Dql) -> Option<Expr> {
        match (left, right) {
            (left, Dql::Literal(number)) if is_number(number) => compare_with(op, &self.value(left)?, number),
            (Dql::Literal(number), right) if is_number(number) => {
                compare_with(flipped(op), &self.value(right)?, number)
            }
            _ => compare_values(op, self.value(left)?, self.value(right)?),
        }
    }

    /// `expr IN (values)`: what is of another type is not in the list.
    fn member<'v>(&mut self, expr: &Dql, values: impl Iterator<Item = &'v Value>) -> Option<Expr> {
        let value = self.value(expr)?;
        let mut list = Vec::new();
        let mut null = false;
        for item in values {
            self.left = self.left.checked_sub(1)?;
            match (value.kind, item) {
                (_, Value::Null) => null = true,
                (Kind::Nothing, _) => {}
                // Another kind of array or object might be equal.
                (Kind::Container, Value::Array(_) | Value::Object(_)) => return None,
                (Kind::Bool, Value::Bool(flag)) => list.push(lit(*flag)),
                (Kind::Text, Value::String(text)) => list.push(lit(&**text)),
                (Kind::Bytes, Value::Bytes(_)) | (Kind::Int { .. }, Value::Int(_)) => {
                    list.push(Typed::literal(item)?.expr);
                }
                (Kind::Int { .. }, Value::Float(number)) => list.extend(int_of(*number).map(lit)),
                (Kind::Float(Floats::Computed), Value::Int(_) | Value::Float(_)) => return None,
                (Kind::Float(_), Value::Int(number)) => list.extend(exact(*number).map(lit)),
                (Kind::Float(_), Value::Float(number)) if !number.is_nan() => list.push(lit(*number + 0.0)),
                (Kind::Float(_), Value::UInt(_)) => return None,
                _ => {}
            }
        }
        match (list.is_empty(), null) {
            _ if value.kind == Kind::Nothing => Some(unknown()),
            (true, true) => Some(unknown()),
            (true, false) => wherever(&value.expr, false),
            (false, null) => {
                if null {
                    list.push(unknown_of(&value));
                }
                Some(value.expr.in_list(list, false))
            }
        }
    }

    fn is(&mut self, expr: &Dql, missing: bool) -> Option<Expr> {
        let Dql::Path(path) = expr else { return None };
        let field = self.field(path)?;
        match (missing, field.nulls) {
            (true, false) => Some(field.typed.expr.is_null()),
            (false, false) => Some(lit(false)),
            (_, true) => None,
        }
    }

    fn text_condition(&mut self, function: Function, args: &[Dql]) -> Option<Expr> {
        let [text, part] = args else { return None };
        let (text, part) = (self.value(text)?, self.value(part)?);
        if text.kind != Kind::Text || part.kind != Kind::Text {
            return Some(unknown());
        }
        Some(match function {
            Function::StartsWith => starts_with(text.expr, part.expr),
            Function::EndsWith => ends_with(text.expr, part.expr),
            _ => contains(text.expr, part.expr),
        })
    }

    fn case(&mut self, operand: Option<&Dql>, branches: &[(Dql, Dql)], otherwise: Option<&Dql>) -> Option<Typed> {
        let mut conditions = Vec::with_capacity(branches.len());
        let mut values = Vec::with_capacity(branches.len() + 1);
        for (condition, then) in branches {
            conditions.push(match operand {
                Some(operand) => self.compare(BinaryOp::Eq, operand, condition)?,
                None => self.truth(condition)?,
            });
            values.push(self.value(then)?);
        }
        values.push(otherwise.map_or_else(|| Some(Typed::nothing()), |otherwise| self.value(otherwise))?);
        let kind = common(&values).filter(|kind| !matches!(kind, Kind::Bytes | Kind::Container))?;
        let mut values = values.into_iter().map(|value| value.expr);
        let mut conditions = conditions.into_iter().zip(values.by_ref().take(branches.len()).collect::<Vec<_>>());
        let (first, then) = conditions.next()?;
        let mut case = when(first, then);
        for (condition, then) in conditions {
            case = case.when(condition, then);
        }
        Some(Typed { expr: case.otherwise(values.next()?).ok()?, kind })
    }

    /// A condition that holds wherever `expr` does, and perhaps elsewhere; none when nothing is known to follow from it.
    pub(super) fn necessary(&mut self, expr: &Dql) -> Option<Expr> {
        match expr {
            Dql::And(terms) => {
                let terms: Vec<Expr> = terms.iter().filter_map(|term| self.necessary(term)).collect();
                balanced(terms, Operator::And)
            }
            Dql::Or(terms) => {
                let terms = terms.iter().map(|term| self.necessary(term)).collect::<Option<Vec<_>>>()?;
                balanced(terms, Operator::Or)
            }
            Dql::Is { expr: inner, negated: false, .. } => {
                let Dql::Path(path) = &**inner else { return None };
                Some(self.field(path)?.typed.expr.is_null())
            }
            other => self.truth(other),
        }
    }
}

fn negate_if(expr: Expr, negated: bool) -> Expr {
    if negated { Expr::Not(Box::new(expr)) } else { expr }
}

/// A null of the type of `value`.
fn unknown_of(value: &Typed) -> Expr {
    match value.kind {
        Kind::Bool => unknown(),
        _ => lit(datafusion::common::ScalarValue::Null),
    }
}

/// The integer that this float is.
#[allow(clippy::cast_possible_truncation, reason = "within 64 bits, and without fraction")]
fn int_of(number: f64) -> Option<i64> {
    let whole =
        number.trunc() == number && (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number);
    whole.then_some(number as i64)
}

fn compare_values(op: BinaryOp, left: Typed, right: Typed) -> Option<Expr> {
    let operator = operator(op)?;
    match (left.kind, right.kind) {
        (Kind::Bool, Kind::Bool)
        | (Kind::Text, Kind::Text)
        | (Kind::Bytes, Kind::Bytes)
        | (Kind::Int { .. }, Kind::Int { .. })
        | (Kind::Float(Floats::Stored | Floats::Mixed), Kind::Float(Floats::Stored | Floats::Mixed)) => {
            Some(binary_expr(left.expr, operator, right.expr))
        }
        (Kind::Int { .. } | Kind::Float(_), Kind::Int { .. } | Kind::Float(_)) | (Kind::Container, Kind::Container) => {
            None
        }
        // Nothing, or different types.
        _ => Some(unknown()),
    }
}

/// The kind that all of them are; none when they are of several.
fn common(values: &[Typed]) -> Option<Kind> {
    values.iter().map(|value| value.kind).try_fold(Kind::Nothing, |all, kind| match (all, kind) {
        (Kind::Nothing, kind) | (kind, Kind::Nothing) => Some(kind),
        (Kind::Int { low, high }, Kind::Int { low: low2, high: high2 }) => {
            Some(Kind::Int { low: low.min(low2), high: high.max(high2) })
        }
        (Kind::Float(Floats::Mixed), _) | (_, Kind::Float(Floats::Mixed)) => None,
        (Kind::Float(_), Kind::Float(_)) => Some(Kind::Float(Floats::Computed)),
        (Kind::Container, Kind::Container) => None,
        (all, kind) => (all == kind).then_some(all),
    })
}

fn balanced(mut terms: Vec<Expr>, op: Operator) -> Option<Expr> {
    while terms.len() > 1 {
        let mut next = Vec::with_capacity(terms.len().div_ceil(2));
        let mut left = terms.into_iter();
        while let Some(first) = left.next() {
            next.push(match left.next() {
                Some(second) => binary_expr(first, op, second),
                None => first,
            });
        }
        terms = next;
    }
    terms.pop()
}
