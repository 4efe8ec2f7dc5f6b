//! Where a statement ends: at a `;` that is in no string, name or comment. DQL and SQL agree on that.

/// The statements of a script, without the `;`; empty ones are left out. `escapes`: whether a backslash in a string escapes
/// what follows, as in DQL and not in SQL.
pub(super) fn statements(script: &str, escapes: bool) -> Vec<&str> {
    let mut out = Vec::new();
    let mut rest = script;
    loop {
        let end = end(rest, escapes);
        let (statement, after) = match end {
            Some(end) => (rest.get(..end), rest.get(end + 1..)),
            None => (Some(rest), None),
        };
        out.extend(statement.map(str::trim).filter(|statement| !is_empty(statement, escapes)));
        match after {
            Some(after) => rest = after,
            None => return out,
        }
    }
}

/// Whether a statement has ended, so that what was typed can be run.
pub(super) fn is_complete(text: &str, escapes: bool) -> bool {
    end(text, escapes).is_some()
}

/// Whether there is nothing but space and comments.
fn is_empty(text: &str, escapes: bool) -> bool {
    Scan::new(text, escapes).all(|(_, ch, place)| match place {
        Place::Text => ch.is_whitespace(),
        Place::Quotes => false,
        Place::Comment => true,
    })
}

fn end(text: &str, escapes: bool) -> Option<usize> {
    Scan::new(text, escapes).find(|(_, ch, place)| *place == Place::Text && *ch == ';').map(|(at, ..)| at)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Text,
    /// A string, or a name in quotes.
    Quotes,
    Comment,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Within {
    Nothing,
    /// Until this character.
    Quotes(char),
    LineComment,
    BlockComment,
}

/// Goes through the characters, and where each stands. The second ones of `--`, `/*` and `*/` and of escapes are left out.
struct Scan<'t> {
    chars: std::iter::Peekable<std::str::CharIndices<'t>>,
    within: Within,
    escapes: bool,
}

impl<'t> Scan<'t> {
    fn new(text: &'t str, escapes: bool) -> Self {
        Self { chars: text.char_indices().peekable(), within: Within::Nothing, escapes }
    }

    fn next_is(&mut self, wanted: char) -> bool {
        self.chars.next_if(|(_, ch)| *ch == wanted).is_some()
    }
}

impl Iterator for Scan<'_> {
    type Item = (usize, char, Place);

    fn next(&mut self) -> Option<Self::Item> {
        let (at, ch) = self.chars.next()?;
        let place = match (self.within, ch) {
            (Within::Nothing, '\'' | '"' | '`') => {
                self.within = Within::Quotes(ch);
                Place::Quotes
            }
            (Within::Nothing, '-') if self.next_is('-') => {
                self.within = Within::LineComment;
                Place::Comment
            }
            (Within::Nothing, '/') if self.next_is('*') => {
                self.within = Within::BlockComment;
                Place::Comment
            }
            (Within::Nothing, _) => Place::Text,
            (Within::Quotes(_), '\\') if self.escapes => {
                self.chars.next();
                Place::Quotes
            }
            (Within::Quotes(quote), ch) => {
                if ch == quote {
                    self.within = Within::Nothing;
                }
                Place::Quotes
            }
            (Within::LineComment, ch) => {
                if ch == '\n' {
                    self.within = Within::Nothing;
                }
                Place::Comment
            }
            (Within::BlockComment, ch) => {
                if ch == '*' && self.next_is('/') {
                    self.within = Within::Nothing;
                }
                Place::Comment
            }
        };
        Some((at, ch, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_semicolon_ends_a_statement_unless_it_is_quoted_or_commented() {
        let script = "SELECT ';' FROM c; -- not; here\nSELECT `a;b` FROM c /* nor; here */;;\n SELECT 'it''s;' ; last";
        let expected =
            ["SELECT ';' FROM c", "-- not; here\nSELECT `a;b` FROM c /* nor; here */", "SELECT 'it''s;'", "last"];
        assert_eq!(statements(script, true), expected);
        assert!(statements(" ; -- it's nothing;\n ;", true).is_empty());
    }

    #[test]
    fn a_backslash_escapes_in_dql_and_not_in_sql() {
        assert_eq!(statements("SELECT '\\'; x'", true), ["SELECT '\\'; x'"]);
        assert_eq!(statements("SELECT '\\'; x", false), ["SELECT '\\'", "x"]);
    }

    #[test]
    fn what_is_typed_is_run_when_it_has_ended() {
        for (text, complete) in
            [("SELECT 1", false), ("SELECT 1;", true), ("SELECT ';", false), ("SELECT '\\';", false), ("-- ;", false)]
        {
            assert_eq!(is_complete(text, true), complete, "{text}");
        }
    }
}
