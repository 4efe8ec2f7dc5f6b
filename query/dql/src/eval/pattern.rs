//! LIKE, ILIKE and SIMILAR TO, and the regular expressions of `regexp_like`.

use regex::{Regex, RegexBuilder};

use crate::ast::LikeKind;
use crate::error::{DqlError, shown};

/// Longest pattern, in bytes: matching costs pattern times text at worst.
const MAX_PATTERN_BYTES: usize = 4096;

/// Largest compiled regular expression, in bytes.
const MAX_REGEX_BYTES: usize = 1 << 20;

/// A pattern ready to match.
#[derive(Clone, Debug)]
pub(crate) enum Pattern {
    Like { parts: Vec<Part>, fold: bool },
    Regex(Regex),
}

/// A part of a LIKE pattern.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Part {
    Char(char),
    /// `_`
    One,
    /// `%`
    Many,
}

impl Pattern {
    pub(crate) fn new(kind: LikeKind, pattern: &str, escape: Option<char>) -> Result<Self, DqlError> {
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(DqlError::new(format!("The pattern is longer than {MAX_PATTERN_BYTES} bytes")));
        }
        match kind {
            LikeKind::Like => Ok(Self::Like { parts: parts(pattern, escape), fold: false }),
            LikeKind::Ilike => Ok(Self::Like { parts: parts(&pattern.to_lowercase(), escape), fold: true }),
            LikeKind::Similar => regex(&similar(pattern, escape), "").map(Self::Regex),
        }
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Like { parts, fold: false } => like(parts, text),
            Self::Like { parts, fold: true } => like(parts, &text.to_lowercase()),
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

/// A regular expression with flags of `i`, `m`, `s`, `x`.
pub(crate) fn regex(pattern: &str, flags: &str) -> Result<Regex, DqlError> {
    if pattern.len() > MAX_PATTERN_BYTES * 4 {
        return Err(DqlError::new(format!("The pattern is longer than {MAX_PATTERN_BYTES} bytes")));
    }
    let mut builder = RegexBuilder::new(pattern);
    builder.size_limit(MAX_REGEX_BYTES).nest_limit(50);
    for flag in flags.chars() {
        match flag {
            'i' => builder.case_insensitive(true),
            'm' => builder.multi_line(true),
            's' => builder.dot_matches_new_line(true),
            'x' => builder.ignore_whitespace(true),
            _ => {
                return Err(DqlError::new(format!(
                    "Unknown flag '{}' of a regular expression",
                    shown(&flag.to_string())
                )));
            }
        };
    }
    builder.build().map_err(|_| DqlError::new(format!("'{}' is not a valid pattern", shown(pattern))))
}

fn parts(pattern: &str, escape: Option<char>) -> Vec<Part> {
    // Without ESCAPE the backslash escapes.
    let escape = escape.unwrap_or('\\');
    let mut parts = Vec::new();
    let mut chars = pattern.chars();
    while let Some(ch) = chars.next() {
        let part = match ch {
            ch if ch == escape => Part::Char(chars.next().unwrap_or(ch)),
            '%' => Part::Many,
            '_' => Part::One,
            other => Part::Char(other),
        };
        if part != Part::Many || parts.last() != Some(&Part::Many) {
            parts.push(part);
        }
    }
    parts
}

/// Greedy with one place to come back to: the last `%`.
fn like(parts: &[Part], text: &str) -> bool {
    let (mut part, mut rest) = (0, text.chars());
    let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
    loop {
        let mut ahead = rest.clone();
        match (parts.get(part), ahead.next()) {
            (Some(Part::Many), _) => {
                retry = Some((part + 1, rest.clone()));
                part += 1;
                continue;
            }
            (Some(Part::One), Some(_)) => {
                (part, rest) = (part + 1, ahead);
                continue;
            }
            (Some(Part::Char(wanted)), Some(ch)) if *wanted == ch => {
                (part, rest) = (part + 1, ahead);
                continue;
            }
            (None, None) => return true,
            (Some(Part::One | Part::Char(_)) | None, _) => {}
        }
        // Let the last `%` take one character more.
        let Some((after, mut from)) = retry.take() else { return false };
        if from.next().is_none() {
            return false;
        }
        (part, rest) = (after, from.clone());
        retry = Some((after, from));
    }
}

/// SIMILAR TO as a regular expression over the whole text.
fn similar(pattern: &str, escape: Option<char>) -> String {
    let escape = escape.unwrap_or('\\');
    let mut out = String::from("^(?s:");
    let mut chars = pattern.chars();
    let mut bracket = false;
    while let Some(ch) = chars.next() {
        match ch {
            ch if ch == escape => out.push_str(&regex::escape(&chars.next().unwrap_or(ch).to_string())),
            '[' if !bracket => {
                bracket = true;
                out.push('[');
            }
            ']' if bracket => {
                bracket = false;
                out.push(']');
            }
            '^' | '-' if bracket => out.push(ch),
            '%' if !bracket => out.push_str(".*"),
            '_' if !bracket => out.push('.'),
            '|' | '(' | ')' | '*' | '+' | '?' | '{' | '}' if !bracket => out.push(ch),
            other => out.push_str(&regex::escape(&other.to_string())),
        }
    }
    out.push_str(")$");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(kind: LikeKind, pattern: &str, text: &str) -> bool {
        Pattern::new(kind, pattern, None).unwrap().matches(text)
    }

    #[test]
    fn like() {
        for (pattern, text, expected) in [
            ("%", "", true),
            ("a%", "abc", true),
            ("%c", "abc", true),
            ("%b%", "abc", true),
            ("a_c", "abc", true),
            ("a_c", "ac", false),
            ("", "a", false),
            ("a", "", false),
            ("%a%b%", "xxaxxbxx", true),
            ("%a%b", "ab a", false),
            ("_", "ß", true),
            ("a\\%", "a%", true),
            ("a\\%", "ab", false),
            ("%%%", "x", true),
            ("A%", "abc", false),
            ("a.c", "abc", false),
        ] {
            assert_eq!(matches(LikeKind::Like, pattern, text), expected, "{pattern} {text}");
        }
        assert!(matches(LikeKind::Ilike, "a%Z", "ABCz"));
        assert!(Pattern::new(LikeKind::Like, "a!%", Some('!')).unwrap().matches("a%"));
    }

    #[test]
    fn a_bad_pattern_costs_no_more_than_its_size_times_the_text() {
        let pattern = "%a".repeat(1000) + "b";
        assert!(!matches(LikeKind::Like, &pattern, &"a".repeat(100_000)));
    }

    #[test]
    fn similar() {
        for (pattern, text, expected) in [
            ("(cat|dog)s?", "dogs", true),
            ("a.c", "abc", false),
            ("a.c", "a.c", true),
            ("[a-c]+", "abcabc", true),
            ("[^a]%", "bcd", true),
            ("a{2}", "aa", true),
            ("a", "ba", false),
            ("%b_", "aabc", true),
            ("$", "$", true),
        ] {
            assert_eq!(matches(LikeKind::Similar, pattern, text), expected, "{pattern} {text}");
        }
        assert!(Pattern::new(LikeKind::Similar, "(", None).is_err());
    }
}
