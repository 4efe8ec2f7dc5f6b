//! `DqlError`: the one error of this crate, worded for the person who wrote the statement.

use std::fmt;

use thiserror::Error;

/// Where in a statement something is: line and column count from 1 (columns in characters), the offset from 0 in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1, in characters.
    pub column: u32,
    /// Byte offset, from 0.
    pub offset: usize,
}

impl Position {
    /// The position of byte `offset` in `text`.
    pub(crate) fn of(text: &str, offset: usize) -> Self {
        let offset = offset.min(text.len());
        let mut position = Self { line: 1, column: 1, offset };
        for (at, ch) in text.char_indices() {
            if at >= offset {
                break;
            }
            if ch == '\n' {
                position.line += 1;
                position.column = 1;
            } else {
                position.column += 1;
            }
        }
        position
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// A statement that cannot be parsed, bound or run. `Display` gives everything in one line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}", self.describe())]
pub struct DqlError {
    /// What is wrong.
    pub message: String,
    /// Where, if it is known.
    pub position: Option<Position>,
    /// What to do about it, if that can be guessed.
    pub hint: Option<String>,
}

impl DqlError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), position: None, hint: None }
    }

    #[must_use]
    pub(crate) fn at(mut self, text: &str, offset: usize) -> Self {
        self.position = Some(Position::of(text, offset));
        self
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn describe(&self) -> String {
        let mut out = self.message.clone();
        if let Some(position) = self.position {
            out.push_str(&format!(" ({position})"));
        }
        if let Some(hint) = &self.hint {
            out.push_str("; hint: ");
            out.push_str(hint);
        }
        out
    }
}

/// User text for an error message: no control characters, not too long.
pub(crate) fn shown(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(60)
        .flat_map(|ch| if ch.is_control() { ch.escape_default().collect() } else { vec![ch] })
        .collect();
    if text.chars().nth(60).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters() {
        let text = "SELECT *\nFROM größe x";
        let position = Position::of(text, text.find('x').unwrap());
        assert_eq!((position.line, position.column), (2, 12));
        assert_eq!(Position::of(text, 10_000).offset, text.len());
    }

    #[test]
    fn an_error_says_what_where_and_what_to_do() {
        let error = DqlError::new("Unexpected 'x'").at("a x", 2).hint("remove it");
        assert_eq!(error.to_string(), "Unexpected 'x' (line 1, column 3); hint: remove it");
    }
}
