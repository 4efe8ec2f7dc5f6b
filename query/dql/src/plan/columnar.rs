//! What of a SELECT somebody can do who has the documents as columns: WHERE, groups and their aggregates, distinct values.
//! HAVING, projections, order and limits stay here, on what that somebody has found, so that they cannot mean two things.

#![allow(clippy::wildcard_enum_match_arm, reason = "whatever is not named is not asked for")]

use std::collections::BTreeMap;

use bigpeer_crdt::{DocId, Object, Value};

use super::select::{SelectPlan, SelectRun};
use super::target::Target;
use super::{DeletePlan, UpdatePlan};
use crate::ast::{Expr, Projection};
use crate::error::DqlError;
use crate::eval::Row;
use crate::eval::compare::Key;

/// The part of a SELECT that columns may answer. Expressions are bound: without parameters and names of collections.
#[derive(Clone, Copy, Debug)]
pub struct ByColumns<'a> {
    /// WHERE: documents of which it is not true do not count.
    pub filter: Option<&'a Expr>,
    /// Whether fields that are maps, counters or attachments are MISSING.
    pub strict: bool,
    /// What is asked of the documents that are left.
    pub wanted: ByColumnsWanted<'a>,
}

/// What a SELECT asks of the documents that its WHERE leaves.
#[derive(Clone, Copy, Debug)]
pub enum ByColumnsWanted<'a> {
    /// Their groups.
    Groups {
        /// GROUP BY. Keys that compare equal are one group; NULL and MISSING are two.
        keys: &'a [Expr],
        /// [`Expr::Aggregate`]s.
        aggregates: &'a [Expr],
    },
    /// The different combinations of values at [`SelectPlan::distinct_paths`].
    Distinct,
    /// Themselves.
    Documents,
}

/// What columns have found.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Of each group the keys and then the aggregates' values, in the order of [`ByColumnsWanted::Groups`]; none is
    /// MISSING.
    Groups(Vec<Vec<Option<Value>>>),
    /// The combinations of the values at [`SelectPlan::distinct_paths`]; none is MISSING.
    Values(Vec<Vec<Option<Value>>>),
    /// The only documents that can be in the result, sorted.
    Documents(Vec<DocId>),
}

impl Target {
    fn by_columns<'a>(&'a self, wanted: ByColumnsWanted<'a>) -> Option<ByColumns<'a>> {
        let strict = self.schema.strict;
        let declared = strict && !self.schema.is_plain();
        let asked = !declared && self.ids().is_none();
        asked.then_some(ByColumns { filter: self.filter.as_ref(), strict, wanted })
    }
}

impl UpdatePlan {
    /// What columns may say about which documents are meant; nothing for pinned ids, and declared types of strict mode.
    #[must_use]
    pub fn by_columns(&self) -> Option<ByColumns<'_>> {
        self.target.by_columns(ByColumnsWanted::Documents)
    }
}

impl DeletePlan {
    /// As [`UpdatePlan::by_columns`].
    #[must_use]
    pub fn by_columns(&self) -> Option<ByColumns<'_>> {
        self.target.by_columns(ByColumnsWanted::Documents)
    }
}

