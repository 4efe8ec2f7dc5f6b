//! Recursive descent over the tokens. Depth is bounded twice: how deep the parser goes into itself, and how tall the
//! tree gets (a chain of `+` is parsed in a loop, but makes a tall tree), so that neither parsing nor anything that
//! later walks the tree can overflow the stack.

mod expr;
mod source;
mod special;
mod statement;
mod system;

use bigpeer_types::limits::MAX_STATEMENT_BYTES;

use crate::ast::Statement;
use crate::error::{DqlError, shown};
use crate::keyword::is_structural;
use crate::lexer::{Kind, Token, tokenize};

/// How deep the parser goes into itself. A level costs up to 25 kB of stack in a debug build; threads have 2 MiB.
pub(crate) const MAX_NESTING: u32 = 40;

/// The greatest height of an expression's tree.
pub(crate) const MAX_EXPRESSION_HEIGHT: u32 = 100;

/// Parses one statement; a semicolon may end it.
///
/// # Errors
/// With the place and often a hint when the text is not one statement, is longer than
/// [`MAX_STATEMENT_BYTES`], or nests too deeply.
pub fn parse(text: &str) -> Result<Statement, DqlError> {
    let mut parser = Parser::new(text)?;
    let statement = parser.statement()?;
    parser.take_symbol(";");
    parser.expect_end()?;
    Ok(statement)
}

/// Parses one expression: a condition of a permission, for example.
///
/// # Errors
/// As [`parse`].
pub fn parse_expr(text: &str) -> Result<crate::ast::Expr, DqlError> {
    let mut parser = Parser::new(text)?;
    let expr = parser.expr()?;
    parser.expect_end()?;
    Ok(expr)
}

