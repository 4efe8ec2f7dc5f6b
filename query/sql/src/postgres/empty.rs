//! What is known to have no rows: tables of `pg_catalog` and `information_schema` about things that an app does not have. A
//! query without rows for that reason becomes one without tables, so that nothing else in it need be understood.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArguments, GroupByExpr, Join, JoinOperator, ObjectName, Query, Select, SelectItem, SetExpr,
    SetOperator, TableFactor, TableWithJoins, Visit, Visitor,
};

use super::catalog::FILLED;

/// Tables without rows that are joined to others, with the columns that are asked for.
pub(super) const EMPTY: &[(&str, &[(&str, char)])] = &[
    ("pg_attrdef", &[("oid", 'n'), ("adrelid", 'n'), ("adnum", 'n'), ("adbin", 't')]),
    ("pg_collation", &[("oid", 'n'), ("collname", 't'), ("collnamespace", 'n')]),
    (
        "pg_constraint",
        &[
            ("oid", 'n'),
            ("conname", 't'),
            ("connamespace", 'n'),
            ("contype", 't'),
            ("conrelid", 'n'),
            ("contypid", 'n'),
            ("conindid", 'n'),
            ("confrelid", 'n'),
            ("conkey", 't'),
            ("confkey", 't'),
        ],
    ),
    ("pg_depend", &[("classid", 'n'), ("objid", 'n'), ("objsubid", 'n'), ("refclassid", 'n'), ("refobjid", 'n')]),
    ("pg_description", &[("objoid", 'n'), ("classoid", 'n'), ("objsubid", 'n'), ("description", 't')]),
    ("pg_enum", &[("oid", 'n'), ("enumtypid", 'n'), ("enumsortorder", 'n'), ("enumlabel", 't')]),
    ("pg_foreign_table", &[("ftrelid", 'n'), ("ftserver", 'n')]),
    (
        "pg_index",
        &[
            ("indexrelid", 'n'),
            ("indrelid", 'n'),
            ("indnatts", 'n'),
            ("indisunique", 'b'),
            ("indisprimary", 'b'),
            ("indkey", 't'),
            ("indisvalid", 'b'),
        ],
    ),
    ("pg_inherits", &[("inhrelid", 'n'), ("inhparent", 'n'), ("inhseqno", 'n')]),
    ("pg_matviews", &[("schemaname", 't'), ("matviewname", 't'), ("definition", 't')]),
    ("pg_partitioned_table", &[("partrelid", 'n'), ("partstrat", 't')]),
    ("pg_proc", &[("oid", 'n'), ("proname", 't'), ("pronamespace", 'n'), ("prorettype", 'n')]),
    ("pg_range", &[("rngtypid", 'n'), ("rngsubtype", 'n')]),
    ("pg_sequence", &[("seqrelid", 'n'), ("seqtypid", 'n')]),
    ("pg_shdescription", &[("objoid", 'n'), ("classoid", 'n'), ("description", 't')]),
    ("pg_stat_user_tables", &[("relid", 'n'), ("schemaname", 't'), ("relname", 't'), ("n_live_tup", 'n')]),
    ("pg_tablespace", &[("oid", 'n'), ("spcname", 't'), ("spcowner", 'n')]),
    ("pg_trigger", &[("oid", 'n'), ("tgrelid", 'n'), ("tgname", 't')]),
    ("pg_views", &[("schemaname", 't'), ("viewname", 't'), ("viewowner", 't'), ("definition", 't')]),
];

/// The tables of `information_schema` that have rows.
const INFORMATION: [&str; 7] = ["tables", "views", "columns", "schemata", "routines", "parameters", "df_settings"];

const AGGREGATES: [&str; 13] = [
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "array_agg",
    "string_agg",
    "bool_and",
    "bool_or",
    "every",
    "json_agg",
    "jsonb_agg",
    "json_object_agg",
];

/// The parts of a name, in lower case.
pub(super) fn parts(name: &ObjectName) -> Vec<String> {
    name.0.iter().filter_map(|part| part.as_ident()).map(|ident| ident.value.to_ascii_lowercase()).collect()
}

/// Whether `name` is a table that never has rows.
fn is_empty_table(name: &ObjectName) -> bool {
    let parts = parts(name);
    match parts.iter().map(String::as_str).rev().collect::<Vec<_>>().as_slice() {
        [table] => table.starts_with("pg_") && !FILLED.contains(table),
        [table, "pg_catalog", ..] => !FILLED.contains(table),
        [table, "information_schema", ..] => !INFORMATION.contains(table),
        _ => false,
    }
}

