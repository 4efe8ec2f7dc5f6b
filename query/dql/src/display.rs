//! The canonical text of a syntax tree: fully parenthesized, one spelling for each thing, one space between words.
//! Equal subscriptions are found by it, so it must not depend on how a statement was written.

use std::fmt::{self, Display, Formatter, Write};

use bigpeer_crdt::Value;

use crate::ast::{
    Binding, CastType, ConflictPolicy, CounterOp, Delete, Expr, FieldType, Insert, InsertInput, JoinKind, LikeKind,
    Order, Projection, Quantifier, Select, Source, Statement, TypeDef, Update, UseIds,
};
use crate::keyword::is_plain_identifier;

/// Writes `items` with `separator` between them.
fn list<T>(
    f: &mut Formatter<'_>,
    items: &[T],
    separator: &str,
    mut one: impl FnMut(&mut Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            f.write_str(separator)?;
        }
        one(f, item)?;
    }
    Ok(())
}

fn name(f: &mut Formatter<'_>, name: &str) -> fmt::Result {
    if is_plain_identifier(name) { f.write_str(name) } else { write!(f, "`{}`", name.replace('`', "``")) }
}

fn path(f: &mut Formatter<'_>, path: &[String]) -> fmt::Result {
    list(f, path, ".", |f, segment| name(f, segment))
}

fn text(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('\'')?;
    for ch in text.chars() {
        match ch {
            '\'' => f.write_str("\\'")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            control if control.is_control() && u32::from(control) < 0x1_0000 => {
                write!(f, "\\u{:04x}", u32::from(control))?
            }
            other => f.write_char(other)?,
        }
    }
    f.write_char('\'')
}

/// A value as a DQL literal.
pub(crate) fn value(f: &mut Formatter<'_>, literal: &Value) -> fmt::Result {
    match literal {
        Value::Null => f.write_str("NULL"),
        Value::Bool(flag) => f.write_str(if *flag { "TRUE" } else { "FALSE" }),
        Value::Int(number) => write!(f, "{number}"),
        Value::UInt(number) => write!(f, "{number}"),
        Value::Float(number) if number.is_finite() => write!(f, "{number:?}"),
        Value::Float(number) => write!(f, "CAST('{number}' AS FLOAT)"),
        Value::String(string) => text(f, string),
        Value::Bytes(bytes) => {
            f.write_str("X'")?;
            bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
            f.write_char('\'')
        }
        Value::Array(items) => {
            f.write_char('[')?;
            list(f, items, ", ", value)?;
            f.write_char(']')
        }
        Value::Object(object) => {
            f.write_char('{')?;
            for (at, (key, item)) in object.iter().enumerate() {
                if at > 0 {
                    f.write_str(", ")?;
                }
                text(f, key)?;
                f.write_str(": ")?;
                value(f, item)?;
            }
            f.write_char('}')
        }
    }
}

/// An operand: in parentheses unless it holds together without.
fn operand(f: &mut Formatter<'_>, expr: &Expr) -> fmt::Result {
    match expr {
        Expr::Literal(Value::Int(number)) if *number < 0 => write!(f, "({number})"),
        Expr::Literal(Value::Float(number)) if *number < 0.0 || number.is_sign_negative() => write!(f, "({expr})"),
        Expr::Literal(_)
        | Expr::Missing
        | Expr::Parameter(_)
        | Expr::Path(_)
        | Expr::Member(..)
        | Expr::Index(..)
        | Expr::Array(_)
        | Expr::Object(_)
        | Expr::Case { .. }
        | Expr::Cast(..)
        | Expr::Call(..)
        | Expr::Aggregate { .. } => write!(f, "{expr}"),
        Expr::Not(_)
        | Expr::Negate(_)
        | Expr::And(_)
        | Expr::Or(_)
        | Expr::Binary(..)
        | Expr::Is { .. }
        | Expr::Between { .. }
        | Expr::In { .. }
        | Expr::InArray { .. }
        | Expr::Like { .. }
        | Expr::Quantified { .. }
        | Expr::Comprehension { .. } => write!(f, "({expr})"),
    }
}

fn exprs(f: &mut Formatter<'_>, items: &[Expr]) -> fmt::Result {
    list(f, items, ", ", |f, item| write!(f, "{item}"))
}

fn infix(f: &mut Formatter<'_>, left: &Expr, negated: bool, word: &str) -> fmt::Result {
    operand(f, left)?;
    write!(f, " {}{word} ", if negated { "NOT " } else { "" })
}

