//! Statements and their clauses.

#![allow(clippy::wildcard_enum_match_arm, reason = "whatever is not named begins no clause")]

use super::Parser;
use crate::ast::{
    ConflictPolicy, CounterOp, Delete, Expr, Insert, InsertInput, Order, OrderTerm, Projection, Select, Statement,
    Update,
};
use crate::error::{DqlError, shown};
use crate::lexer::Kind;

impl Parser<'_> {
    pub(super) fn statement(&mut self) -> Result<Statement, DqlError> {
        if self.take_word("EXPLAIN") {
            return Ok(Statement::Explain(Box::new(self.core()?)));
        }
        if self.take_word("PROFILE") {
            let at = self.here();
            return match self.core()? {
                select @ Statement::Select(_) => Ok(Statement::Profile(Box::new(select))),
                _ => Err(self.error_at(at, "PROFILE takes a SELECT").hint("EXPLAIN takes any statement")),
            };
        }
        if self.take_word("ADVISE") {
            if self.is_word("AND") {
                return Err(self
                    .error("Unsupported feature: ADVISE AND PROVISION")
                    .hint("there are no indexes to make: every scan is pruned by the values that were stored"));
            }
            return Ok(Statement::Advise(Box::new(self.core()?)));
        }
        if self.take_word("SHOW") {
            return Ok(Statement::Show(self.show()?));
        }
        if self.take_words(&["ALTER", "SYSTEM"]) {
            return Ok(Statement::Alter(self.alter()?));
        }
        self.core()
    }

    fn core(&mut self) -> Result<Statement, DqlError> {
        if self.is_word("SELECT") {
            Ok(Statement::Select(self.select()?))
        } else if self.take_word("INSERT") {
            Ok(Statement::Insert(self.insert()?))
        } else if self.take_word("UPDATE") {
            Ok(Statement::Update(self.update()?))
        } else if self.take_word("DELETE") {
            Ok(Statement::Delete(self.delete()?))
        } else if self.take_word("EVICT") {
            Ok(Statement::Evict(self.delete()?))
        } else {
            Err(self.no_statement())
        }
    }

    pub(super) fn select(&mut self) -> Result<Select, DqlError> {
        self.expect_word("SELECT")?;
        let distinct = self.take_word("DISTINCT");
        let projections = self.comma_separated(Self::projection)?;
        let star = projections.iter().any(|projection| matches!(projection, Projection::All));
        if star && projections.len() > 1 {
            return Err(self
                .error("unqualified * with other projection elements is not supported")
                .hint("give the collection an alias and write alias.*"));
        }
        self.expect_word("FROM")?;
        let source = self.source(true)?;
        let joins = self.joins()?;
        let filter = self.clause("WHERE")?;
        let group_by = if self.take_words(&["GROUP", "BY"]) { self.comma_separated(Self::expr)? } else { Vec::new() };
        let having = self.clause("HAVING")?;
        let order = self.order()?;
        Ok(Select { distinct, projections, source, joins, filter, group_by, having, order })
    }

    pub(super) fn clause(&mut self, word: &str) -> Result<Option<Expr>, DqlError> {
        if self.take_word(word) { Ok(Some(self.expr()?)) } else { Ok(None) }
    }

    fn order(&mut self) -> Result<Order, DqlError> {
        let by = if self.take_words(&["ORDER", "BY"]) { self.comma_separated(Self::order_term)? } else { Vec::new() };
        let (mut limit, mut offset) = (self.clause("LIMIT")?, self.clause("OFFSET")?);
        if limit.is_none() {
            limit = self.clause("LIMIT")?;
        }
        if offset.is_none() {
            offset = self.clause("OFFSET")?;
        }
        Ok(Order { by, limit, offset })
    }

    fn order_term(&mut self) -> Result<OrderTerm, DqlError> {
        let expr = self.expr()?;
        let descending = self.take_word("DESC");
        if !descending {
            self.take_word("ASC");
        }
        Ok(OrderTerm { expr, descending })
    }

    fn projection(&mut self) -> Result<Projection, DqlError> {
        if self.take_symbol("*") {
            return Ok(Projection::All);
        }
        if self.is_symbol_at(1, ".") && self.is_symbol_at(2, "*") {
            let alias = self.name("an alias")?;
            self.advance();
            self.advance();
            return Ok(Projection::AllOf(alias));
        }
        let field_follows = match self.kind_ahead(1) {
            Kind::Word(word) => !crate::keyword::is_structural(word),
            Kind::Quoted(_) => true,
            Kind::Text(_) | Kind::Binary(_) | Kind::Int(_) | Kind::Float(_) | Kind::Symbol(_) | Kind::End => false,
        };
        if self.is_word("MISSING") && field_follows {
            self.advance();
            return Ok(Projection::Missing(self.path()?));
        }
        let expr = self.expr()?;
        let alias = self.alias()?;
        Ok(Projection::Expr { expr, alias })
    }

    /// `[AS] name`
    pub(super) fn alias(&mut self) -> Result<Option<String>, DqlError> {
        let bare = match self.kind() {
            Kind::Word(word) => !crate::keyword::is_structural(word),
            Kind::Quoted(_) => true,
            Kind::Text(_) | Kind::Binary(_) | Kind::Int(_) | Kind::Float(_) | Kind::Symbol(_) | Kind::End => false,
        };
        if self.take_word("AS") || bare { Ok(Some(self.name("a name")?)) } else { Ok(None) }
    }

    fn returning(&mut self) -> Result<Vec<Projection>, DqlError> {
        if self.take_word("RETURNING") { self.comma_separated(Self::projection) } else { Ok(Vec::new()) }
    }

    fn insert(&mut self) -> Result<Insert, DqlError> {
        self.expect_word("INTO")?;
        let source = self.source(false)?;
        let initial = self.take_word("INITIAL");
        let input = if self.take_word("DOCUMENTS") {
            InsertInput::Documents(self.comma_separated(|parser| {
                parser.expect_symbol("(")?;
                let document = parser.expr()?;
                parser.expect_symbol(")")?;
                Ok(document)
            })?)
        } else if self.is_word("SELECT") && !initial {
            InsertInput::Select(Box::new(self.select()?))
        } else {
            let hint = "write INSERT INTO name DOCUMENTS ({'_id': 'a', …}) or DOCUMENTS (:document)";
            return Err(self.expected("DOCUMENTS").hint(hint));
        };
        let conflict = self.conflict_policy(initial)?;
        Ok(Insert { source, input, conflict, returning: self.returning()? })
    }

    fn conflict_policy(&mut self, initial: bool) -> Result<ConflictPolicy, DqlError> {
        let at = self.here();
        if !self.take_words(&["ON", "ID", "CONFLICT"]) {
            return Ok(if initial { ConflictPolicy::Initial } else { ConflictPolicy::Fail });
        }
        if initial {
            return Err(self.error_at(at, "INITIAL DOCUMENTS cannot be combined with ON ID CONFLICT"));
        }
        let done = self.take_word("DO");
        if self.take_word("FAIL") {
            return Ok(ConflictPolicy::Fail);
        }
        let policy = match self.kind() {
            Kind::Word(word) if done => match word.to_ascii_uppercase().as_str() {
                "NOTHING" => Some(ConflictPolicy::DoNothing),
                "UPDATE" => Some(ConflictPolicy::DoUpdate),
                "UPDATE_LOCAL_DIFF" => Some(ConflictPolicy::DoUpdateLocalDiff),
                _ => None,
            },
            _ => None,
        };
        let Some(policy) = policy else {
            return Err(self
                .expected("a conflict policy")
                .hint("the policies are FAIL, DO NOTHING, DO UPDATE and DO UPDATE_LOCAL_DIFF"));
        };
        self.advance();
        Ok(policy)
    }

    fn update(&mut self) -> Result<Update, DqlError> {
        let source = self.source(true)?;
        let (mut apply, mut set, mut unset) = (Vec::new(), Vec::new(), Vec::new());
        if self.take_word("APPLY") {
            apply = self.comma_separated(|parser| Ok((parser.path()?, parser.counter_op()?)))?;
        }
        if self.take_word("SET") {
            let assignments = self.comma_separated(|parser| parser.assignment(&source.types))?;
            for assignment in assignments {
                set.extend(assignment.set);
                unset.extend(assignment.unset);
            }
        }
        if self.take_word("UNSET") {
            unset.extend(self.comma_separated(Self::path)?);
        }
        if apply.is_empty() && set.is_empty() && unset.is_empty() {
            let error = self.error("Missing SET and/or UNSET clause");
            return Err(if self.is_symbol("(") {
                error.hint("types are declared after the word COLLECTION")
            } else {
                error
            });
        }
        if ["APPLY", "SET", "UNSET"].iter().any(|word| self.is_word(word)) {
            return Err(self.error(format!("Unexpected {}", self.found())).hint("the order is APPLY, SET, UNSET"));
        }
        let filter = self.clause("WHERE")?;
        Ok(Update { source, apply, set, unset, filter, returning: self.returning()? })
    }

    fn counter_op(&mut self) -> Result<CounterOp, DqlError> {
        if self.take_words(&["INCREMENT", "BY"]) {
            Ok(CounterOp::Increment(self.expr()?))
        } else if self.take_words(&["PN_INCREMENT", "BY"]) {
            Ok(CounterOp::PnIncrement(self.expr()?))
        } else if self.take_word("RESTART") {
            Ok(CounterOp::Restart(if self.take_word("WITH") { Some(self.expr()?) } else { None }))
        } else {
            Err(self.expected("INCREMENT BY, RESTART or PN_INCREMENT BY"))
        }
    }

    fn delete(&mut self) -> Result<Delete, DqlError> {
        self.expect_word("FROM").map_err(|error| error.hint("write DELETE FROM name WHERE …"))?;
        let source = self.source(true)?;
        let filter = self.clause("WHERE")?;
        let order = self.order()?;
        Ok(Delete { source, filter, order, returning: self.returning()? })
    }

    /// A literal one-character string.
    pub(super) fn character(&mut self) -> Result<char, DqlError> {
        if let Kind::Text(text) = self.kind() {
            let mut chars = text.chars();
            if let (Some(only), None) = (chars.next(), chars.next()) {
                self.advance();
                return Ok(only);
            }
            return Err(self.error(format!("'{}' is not one character", shown(text))));
        }
        Err(self.expected("a string of one character"))
    }
}
