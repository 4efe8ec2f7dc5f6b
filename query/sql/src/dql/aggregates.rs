//! Groups of DQL as an aggregation of DataFusion, and back.

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use bigpeer_crdt::Value;
use bigpeer_dql::ast::{AggregateKind, Expr as Dql};
use datafusion::common::ScalarValue;
use datafusion::functions::core::expr_fn::nullif;
use datafusion::functions_aggregate::expr_fn::{count, count_distinct, max, min, sum};
use datafusion::logical_expr::cast;
use datafusion::prelude::{Expr, lit};

use super::answer::{Number, cell};
use super::translate::Translator;
use super::typed::{Floats, Kind, Typed};

/// What DataFusion is asked to compute for each group, and what the slots of the group are made of.
pub(super) struct Aggregation {
    pub(super) keys: Vec<Expr>,
    pub(super) columns: Vec<Expr>,
    slots: Vec<Slot>,
}

/// The value of an aggregate, from columns of the result.
#[derive(Clone, Copy, Debug)]
enum Slot {
    /// The same for every group; none is MISSING.
    Zero,
    Missing,
    /// A column as it is.
    Plain(usize),
    /// A sum over a count.
    Mean(usize, usize),
    /// The middle between two.
    Middle(usize, usize),
}

impl Aggregation {
    /// The groups by `keys` with `aggregates`, over `rows` documents at most; none when columns cannot tell.
    pub(super) fn new(translator: &mut Translator<'_>, keys: &[Dql], aggregates: &[Dql], rows: u64) -> Option<Self> {
        let mut made = Self { keys: Vec::new(), columns: Vec::new(), slots: Vec::new() };
        for key in keys {
            made.keys.push(self::key(translator, key)?);
        }
        for aggregate in aggregates {
            let Dql::Aggregate { kind, distinct, arg } = aggregate else { return None };
            let slot = match arg {
                None => Slot::Plain(made.column(count(lit(1_i64)))),
                Some(arg) => made.slot(*kind, *distinct, translator.value(arg)?, rows)?,
            };
            made.slots.push(slot);
        }
        Some(made)
    }

    fn column(&mut self, expr: Expr) -> usize {
        self.columns.push(expr);
        self.columns.len() - 1
    }

    fn slot(&mut self, kind: AggregateKind, distinct: bool, arg: Typed, rows: u64) -> Option<Slot> {
        match kind {
            AggregateKind::Count => self.count(distinct, arg),
            AggregateKind::Sum | AggregateKind::Avg if distinct => None,
            AggregateKind::Sum => match arg.kind {
                // Whether the sum is an integer depends on the values.
                Kind::Float(Floats::Mixed) => None,
                Kind::Int { .. } | Kind::Float(_) => Some(Slot::Plain(self.column(total(arg, rows)))),
                Kind::Nothing | Kind::Bool | Kind::Text | Kind::Bytes | Kind::Container => Some(Slot::Missing),
            },
            AggregateKind::Avg => match arg.kind {
                Kind::Int { .. } | Kind::Float(_) => {
                    let number = self.column(count(arg.expr.clone()));
                    Some(Slot::Mean(self.column(total(arg, rows)), number))
                }
                Kind::Nothing | Kind::Bool | Kind::Text | Kind::Bytes | Kind::Container => Some(Slot::Missing),
            },
            AggregateKind::Min | AggregateKind::Max => match arg.kind {
                Kind::Nothing => Some(Slot::Missing),
                Kind::Container | Kind::Float(Floats::Mixed | Floats::Computed) => None,
                Kind::Bool | Kind::Int { .. } | Kind::Float(Floats::Stored) | Kind::Text | Kind::Bytes => {
                    let end = if kind == AggregateKind::Min { min(arg.expr) } else { max(arg.expr) };
                    Some(Slot::Plain(self.column(end)))
                }
            },
            AggregateKind::Mid => match arg.kind {
                Kind::Float(Floats::Computed) => None,
                Kind::Int { .. } | Kind::Float(_) => {
                    let least = self.column(min(arg.expr.clone()));
                    Some(Slot::Middle(least, self.column(max(arg.expr))))
                }
                Kind::Nothing | Kind::Bool | Kind::Text | Kind::Bytes | Kind::Container => Some(Slot::Missing),
            },
            AggregateKind::Median => None,
        }
    }