impl Display for Expr {
    #[allow(clippy::too_many_lines, reason = "one case for each kind of expression")]
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(literal) => value(f, literal),
            Self::Missing => f.write_str("MISSING"),
            Self::Parameter(parameter) => {
                f.write_char(':')?;
                if crate::keyword::is_word(parameter) { f.write_str(parameter) } else { name(f, parameter) }
            }
            Self::Path(segments) => path(f, segments),
            Self::Member(base, key) => {
                // A path before `.key` would be read as a longer path.
                if matches!(**base, Self::Path(_)) {
                    write!(f, "({base})")?
                } else {
                    operand(f, base)?
                }
                f.write_char('.')?;
                name(f, key)
            }
            Self::Index(base, index) => {
                operand(f, base)?;
                write!(f, "[{index}]")
            }
            Self::Array(items) => {
                f.write_char('[')?;
                exprs(f, items)?;
                f.write_char(']')
            }
            Self::Object(entries) => {
                f.write_char('{')?;
                list(f, entries, ", ", |f, (key, item)| {
                    text(f, key)?;
                    write!(f, ": {item}")
                })?;
                f.write_char('}')
            }
            Self::Not(inner) => {
                f.write_str("NOT ")?;
                operand(f, inner)
            }
            Self::Negate(inner) => write!(f, "-({inner})"),
            Self::And(terms) => list(f, terms, " AND ", operand),
            Self::Or(terms) => list(f, terms, " OR ", operand),
            Self::Binary(op, left, right) => {
                infix(f, left, false, op.symbol())?;
                operand(f, right)
            }
            Self::Is { expr, missing, negated } => {
                operand(f, expr)?;
                write!(f, " IS {}{}", if *negated { "NOT " } else { "" }, if *missing { "MISSING" } else { "NULL" })
            }
            Self::Between { .. } | Self::In { .. } | Self::InArray { .. } | Self::Like { .. } => predicate(f, self),
            Self::Case { operand, branches, otherwise } => case(f, operand.as_deref(), branches, otherwise.as_deref()),
            Self::Cast(inner, kind) => write!(f, "CAST({inner} AS {})", cast_type(*kind)),
            Self::Call(function, args) => {
                write!(f, "{}(", function.display_name())?;
                exprs(f, args)?;
                f.write_char(')')
            }
            Self::Aggregate { kind, distinct, arg } => {
                write!(f, "{}({}", kind.name(), if *distinct { "DISTINCT " } else { "" })?;
                match arg {
                    Some(arg) => write!(f, "{arg})"),
                    None => f.write_str("*)"),
                }
            }
            Self::Quantified { kind, binding, condition } => {
                f.write_str(match kind {
                    Quantifier::Any => "ANY ",
                    Quantifier::Every => "EVERY ",
                    Quantifier::AnyAndEvery => "ANY AND EVERY ",
                })?;
                write!(f, "{binding} SATISFIES {condition} END")
            }
            Self::Comprehension { key, element, binding, condition } => {
                match key {
                    Some(key) => write!(f, "OBJECT ({key}) : ({element}) FOR {binding}")?,
                    None => write!(f, "ARRAY ({element}) FOR {binding}")?,
                }
                if let Some(condition) = condition {
                    write!(f, " WHEN {condition}")?;
                }
                f.write_str(" END")
            }
        }
    }
}

fn predicate(f: &mut Formatter<'_>, expr: &Expr) -> fmt::Result {
    if let Expr::Between { expr, low, high, negated } = expr {
        infix(f, expr, *negated, "BETWEEN")?;
        operand(f, low)?;
        f.write_str(" AND ")?;
        operand(f, high)
    } else if let Expr::In { expr, list, negated } = expr {
        infix(f, expr, *negated, "IN")?;
        f.write_char('(')?;
        exprs(f, list)?;
        f.write_char(')')
    } else if let Expr::InArray { expr, array, negated } = expr {
        infix(f, expr, *negated, "IN")?;
        // Never in parentheses: `IN (a)` is a list of one. The parser takes only what needs none.
        operand(f, array)
    } else if let Expr::Like { expr, pattern, escape, kind, negated } = expr {
        let word = match kind {
            LikeKind::Like => "LIKE",
            LikeKind::Ilike => "ILIKE",
            LikeKind::Similar => "SIMILAR TO",
        };
        infix(f, expr, *negated, word)?;
        operand(f, pattern)?;
        if let Some(escape) = escape {
            f.write_str(" ESCAPE ")?;
            text(f, escape.encode_utf8(&mut [0; 4]))?;
        }
        Ok(())
    } else {
        Ok(())
    }
}

