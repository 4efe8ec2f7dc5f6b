//! Completion: the words of the language, the app's collections and their fields. What there is is asked once, and again
//! after statements that may have changed it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};

use super::rows::Row;
use super::server::{Language, Server};
use super::split;
use crate::failure::Failure;

const SQL_WORDS: &str = "SELECT FROM WHERE GROUP BY ORDER HAVING LIMIT OFFSET JOIN LEFT RIGHT FULL INNER CROSS ON USING AS \
    AND OR NOT NULL IS IN BETWEEN LIKE ILIKE CASE WHEN THEN ELSE END DISTINCT UNION ALL EXCEPT INTERSECT WITH VALUES OVER \
    PARTITION EXPLAIN ANALYZE DESCRIBE SHOW TABLES COLUMNS ASC DESC NULLS FIRST LAST CAST EXISTS count sum avg min max \
    median stddev round coalesce date_trunc date_part now extract length lower upper trim substr concat array_agg \
    row_number rank lag lead first_value last_value";

const DQL_WORDS: &str = "SELECT FROM COLLECTION WHERE GROUP BY HAVING ORDER LIMIT OFFSET DISTINCT AS JOIN LEFT RIGHT INNER \
    ON USE IDS LIST INSERT INTO DOCUMENTS INITIAL CONFLICT DO FAIL NOTHING UPDATE UPDATE_LOCAL_DIFF SET UNSET APPLY \
    INCREMENT RESTART WITH DELETE EXPLAIN PROFILE ADVISE SHOW ALL ALTER SYSTEM RESET EVICT RETURNING AND OR NOT NULL MISSING IS IN BETWEEN LIKE ILIKE \
    SIMILAR TO CASE WHEN THEN ELSE END ANY EVERY SATISFIES ARRAY OBJECT FOR WITHIN REGISTER MAP COUNTER ATTACHMENT TRUE \
    FALSE COUNT SUM AVG MIN MAX MEDIAN MID coalesce nvl ifmissing ifnull type object_keys object_values object_length \
    array_contains array_length starts_with ends_with contains lower upper substr split joinstr regexp_like clock date_add \
    date_diff date_part date_trunc date_format date_cast abs ceil floor system:collections system:active_requests";

/// What the app has: collections, each with its fields.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(Arc<Mutex<BTreeMap<String, Vec<String>>>>);

impl Names {
    /// Asks the server.
    pub(super) async fn refresh(&self, server: &Server) -> Result<(), Failure> {
        let query = "SELECT table_name, column_name FROM information_schema.columns \
                     WHERE table_schema <> 'information_schema' ORDER BY table_name, ordinal_position";
        let collections = by_collection(&server.sql_rows(query).await?);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = collections;
        Ok(())
    }

    /// The collections.
    pub(super) fn collections(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// The fields of a collection.
    pub(super) fn fields(&self, collection: &str) -> Option<Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(collection).cloned()
    }

    #[cfg(test)]
    fn of(names: &[(&str, &[&str])]) -> Self {
        let owned = |(name, fields): &(&str, &[&str])| {
            ((*name).to_owned(), fields.iter().map(|field| (*field).to_owned()).collect())
        };
        Self(Arc::new(Mutex::new(names.iter().map(owned).collect())))
    }
}

fn by_collection(rows: &[Row]) -> BTreeMap<String, Vec<String>> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows {
        let text = |column| row.get(column).and_then(serde_json::Value::as_str);
        if let (Some(collection), Some(field)) = (text("table_name"), text("column_name")) {
            out.entry(collection.to_owned()).or_default().push(field.to_owned());
        }
    }
    out
}

/// Completes words, and knows when a statement has ended.
#[derive(Debug)]
pub(super) struct Assistant {
    language: Language,
    names: Names,
}

impl Assistant {
    pub(super) const fn new(language: Language, names: Names) -> Self {
        Self { language, names }
    }

