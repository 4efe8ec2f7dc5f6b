//! A text as the statements that it consists of: split at semicolons that are not inside of quotes or comments.

/// Most statements of one message.
pub(crate) const MAX_STATEMENTS: usize = 100;

/// The statements of `text`, trimmed, empty ones left out.
pub(crate) fn statements(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let (mut start, mut at) = (0, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with(';') {
            push(&mut out, text.get(start..at));
            at += 1;
            start = at;
        } else {
            at += token(rest);
        }
    }
    push(&mut out, text.get(start..));
    out
}

fn push<'a>(out: &mut Vec<&'a str>, statement: Option<&'a str>) {
    let statement = statement.unwrap_or_default().trim();
    if !without_comments(statement).is_empty() {
        out.push(statement);
    }
}

/// `text` from its first word on.
pub(crate) fn without_comments(text: &str) -> &str {
    let mut rest = text.trim_start();
    while rest.starts_with("--") || rest.starts_with("/*") {
        rest = rest.get(token(rest)..).unwrap_or_default().trim_start();
    }
    rest
}

/// How many bytes the quoted text or the comment at the beginning of `rest` takes; otherwise one character.
fn token(rest: &str) -> usize {
    let first = rest.chars().next().map_or(1, char::len_utf8);
    match rest.as_bytes() {
        [b'\'', ..] => quoted(rest, 1, b'\'', false),
        [b'e' | b'E', b'\'', ..] => quoted(rest, 2, b'\'', true),
        [b'"', ..] => quoted(rest, 1, b'"', false),
        [b'-', b'-', ..] => rest.find('\n').map_or(rest.len(), |end| end + 1),
        [b'/', b'*', ..] => comment(rest),
        [b'$', ..] => dollars(rest).unwrap_or(1),
        // A word: an E within it begins no string.
        [byte, ..] if byte.is_ascii_alphanumeric() || *byte == b'_' => {
            rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count()
        }
        _ => first,
    }
}

fn quoted(rest: &str, start: usize, quote: u8, escapes: bool) -> usize {
    let bytes = rest.as_bytes();
    let mut at = start;
    while let Some(byte) = bytes.get(at) {
        if *byte == b'\\' && escapes {
            at += 2;
        } else if *byte != quote {
            at += 1;
        } else if bytes.get(at + 1) == Some(&quote) {
            at += 2;
        } else {
            return at + 1;
        }
    }
    bytes.len()
}

/// Comments nest.
fn comment(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while at < bytes.len() {
        match bytes.get(at..(at + 2).min(bytes.len())) {
            Some(b"/*") => {
                depth += 1;
                at += 2;
            }
            Some(b"*/") => {
                depth = depth.saturating_sub(1);
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    bytes.len()
}

/// `$tag$ … $tag$`.
fn dollars(rest: &str) -> Option<usize> {
    let tag = rest.get(1..)?.find('$')?;
    let tag = rest.get(..tag + 2)?;
    let word = tag.get(1..tag.len() - 1)?;
    let good = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !good || word.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let end = rest.get(tag.len()..)?.find(tag)?;
    Some(tag.len() + end + tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn semicolons_in_quotes_and_comments_split_nothing() {
        for text in [
            "SELECT 'a;b'",
            "SELECT 'it''s;'",
            "SELECT E'a\\';b'",
            "SELECT \";\"",
            "SELECT 1 -- ; no",
            "SELECT /* ; /* ; */ ; */ 1",
            "SELECT $$;$$",
            "SELECT $a$;$$;$a$",
        ] {
            assert_eq!(statements(text), [text]);
        }
        assert_eq!(statements("BEGIN; SELECT 1;;\n"), ["BEGIN", "SELECT 1"]);
        assert_eq!(statements("SELECT $1; SELECT $2"), ["SELECT $1", "SELECT $2"]);
        assert_eq!(statements("SELECT name'x;y'"), ["SELECT name'x;y'"]);
        assert!(statements(" ; -- nothing\n;").is_empty());
        assert_eq!(without_comments("/* a */ -- b\n SELECT"), "SELECT");
    }

    proptest! {
        #[test]
        fn any_text_is_split(text in "[a$'\"/*;\\-\\\\ eE\\nä]{0,40}") {
            let _ = statements(&text);
        }
    }
}