fn case(
    f: &mut Formatter<'_>,
    operand: Option<&Expr>,
    branches: &[(Expr, Expr)],
    otherwise: Option<&Expr>,
) -> fmt::Result {
    f.write_str("CASE")?;
    if let Some(operand) = operand {
        write!(f, " {operand}")?;
    }
    for (when, then) in branches {
        write!(f, " WHEN {when} THEN {then}")?;
    }
    if let Some(otherwise) = otherwise {
        write!(f, " ELSE {otherwise}")?;
    }
    f.write_str(" END")
}

const fn cast_type(kind: CastType) -> &'static str {
    match kind {
        CastType::String => "STRING",
        CastType::Integer => "INTEGER",
        CastType::Float => "FLOAT",
        CastType::Boolean => "BOOLEAN",
        CastType::Binary => "BINARY",
    }
}

impl Display for Binding {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(index) = &self.index {
            name(f, index)?;
            f.write_str(": ")?;
        }
        name(f, &self.name)?;
        f.write_str(if self.within { " WITHIN " } else { " IN " })?;
        operand(f, &self.source)
    }
}

fn types(f: &mut Formatter<'_>, defs: &[TypeDef]) -> fmt::Result {
    f.write_str(" (")?;
    list(f, defs, ", ", |f, def| {
        path(f, &def.path)?;
        match &def.kind {
            FieldType::Register => f.write_str(" REGISTER"),
            FieldType::Map(inner) => {
                f.write_str(" MAP")?;
                if inner.is_empty() { Ok(()) } else { types(f, inner) }
            }
            FieldType::Counter => f.write_str(" COUNTER"),
            FieldType::PnCounter => f.write_str(" PN_COUNTER"),
            FieldType::Attachment => f.write_str(" ATTACHMENT"),
        }
    })?;
    f.write_char(')')
}

impl Display for Source {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if !self.types.is_empty() {
            f.write_str("COLLECTION ")?;
        }
        match self.collection.as_str().split_once(':') {
            Some(("system", rest)) if is_plain_identifier(rest) => write!(f, "system:{rest}")?,
            Some(_) | None => name(f, self.collection.as_str())?,
        }
        if !self.types.is_empty() {
            types(f, &self.types)?;
        }
        if let Some(alias) = &self.alias {
            f.write_str(" AS ")?;
            name(f, alias)?;
        }
        match &self.ids {
            Some(UseIds::Each(ids)) => {
                f.write_str(" USE IDS (")?;
                exprs(f, ids)?;
                f.write_char(')')
            }
            Some(UseIds::List(ids)) => write!(f, " USE IDS LIST {ids}"),
            None => Ok(()),
        }
    }
}

fn projections(f: &mut Formatter<'_>, items: &[Projection]) -> fmt::Result {
    list(f, items, ", ", |f, item| match item {
        Projection::All => f.write_char('*'),
        Projection::AllOf(alias) => {
            name(f, alias)?;
            f.write_str(".*")
        }
        Projection::Missing(segments) => {
            f.write_str("MISSING ")?;
            path(f, segments)
        }
        Projection::Expr { expr, alias } => {
            // The bare word would be read as the start of `MISSING path`.
            if *expr == Expr::Missing {
                f.write_str("(MISSING)")?
            } else {
                write!(f, "{expr}")?
            }
            if let Some(alias) = alias {
                f.write_str(" AS ")?;
                name(f, alias)?;
            }
            Ok(())
        }
    })
}

fn returning(f: &mut Formatter<'_>, items: &[Projection]) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    f.write_str(" RETURNING ")?;
    projections(f, items)
}

fn filter(f: &mut Formatter<'_>, word: &str, filter: Option<&Expr>) -> fmt::Result {
    filter.map_or(Ok(()), |filter| write!(f, " {word} {filter}"))
}

impl Display for Order {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if !self.by.is_empty() {
            f.write_str(" ORDER BY ")?;
            list(f, &self.by, ", ", |f, term| {
                write!(f, "{}{}", term.expr, if term.descending { " DESC" } else { "" })
            })?;
        }
        filter(f, "LIMIT", self.limit.as_ref())?;
        filter(f, "OFFSET", self.offset.as_ref())
    }
}

