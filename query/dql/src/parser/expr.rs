//! Expressions, by precedence: OR, AND, NOT, comparisons, `||`, `+ -`, `* / %`, unary `-`, then `.name` and `[index]`.

use bigpeer_crdt::Value;

use super::{MAX_EXPRESSION_HEIGHT, MAX_NESTING, Parser};
use crate::ast::{BinaryOp, Expr, LikeKind};
use crate::error::DqlError;
use crate::keyword::is_structural;
use crate::lexer::Kind;

/// An expression and its height.
pub(super) type Tall = (Expr, u32);

impl Parser<'_> {
    /// A whole expression.
    pub(crate) fn expr(&mut self) -> Result<Expr, DqlError> {
        Ok(self.tall()?.0)
    }

    /// A whole expression and its height.
    pub(super) fn tall(&mut self) -> Result<Tall, DqlError> {
        self.chain("OR", Self::and, Expr::Or)
    }

    /// Every way into itself leads through here: by NOT, by a sign, or by [`Self::primary`].
    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, DqlError>) -> Result<T, DqlError> {
        self.depth += 1;
        self.check_height(self.depth, MAX_NESTING)?;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn check_height(&self, height: u32, most: u32) -> Result<(), DqlError> {
        if height > most {
            return Err(self
                .error(format!("The expression nests deeper than {most} levels"))
                .hint("pass large values as parameters, and lists as IN :list"));
        }
        Ok(())
    }

    /// The height of a node over children of these heights.
    pub(super) fn over(&self, heights: &[u32]) -> Result<u32, DqlError> {
        let height = heights.iter().max().copied().unwrap_or(0) + 1;
        self.check_height(height, MAX_EXPRESSION_HEIGHT)?;
        Ok(height)
    }

    fn and(&mut self) -> Result<Tall, DqlError> {
        self.chain("AND", Self::not, Expr::And)
    }

    /// `one {word one}` as one flat node.
    fn chain(
        &mut self,
        word: &str,
        one: fn(&mut Self) -> Result<Tall, DqlError>,
        make: fn(Vec<Expr>) -> Expr,
    ) -> Result<Tall, DqlError> {
        let first = one(self)?;
        if !self.is_word(word) {
            return Ok(first);
        }
        let (mut terms, mut height) = (vec![first.0], first.1);
        while self.take_word(word) {
            let (term, tall) = one(self)?;
            terms.push(term);
            height = height.max(tall);
        }
        Ok((make(terms), self.over(&[height])?))
    }

    fn not(&mut self) -> Result<Tall, DqlError> {
        if self.take_word("NOT") {
            let (inner, height) = self.deeper(Self::not)?;
            return Ok((Expr::Not(Box::new(inner)), self.over(&[height])?));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Tall, DqlError> {
        let mut left = self.binary(0)?;
        loop {
            if let Some(op) = self.comparison_op() {
                self.advance();
                let right = self.binary(0)?;
                let height = self.over(&[left.1, right.1])?;
                left = (Expr::Binary(op, Box::new(left.0), Box::new(right.0)), height);
            } else if let Some(next) = self.predicate(&left)? {
                left = next;
            } else {
                return Ok(left);
            }
        }
    }

    fn comparison_op(&self) -> Option<BinaryOp> {
        let Kind::Symbol(symbol) = self.kind() else { return None };
        match *symbol {
            "=" | "==" => Some(BinaryOp::Eq),
            "!=" | "<>" => Some(BinaryOp::NotEq),
            "<" => Some(BinaryOp::Lt),
            "<=" => Some(BinaryOp::LtEq),
            ">" => Some(BinaryOp::Gt),
            ">=" => Some(BinaryOp::GtEq),
            _ => None,
        }
    }

    /// `IS`, `[NOT] BETWEEN`, `IN`, `LIKE`, `ILIKE`, `SIMILAR TO` after `left`.
    fn predicate(&mut self, left: &Tall) -> Result<Option<Tall>, DqlError> {
        if self.take_word("IS") {
            let negated = self.take_word("NOT");
            let missing = self.take_word("MISSING");
            if !missing && !self.take_word("NULL") && !self.take_word("UNKNOWN") {
                return Err(self.expected("NULL, MISSING or UNKNOWN"));
            }
            let height = self.over(&[left.1])?;
            return Ok(Some((Expr::Is { expr: Box::new(left.0.clone()), missing, negated }, height)));
        }
        let negated = self.is_word("NOT");
        let word_at = usize::from(negated);
        let known = ["BETWEEN", "IN", "LIKE", "ILIKE", "SIMILAR"].iter().find(|word| self.is_word_at(word_at, word));
        let Some(word) = known else { return Ok(None) };
        self.at += word_at + 1;
        let expr = Box::new(left.0.clone());
        let (made, heights) = match *word {
            "BETWEEN" => {
                let low = self.binary(0)?;
                self.expect_word("AND")?;
                let high = self.binary(0)?;
                (
                    Expr::Between { expr, low: Box::new(low.0), high: Box::new(high.0), negated },
                    [left.1, low.1.max(high.1)],
                )
            }
            "IN" => self.in_list(expr, left.1, negated)?,
            _ => self.like(word, expr, left.1, negated)?,
        };
        Ok(Some((made, self.over(&heights)?)))
    }

    fn in_list(&mut self, expr: Box<Expr>, height: u32, negated: bool) -> Result<(Expr, [u32; 2]), DqlError> {
        if !self.is_symbol("(") {
            let (array, tall) = self.postfix()?;
            return Ok((Expr::InArray { expr, array: Box::new(array), negated }, [height, tall]));
        }
        self.advance();
        if self.take_symbol(")") {
            return Ok((Expr::In { expr, list: Vec::new(), negated }, [height, 0]));
        }
        let items = self.comma_separated(Self::tall)?;
        self.expect_symbol(")")?;
        let tallest = items.iter().map(|item| item.1).max().unwrap_or(0);
        let list = items.into_iter().map(|item| item.0).collect();
        Ok((Expr::In { expr, list, negated }, [height, tallest]))
    }

    fn like(&mut self, word: &str, expr: Box<Expr>, height: u32, negated: bool) -> Result<(Expr, [u32; 2]), DqlError> {
        let kind = match word {
            "LIKE" => LikeKind::Like,
            "ILIKE" => LikeKind::Ilike,
            _ => {
                self.expect_word("TO")?;
                LikeKind::Similar
            }
        };
        let (pattern, tall) = self.binary(0)?;
        let escape = if self.take_word("ESCAPE") { Some(self.character()?) } else { None };
        Ok((Expr::Like { expr, pattern: Box::new(pattern), escape, kind, negated }, [height, tall]))
    }

    fn binary_op(&self) -> Option<(BinaryOp, u8)> {
        let Kind::Symbol(symbol) = self.kind() else { return None };
        match *symbol {
            "||" => Some((BinaryOp::Concat, 0)),
            "+" => Some((BinaryOp::Add, 1)),
            "-" => Some((BinaryOp::Subtract, 1)),
            "*" => Some((BinaryOp::Multiply, 2)),
            "/" => Some((BinaryOp::Divide, 2)),
            "%" => Some((BinaryOp::Modulo, 2)),
            _ => None,
        }
    }

    /// `||`, `+ -`, `* / %` that bind at least as strongly as `level`; all of them lean left.
    pub(super) fn binary(&mut self, level: u8) -> Result<Tall, DqlError> {
        let mut left = self.unary()?;
        while let Some((op, strength)) = self.binary_op().filter(|(_, strength)| *strength >= level) {
            self.advance();
            let right = self.binary(strength + 1)?;
            let height = self.over(&[left.1, right.1])?;
            left = (Expr::Binary(op, Box::new(left.0), Box::new(right.0)), height);
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Tall, DqlError> {
        if self.take_symbol("+") {
            return self.deeper(Self::unary);
        }
        if !self.is_symbol("-") {
            return self.postfix();
        }
        self.advance();
        // A sign directly before a number belongs to it, so that the least integer can be written.
        let literal = match self.kind() {
            Kind::Int(number) => Some(self.integer(-*number)?),
            Kind::Float(number) => Some(Value::Float(-*number)),
            Kind::Word(_) | Kind::Quoted(_) | Kind::Text(_) | Kind::Binary(_) | Kind::Symbol(_) | Kind::End => None,
        };
        if let Some(literal) = literal {
            self.advance();
            return Ok((Expr::Literal(literal), 1));
        }
        let (inner, height) = self.deeper(Self::unary)?;
        Ok((Expr::Negate(Box::new(inner)), self.over(&[height])?))
    }

    fn integer(&self, number: i128) -> Result<Value, DqlError> {
        match (i64::try_from(number), u64::try_from(number)) {
            (Ok(number), _) => Ok(Value::Int(number)),
            (Err(_), Ok(number)) => Ok(Value::UInt(number)),
            (Err(_), Err(_)) => Err(self.error("Number out of range").hint("integers have 64 bits")),
        }
    }

    /// A primary and the `.name` and `[index]` behind it.
    pub(super) fn postfix(&mut self) -> Result<Tall, DqlError> {
        let parenthesized = self.is_symbol("(");
        let mut base = self.deeper(Self::primary)?;
        let mut extends = !parenthesized;
        loop {
            if self.take_symbol(".") {
                let name = self.member_name()?;
                base = match base {
                    (Expr::Path(mut path), height) if extends => {
                        path.push(name);
                        self.check_path(&path)?;
                        (Expr::Path(path), height)
                    }
                    (other, height) => (Expr::Member(Box::new(other), name), self.over(&[height])?),
                };
            } else if self.take_symbol("[") {
                let index = self.tall()?;
                self.expect_symbol("]")?;
                let height = self.over(&[base.1, index.1])?;
                base = (Expr::Index(Box::new(base.0), Box::new(index.0)), height);
                extends = false;
            } else {
                return Ok(base);
            }
        }
    }

    fn primary(&mut self) -> Result<Tall, DqlError> {
        let literal = match self.kind().clone() {
            Kind::Word(word) => return self.word(word),
            Kind::Quoted(name) => {
                self.advance();
                if self.is_symbol("(") {
                    return self.call(&name);
                }
                return Ok((Expr::Path(vec![name]), 1));
            }
            Kind::Text(text) => Value::from(text),
            Kind::Binary(bytes) => Value::from(bytes),
            Kind::Int(number) => self.integer(number)?,
            Kind::Float(number) => Value::Float(number),
            Kind::Symbol("(") => {
                self.advance();
                let inner = self.tall()?;
                self.expect_symbol(")")?;
                return Ok(inner);
            }
            Kind::Symbol("[") => return self.array(),
            Kind::Symbol("{") => return self.object(),
            Kind::Symbol(":") => return self.parameter(),
            Kind::Symbol("*") => {
                return Err(self.expected("an expression").hint("* stands alone in a projection, or in COUNT(*)"));
            }
            Kind::Symbol(_) | Kind::End => return Err(self.expected("an expression")),
        };
        self.advance();
        Ok((Expr::Literal(literal), 1))
    }

    fn parameter(&mut self) -> Result<Tall, DqlError> {
        self.advance();
        let name = match self.kind() {
            Kind::Word(name) => (*name).to_owned(),
            Kind::Quoted(name) => name.clone(),
            Kind::Text(_) | Kind::Binary(_) | Kind::Int(_) | Kind::Float(_) | Kind::Symbol(_) | Kind::End => {
                return Err(self.expected("a parameter's name after ':'"));
            }
        };
        self.advance();
        Ok((Expr::Parameter(name), 1))
    }

    fn array(&mut self) -> Result<Tall, DqlError> {
        self.advance();
        if self.take_symbol("]") {
            return Ok((Expr::Array(Vec::new()), 1));
        }
        let items = self.comma_separated(Self::tall)?;
        self.expect_symbol("]")?;
        let heights: Vec<u32> = items.iter().map(|item| item.1).collect();
        Ok((Expr::Array(items.into_iter().map(|item| item.0).collect()), self.over(&heights)?))
    }

    fn object(&mut self) -> Result<Tall, DqlError> {
        self.advance();
        if self.take_symbol("}") {
            return Ok((Expr::Object(Vec::new()), 1));
        }
        let entries = self.comma_separated(|parser| {
            let Kind::Text(key) = parser.kind().clone() else {
                return Err(parser.expected("a quoted key").hint("the keys of an object are strings: {'key': value}"));
            };
            parser.advance();
            parser.expect_symbol(":")?;
            Ok((key, parser.tall()?))
        })?;
        self.expect_symbol("}")?;
        let heights: Vec<u32> = entries.iter().map(|(_, item)| item.1).collect();
        Ok((Expr::Object(entries.into_iter().map(|(key, item)| (key, item.0)).collect()), self.over(&heights)?))
    }

    /// A literal word, a special form, a function or a path.
    fn word(&mut self, word: &str) -> Result<Tall, DqlError> {
        let upper = word.to_ascii_uppercase();
        let literal = match upper.as_str() {
            "NULL" => Some(Expr::Literal(Value::Null)),
            "TRUE" => Some(Expr::Literal(Value::Bool(true))),
            "FALSE" => Some(Expr::Literal(Value::Bool(false))),
            "MISSING" => Some(Expr::Missing),
            _ => None,
        };
        if let Some(literal) = literal {
            self.advance();
            return Ok((literal, 1));
        }
        if let Some(form) = self.special_form(&upper)? {
            return Ok(form);
        }
        if is_structural(word) {
            return Err(self
                .expected("an expression")
                .hint(format!("{upper} is a keyword; as a name it needs backticks")));
        }
        self.advance();
        if self.is_symbol("(") { self.call(word) } else { Ok((Expr::Path(vec![word.to_owned()]), 1)) }
    }
}
