//! Statements that are about the session and not about data: answered here. Everything else is a question to SQL.

use crate::split::without_comments;

/// What a statement asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// To SQL.
    Query,
    Begin,
    Commit,
    Rollback,
    /// Accepted, without effect; what it is answered with.
    Ignored(&'static str),
    /// A setting, in lower case; none for its default.
    Set(String, Option<String>),
    /// A setting, in lower case.
    Show(String),
}

/// Settings that may be set to anything, without effect.
const ACCEPTED: [&str; 16] = [
    "application_name",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "intervalstyle",
    "lock_timeout",
    "row_security",
    "search_path",
    "session characteristics",
    "standard_conforming_strings",
    "statement_timeout",
    "timezone",
];

/// The setting that moves a session into the past.
pub(crate) const AS_OF: &str = "bigpeer.as_of";
/// The transaction that the last answer was true at.
pub(crate) const TRANSACTION: &str = "bigpeer.transaction";

/// Whether a setting may be set.
pub(crate) fn is_accepted(name: &str) -> bool {
    ACCEPTED.contains(&name)
}

/// What `statement` asks for.
pub(crate) fn word(statement: &str) -> Word {
    let text = without_comments(statement).trim_end_matches(';').trim();
    let mut words = text.split_whitespace();
    let first = words.next().unwrap_or_default().to_ascii_uppercase();
    let second = words.next().unwrap_or_default().to_ascii_uppercase();
    match first.as_str() {
        "BEGIN" => Word::Begin,
        "START" if second == "TRANSACTION" => Word::Begin,
        "COMMIT" | "END" => Word::Commit,
        "ROLLBACK" if second == "TO" => Word::Ignored("ROLLBACK"),
        "ROLLBACK" | "ABORT" => Word::Rollback,
        "SAVEPOINT" => Word::Ignored("SAVEPOINT"),
        "RELEASE" => Word::Ignored("RELEASE"),
        "DISCARD" => Word::Ignored("DISCARD ALL"),
        "DEALLOCATE" => Word::Ignored("DEALLOCATE"),
        "UNLISTEN" => Word::Ignored("UNLISTEN"),
        "RESET" => Word::Set(name(&second), None),
        "SET" => set(text),
        "SHOW" if !matches!(second.as_str(), "TABLES" | "COLUMNS" | "FUNCTIONS" | "") => {
            let rest = text.get(first.len()..).unwrap_or_default();
            Word::Show(name(&rest.split_whitespace().collect::<Vec<_>>().join(" ")))
        }
        _ => Word::Query,
    }
}

fn name(text: &str) -> String {
    text.trim_matches('"').to_ascii_lowercase()
}

/// `SET [SESSION | LOCAL] name {TO | =} value`, and the forms that PostgreSQL has for some names.
fn set(text: &str) -> Word {
    let rest = text.get(3..).unwrap_or_default().trim_start();
    let upper = rest.to_ascii_uppercase();
    if upper.starts_with("SESSION CHARACTERISTICS") || upper.starts_with("TRANSACTION") {
        return Word::Ignored("SET");
    }
    let rest = ["SESSION ", "LOCAL "]
        .into_iter()
        .find_map(|scope| upper.starts_with(scope).then(|| rest.get(scope.len()..)).flatten())
        .unwrap_or(rest)
        .trim_start();
    if rest.to_ascii_uppercase().starts_with("TIME ZONE") {
        return Word::Set("timezone".to_owned(), None);
    }
    let end = rest.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(rest.len());
    let (setting, value) = rest.split_at(end);
    let value = value.trim_start();
    let value = match value.strip_prefix('=') {
        Some(value) => value,
        None if value.to_ascii_uppercase().starts_with("TO ") => value.get(3..).unwrap_or_default(),
        None => value,
    };
    let value = value.trim().trim_matches('\'');
    Word::Set(name(setting), (!value.eq_ignore_ascii_case("DEFAULT") && !value.is_empty()).then(|| value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_about_the_session_are_known() {
        let set = |name: &str, value: Option<&str>| Word::Set(name.to_owned(), value.map(str::to_owned));
        for (text, expected) in [
            ("SELECT 1", Word::Query),
            ("/* SET */ WITH a AS (SELECT 1) SELECT * FROM a", Word::Query),
            ("SHOW TABLES", Word::Query),
            ("DROP TABLE x", Word::Query),
            ("begin isolation level serializable", Word::Begin),
            ("START TRANSACTION READ ONLY", Word::Begin),
            ("COMMIT;", Word::Commit),
            ("ROLLBACK", Word::Rollback),
            ("ROLLBACK TO a", Word::Ignored("ROLLBACK")),
            ("SET extra_float_digits = 3", set("extra_float_digits", Some("3"))),
            ("SET SESSION DateStyle TO 'ISO'", set("datestyle", Some("ISO"))),
            ("set bigpeer.as_of=17", set("bigpeer.as_of", Some("17"))),
            ("SET bigpeer.as_of TO DEFAULT", set("bigpeer.as_of", None)),
            ("RESET bigpeer.as_of", set("bigpeer.as_of", None)),
            ("SET TIME ZONE 'UTC'", set("timezone", None)),
            ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", Word::Ignored("SET")),
            ("show transaction isolation level", Word::Show("transaction isolation level".to_owned())),
            ("SHOW Server_Version", Word::Show("server_version".to_owned())),
        ] {
            assert_eq!(word(text), expected, "{text}");
        }
    }
}