impl Display for Select {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if self.distinct { "SELECT DISTINCT " } else { "SELECT " })?;
        projections(f, &self.projections)?;
        write!(f, " FROM {}", self.source)?;
        for join in &self.joins {
            let kind = match join.kind {
                JoinKind::Inner => "INNER",
                JoinKind::Left => "LEFT",
                JoinKind::Right => "RIGHT",
            };
            write!(f, " {kind} JOIN {} ON {}", join.source, join.on)?;
        }
        filter(f, "WHERE", self.filter.as_ref())?;
        if !self.group_by.is_empty() {
            f.write_str(" GROUP BY ")?;
            exprs(f, &self.group_by)?;
        }
        filter(f, "HAVING", self.having.as_ref())?;
        write!(f, "{}", self.order)
    }
}

impl Display for Insert {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "INSERT INTO {} ", self.source)?;
        match &self.input {
            InsertInput::Documents(documents) => {
                f.write_str(if self.conflict == ConflictPolicy::Initial {
                    "INITIAL DOCUMENTS "
                } else {
                    "DOCUMENTS "
                })?;
                list(f, documents, ", ", |f, document| write!(f, "({document})"))?;
            }
            InsertInput::Select(select) => write!(f, "{select}")?,
        }
        f.write_str(match self.conflict {
            ConflictPolicy::Fail | ConflictPolicy::Initial => "",
            ConflictPolicy::DoNothing => " ON ID CONFLICT DO NOTHING",
            ConflictPolicy::DoUpdate => " ON ID CONFLICT DO UPDATE",
            ConflictPolicy::DoUpdateLocalDiff => " ON ID CONFLICT DO UPDATE_LOCAL_DIFF",
        })?;
        returning(f, &self.returning)
    }
}

impl Display for Update {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "UPDATE {}", self.source)?;
        if !self.apply.is_empty() {
            f.write_str(" APPLY ")?;
            list(f, &self.apply, ", ", |f, (field, op)| {
                path(f, field)?;
                match op {
                    CounterOp::Increment(by) => write!(f, " INCREMENT BY {by}"),
                    CounterOp::Restart(None) => f.write_str(" RESTART"),
                    CounterOp::Restart(Some(with)) => write!(f, " RESTART WITH {with}"),
                    CounterOp::PnIncrement(by) => write!(f, " PN_INCREMENT BY {by}"),
                }
            })?;
        }
        if !self.set.is_empty() {
            f.write_str(" SET ")?;
            list(f, &self.set, ", ", |f, (field, to)| {
                path(f, field)?;
                write!(f, " = {to}")
            })?;
        }
        if !self.unset.is_empty() {
            f.write_str(" UNSET ")?;
            list(f, &self.unset, ", ", |f, field| path(f, field))?;
        }
        filter(f, "WHERE", self.filter.as_ref())?;
        returning(f, &self.returning)
    }
}

impl Delete {
    fn write(&self, f: &mut Formatter<'_>, verb: &str) -> fmt::Result {
        write!(f, "{verb} FROM {}", self.source)?;
        filter(f, "WHERE", self.filter.as_ref())?;
        write!(f, "{}", self.order)?;
        returning(f, &self.returning)
    }
}

impl Display for Statement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Select(select) => write!(f, "{select}"),
            Self::Insert(insert) => write!(f, "{insert}"),
            Self::Update(update) => write!(f, "{update}"),
            Self::Delete(delete) => delete.write(f, "DELETE"),
            Self::Evict(delete) => delete.write(f, "EVICT"),
            Self::Explain(inner) => write!(f, "EXPLAIN {inner}"),
            Self::Profile(inner) => write!(f, "PROFILE {inner}"),
            Self::Advise(inner) => write!(f, "ADVISE {inner}"),
            Self::Show(show) => {
                f.write_str("SHOW ")?;
                match &show.name {
                    Some(parameter) => name(f, parameter)?,
                    None => f.write_str("ALL")?,
                }
                show.like.as_ref().map_or(Ok(()), |like| {
                    f.write_str(" LIKE ")?;
                    text(f, like)
                })
            }
            Self::Alter(alter) => {
                f.write_str(if alter.to.is_some() { "ALTER SYSTEM SET " } else { "ALTER SYSTEM RESET " })?;
                match &alter.name {
                    Some(parameter) => name(f, parameter)?,
                    None => f.write_str("ALL")?,
                }
                alter.to.iter().try_for_each(|value| write!(f, " = {}", Expr::Literal(value.clone())))
            }
        }
    }
}
