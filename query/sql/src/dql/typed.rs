//! Fields of documents as columns, with what is known of the values in them.

use bigpeer_crdt::Value;
use bigpeer_tables::columns::{ColumnType, ID};
use datafusion::common::{Column, ScalarValue, TableReference};
use datafusion::functions::core::expr_fn::get_field;
use datafusion::prelude::{Expr, lit};

use crate::table::CollectionTable;

/// What the table is called in plans that are not made from text.
pub(super) const TABLE: &str = "c";

/// Integers up to here are floats, too.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// An expression of which NULL and MISSING both are null, and everything else is what DQL has.
#[derive(Clone, Debug)]
pub(super) struct Typed {
    pub(super) expr: Expr,
    pub(super) kind: Kind,
}

/// What the values that are not null are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// All are NULL or MISSING.
    Nothing,
    Bool,
    /// Integers of 64 bits, within bounds.
    Int {
        low: i64,
        high: i64,
    },
    Float(Floats),
    Text,
    Bytes,
    /// Arrays or objects: not null is all that is known of them.
    Container,
}

/// Which floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Floats {
    /// As they are in documents, neither NaN nor -0.0.
    Stored,
    /// As [`Self::Stored`], but some of them are integers in documents, none too large to be a float.
    Mixed,
    /// The result of arithmetic.
    Computed,
}

/// A field.
pub(super) struct Field {
    pub(super) typed: Typed,
    /// Whether a null may be NULL; otherwise all are MISSING.
    pub(super) nulls: bool,
}

impl Typed {
    pub(super) fn nothing() -> Self {
        Self { expr: lit(ScalarValue::Null), kind: Kind::Nothing }
    }

    /// A constant.
    pub(super) fn literal(value: &Value) -> Option<Self> {
        let (expr, kind) = match value {
            Value::Null => return Some(Self::nothing()),
            Value::Bool(flag) => (lit(*flag), Kind::Bool),
            Value::Int(number) => (lit(*number), Kind::Int { low: *number, high: *number }),
            Value::Float(number) => (lit(*number), Kind::Float(Floats::Computed)),
            Value::String(text) => (lit(&**text), Kind::Text),
            Value::Bytes(bytes) => (lit(ScalarValue::Binary(Some(bytes.to_vec()))), Kind::Bytes),
            Value::UInt(_) | Value::Array(_) | Value::Object(_) => return None,
        };
        Some(Self { expr, kind })
    }
}

impl Field {
    /// The field at `path`; none when the columns do not say exactly what it is.
    pub(super) fn of(table: &CollectionTable, path: &[String], strict: bool) -> Option<Self> {
        let (first, below) = path.split_first()?;
        if first == ID {
            let kind = &table.columns().id;
            // Which numbers of an `_id` are integers, and which floats, is not known.
            let exact = matches!(kind, ColumnType::Bool | ColumnType::Int | ColumnType::Text | ColumnType::Bytes);
            let column = Expr::Column(Column::new(Some(TableReference::bare(TABLE)), ID));
            return if exact { Self::typed(table, ID, kind, column, below, false) } else { None };
        }
        // Where there is a rest, some segments may have there what others have a column for.
        if table.columns().rest {
            return None;
        }
        let Some(kind) = table.columns().get(first) else {
            return Some(Self { typed: Typed::nothing(), nulls: false });
        };
        let traits = table.traits(first);
        if strict && traits.nodes {
            return None;
        }
        let column = Expr::Column(Column::new(Some(TableReference::bare(TABLE)), first.as_str()));
        Self::typed(table, first, kind, column, below, traits.nulls)
    }

    fn typed(
        table: &CollectionTable,
        column: &str,
        kind: &ColumnType,
        expr: Expr,
        below: &[String],
        nulls: bool,
    ) -> Option<Self> {
        if let (Some((name, below)), ColumnType::Struct(fields)) = (below.split_first(), kind) {
            let inner = fields.iter().find(|(field, _)| **field == **name).map(|(_, kind)| kind);
            return match inner {
                Some(inner) => Self::typed_below(table, column, inner, get_field(expr, name.as_str()), below, nulls),
                None => Some(Self { typed: Typed::nothing(), nulls: false }),
            };
        }
        if !below.is_empty() && *kind != ColumnType::Json {
            // There is nothing within what is no object.
            return Some(Self { typed: Typed::nothing(), nulls: false });
        }
        let traits = table.traits(column);
        let kind = match kind {
            ColumnType::Null => Kind::Nothing,
            ColumnType::Bool => Kind::Bool,
            ColumnType::Int => {
                let (low, high) = table.int_bounds(column).unwrap_or((i64::MIN, i64::MAX));
                Kind::Int { low, high }
            }
            ColumnType::Float if traits.odd => return None,
            ColumnType::Float if !traits.ints => Kind::Float(Floats::Stored),
            ColumnType::Float => {
                let (low, high) = table.float_bounds(column)?;
                if low <= -EXACT || high >= EXACT {
                    return None;
                }
                Kind::Float(Floats::Mixed)
            }
            ColumnType::Text => Kind::Text,
            ColumnType::Bytes => Kind::Bytes,
            ColumnType::List(_) | ColumnType::Struct(_) => Kind::Container,
            ColumnType::Decimal | ColumnType::Json => return None,
        };
        Some(Self { typed: Typed { expr, kind }, nulls })
    }

    /// A field within maps: statistics are about whole columns, so that nothing is known of its bounds.
    fn typed_below(
        table: &CollectionTable,
        column: &str,
        kind: &ColumnType,
        expr: Expr,
        below: &[String],
        nulls: bool,
    ) -> Option<Self> {
        match kind {
            ColumnType::Int if below.is_empty() => {
                let kind = Kind::Int { low: i64::MIN, high: i64::MAX };
                Some(Self { typed: Typed { expr, kind }, nulls })
            }
            ColumnType::Float if below.is_empty() && table.traits(column).ints => None,
            other => Self::typed(table, column, other, expr, below, nulls),
        }
    }
}
