//! Statements that are not about documents, and what is said of those that are not here. The `->` form of SET.

#![allow(clippy::wildcard_enum_match_arm, reason = "whatever is not named begins no clause")]

use bigpeer_crdt::{Object, Value};

use super::{MAX_NESTING, Parser};
use crate::ast::{Alter, Expr, FieldType, Show, TypeDef};
use crate::error::DqlError;
use crate::lexer::Kind;

/// What one element of SET comes to.
#[derive(Debug, Default)]
pub(super) struct Assignment {
    pub(super) set: Vec<(Vec<String>, Expr)>,
    pub(super) unset: Vec<Vec<String>>,
}

impl Parser<'_> {
    /// After `SHOW`.
    pub(super) fn show(&mut self) -> Result<Show, DqlError> {
        let name = if self.take_word("ALL") { None } else { Some(self.name("a parameter's name, or ALL")?) };
        let mut like = None;
        if self.take_word("LIKE") || self.take_word("ILIKE") {
            let Kind::Text(pattern) = self.kind() else { return Err(self.expected("a pattern in quotes")) };
            like = Some(pattern.clone());
            self.advance();
        }
        Ok(Show { name, like })
    }

    /// After `ALTER SYSTEM`.
    pub(super) fn alter(&mut self) -> Result<Alter, DqlError> {
        if self.take_word("RESET") {
            let name = if self.take_word("ALL") { None } else { Some(self.name("a parameter's name, or ALL")?) };
            return Ok(Alter { name, to: None });
        }
        self.expect_word("SET")?;
        let name = Some(self.name("a parameter's name")?);
        if !self.take_word("TO") {
            self.expect_symbol("=")?;
        }
        if self.take_word("DEFAULT") {
            return Ok(Alter { name, to: None });
        }
        let at = self.here();
        match self.expr()? {
            Expr::Literal(value) => Ok(Alter { name, to: Some(value) }),
            _ => Err(self.error_at(at, "A system parameter takes a value, or DEFAULT")),
        }
    }

    /// The text begins with no statement that is here.
    pub(super) fn no_statement(&self) -> DqlError {
        const BEGIN: &str = "a statement begins with SELECT, INSERT, UPDATE, DELETE, EVICT, EXPLAIN, PROFILE, ADVISE, SHOW or ALTER SYSTEM";
        let error = self.expected("a statement");
        let Kind::Word(word) = self.kind() else { return error.hint(BEGIN) };
        match word.to_ascii_uppercase().as_str() {
            "CREATE" | "DROP" => self
                .error("Unsupported feature: CREATE INDEX and DROP INDEX")
                .hint("leave it out: every scan is pruned by the values that were stored, of every field"),
            "ALTER" => error.hint("write ALTER SYSTEM SET name = value or ALTER SYSTEM RESET name"),
            "SYNC" => self
                .error("Unsupported feature: SYNC CONTEXT")
                .hint("statements are run on the server's documents, not on devices"),
            "UPSERT" | "REPLACE" | "MERGE" => error.hint("write INSERT INTO … DOCUMENTS (…) ON ID CONFLICT DO UPDATE"),
            "TOMBSTONE" | "TRUNCATE" => error.hint("write DELETE FROM name WHERE …"),
            "BEGIN" | "COMMIT" | "ROLLBACK" => error.hint("send the statements of one transaction together"),
            _ => error.hint(BEGIN),
        }
    }

    /// `path = value`, and as it was written for version 4: `path -> tombstone()`, `path -> default()`,
    /// `map -> (sub = 1, other -> tombstone())`.
    pub(super) fn assignment(&mut self, types: &[TypeDef]) -> Result<Assignment, DqlError> {
        let mut into = Assignment::default();
        self.assign(Vec::new(), types, &mut into, 0)?;
        Ok(into)
    }

    fn assign(
        &mut self,
        mut path: Vec<String>,
        types: &[TypeDef],
        into: &mut Assignment,
        depth: u32,
    ) -> Result<(), DqlError> {
        if depth > MAX_NESTING {
            return Err(self.error("The assignment nests too deeply"));
        }
        path.extend(self.path()?);
        if !self.take_symbol("->") {
            self.expect_symbol("=")?;
            let value = self.expr()?;
            into.set.push((path, value));
            return Ok(());
        }
        if self.take_symbol("(") {
            self.comma_separated(|parser| parser.assign(path.clone(), types, into, depth + 1))?;
            return self.expect_symbol(")");
        }
        let at = self.here();
        let what = self.name("tombstone(), default() or (…)")?;
        self.expect_symbol("(")?;
        self.expect_symbol(")")?;
        if what.eq_ignore_ascii_case("tombstone") {
            into.unset.push(path);
        } else if what.eq_ignore_ascii_case("default") {
            let value = match declared(types, &path) {
                Some(FieldType::Map(_)) => Value::Object(Object::new()),
                Some(FieldType::Attachment) => return Err(self.error_at(at, "An ATTACHMENT has no default")),
                Some(FieldType::Counter | FieldType::PnCounter) => Value::Int(0),
                Some(FieldType::Register) | None => Value::Null,
            };
            into.set.push((path, Expr::Literal(value)));
        } else {
            return Err(self
                .error_at(at, format!("Unknown function '{}' after ->", crate::error::shown(&what)))
                .hint("write -> tombstone(), -> default() or -> (field = value, …)"));
        }
        Ok(())
    }
}

/// What `path` is declared to be.
fn declared<'t>(types: &'t [TypeDef], path: &[String]) -> Option<&'t FieldType> {
    types.iter().find_map(|def| match path.strip_prefix(def.path.as_slice())? {
        [] => Some(&def.kind),
        rest => match &def.kind {
            FieldType::Map(below) => declared(below, rest),
            _ => None,
        },
    })
}
