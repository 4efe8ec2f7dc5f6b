//! Expressions with a form of their own: CASE, CAST, TRIM, POSITION, quantifiers, comprehensions, calls, aggregates.

#![allow(clippy::wildcard_enum_match_arm, reason = "whatever is not named begins no special form")]

use super::Parser;
use super::expr::Tall;
use crate::ast::{AggregateKind, Binding, CastType, Expr, Quantifier};
use crate::error::{DqlError, shown};
use crate::functions::Function;
use crate::lexer::Kind;

impl Parser<'_> {
    /// The special form that begins with the word `upper`, which is the next token; none if there is none.
    pub(super) fn special_form(&mut self, upper: &str) -> Result<Option<Tall>, DqlError> {
        let called = self.is_symbol_at(1, "(");
        let form = match upper {
            "CASE" => self.case()?,
            "CAST" if called => self.cast()?,
            "TRIM" if called => self.trim()?,
            "POSITION" if called => self.position()?,
            "ANY" => {
                self.advance();
                let kind = if self.take_words(&["AND", "EVERY"]) { Quantifier::AnyAndEvery } else { Quantifier::Any };
                self.quantified(kind)?
            }
            "EVERY" => {
                self.advance();
                self.quantified(Quantifier::Every)?
            }
            "ARRAY" => self.comprehension(false)?,
            "OBJECT" => match self.kind_ahead(1) {
                // `object` can be a field.
                Kind::Symbol("(" | "[" | "{" | ":" | "-") | Kind::Text(_) | Kind::Quoted(_) => {
                    self.comprehension(true)?
                }
                Kind::Word(word) if !crate::keyword::is_structural(word) => self.comprehension(true)?,
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        Ok(Some(form))
    }

    fn case(&mut self) -> Result<Tall, DqlError> {
        self.advance();
        let operand = if self.is_word("WHEN") { None } else { Some(self.tall()?) };
        let mut heights = vec![operand.as_ref().map_or(0, |operand| operand.1)];
        let mut branches = Vec::new();
        while self.take_word("WHEN") {
            let when = self.tall()?;
            self.expect_word("THEN")?;
            let then = self.tall()?;
            heights.push(when.1.max(then.1));
            branches.push((when.0, then.0));
        }
        if branches.is_empty() {
            return Err(self.expected("WHEN"));
        }
        let otherwise = if self.take_word("ELSE") { Some(self.tall()?) } else { None };
        heights.push(otherwise.as_ref().map_or(0, |otherwise| otherwise.1));
        self.expect_word("END")?;
        let case = Expr::Case {
            operand: operand.map(|operand| Box::new(operand.0)),
            branches,
            otherwise: otherwise.map(|otherwise| Box::new(otherwise.0)),
        };
        Ok((case, self.over(&heights)?))
    }

    fn cast(&mut self) -> Result<Tall, DqlError> {
        self.advance();
        self.expect_symbol("(")?;
        let inner = self.tall()?;
        self.expect_word("AS")?;
        let known = if let Kind::Word(word) = self.kind() { CastType::named(word) } else { None };
        let Some(kind) = known else {
            return Err(self.expected("a type").hint("the types are STRING, INTEGER, FLOAT, BOOLEAN and BINARY"));
        };
        self.advance();
        self.expect_symbol(")")?;
        Ok((Expr::Cast(Box::new(inner.0), kind), self.over(&[inner.1])?))
    }

    /// `TRIM([BOTH | LEADING | TRAILING] [x] FROM s)`, `trim(s[, x])`
    fn trim(&mut self) -> Result<Tall, DqlError> {
        self.advance();
        self.expect_symbol("(")?;
        let sides = [("BOTH", Function::Trim), ("LEADING", Function::Ltrim), ("TRAILING", Function::Rtrim)];
        let side = sides.iter().find(|(word, _)| {
            // `both` can also be a field: TRIM(both)
            self.is_word(word) && !self.is_symbol_at(1, ")") && !self.is_symbol_at(1, ",")
        });
        if side.is_some() {
            self.advance();
        }
        let function = side.map_or(Function::Trim, |(_, function)| *function);
        let mut args = Vec::new();
        if !self.is_word("FROM") {
            args.push(self.tall()?);
        }
        if self.take_word("FROM") {
            args.insert(0, self.tall()?);
        } else if side.is_some() {
            return Err(self.expected("FROM"));
        } else if self.take_symbol(",") {
            args.push(self.tall()?);
        }
        self.expect_symbol(")")?;
        self.made_call(function, args)
    }

    /// `POSITION(x IN s)`, `position(s, x)`
    fn position(&mut self) -> Result<Tall, DqlError> {
        self.advance();
        self.expect_symbol("(")?;
        let first = self.binary(0)?;
        let args = if self.take_word("IN") {
            let within = self.tall()?;
            vec![within, first]
        } else {
            self.expect_symbol(",")?;
            vec![first, self.tall()?]
        };
        self.expect_symbol(")")?;
        self.made_call(Function::Pos, args)
    }

    fn made_call(&self, function: Function, args: Vec<Tall>) -> Result<Tall, DqlError> {
        let heights: Vec<u32> = args.iter().map(|arg| arg.1).collect();
        Ok((Expr::Call(function, args.into_iter().map(|arg| arg.0).collect()), self.over(&heights)?))
    }

    /// `[i:] v IN source`
    fn binding(&mut self) -> Result<(Binding, u32), DqlError> {
        let mut name = self.name("a variable")?;
        let mut index = None;
        if self.take_symbol(":") {
            index = Some(std::mem::replace(&mut name, self.name("a variable")?));
        }
        let within = self.take_word("WITHIN");
        if !within {
            self.expect_word("IN")?;
        }
        let source = self.binary(0)?;
        Ok((Binding { index, name, within, source: Box::new(source.0) }, source.1))
    }

    fn quantified(&mut self, kind: Quantifier) -> Result<Tall, DqlError> {
        let (binding, height) = self.binding()?;
        self.expect_word("SATISFIES")?;
        let condition = self.tall()?;
        self.expect_word("END")?;
        let height = self.over(&[height, condition.1])?;
        Ok((Expr::Quantified { kind, binding, condition: Box::new(condition.0) }, height))
    }

    fn comprehension(&mut self, object: bool) -> Result<Tall, DqlError> {
        self.advance();
        let key = if object {
            let key = self.tall()?;
            self.expect_symbol(":")?;
            Some(key)
        } else {
            None
        };
        let element = self.tall()?;
        self.expect_word("FOR")?;
        let (binding, height) = self.binding()?;
        let condition = if self.take_word("WHEN") { Some(self.tall()?) } else { None };
        self.expect_word("END")?;
        let height_of = |part: &Option<Tall>| part.as_ref().map_or(0, |part| part.1);
        let height = self.over(&[height, element.1, height_of(&key), height_of(&condition)])?;
        let made = Expr::Comprehension {
            key: key.map(|key| Box::new(key.0)),
            element: Box::new(element.0),
            binding,
            condition: condition.map(|condition| Box::new(condition.0)),
        };
        Ok((made, height))
    }

    /// The arguments of `name`, whose opening parenthesis is the next token.
    pub(super) fn call(&mut self, name: &str) -> Result<Tall, DqlError> {
        // The error points at the name.
        let at = self.at.checked_sub(1).and_then(|at| self.tokens.get(at)).map_or(0, |token| token.at);
        if let Some(kind) = AggregateKind::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name)) {
            return self.aggregate(kind);
        }
        let Some(function) = Function::named(name) else {
            return Err(self
                .error_at(at, format!("Unknown function '{}'", shown(name)))
                .hint("docs/dql.md lists the functions"));
        };
        self.expect_symbol("(")?;
        let args = if self.is_symbol(")") { Vec::new() } else { self.comma_separated(Self::tall)? };
        self.expect_symbol(")")?;
        let (least, most) = function.arity();
        if args.len() < least || args.len() > most {
            let takes = match (least, most) {
                (0, 0) => "no argument".to_owned(),
                (1, 1) => "1 argument".to_owned(),
                (least, most) if least == most => format!("{least} arguments"),
                (least, most) => format!("{least} to {most} arguments"),
            };
            return Err(self.error_at(at, format!("{} takes {takes}, not {}", function.name(), args.len())));
        }
        self.made_call(function, args)
    }

    fn aggregate(&mut self, kind: AggregateKind) -> Result<Tall, DqlError> {
        self.expect_symbol("(")?;
        if kind == AggregateKind::Count && self.take_symbol("*") {
            self.expect_symbol(")")?;
            return Ok((Expr::Aggregate { kind, distinct: false, arg: None }, 1));
        }
        let distinct = self.take_word("DISTINCT");
        let arg = self.tall()?;
        self.expect_symbol(")")?;
        Ok((Expr::Aggregate { kind, distinct, arg: Some(Box::new(arg.0)) }, self.over(&[arg.1])?))
    }
}
