//! Text to tokens. Takes any bytes that are UTF-8; one error with its place, never a panic.

use crate::error::{DqlError, shown};

/// What a token is. Words keep their spelling; whether one is a keyword is for the parser to say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind<'a> {
    /// An unquoted word: keyword, name, function.
    Word(&'a str),
    /// A name in backticks.
    Quoted(String),
    /// A string literal.
    Text(String),
    /// Bytes written as `X'00ff'`.
    Binary(Vec<u8>),
    /// An integer literal; `i128` so that the sign can be applied before the range is checked.
    Int(i128),
    Float(f64),
    /// Punctuation and operators, as they are written.
    Symbol(&'static str),
    End,
}

/// A token and the byte where it starts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind<'a>,
    pub(crate) at: usize,
    /// The byte after it.
    pub(crate) end: usize,
}

/// Longest first, so that `<=` is not read as `<`.
const SYMBOLS: &[&str] = &[
    "||", "==", "!=", "<>", "<=", ">=", "->", "(", ")", "[", "]", "{", "}", ",", ".", ":", ";", "=", "<", ">", "+",
    "-", "*", "/", "%",
];

/// Splits `text` into tokens; the last one is always [`Kind::End`].
pub(crate) fn tokenize(text: &str) -> Result<Vec<Token<'_>>, DqlError> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blank()?;
        let at = lexer.at;
        let kind = lexer.next()?;
        let last = kind == Kind::End;
        tokens.push(Token { kind, at, end: lexer.at });
        if last {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let ch = self.peek()?;
        self.at += ch.len_utf8();
        Some(ch)
    }

    fn error(&self, at: usize, message: impl Into<String>) -> DqlError {
        DqlError::new(message).at(self.text, at)
    }

    /// Takes bytes while they are ASCII and `accept` holds.
    fn take_while(&mut self, accept: impl Fn(u8) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.bytes().position(|byte| !accept(byte)).unwrap_or(rest.len());
        self.at += length;
        rest.get(..length).unwrap_or("")
    }

    fn skip_blank(&mut self) -> Result<(), DqlError> {
        loop {
            let rest = self.rest();
            if rest.starts_with("--") {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if rest.starts_with("/*") {
                let Some(end) = rest.get(2..).and_then(|body| body.find("*/")) else {
                    return Err(self.error(self.at, "Unterminated comment").hint("end it with */"));
                };
                self.at += end + 4;
            } else {
                match rest.chars().next() {
                    Some(ch) if ch.is_whitespace() => self.at += ch.len_utf8(),
                    _ => return Ok(()),
                }
            }
        }
    }

    fn next(&mut self) -> Result<Kind<'a>, DqlError> {
        let at = self.at;
        let Some(ch) = self.peek() else { return Ok(Kind::End) };
        match ch {
            'x' | 'X' if self.rest().as_bytes().get(1) == Some(&b'\'') => self.binary(),
            'a'..='z' | 'A'..='Z' | '_' => Ok(Kind::Word(self.take_while(is_word))),
            '0'..='9' => self.number(),
            '\'' | '"' => self.string(ch),
            '`' => self.backticked(),
            _ => {
                if let Some(symbol) = SYMBOLS.iter().find(|symbol| self.rest().starts_with(**symbol)) {
                    self.at += symbol.len();
                    return Ok(Kind::Symbol(symbol));
                }
                let error = self.error(at, format!("Unexpected character '{}'", shown(&ch.to_string())));
                Err(match ch {
                    '$' => error.hint("parameters are written :name"),
                    '?' => error.hint("parameters have names: write :name"),
                    _ if ch.is_alphabetic() => error.hint("names with other letters than a-z need backticks"),
                    _ => error,
                })
            }
        }
    }

    fn number(&mut self) -> Result<Kind<'a>, DqlError> {
        let at = self.at;
        let rest = self.rest();
        let too_large = |lexer: &Self| lexer.error(at, "Number out of range").hint("integers have 64 bits");
        let kind = if rest.starts_with("0x") || rest.starts_with("0X") {
            self.at += 2;
            let digits = self.take_while(|byte| byte.is_ascii_hexdigit());
            match u64::from_str_radix(digits, 16) {
                Ok(number) => Kind::Int(i128::from(number)),
                Err(_) if digits.is_empty() => return Err(self.error(at, "Expected hexadecimal digits after 0x")),
                Err(_) => return Err(too_large(self)),
            }
        } else {
            let mut integral = true;
            self.take_while(|byte| byte.is_ascii_digit());
            if self.rest().starts_with('.') && self.rest().as_bytes().get(1).is_some_and(u8::is_ascii_digit) {
                integral = false;
                self.at += 1;
                self.take_while(|byte| byte.is_ascii_digit());
            }
            integral &= !self.exponent();
            let digits = self.text.get(at..self.at).unwrap_or("");
            if integral {
                // One more than i64 holds is needed for -2^63, up to u64::MAX is a value of its own.
                Kind::Int(digits.parse::<u64>().map(i128::from).map_err(|_| too_large(self))?)
            } else {
                match digits.parse::<f64>() {
                    Ok(number) if number.is_finite() => Kind::Float(number),
                    Ok(_) | Err(_) => return Err(self.error(at, "Number out of range")),
                }
            }
        };
        if self.peek().is_some_and(|ch| ch.is_alphanumeric() || ch == '_') {
            return Err(self
                .error(at, "A number must not be followed by a letter")
                .hint("names that start with a digit need backticks"));
        }
        Ok(kind)
    }

    fn exponent(&mut self) -> bool {
        let bytes = self.rest().as_bytes();
        let sign = usize::from(matches!(bytes.get(1), Some(b'+' | b'-')));
        if matches!(bytes.first(), Some(b'e' | b'E')) && bytes.get(1 + sign).is_some_and(u8::is_ascii_digit) {
            self.at += 1 + sign;
            self.take_while(|byte| byte.is_ascii_digit());
            return true;
        }
        false
    }

    fn string(&mut self, quote: char) -> Result<Kind<'a>, DqlError> {
        let at = self.at;
        self.bump();
        let mut out = String::new();
        loop {
            match self.bump() {
                None => return Err(self.error(at, "Unterminated string").hint(format!("end it with {quote}"))),
                Some(ch) if ch == quote => {
                    // A doubled quote is one quote, as up to 5.0.
                    if self.peek() != Some(quote) {
                        return Ok(Kind::Text(out));
                    }
                    self.bump();
                    out.push(quote);
                }
                Some('\\') => self.escape(at, &mut out)?,
                Some(ch) => out.push(ch),
            }
        }
    }

    fn escape(&mut self, start: usize, out: &mut String) -> Result<(), DqlError> {
        let at = self.at;
        out.push(match self.bump() {
            None => return Err(self.error(start, "Unterminated string")),
            Some('n') => '\n',
            Some('t') => '\t',
            Some('r') => '\r',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('u') => self.unicode(at)?,
            // An unknown escape drops the backslash.
            Some(other) => other,
        });
        Ok(())
    }

    fn unicode(&mut self, at: usize) -> Result<char, DqlError> {
        let high = self.four_hex(at)?;
        if (0xd800..0xdc00).contains(&high) && self.rest().starts_with("\\u") {
            self.at += 2;
            let low = self.four_hex(at)?;
            if (0xdc00..0xe000).contains(&low) {
                let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                return char::from_u32(code).ok_or_else(|| self.error(at, "Invalid \\u escape"));
            }
        }
        char::from_u32(high).ok_or_else(|| self.error(at, "Invalid \\u escape").hint("surrogates come in pairs"))
    }

    fn four_hex(&mut self, at: usize) -> Result<u32, DqlError> {
        let digits = self.rest().get(..4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        self.at += 4;
        code.ok_or_else(|| {
            self.at = at;
            self.error(at, "Invalid \\u escape").hint("write \\u and four hexadecimal digits")
        })
    }

    fn backticked(&mut self) -> Result<Kind<'a>, DqlError> {
        let at = self.at;
        self.bump();
        let mut out = String::new();
        loop {
            match self.bump() {
                None => return Err(self.error(at, "Unterminated name").hint("end it with a backtick")),
                Some('`') => {
                    if self.peek() != Some('`') {
                        return Ok(Kind::Quoted(out));
                    }
                    self.bump();
                    out.push('`');
                }
                Some(ch) => out.push(ch),
            }
        }
    }

    fn binary(&mut self) -> Result<Kind<'a>, DqlError> {
        let at = self.at;
        self.at += 2;
        let digits = self.take_while(|byte| byte.is_ascii_hexdigit());
        if self.bump() != Some('\'') || !digits.len().is_multiple_of(2) {
            self.at = at;
            return Err(self.error(at, "Expected an even number of hexadecimal digits in X'…'"));
        }
        let byte = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
        Ok(Kind::Binary(digits.as_bytes().chunks(2).filter_map(byte).collect()))
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Kind<'_>> {
        tokenize(text).unwrap().into_iter().map(|token| token.kind).collect()
    }

    #[test]
    fn words_numbers_and_symbols() {
        assert_eq!(
            kinds("a<=1.5e3 -- c\n/* x */ 0xFF"),
            [Kind::Word("a"), Kind::Symbol("<="), Kind::Float(1500.0), Kind::Int(255), Kind::End]
        );
        assert_eq!(
            kinds("1e3 1 18446744073709551615"),
            [Kind::Float(1000.0), Kind::Int(1), Kind::Int(u64::MAX.into()), Kind::End]
        );
    }

    #[test]
    fn strings_and_names() {
        let text = |text: &'static str| kinds(text).remove(0);
        assert_eq!(text(r"'a\n\'\u00e9\q'"), Kind::Text("a\n'éq".into()));
        assert_eq!(text(r#""it's""#), Kind::Text("it's".into()));
        assert_eq!(text("'it''s'"), Kind::Text("it's".into()));
        assert_eq!(text(r"'\ud83d\ude00'"), Kind::Text("😀".into()));
        assert_eq!(text("`a``b c`"), Kind::Quoted("a`b c".into()));
        assert_eq!(text("X'00fF'"), Kind::Binary(vec![0, 255]));
    }

    #[test]
    fn what_cannot_be_read_is_said_with_its_place() {
        for (text, offset) in [
            ("a 'b", 2),
            ("a `b", 2),
            ("/* ", 0),
            ("a 12b", 2),
            ("99999999999999999999", 0),
            ("1e999", 0),
            ("0x", 0),
            (r"'\u12'", 2),
            (r"'\ud800'", 2),
            ("a § b", 2),
            ("X'0'", 0),
            ("$a", 0),
        ] {
            let error = tokenize(text).unwrap_err();
            assert_eq!(error.position.unwrap().offset, offset, "{text}: {error}");
        }
    }
}