    fn count(&mut self, distinct: bool, arg: Typed) -> Option<Slot> {
        let counted = match arg.kind {
            Kind::Nothing => return Some(Slot::Zero),
            // COUNT leaves false out.
            Kind::Bool => nullif(arg.expr, lit(false)),
            Kind::Float(Floats::Computed) | Kind::Container if distinct => return None,
            Kind::Int { .. } | Kind::Float(_) | Kind::Text | Kind::Bytes | Kind::Container => arg.expr,
        };
        let count = if distinct { count_distinct(counted) } else { count(counted) };
        Some(Slot::Plain(self.column(count)))
    }

    /// The groups in a batch of the result: of each its keys, then its aggregates.
    pub(super) fn groups(&self, batch: &RecordBatch, out: &mut Vec<Vec<Option<Value>>>) -> Option<()> {
        let keys = self.keys.len();
        for row in 0..batch.num_rows() {
            let column = |at: usize| cell(batch.columns().get(at)?, row);
            let mut slots = Vec::with_capacity(keys + self.slots.len());
            for key in 0..keys {
                slots.push(column(key)?.map(Number::into_value));
            }
            for slot in &self.slots {
                slots.push(match *slot {
                    Slot::Zero => Some(Value::Int(0)),
                    Slot::Missing => None,
                    Slot::Plain(at) => column(keys + at)?.map(Number::into_value),
                    Slot::Mean(sum, count) => mean(column(keys + sum)?, column(keys + count)?),
                    Slot::Middle(least, greatest) => middle(column(keys + least)?, column(keys + greatest)?),
                });
            }
            out.push(slots);
        }
        Some(())
    }
}

/// A key of GROUP BY, or a value of DISTINCT: a field of which a null can only be MISSING.
pub(super) fn key(translator: &Translator<'_>, expr: &Dql) -> Option<Expr> {
    let Dql::Path(path) = expr else { return None };
    path_key(translator, path)
}

/// As [`key`].
pub(super) fn path_key(translator: &Translator<'_>, path: &[String]) -> Option<Expr> {
    let field = translator.field(path)?;
    let exact = match field.typed.kind {
        Kind::Bool | Kind::Int { .. } | Kind::Float(Floats::Stored) | Kind::Text | Kind::Bytes => true,
        Kind::Nothing | Kind::Float(Floats::Mixed | Floats::Computed) | Kind::Container => false,
    };
    (exact && !field.nulls).then_some(field.typed.expr)
}

/// The sum, in a type that holds it.
fn total(arg: Typed, rows: u64) -> Expr {
    let Kind::Int { low, high } = arg.kind else { return sum(arg.expr) };
    let most = u128::from(low.unsigned_abs().max(high.unsigned_abs())) * u128::from(rows);
    if most <= u128::from(i64::MAX.unsigned_abs()) {
        return sum(arg.expr);
    }
    sum(cast(arg.expr, DataType::Decimal128(20, 0)))
}

#[allow(clippy::cast_precision_loss, reason = "a mean is a float")]
fn mean(sum: Option<Number>, count: Option<Number>) -> Option<Value> {
    match (sum, count) {
        (Some(sum), Some(Number::Int(count))) if count > 0 => Some(Value::Float(sum.to_float()? / count as f64)),
        _ => None,
    }
}

fn middle(least: Option<Number>, greatest: Option<Number>) -> Option<Value> {
    Some(Value::Float(least?.to_float()? / 2.0 + greatest?.to_float()? / 2.0))
}

/// The expressions under names of their own.
pub(super) fn named(exprs: &[Expr], prefix: &str) -> Vec<Expr> {
    exprs.iter().enumerate().map(|(at, expr)| expr.clone().alias(format!("{prefix}{at}"))).collect()
}

/// Something to count when a result has no columns.
pub(super) fn nothing() -> Expr {
    lit(ScalarValue::Int64(Some(0)))
}
