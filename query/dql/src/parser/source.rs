//! What statements are about: collections with types, aliases, `USE`, and JOINs.

#![allow(clippy::wildcard_enum_match_arm, reason = "whatever is not named begins no clause")]

use bigpeer_types::CollectionName;

use super::Parser;
use crate::ast::{FieldType, Join, JoinKind, Source, TypeDef, UseIds};
use crate::error::DqlError;
use crate::lexer::Kind;

/// Most joins of one statement.
const MAX_JOINS: usize = 10;

impl Parser<'_> {
    /// The collection with types, and when `row` also alias and `USE IDS`.
    pub(super) fn source(&mut self, row: bool) -> Result<Source, DqlError> {
        let typed = self.is_word("COLLECTION");
        if typed {
            self.advance();
        }
        let collection = self.collection()?;
        let types = if typed && self.is_symbol("(") { self.types(0)? } else { Vec::new() };
        let (mut alias, mut ids) = (None, None);
        if row {
            self.refuse_other_joins()?;
            alias = if self.is_word("APPLY") { None } else { self.alias()? };
            if self.take_words(&["USE", "IDS"]) {
                ids = Some(self.use_ids()?);
            } else if self.take_word("USE") {
                self.advice()?;
            }
        }
        Ok(Source { collection, types, alias, ids })
    }

    /// `INDEX 'name'` and `DIRECTIVES …`: advice to a planner that has no indexes to choose from. Read, and not followed.
    fn advice(&mut self) -> Result<(), DqlError> {
        if self.take_word("DIRECTIVES") {
            return self.expr().map(|_| ());
        }
        self.expect_word("INDEX").map_err(|error| error.hint("write USE IDS (…) to name documents"))?;
        match self.kind() {
            Kind::Text(_) | Kind::Quoted(_) | Kind::Word(_) => {
                self.advance();
                Ok(())
            }
            _ => Err(self.expected("the name of an index, in quotes")),
        }
    }

    /// `{[INNER | LEFT [OUTER] | RIGHT [OUTER]] JOIN source ON condition}`
    pub(super) fn joins(&mut self) -> Result<Vec<Join>, DqlError> {
        let mut joins = Vec::new();
        loop {
            self.refuse_other_joins()?;
            let at = self.here();
            let kind = if self.take_words(&["INNER", "JOIN"]) || self.take_word("JOIN") {
                JoinKind::Inner
            } else if self.take_words(&["LEFT", "JOIN"]) || self.take_words(&["LEFT", "OUTER", "JOIN"]) {
                JoinKind::Left
            } else if self.take_words(&["RIGHT", "JOIN"]) || self.take_words(&["RIGHT", "OUTER", "JOIN"]) {
                JoinKind::Right
            } else {
                return Ok(joins);
            };
            if joins.len() >= MAX_JOINS {
                let message = "Too many joins: the number of joined terms exceeds the maximum permitted.";
                return Err(self.error_at(at, message).hint(format!("at most {MAX_JOINS} joins")));
            }
            if kind == JoinKind::Right && !joins.is_empty() {
                return Err(self
                    .error_at(at, "Unsupported feature: RIGHT JOIN that is not the first join")
                    .hint("put its collection first, and use LEFT JOIN"));
            }
            let source = self.source(true)?;
            let on = self.clause("ON")?.ok_or_else(|| self.expected("ON and a condition"))?;
            joins.push(Join { kind, source, on });
        }
    }

    fn refuse_other_joins(&self) -> Result<(), DqlError> {
        let other = ["FULL", "CROSS", "NATURAL"]
            .iter()
            .any(|word| self.is_word(word) && (self.is_word_at(1, "JOIN") || self.is_word_at(1, "OUTER")));
        if other || self.is_symbol(",") {
            return Err(self
                .error("Unsupported feature: joins other than INNER, LEFT and RIGHT JOIN … ON")
                .hint("write a JOIN b ON a.x = b.y"));
        }
        Ok(())
    }

    fn collection(&mut self) -> Result<CollectionName, DqlError> {
        let at = self.here();
        let mut name = self.name("a collection name")?;
        if name.eq_ignore_ascii_case("system") && self.is_symbol(":") {
            self.advance();
            name = format!("system:{}", self.member_name()?);
        }
        CollectionName::new(&name).map_err(|error| self.error_at(at, error.to_string()))
    }

    fn use_ids(&mut self) -> Result<UseIds, DqlError> {
        if self.take_word("LIST") {
            return Ok(UseIds::List(Box::new(self.expr()?)));
        }
        self.expect_symbol("(")?;
        let ids = if self.take_word("LIST") {
            UseIds::List(Box::new(self.expr()?))
        } else {
            UseIds::Each(self.comma_separated(Self::expr)?)
        };
        self.expect_symbol(")")?;
        Ok(ids)
    }

    fn types(&mut self, depth: usize) -> Result<Vec<TypeDef>, DqlError> {
        if depth > bigpeer_types::limits::MAX_DEPTH {
            return Err(self.error("The types are nested too deeply"));
        }
        self.expect_symbol("(")?;
        let types = self.comma_separated(|parser| {
            let path = parser.path()?;
            let kind = parser.field_type(depth)?;
            Ok(TypeDef { path, kind })
        })?;
        self.expect_symbol(")")?;
        Ok(types)
    }

    fn field_type(&mut self, depth: usize) -> Result<FieldType, DqlError> {
        let Kind::Word(word) = self.kind() else { return Err(self.expected("a type")) };
        let kind = match word.to_ascii_uppercase().as_str() {
            "REGISTER" => FieldType::Register,
            "COUNTER" => FieldType::Counter,
            "PN_COUNTER" => FieldType::PnCounter,
            "ATTACHMENT" => FieldType::Attachment,
            "MAP" => {
                self.advance();
                return Ok(FieldType::Map(if self.is_symbol("(") { self.types(depth + 1)? } else { Vec::new() }));
            }
            _ => {
                return Err(self
                    .expected("a type")
                    .hint("the types are REGISTER, MAP, COUNTER, PN_COUNTER and ATTACHMENT"));
            }
        };
        self.advance();
        Ok(kind)
    }
}