pub(crate) struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token<'a>>,
    at: usize,
    depth: u32,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self, DqlError> {
        if text.len() > MAX_STATEMENT_BYTES {
            return Err(DqlError::new(format!(
                "The statement has {} bytes, more than {MAX_STATEMENT_BYTES}",
                text.len()
            ))
            .hint("pass documents as parameters"));
        }
        Ok(Self { text, tokens: tokenize(text)?, at: 0, depth: 0 })
    }

    /// The token `ahead` of the next one; the last token is `End` and stays.
    fn ahead(&self, ahead: usize) -> Option<&Token<'a>> {
        self.tokens.get(self.at + ahead).or_else(|| self.tokens.last())
    }

    fn kind(&self) -> &Kind<'a> {
        self.ahead(0).map_or(&Kind::End, |token| &token.kind)
    }

    fn kind_ahead(&self, ahead: usize) -> &Kind<'a> {
        self.ahead(ahead).map_or(&Kind::End, |token| &token.kind)
    }

    /// Byte offset of the next token.
    fn here(&self) -> usize {
        self.ahead(0).map_or(self.text.len(), |token| token.at)
    }

    fn advance(&mut self) {
        self.at += 1;
    }

    fn error_at(&self, at: usize, message: impl Into<String>) -> DqlError {
        DqlError::new(message).at(self.text, at)
    }

    fn error(&self, message: impl Into<String>) -> DqlError {
        self.error_at(self.here(), message)
    }

    /// The next token in words.
    fn found(&self) -> String {
        match self.kind() {
            Kind::End => "the end of the statement".to_owned(),
            Kind::Word(word) => format!("'{}'", shown(word)),
            Kind::Quoted(name) => format!("`{}`", shown(name)),
            Kind::Text(text) => format!("the string '{}'", shown(text)),
            Kind::Binary(_) => "a binary literal".to_owned(),
            Kind::Int(number) => format!("'{number}'"),
            Kind::Float(number) => format!("'{number}'"),
            Kind::Symbol(symbol) => format!("'{symbol}'"),
        }
    }

    fn expected(&self, what: &str) -> DqlError {
        self.error(format!("Expected {what}, found {}", self.found()))
    }

    fn is_word_at(&self, ahead: usize, word: &str) -> bool {
        matches!(self.kind_ahead(ahead), Kind::Word(found) if found.eq_ignore_ascii_case(word))
    }

    fn is_word(&self, word: &str) -> bool {
        self.is_word_at(0, word)
    }

    fn is_symbol(&self, symbol: &str) -> bool {
        self.is_symbol_at(0, symbol)
    }

    fn is_symbol_at(&self, ahead: usize, symbol: &str) -> bool {
        matches!(self.kind_ahead(ahead), Kind::Symbol(found) if *found == symbol)
    }

    /// Takes all of `words` if they come next.
    fn take_words(&mut self, words: &[&str]) -> bool {
        let all = words.iter().enumerate().all(|(ahead, word)| self.is_word_at(ahead, word));
        if all {
            self.at += words.len();
        }
        all
    }

    fn take_word(&mut self, word: &str) -> bool {
        self.take_words(&[word])
    }

    fn take_symbol(&mut self, symbol: &str) -> bool {
        let is = self.is_symbol(symbol);
        if is {
            self.advance();
        }
        is
    }

    fn expect_word(&mut self, word: &str) -> Result<(), DqlError> {
        if self.take_word(word) { Ok(()) } else { Err(self.expected(word)) }
    }

    fn expect_symbol(&mut self, symbol: &str) -> Result<(), DqlError> {
        if self.take_symbol(symbol) { Ok(()) } else { Err(self.expected(&format!("'{symbol}'"))) }
    }

    fn expect_end(&mut self) -> Result<(), DqlError> {
        match self.kind() {
            Kind::End => Ok(()),
            Kind::Symbol(";") => Err(self.error("Only one statement at a time is allowed")),
            Kind::Word(_)
            | Kind::Quoted(_)
            | Kind::Text(_)
            | Kind::Binary(_)
            | Kind::Int(_)
            | Kind::Float(_)
            | Kind::Symbol(_) => {
                Err(self.error(format!("Unexpected {}", self.found())).hint("the statement could have ended before it"))
            }
        }
    }

    /// A name: a word that the grammar does not need, or anything in backticks.
    fn name(&mut self, what: &str) -> Result<String, DqlError> {
        let name = match self.kind() {
            Kind::Word(word) if !is_structural(word) => (*word).to_owned(),
            Kind::Quoted(name) => name.clone(),
            Kind::Word(word) => {
                return Err(self
                    .expected(what)
                    .hint(format!("{} is a keyword; as a name it needs backticks", word.to_ascii_uppercase())));
            }
            Kind::Text(_) => return Err(self.expected(what).hint("names are written in backticks, strings in quotes")),
            Kind::Symbol(":") => {
                return Err(self.expected(what).hint("a parameter stands for a value, never for a name"));
            }
            Kind::Binary(_) | Kind::Int(_) | Kind::Float(_) | Kind::Symbol(_) | Kind::End => {
                return Err(self.expected(what));
            }
        };
        self.advance();
        Ok(name)
    }

    /// A name after a dot, where any word is one.
    fn member_name(&mut self) -> Result<String, DqlError> {
        if let Kind::Word(word) = self.kind() {
            let name = (*word).to_owned();
            self.advance();
            return Ok(name);
        }
        self.name("a field name")
    }

    /// `a.b.c`, as it is assigned to or declared.
    fn path(&mut self) -> Result<Vec<String>, DqlError> {
        let mut path = vec![self.name("a field name")?];
        while self.take_symbol(".") {
            path.push(self.member_name()?);
            self.check_path(&path)?;
        }
        if self.is_symbol("[") {
            return Err(self
                .error("An array element cannot be changed or declared by itself")
                .hint("write the whole array"));
        }
        Ok(path)
    }

    fn check_path(&self, path: &[String]) -> Result<(), DqlError> {
        if path.len() > bigpeer_types::limits::MAX_DEPTH { Err(self.error("The path is too deep")) } else { Ok(()) }
    }

    /// `one {"," one}`
    fn comma_separated<T>(
        &mut self,
        mut one: impl FnMut(&mut Self) -> Result<T, DqlError>,
    ) -> Result<Vec<T>, DqlError> {
        let mut items = vec![one(self)?];
        while self.take_symbol(",") {
            items.push(one(self)?);
        }
        Ok(items)
    }
}
