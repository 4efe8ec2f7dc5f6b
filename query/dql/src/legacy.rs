//! The older query language, of permissions with `qlVersion` 0 and of the older HTTP endpoints, as conditions of DQL:
//! `== != < <= > >=`, `&& || !`, `contains([…], field)`, `starts_with`, `ends_with`, `regex`, `null`, `$args.name` or `:name`, paths as
//! `a.b['street-line'][0]`.

#![allow(clippy::wildcard_enum_match_arm, reason = "whatever is not named is refused or left alone")]

use bigpeer_crdt::Value;
use bigpeer_types::limits::MAX_STATEMENT_BYTES;

use crate::ast::{BinaryOp, Expr};
use crate::error::{DqlError, shown};
use crate::functions::Function;

/// How deep a query nests.
const MAX_NESTING: u32 = 40;

/// A query of the older language as a condition: what `WHERE` takes. `$args.name` becomes the parameter `:name`.
///
/// # Errors
/// With the place when the text is not one query.
pub fn parse_legacy(text: &str) -> Result<Expr, DqlError> {
    let mut parser = Parser::new(text)?;
    let expr = parser.or()?;
    parser.end()?;
    Ok(expr)
}

/// A path of the older language: `a.b['street-line']`.
///
/// # Errors
/// With the place when the text is not one path of names.
pub fn parse_legacy_path(text: &str) -> Result<Vec<String>, DqlError> {
    let mut parser = Parser::new(text)?;
    let path = parser.path()?;
    parser.end()?;
    match path {
        Expr::Path(path) => Ok(path),
        _ => Err(DqlError::new("An element of an array cannot be named here").hint("name the whole array")),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self, DqlError> {
        if text.len() > MAX_STATEMENT_BYTES {
            return Err(DqlError::new(format!("The query is longer than {MAX_STATEMENT_BYTES} bytes"))
                .hint("pass large values as args"));
        }
        Ok(Self { text, at: 0, depth: 0 })
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn blank(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn take(&mut self, symbol: &str) -> bool {
        self.blank();
        let is = self.rest().starts_with(symbol);
        if is {
            self.at += symbol.len();
        }
        is
    }

    fn error(&self, message: impl Into<String>) -> DqlError {
        DqlError::new(message).at(self.text, self.at)
    }

    fn expected(&mut self, what: &str) -> DqlError {
        self.blank();
        let found = match self.rest().chars().next() {
            None => "the end of the query".to_owned(),
            Some(ch) => format!("'{}'", shown(&ch.to_string())),
        };
        self.error(format!("Expected {what}, found {found}"))
    }

    fn expect(&mut self, symbol: &str) -> Result<(), DqlError> {
        if self.take(symbol) { Ok(()) } else { Err(self.expected(&format!("'{symbol}'"))) }
    }

    fn end(&mut self) -> Result<(), DqlError> {
        self.blank();
        if self.rest().is_empty() { Ok(()) } else { Err(self.expected("the end of the query")) }
    }

    fn or(&mut self) -> Result<Expr, DqlError> {
        self.chain("||", Self::and, Expr::Or)
    }

    fn and(&mut self) -> Result<Expr, DqlError> {
        self.chain("&&", Self::unary, Expr::And)
    }

    fn chain(
        &mut self,
        symbol: &str,
        one: fn(&mut Self) -> Result<Expr, DqlError>,
        make: fn(Vec<Expr>) -> Expr,
    ) -> Result<Expr, DqlError> {
        let first = one(self)?;
        if !self.take(symbol) {
            return Ok(first);
        }
        let mut terms = vec![first, one(self)?];
        while self.take(symbol) {
            terms.push(one(self)?);
        }
        Ok(make(terms))
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, DqlError>) -> Result<T, DqlError> {
        self.depth += 1;
        if self.depth > MAX_NESTING {
            return Err(self.error(format!("The query nests deeper than {MAX_NESTING} levels")));
        }
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn unary(&mut self) -> Result<Expr, DqlError> {
        self.blank();
        if self.rest().starts_with('!') && !self.rest().starts_with("!=") {
            self.at += 1;
            return Ok(Expr::Not(Box::new(self.deeper(Self::unary)?)));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Expr, DqlError> {
        let left = self.deeper(Self::operand)?;
        let ops = [
            ("==", BinaryOp::Eq),
            ("!=", BinaryOp::NotEq),
            ("<=", BinaryOp::LtEq),
            (">=", BinaryOp::GtEq),
            ("<", BinaryOp::Lt),
            (">", BinaryOp::Gt),
        ];
        let Some((_, op)) = ops.into_iter().find(|(symbol, _)| self.take(symbol)) else { return Ok(left) };
        let right = self.deeper(Self::operand)?;
        Ok(match (op, &left, &right) {
            // No field is equal to null in DQL; here an absent field is null.
            (BinaryOp::Eq, _, Expr::Literal(Value::Null)) => absent(left),
            (BinaryOp::Eq, Expr::Literal(Value::Null), _) => absent(right),
            (BinaryOp::NotEq, _, Expr::Literal(Value::Null)) => Expr::Not(Box::new(absent(left))),
            (BinaryOp::NotEq, Expr::Literal(Value::Null), _) => Expr::Not(Box::new(absent(right))),
            _ => Expr::Binary(op, Box::new(left), Box::new(right)),
        })
    }

    fn operand(&mut self) -> Result<Expr, DqlError> {
        if self.take("(") {
            let inner = self.or()?;
            self.expect(")")?;
            return Ok(inner);
        }
        if self.take("[") {
            let items = if self.take("]") { Vec::new() } else { self.list("]")? };
            return Ok(Expr::Array(items));
        }
        self.blank();
        match self.rest().chars().next() {
            Some('\'' | '"') => Ok(Expr::Literal(Value::from(self.string()?))),
            Some(ch) if ch.is_ascii_digit() || ch == '-' => self.number().map(Expr::Literal),
            Some('$') => self.argument(),
            Some(':') => {
                self.at += 1;
                let name = self.name()?.to_owned();
                self.steps(Expr::Parameter(name))
            }
            Some(ch) if ch.is_alphabetic() || ch == '_' => self.word(),
            _ => Err(self.expected("a field, a value or a function")),
        }
    }

    /// `one {"," one} end`
    fn list(&mut self, end: &str) -> Result<Vec<Expr>, DqlError> {
        let mut items = vec![self.deeper(Self::or)?];
        while self.take(",") {
            items.push(self.deeper(Self::or)?);
        }
        self.expect(end)?;
        Ok(items)
    }

    fn string(&mut self) -> Result<String, DqlError> {
        let start = self.at;
        let mut chars = self.rest().char_indices();
        let Some((_, quote)) = chars.next() else { return Err(self.expected("a string")) };
        let mut out = String::new();
        while let Some((at, ch)) = chars.next() {
            match ch {
                ch if ch == quote => {
                    self.at = start + at + ch.len_utf8();
                    return Ok(out);
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => out.push('\n'),
                    Some((_, 't')) => out.push('\t'),
                    // Before anything but a quote or itself the backslash stays: it is a part of a regular expression.
                    Some((_, ch)) if ch == quote || ch == '\\' => out.push(ch),
                    Some((_, ch)) => out.extend(['\\', ch]),
                    None => break,
                },
                ch => out.push(ch),
            }
        }
        Err(self.error("Unterminated string"))
    }

    fn number(&mut self) -> Result<Value, DqlError> {
        let rest = self.rest();
        let length = rest
            .char_indices()
            .find(|(at, ch)| {
                let exponent = rest.get(..*at).is_some_and(|before| before.ends_with(['e', 'E']));
                !(ch.is_ascii_digit()
                    || matches!(ch, '.' | 'e' | 'E')
                    || (matches!(ch, '+' | '-') && (*at == 0 || exponent)))
            })
            .map_or(rest.len(), |(at, _)| at);
        let text = rest.get(..length).unwrap_or("");
        let integer = text.parse::<i64>().map(Value::Int).or_else(|_| text.parse::<u64>().map(Value::from));
        let number = integer.ok().or_else(|| text.parse::<f64>().ok().filter(|it| it.is_finite()).map(Value::Float));
        let number = number.ok_or_else(|| self.error(format!("'{}' is not a number", shown(text))))?;
        self.at += length;
        Ok(number)
    }

    fn name(&mut self) -> Result<&'a str, DqlError> {
        self.blank();
        let rest = self.rest();
        let length = rest.find(|ch: char| !(ch.is_alphanumeric() || ch == '_')).unwrap_or(rest.len());
        let name = rest.get(..length).unwrap_or("");
        if name.is_empty() {
            return Err(self.expected("a name"));
        }
        self.at += length;
        Ok(name)
    }

    fn argument(&mut self) -> Result<Expr, DqlError> {
        self.expect("$args")?;
        let quoted = self.take("[");
        let name = if quoted {
            self.blank();
            let name = self.string()?;
            self.expect("]")?;
            name
        } else {
            self.expect(".")?;
            self.name()?.to_owned()
        };
        self.steps(Expr::Parameter(name))
    }

    fn word(&mut self) -> Result<Expr, DqlError> {
        let start = self.at;
        let name = self.name()?;
        match name {
            "true" => return Ok(Expr::Literal(Value::Bool(true))),
            "false" => return Ok(Expr::Literal(Value::Bool(false))),
            "null" => return Ok(Expr::Literal(Value::Null)),
            _ => {}
        }
        if !self.take("(") {
            self.at = start;
            return self.path();
        }
        let args = if self.take(")") { Vec::new() } else { self.list(")")? };
        call(name, args).map_err(|error| error.at(self.text, start))
    }

    fn path(&mut self) -> Result<Expr, DqlError> {
        let first = self.name()?.to_owned();
        self.steps(Expr::Path(vec![first]))
    }

    /// `.name`, `['name']`, `[0]`
    fn steps(&mut self, mut base: Expr) -> Result<Expr, DqlError> {
        for _ in 0..bigpeer_types::limits::MAX_DEPTH {
            let key = if self.take(".") {
                self.name()?.to_owned()
            } else if self.take("[") {
                self.blank();
                if self.rest().starts_with(['\'', '"']) {
                    let key = self.string()?;
                    self.expect("]")?;
                    key
                } else {
                    let at = self.number()?;
                    self.expect("]")?;
                    base = Expr::Index(Box::new(base), Box::new(Expr::Literal(at)));
                    continue;
                }
            } else {
                return Ok(base);
            };
            base = match base {
                Expr::Path(mut path) => {
                    path.push(key);
                    Expr::Path(path)
                }
                other => Expr::Member(Box::new(other), key),
            };
        }
        Err(self.error("The path is too deep"))
    }
}

/// Null or missing.
fn absent(expr: Expr) -> Expr {
    let is = |missing, expr| Expr::Is { expr: Box::new(expr), missing, negated: false };
    Expr::Or(vec![is(false, expr.clone()), is(true, expr)])
}

fn call(name: &str, args: Vec<Expr>) -> Result<Expr, DqlError> {
    let mut args = args.into_iter();
    let (Some(first), Some(second), None) = (args.next(), args.next(), args.next()) else {
        return Err(DqlError::new(format!("{} takes 2 arguments", shown(name)))
            .hint("the functions are contains, starts_with, ends_with and regex"));
    };
    let function = match name {
        "contains" => {
            let expr = Box::new(second);
            return Ok(match first {
                Expr::Array(list) => Expr::In { expr, list, negated: false },
                array => Expr::InArray { expr, array: Box::new(array), negated: false },
            });
        }
        "starts_with" => Function::StartsWith,
        "ends_with" => Function::EndsWith,
        "regex" => Function::RegexpLike,
        other => {
            return Err(DqlError::new(format!("Unknown function '{}'", shown(other)))
                .hint("the functions are contains, starts_with, ends_with and regex"));
        }
    };
    Ok(Expr::Call(function, vec![first, second]))
}
