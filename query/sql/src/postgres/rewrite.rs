//! A statement as a client of PostgreSQL writes it, in words that the planner knows: names of the catalogue qualified, casts
//! to types that only PostgreSQL has, its operators, its functions. What is not understood is left, for the planner to refuse.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, BinaryOperator, DataType, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr,
    Ident, ObjectName, Query, SelectItem, SetExpr, TableFactor, Value, ValueWithSpan, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::catalog::{FILLED, namespace_of};
use super::empty::{EMPTY, aggregates, in_place_of, is_empty, parts, takes_nothing};
use super::{functions, types};

/// Rewrites `statement` for the database `app`.
pub(crate) fn rewrite(statement: &mut Statement, app: &str) {
    match statement {
        Statement::Statement(sql) => {
            let _ = sql.visit(&mut Rewriter { app });
        }
        Statement::Explain(explain) => rewrite(&mut explain.statement, app),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => {}
    }
}

struct Rewriter<'a> {
    app: &'a str,
}

fn parse_expr(text: &str) -> Option<Expr> {
    Parser::new(&PostgreSqlDialect {}).try_with_sql(text).ok()?.parse_expr().ok()
}

fn parse_query(text: &str) -> Option<Query> {
    Parser::new(&PostgreSqlDialect {}).try_with_sql(text).ok()?.parse_query().ok().map(|query| *query)
}

/// Puts `text`, parsed, in place of `expr`.
fn replace(expr: &mut Expr, text: &str) {
    if let Some(parsed) = parse_expr(text) {
        *expr = Expr::Nested(Box::new(parsed));
    }
}

