//! `_id = …` and `_id IN (…)`: the rows that can match are found by bloom filters and the bounds of pages of keys, and only
//! their pages are read. The filter itself stays in the plan: this leaves rows out, it never lets one in.

use std::collections::BTreeSet;
use std::sync::Arc;

use bigpeer_crdt::{DocId, Value};
use bigpeer_tables::columns::{ColumnType, ID};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, Operator};
use roaring::RoaringBitmap;

use crate::access::Segment;

/// Most ids that are looked up one by one; a longer list is as well read through.
const MAX_IDS: usize = 1000;

/// The ids to which `filters`, all of which must hold, narrow a collection whose ids are of the type `kind`, in ascending
/// order; none when they do not.
pub(crate) fn ids(filters: &[Expr], kind: &ColumnType) -> Option<Vec<DocId>> {
    let sets = filters.iter().filter_map(|filter| of(filter, kind));
    let ids = sets.min_by_key(BTreeSet::len)?;
    (ids.len() <= MAX_IDS).then(|| ids.into_iter().collect())
}

/// The ids of which one must be the document's for `filter` to hold; none when any may.
fn of(filter: &Expr, kind: &ColumnType) -> Option<BTreeSet<DocId>> {
    match filter {
        Expr::BinaryExpr(binary) => match binary.op {
            Operator::Eq => {
                let literal = match (is_id(&binary.left), is_id(&binary.right)) {
                    (true, false) => &binary.right,
                    (false, true) => &binary.left,
                    (true, true) | (false, false) => return None,
                };
                Some(BTreeSet::from([id(literal, kind)?]))
            }
            Operator::Or => {
                let mut ids = of(&binary.left, kind)?;
                ids.append(&mut of(&binary.right, kind)?);
                Some(ids)
            }
            Operator::And => of(&binary.left, kind).or_else(|| of(&binary.right, kind)),
            _ => None,
        },
        Expr::InList(list) if !list.negated && is_id(&list.expr) => {
            list.list.iter().map(|literal| id(literal, kind)).collect()
        }
        _ => None,
    }
}

fn is_id(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(column) if column.name == ID)
}

/// The id that equals `literal` in a column of the type `kind`. Other types compare in ways that keys do not.
fn id(literal: &Expr, kind: &ColumnType) -> Option<DocId> {
    let Expr::Literal(value, _) = literal else { return None };
    let value = match (kind, value) {
        (ColumnType::Int, ScalarValue::Int64(Some(value))) => Value::Int(*value),
        (
            ColumnType::Text,
            ScalarValue::Utf8(Some(value)) | ScalarValue::Utf8View(Some(value)) | ScalarValue::LargeUtf8(Some(value)),
        ) => Value::String(value.as_str().into()),
        _ => return None,
    };
    DocId::from_value(&value).ok()
}

/// Those of `segments` that may hold one of `ids`, with the rows excluded that do not.
pub(crate) async fn segments_with(segments: &[Segment], ids: &[DocId]) -> Result<Vec<Segment>> {
    let mut found = Vec::new();
    for segment in segments {
        let Some(part) = &segment.part else { continue };
        let candidates = part.candidates(ids).await.map_err(|error| DataFusionError::External(error.into()))?;
        let candidates = candidates - &*segment.excluded;
        if candidates.is_empty() {
            continue;
        }
        let mut excluded = RoaringBitmap::new();
        excluded.insert_range(0..u32::try_from(segment.rows()).unwrap_or(u32::MAX));
        found.push(Segment { excluded: Arc::new(excluded - candidates), ..segment.clone() });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::{col, lit};

    fn values(filter: Expr, kind: &ColumnType) -> Option<Vec<Value>> {
        ids(&[filter], kind).map(|ids| ids.iter().map(DocId::to_value).collect())
    }

    #[test]
    fn equality_lists_and_alternatives_name_ids() {
        let int = &ColumnType::Int;
        let id = || col("_id");
        let some = |numbers: &[i64]| Some(numbers.iter().map(|n| Value::Int(*n)).collect::<Vec<_>>());
        assert_eq!(values(id().eq(lit(7_i64)), int), some(&[7]));
        assert_eq!(values(lit(7_i64).eq(id()), int), some(&[7]));
        assert_eq!(values(id().in_list(vec![lit(3_i64), lit(1_i64), lit(3_i64)], false), int), some(&[1, 3]));
        assert_eq!(values(id().eq(lit(2_i64)).or(id().eq(lit(1_i64))), int), some(&[1, 2]));
        assert_eq!(values(id().eq(lit(2_i64)).and(col("x").gt(lit(1_i64))), int), some(&[2]));
    }

    #[test]
    fn whatever_else_may_match_names_none() {
        let (int, text) = (&ColumnType::Int, &ColumnType::Text);
        let id = || col("_id");
        for (filter, kind) in [
            (id().gt(lit(7_i64)), int),
            (id().not_eq(lit(7_i64)), int),
            (id().in_list(vec![lit(1_i64)], true), int),
            (id().eq(lit(1_i64)).or(col("x").eq(lit(1_i64))), int),
            (col("x").eq(lit(1_i64)), int),
            (id().eq(lit(1.0)), int),
            (id().eq(lit("1")), int),
            (id().eq(lit(1_i64)), text),
            (id().eq(lit("\"a\"")), &ColumnType::Json),
            (id().eq(lit(1_i64)), &ColumnType::Float),
            (id().eq(col("x")), int),
        ] {
            assert_eq!(values(filter.clone(), kind), None, "{filter}");
        }
        assert_eq!(values(id().eq(lit("a")), text), Some(vec![Value::String("a".into())]));
    }
}
