//! Pruning: which rows of a segment may meet conditions, by the bounds of its pages. Never leaves out a match.

use std::cmp::Ordering;

use bigpeer_crdt::{ConditionOp, FieldCondition, Value};
use bigpeer_types::Lsn;
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use roaring::RoaringBitmap;

use super::{Footer, VERSION_COLUMN, page_rows};
use crate::columns::{self, ColumnType, Columns};

/// Rows that may have changed after `since`.
pub(crate) fn changed_since(footer: &Footer, since: Lsn) -> RoaringBitmap {
    let since = i64::try_from(since.version).unwrap_or(i64::MAX);
    by_pages(footer, VERSION_COLUMN, |index, page| {
        let ColumnIndexMetaData::INT64(bounds) = index else { return true };
        // The order within one version is not in the bounds.
        bounds.max_value(page).is_none_or(|max| *max >= since)
    })
}

/// Rows that may meet all conditions; none when nothing can be told.
pub(crate) fn matching(footer: &Footer, columns: &Columns, conditions: &[FieldCondition]) -> Option<RoaringBitmap> {
    let mut rows: Option<RoaringBitmap> = None;
    for condition in conditions {
        let matching = match column_of(columns, condition) {
            Column::Unknown => continue,
            Column::Absent => RoaringBitmap::new(),
            Column::Typed(path, kind) => {
                let Some(leaf) = leaf(footer, &path) else { continue };
                if !is_prunable(kind, condition) {
                    continue;
                }
                by_pages(footer, leaf, |index, page| page_may_match(index, page, condition))
            }
        };
        rows = Some(match rows {
            Some(rows) => rows & matching,
            None => matching,
        });
    }
    rows
}

/// What is known of a condition's field in a segment.
enum Column<'a> {
    /// Its values are in this leaf column.
    Typed(Vec<&'a str>, &'a ColumnType),
    /// No document of the segment has it.
    Absent,
    /// It may be in JSON text, or in a column that says nothing.
    Unknown,
}

fn column_of<'a>(columns: &'a Columns, condition: &'a FieldCondition) -> Column<'a> {
    let Some((first, rest)) = condition.path.split_first() else { return Column::Unknown };
    // A comparison with null may be meant to be true for what is absent.
    if condition.values.iter().any(Value::is_null)
        || (condition.op != ConditionOp::Exists && condition.values.is_empty())
    {
        return Column::Unknown;
    }
    let mut kind = if &**first == columns::ID {
        &columns.id
    } else {
        match columns.get(first) {
            Some(kind) => kind,
            None if columns.rest => return Column::Unknown,
            None => return Column::Absent,
        }
    };
    let mut path: Vec<&str> = vec![first];
    for name in rest {
        let ColumnType::Struct(fields) = kind else { return Column::Unknown };
        match fields.iter().find(|(field, _)| field == name) {
            Some((_, field)) => kind = field,
            None => return Column::Absent,
        }
        path.push(name);
    }
    Column::Typed(path, kind)
}

fn leaf(footer: &Footer, path: &[&str]) -> Option<usize> {
    let leaves = footer.reader.parquet_schema().columns();
    leaves.iter().position(|leaf| leaf.path().parts().iter().map(String::as_str).eq(path.iter().copied()))
}

/// Whether the column's bounds say something about the condition: both have one kind of values.
fn is_prunable(kind: &ColumnType, condition: &FieldCondition) -> bool {
    condition.op != ConditionOp::Exists
        && condition.values.iter().all(|value| match kind {
            ColumnType::Bool => matches!(value, Value::Bool(_)),
            ColumnType::Int | ColumnType::Float => matches!(value, Value::Int(_) | Value::UInt(_) | Value::Float(_)),
            ColumnType::Text => matches!(value, Value::String(_)),
            ColumnType::Bytes => matches!(value, Value::Bytes(_)),
            ColumnType::Null | ColumnType::Decimal | ColumnType::List(_) | ColumnType::Struct(_) | ColumnType::Json => {
                false
            }
        })
}

/// Rows of the pages of a column that `keep` keeps.
fn by_pages(footer: &Footer, leaf: usize, keep: impl Fn(&ColumnIndexMetaData, usize) -> bool) -> RoaringBitmap {
    let metadata = footer.reader.metadata();
    let mut rows = RoaringBitmap::new();
    for (at, group) in footer.groups.iter().enumerate() {
        // A column of a group has none where a page has no bounds: nothing but NaN.
        let index = metadata.column_index().and_then(|index| index.get(at)?.get(leaf));
        let index = index.filter(|index| !matches!(index, ColumnIndexMetaData::NONE));
        match (index, page_rows(metadata, at, leaf, &group.rows)) {
            (Some(index), Some(pages)) => {
                for (page, range) in pages.into_iter().enumerate() {
                    if keep(index, page) {
                        rows.insert_range(range);
                    }
                }
            }
            _ => {
                rows.insert_range(group.rows.clone());
            }
        }
    }
    rows
}

fn page_may_match(index: &ColumnIndexMetaData, page: usize, condition: &FieldCondition) -> bool {
    // Nothing is comparable with an absent value or null.
    let compare = |value: &Value| -> Option<(Ordering, Ordering)> {
        match (index, value) {
            (ColumnIndexMetaData::BOOLEAN(bounds), Value::Bool(value)) => {
                Some((bounds.min_value(page)?.cmp(value), bounds.max_value(page)?.cmp(value)))
            }
            (ColumnIndexMetaData::INT64(bounds), value) => {
                let (min, max) = (bounds.min_value(page)?, bounds.max_value(page)?);
                Some((compare_int(*min, value)?, compare_int(*max, value)?))
            }
            (ColumnIndexMetaData::DOUBLE(bounds), value) => {
                let (min, max) = (bounds.min_value(page)?, bounds.max_value(page)?);
                let value = to_float(value)?;
                Some((min.partial_cmp(&value)?, max.partial_cmp(&value)?))
            }
            (ColumnIndexMetaData::BYTE_ARRAY(bounds), Value::String(value)) => {
                Some((bounds.min_value(page)?.cmp(value.as_bytes()), bounds.max_value(page)?.cmp(value.as_bytes())))
            }
            (ColumnIndexMetaData::BYTE_ARRAY(bounds), Value::Bytes(value)) => {
                Some((bounds.min_value(page)?.cmp(value), bounds.max_value(page)?.cmp(value)))
            }
            _ => None,
        }
    };
    if index.is_null_page(page) {
        return false;
    }
    condition.values.iter().any(|value| {
        let Some((min, max)) = compare(value) else { return true };
        // Bounds may be rounded, so that strict comparisons are treated as if they were not.
        match condition.op {
            ConditionOp::Eq | ConditionOp::In => min.is_le() && max.is_ge(),
            ConditionOp::Lt | ConditionOp::LtEq => min.is_le(),
            ConditionOp::Gt | ConditionOp::GtEq => max.is_ge(),
            ConditionOp::Exists => true,
        }
    })
}

fn compare_int(bound: i64, value: &Value) -> Option<Ordering> {
    match value {
        Value::Int(value) => Some(bound.cmp(value)),
        Value::UInt(_) => Some(Ordering::Less),
        #[allow(clippy::cast_precision_loss, reason = "rounding keeps the order, up to equality")]
        Value::Float(value) => (bound as f64).partial_cmp(value),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Bytes(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[allow(clippy::cast_precision_loss, reason = "rounding keeps the order, up to equality")]
fn to_float(value: &Value) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::UInt(value) => Some(*value as f64),
        Value::Float(value) => Some(*value),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Bytes(_) | Value::Array(_) | Value::Object(_) => None,
    }
}