    /// Where the word begins that ends at `at`, and what it may become.
    fn candidates(&self, line: &str, at: usize) -> (usize, Vec<String>) {
        let before = line.get(..at).unwrap_or(line);
        let start = before.rfind(|ch: char| !is_word(ch)).map_or(0, |found| {
            found + before.get(found..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8)
        });
        let word = before.get(start..).unwrap_or_default();
        if let Some((collection, field)) = word.rsplit_once('.')
            && let Some(fields) = self.names.fields(collection)
        {
            let matching = fields.into_iter().filter(|name| begins(name, field));
            return (start, matching.map(|name| format!("{collection}.{}", self.quoted(&name))).collect());
        }
        if word.is_empty() {
            return (start, Vec::new());
        }
        let mentioned = self.mentioned(line);
        let mut out: Vec<String> = Vec::new();
        // What follows FROM, JOIN, INTO and UPDATE is a collection.
        let after = before.get(..start).unwrap_or_default().trim_end();
        let last = after.rsplit(char::is_whitespace).next().unwrap_or_default().to_ascii_uppercase();
        let collections = self.names.collections().into_iter().filter(|name| begins(name, word));
        out.extend(collections.map(|name| self.quoted(&name)));
        let words = match self.language {
            Language::Dql { .. } => DQL_WORDS,
            Language::Sql => SQL_WORDS,
        };
        let words = words.split_whitespace().filter(|known| begins(known, word)).map(str::to_owned);
        if matches!(last.as_str(), "FROM" | "JOIN" | "INTO" | "UPDATE") {
            out.extend(words.filter(|word| word.starts_with("system:")));
        } else {
            for collection in mentioned {
                let fields = self.names.fields(&collection).unwrap_or_default();
                out.extend(fields.iter().filter(|name| begins(name, word)).map(|name| self.quoted(name)));
            }
            out.extend(words);
        }
        let mut seen = std::collections::BTreeSet::new();
        out.retain(|name| seen.insert(name.clone()));
        // `regis` means the field `registration`, not the word REGISTER, when there is such a field.
        let as_typed = |name: &String| name.trim_start_matches(['`', '"']).starts_with(word);
        if out.iter().any(as_typed) {
            out.retain(as_typed);
        }
        (start, out)
    }

    /// The collections that the statement names; all, when it names none yet.
    fn mentioned(&self, line: &str) -> Vec<String> {
        let words: std::collections::BTreeSet<&str> = line.split(|ch: char| !is_word(ch) || ch == '.').collect();
        let all = self.names.collections();
        let named: Vec<String> = all.iter().filter(|name| words.contains(name.as_str())).cloned().collect();
        if named.is_empty() { all } else { named }
    }

    /// A name as it must be written.
    fn quoted(&self, name: &str) -> String {
        let plain = |text: &str| {
            text.chars().next().is_some_and(|ch| ch.is_ascii_alphabetic() || ch == '_')
                && text.chars().all(|ch| ch.is_ascii_alphanumeric() || ch == '_')
        };
        match self.language {
            _ if plain(name) => name.to_owned(),
            Language::Dql { .. } if name.strip_prefix("system:").is_some_and(plain) => name.to_owned(),
            Language::Dql { .. } => format!("`{}`", name.replace('`', "``")),
            Language::Sql => format!("\"{}\"", name.replace('"', "\"\"")),
        }
    }
}

fn is_word(ch: char) -> bool {
    ch.is_alphanumeric() || matches!(ch, '_' | '.' | ':')
}

fn begins(name: &str, with: &str) -> bool {
    name.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with))
}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, names) = self.candidates(line, at);
        Ok((start, names.into_iter().map(|name| Pair { display: name.clone(), replacement: name }).collect()))
    }
}

impl Validator for Assistant {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = context.input().trim();
        let done = text.is_empty() || text.starts_with('\\') || split::is_complete(text, self.language.escapes());
        Ok(if done { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Hinter for Assistant {
    type Hint = String;
}

impl Highlighter for Assistant {}

impl Helper for Assistant {}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(language: Language, line: &str) -> Vec<String> {
        let names = Names::of(&[
            ("flights", &["_id", "carrier", "dep delay"]),
            ("fleet", &["tail", "registered"]),
            ("my cars", &["x"]),
        ]);
        Assistant::new(language, names).candidates(line, line.len()).1
    }

    #[test]
    fn after_from_come_collections_and_elsewhere_the_fields_of_those_that_are_named() {
        let dql = Language::Dql { strict: false };
        assert_eq!(candidates(dql, "SELECT * FROM fl"), ["fleet", "flights"]);
        assert_eq!(candidates(dql, "SELECT * FROM m"), ["`my cars`"]);
        assert_eq!(candidates(Language::Sql, "SELECT * FROM m"), ["\"my cars\""]);
        assert_eq!(candidates(dql, "SELECT * FROM flights WHERE car"), ["carrier"]);
        assert_eq!(candidates(dql, "SELECT * FROM flights WHERE tai"), Vec::<String>::new());
        assert_eq!(candidates(dql, "SELECT tai"), ["tail"]);
        assert_eq!(candidates(Language::Sql, "SELECT flights.d"), ["flights.\"dep delay\""]);
        assert_eq!(candidates(dql, "sel"), ["SELECT"]);
        assert_eq!(candidates(dql, "SELECT regis"), ["registered"]);
        assert_eq!(candidates(dql, "SELECT REGIS"), ["REGISTER"]);
        assert_eq!(candidates(dql, "SELECT * FROM system:c"), ["system:collections"]);
        assert_eq!(candidates(dql, "ä"), Vec::<String>::new());
    }
}