impl SelectPlan {
    /// What columns may answer of this; nothing for joins, PROFILE, pinned ids, and declared types of strict mode.
    #[must_use]
    pub fn by_columns(&self) -> Option<ByColumns<'_>> {
        if self.has_joins() || self.profile {
            return None;
        }
        let wanted = match self.grouping_exprs() {
            Some(aggregates) => ByColumnsWanted::Groups { keys: &self.bound.group_by, aggregates },
            None if self.distinct_paths().is_some() => ByColumnsWanted::Distinct,
            None => ByColumnsWanted::Documents,
        };
        self.target.by_columns(wanted)
    }

    /// The paths whose values decide the rows of a SELECT DISTINCT; none when more than values of paths does.
    #[must_use]
    pub fn distinct_paths(&self) -> Option<Vec<&[String]>> {
        let select = &self.bound;
        // Which of equal rows is the first, and so stands where, does not follow from their values.
        if !select.distinct || select.order.limit.is_some() || select.order.offset.is_some() {
            return None;
        }
        let mut all: Vec<&[String]> = Vec::new();
        let mut projected: Vec<&[String]> = Vec::new();
        for projection in &select.projections {
            let Projection::Expr { expr, .. } = projection else { return None };
            paths(expr, &mut all)?;
            if let Expr::Path(path) = expr {
                projected.push(path);
            }
        }
        let mut order: Vec<&[String]> = Vec::new();
        select.order.by.iter().try_for_each(|term| paths(&term.expr, &mut order))?;
        if !order.iter().all(|path| projected.contains(path)) {
            return None;
        }
        all.sort_unstable();
        all.dedup();
        // One within another could not be told apart from it. They are sorted: it would follow at once, or after others.
        let nested =
            all.iter().enumerate().any(|(at, path)| all.iter().skip(at + 1).any(|other| other.starts_with(path)));
        let whole = all.iter().any(|path| path.first().is_none_or(|first| first == "_id"));
        (!nested && !whole && !all.is_empty()).then_some(all)
    }

    /// What a SELECT with ORDER BY and LIMIT sorts by first, whether descending, and how many of the first documents can
    /// be in its result.
    #[must_use]
    pub fn first_by(&self) -> Option<(&Expr, bool, usize)> {
        let select = &self.bound;
        let bounds = super::select::bounds(&select.order).ok()?;
        let first = select.order.by.first().filter(|_| !select.distinct && self.grouping_exprs().is_none())?;
        Some((&first.expr, first.descending, bounds.0?.checked_add(bounds.1)?))
    }

    /// The rows, from what columns have found; documents are not in it: those are for [`SelectRun::push`].
    ///
    /// # Errors
    /// When the result is too large to hold.
    pub fn rows_of(self, found: Found) -> Result<Vec<Value>, DqlError> {
        match found {
            Found::Groups(groups) => self.rows_of_groups(groups),
            Found::Values(combinations) => self.rows_of_values(combinations),
            Found::Documents(_) => Ok(Vec::new()),
        }
    }

    fn rows_of_groups(self, groups: Vec<Vec<Option<Value>>>) -> Result<Vec<Value>, DqlError> {
        let keys = self.bound.group_by.len();
        let sorted = sorted(groups, keys);
        let mut run = self.run();
        for slots in sorted.into_values() {
            run.take_group(&slots)?;
        }
        run.finish_groups()
    }

    fn rows_of_values(self, combinations: Vec<Vec<Option<Value>>>) -> Result<Vec<Value>, DqlError> {
        let paths: Vec<Vec<String>> =
            self.distinct_paths().unwrap_or_default().into_iter().map(<[String]>::to_vec).collect();
        let sorted = sorted(combinations, paths.len());
        let mut run: SelectRun = self.run();
        for values in sorted.into_values() {
            let mut row = Object::new();
            for (path, value) in paths.iter().zip(values) {
                if let Some(value) = value {
                    place(&mut row, path, value);
                }
            }
            run.take(|_| Row::Object(&row))?;
        }
        run.finish()
    }
}

/// By the first `keys` values, as the evaluator would have them: the order of rows does not depend on who found them.
fn sorted(rows: Vec<Vec<Option<Value>>>, keys: usize) -> BTreeMap<Vec<Key>, Vec<Option<Value>>> {
    rows.into_iter().map(|row| (row.iter().take(keys).cloned().map(Key).collect(), row)).collect()
}

fn place(object: &mut Object, path: &[String], value: Value) {
    match path {
        [] => {}
        [key] => _ = object.insert(key.as_str(), value),
        [key, rest @ ..] => {
            if !matches!(object.get(key), Some(Value::Object(_))) {
                object.insert(key.as_str(), Object::new());
            }
            if let Some(Value::Object(below)) = object.get_mut(key) {
                place(below, rest, value);
            }
        }
    }
}

/// The paths that `expr` looks at; none when it has variables, which look like paths.
fn paths<'a>(expr: &'a Expr, out: &mut Vec<&'a [String]>) -> Option<()> {
    match expr {
        Expr::Path(path) => {
            out.push(path);
            Some(())
        }
        Expr::Quantified { .. } | Expr::Comprehension { .. } => None,
        other => other.children().into_iter().try_for_each(|child| paths(child, out)),
    }
}