impl VisitorMut for Rewriter<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if is_empty(query)
            && let Some(empty) = parse_query(&in_place_of(query))
        {
            *query = empty;
        }
        // Nothing is written, so nothing is locked.
        query.locks.clear();
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<()> {
        let names = parts(relation);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        match names.as_slice() {
            [table] if FILLED.contains(table) || EMPTY.iter().any(|(empty, _)| empty == table) => {
                *relation = ObjectName::from(vec![Ident::new("pg_catalog"), Ident::new(*table)]);
            }
            [schema @ ("pg_catalog" | "information_schema"), table] => {
                *relation = ObjectName::from(vec![Ident::new(*schema), Ident::new(*table)]);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => unqualify(name),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Subquery(query) if is_empty(query) => *expr = Expr::value(Value::Null),
            Expr::Exists { subquery, negated } if is_empty(subquery) => {
                *expr = Expr::value(Value::Boolean(*negated));
            }
            Expr::InSubquery { subquery, negated, .. } if is_empty(subquery) => {
                *expr = Expr::value(Value::Boolean(*negated));
            }
            Expr::Function(function) if takes_nothing(&function.args) => *expr = Expr::value(Value::Null),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Collate { expr: inner, .. } => *expr = std::mem::replace(inner.as_mut(), Expr::value(Value::Null)),
            Expr::BinaryOp { op, .. } => operator(op),
            Expr::Cast { .. } => cast(expr),
            Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => {
                if let Some(list) = array_literal(right) {
                    *expr = Expr::InList { expr: left.clone(), list, negated: false };
                }
            }
            Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
                unescape(pattern, escape_char);
            }
            Expr::Subquery(query) => one_row(query),
            // Functions that are written like columns.
            Expr::Identifier(name) if name.quote_style.is_none() && functions::is_bare(&name.value) => {
                if let Some(text) = functions::sql(self.app, &name.value.to_ascii_lowercase(), &[]) {
                    replace(expr, &text);
                }
            }
            Expr::Function(function) => {
                unqualify(&mut function.name);
                let name = parts(&function.name);
                let arguments = arguments(&function.args);
                if let ([name], Some(arguments)) = (name.as_slice(), arguments)
                    && let Some(text) = functions::sql(self.app, name, &arguments)
                {
                    replace(expr, &text);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// `pg_catalog.name` as `name`.
fn unqualify(name: &mut ObjectName) {
    if let [schema, last] = parts(name).as_slice()
        && schema == "pg_catalog"
    {
        *name = ObjectName::from(vec![Ident::new(last.as_str())]);
    }
}

/// The arguments as SQL; none when they are more than expressions.
fn arguments(arguments: &FunctionArguments) -> Option<Vec<String>> {
    match arguments {
        FunctionArguments::None => Some(Vec::new()),
        FunctionArguments::Subquery(_) => None,
        FunctionArguments::List(list) => list
            .args
            .iter()
            .map(|argument| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.to_string()),
                _ => None,
            })
            .collect(),
    }
}

/// `OPERATOR(pg_catalog.~)` as `~`.
fn operator(op: &mut BinaryOperator) {
    let BinaryOperator::PGCustomBinaryOperator(names) = op else { return };
    *op = match names.last().map(String::as_str) {
        Some("~") => BinaryOperator::PGRegexMatch,
        Some("~*") => BinaryOperator::PGRegexIMatch,
        Some("!~") => BinaryOperator::PGRegexNotMatch,
        Some("!~*") => BinaryOperator::PGRegexNotIMatch,
        Some("~~") => BinaryOperator::PGLikeMatch,
        Some("=") => BinaryOperator::Eq,
        Some("<>") => BinaryOperator::NotEq,
        Some("<") => BinaryOperator::Lt,
        Some(">") => BinaryOperator::Gt,
        Some("<=") => BinaryOperator::LtEq,
        Some(">=") => BinaryOperator::GtEq,
        _ => return,
    };
}

/// A cast to a type that only PostgreSQL has.
fn cast(expr: &mut Expr) {
    let Expr::Cast { expr: inner, data_type, .. } = expr else { return };
    let name = match data_type {
        DataType::Regclass => "regclass".to_owned(),
        DataType::Custom(name, _) => parts(name).pop().unwrap_or_default(),
        DataType::JSON | DataType::JSONB => "json".to_owned(),
        DataType::Array(ArrayElemTypeDef::SquareBracket(item, _)) => {
            if let DataType::Custom(name, _) = item.as_ref() {
                let plain = plain_type(&parts(name).pop().unwrap_or_default());
                **item = plain;
            }
            return;
        }
        _ => return,
    };
    let text = inner.to_string();
    match name.as_str() {
        "regclass" => replace(expr, &functions::regclass(&text)),
        "regtype" => {
            let oid = types::named(text.trim_matches('\'')).map_or(text, |known| known.oid.to_string());
            replace(expr, &format!("CAST({oid} AS BIGINT)"));
        }
        "regnamespace" => {
            let oid = namespace_of(text.trim_matches('\'')).map_or(text, |oid| oid.to_string());
            replace(expr, &format!("CAST({oid} AS BIGINT)"));
        }
        other => *data_type = plain_type(other),
    }
}

/// The planner's type for a type of PostgreSQL that it does not know by name.
fn plain_type(name: &str) -> DataType {
    match name {
        "oid" | "xid" | "cid" | "int8" | "regproc" | "regprocedure" | "cardinal_number" => DataType::BigInt(None),
        "int2" => DataType::SmallInt(None),
        "int4" => DataType::Int(None),
        "float4" => DataType::Real,
        "float8" => DataType::Double(datafusion::sql::sqlparser::ast::ExactNumberInfo::None),
        "bool" | "yes_or_no" => DataType::Boolean,
        "date" => DataType::Date,
        _ => DataType::Varchar(None),
    }
}

/// A pattern with an escape character of its own, in terms of the backslash. What is escaped twice is not looked for.
fn unescape(pattern: &mut Expr, escape: &mut Option<ValueWithSpan>) {
    let Some(Value::SingleQuotedString(character)) = escape.as_ref().map(|escape| &escape.value) else { return };
    if character != "\\" && character.chars().count() == 1 {
        let character = functions::quoted(character);
        replace(pattern, &format!("replace(replace({pattern}, '\\', '\\\\'), {character}, '\\')"));
        *escape = None;
    }
}

/// A subquery as a value, about one thing in the catalogue: the planner wants it said that it has one row.
fn one_row(query: &mut Query) {
    let plain = query.with.is_none() && query.order_by.is_none() && query.limit_clause.is_none();
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let ungrouped = matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty());
    let of_catalogue = select.from.iter().all(|from| {
        from.joins.is_empty()
            && matches!(&from.relation, TableFactor::Table { name, .. } if parts(name).first().is_some_and(|schema| schema == "pg_catalog"))
    });
    if !plain || !ungrouped || !of_catalogue || select.having.is_some() || aggregates(&select.projection) {
        return;
    }
    if let [SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }] = select.projection.as_mut_slice() {
        let text = format!("max({expr})");
        replace(expr, &text);
    }
}

/// The elements of an array, or of `'{a,b}'`, perhaps cast to one.
fn array_literal(expr: &Expr) -> Option<Vec<Expr>> {
    let text = match expr {
        Expr::Array(array) => return Some(array.elem.clone()),
        Expr::Cast { expr, .. } | Expr::Nested(expr) => return array_literal(expr),
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => text,
            _ => return None,
        },
        _ => return None,
    };
    let items = text.strip_prefix('{')?.strip_suffix('}')?;
    if items.is_empty() || items.contains(['"', '{', '\\']) {
        return None;
    }
    Some(items.split(',').map(|item| Expr::value(Value::SingleQuotedString(item.trim().to_owned()))).collect())
}

#[cfg(test)]
mod tests;