/// Whether `query` can have no rows, whatever else is in it.
pub(super) fn is_empty(query: &Query) -> bool {
    query.with.is_none() && is_empty_set(&query.body)
}

fn is_empty_set(set: &SetExpr) -> bool {
    match set {
        SetExpr::Select(select) => is_empty_select(select),
        SetExpr::Query(query) => is_empty(query),
        SetExpr::SetOperation { op, left, right, .. } => match op {
            SetOperator::Union => is_empty_set(left) && is_empty_set(right),
            SetOperator::Intersect => is_empty_set(left) || is_empty_set(right),
            SetOperator::Except | SetOperator::Minus => is_empty_set(left),
        },
        _ => false,
    }
}

fn is_empty_select(select: &Select) -> bool {
    let grouped = match &select.group_by {
        GroupByExpr::All(_) => true,
        GroupByExpr::Expressions(by, modifiers) => !by.is_empty() && modifiers.is_empty(),
    };
    // Without groups, an aggregate has a row about nothing.
    let one_row = !grouped && (select.having.is_some() || aggregates(&select.projection));
    !one_row && select.from.iter().any(is_empty_join)
}

/// Whether `items` have an aggregate of their own; those of subqueries are of other rows.
pub(super) fn aggregates(items: &Vec<SelectItem>) -> bool {
    struct Aggregates {
        queries: usize,
    }
    impl Visitor for Aggregates {
        type Break = ();

        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.queries += 1;
            ControlFlow::Continue(())
        }

        fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.queries -= 1;
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
            let name = parts(&function.name).pop().unwrap_or_default();
            if self.queries == 0 && AGGREGATES.contains(&name.as_str()) {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        }
    }
    items.visit(&mut Aggregates { queries: 0 }).is_break()
}

fn is_empty_join(tables: &TableWithJoins) -> bool {
    tables.joins.iter().fold(is_empty_factor(&tables.relation), joined)
}

/// Whether a join has no rows when its left side is `empty` or not known to be.
fn joined(empty: bool, join: &Join) -> bool {
    let right = is_empty_factor(&join.relation);
    match &join.join_operator {
        JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_) => empty || right,
        JoinOperator::Left(_) | JoinOperator::LeftOuter(_) => empty,
        JoinOperator::Right(_) | JoinOperator::RightOuter(_) => right,
        JoinOperator::FullOuter(_) => empty && right,
        _ => false,
    }
}

fn is_empty_factor(factor: &TableFactor) -> bool {
    match factor {
        TableFactor::Table { name, args: None, .. } => is_empty_table(name),
        TableFactor::Derived { subquery, .. } => is_empty(subquery),
        TableFactor::NestedJoin { table_with_joins, .. } => is_empty_join(table_with_joins),
        _ => false,
    }
}

/// A query without rows, with the columns of `query`, in SQL.
pub(super) fn in_place_of(query: &Query) -> String {
    let mut set = query.body.as_ref();
    let select = loop {
        match set {
            SetExpr::Select(select) => break Some(select),
            SetExpr::Query(query) => set = &query.body,
            SetExpr::SetOperation { left, .. } => set = left,
            _ => break None,
        }
    };
    let names = select.iter().flat_map(|select| &select.projection).map(|item| match item {
        SelectItem::ExprWithAlias { alias, .. } => alias.value.clone(),
        SelectItem::UnnamedExpr(expr) => name_of(expr),
        _ => "?column?".to_owned(),
    });
    let mut taken = std::collections::BTreeSet::new();
    let columns: Vec<String> = names
        .map(|name| {
            let mut free = (0_usize..).map(|n| if n == 0 { name.clone() } else { format!("{name}_{n}") });
            let name = free.find(|name| taken.insert(name.clone())).unwrap_or_default();
            format!("NULL AS \"{}\"", name.replace('"', "\"\""))
        })
        .collect();
    let columns = if columns.is_empty() { "NULL AS \"?column?\"".to_owned() } else { columns.join(", ") };
    format!("SELECT {columns} WHERE FALSE")
}

/// What PostgreSQL calls a column that has no alias.
fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(ident) => ident.value.clone(),
        Expr::CompoundIdentifier(idents) => idents.last().map(|ident| ident.value.clone()).unwrap_or_default(),
        Expr::Cast { expr, .. } | Expr::Nested(expr) => name_of(expr),
        Expr::Function(function) => parts(&function.name).pop().unwrap_or_default(),
        Expr::Case { .. } => "case".to_owned(),
        _ => "?column?".to_owned(),
    }
}

/// Whether the function takes a subquery that has no rows.
pub(super) fn takes_nothing(arguments: &FunctionArguments) -> bool {
    matches!(arguments, FunctionArguments::Subquery(query) if is_empty(query))
}
