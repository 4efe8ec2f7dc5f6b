//! From text to a statement that may run: one statement, a query, not deeper than the planner's stack. Everything that would
//! change something is refused before it is planned.

use bigpeer_chassis::{ApiError, ErrorCode};
use bigpeer_types::limits::MAX_STATEMENT_BYTES;
use datafusion::config::Dialect;
use datafusion::execution::session_state::SessionState;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as Sql;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::error::{api_error, statement};
use crate::language::Language;
use crate::postgres;

/// How deep an expression or a chain of operators may be. Planning and evaluation recurse, and a thread's stack ends.
const MAX_DEPTH: usize = 200;

/// The one query in `text`.
///
/// # Errors
/// `too_large`, or `invalid_statement`: no SQL, several statements, not a query, or nested too deep.
pub(crate) fn parse(state: &SessionState, text: &str) -> Result<Statement, ApiError> {
    if text.len() > MAX_STATEMENT_BYTES {
        let message = format!("the query is longer than {MAX_STATEMENT_BYTES} bytes; pass long lists as parameters");
        return Err(ApiError::new(ErrorCode::TooLarge, message));
    }
    let language = match state.config().options().sql_parser.dialect {
        Dialect::PostgreSQL => Language::Postgres,
        _ => Language::Own,
    };
    check_depth(text, language)?;
    if text.trim().trim_end_matches(';').trim().is_empty() {
        return Err(statement("the query is empty"));
    }
    let mut parsed = state.sql_to_statement(text, &language.dialect()).map_err(|error| match error {
        datafusion::error::DataFusionError::NotImplemented(message) if message.contains("single SQL statement") => {
            statement("one query at a time: there is more than one statement here")
        }
        other => api_error(&other),
    })?;
    check_reads_only(&parsed)?;
    if language == Language::Postgres {
        postgres::rewrite(&mut parsed, &state.config().options().catalog.default_catalog);
    }
    // SHOW is looked up in information_schema; its tables are named by nobody.
    let shows =
        matches!(&parsed, Statement::Statement(sql) if !matches!(sql.as_ref(), Sql::Query(_) | Sql::Explain { .. }));
    let tables = state.resolve_table_references(&parsed).map_err(|error| api_error(&error))?;
    if !shows
        && tables.iter().any(|table| table.table().eq_ignore_ascii_case("df_settings") && table.schema().is_some())
    {
        return Err(statement("information_schema has no table df_settings here"));
    }
    Ok(parsed)
}

fn check_reads_only(parsed: &Statement) -> Result<(), ApiError> {
    let what = match parsed {
        Statement::Statement(sql) => match sql.as_ref() {
            Sql::Query(_) | Sql::ShowTables { .. } | Sql::ShowColumns { .. } | Sql::ExplainTable { .. } => {
                return Ok(());
            }
            Sql::Explain { statement, .. } => return check_reads_only(&Statement::Statement(statement.clone())),
            other => first_words(&other.to_string()),
        },
        Statement::Explain(explain) => return check_reads_only(&explain.statement),
        Statement::CreateExternalTable(_) => "CREATE EXTERNAL TABLE".to_owned(),
        Statement::CopyTo(_) => "COPY".to_owned(),
        Statement::Reset(_) => "RESET".to_owned(),
    };
    Err(statement(&format!(
        "{what} is refused: only queries are answered here (SELECT, WITH, VALUES, EXPLAIN, DESCRIBE, SHOW TABLES, SHOW \
         COLUMNS); write with DQL or from a device"
    )))
}

/// The first word of a statement, and the second one if that is a keyword of DDL.
fn first_words(text: &str) -> String {
    let mut words = text.split_whitespace();
    let first = words.next().unwrap_or_default().to_ascii_uppercase();
    match (first.as_str(), words.next()) {
        ("CREATE" | "DROP" | "ALTER" | "SHOW", Some(second)) if second.bytes().all(|b| b.is_ascii_alphabetic()) => {
            format!("{first} {}", second.to_ascii_uppercase())
        }
        _ => first,
    }
}

/// Refuses what would recurse too deep: per level of parentheses, operators in one chain make one tree as deep as the chain
/// is long; set operations and joins add up over the whole statement.
fn check_depth(text: &str, language: Language) -> Result<(), ApiError> {
    let syntax = language.syntax();
    let tokens = Tokenizer::new(syntax.as_ref(), text).tokenize().map_err(|error| {
        let place = error.location;
        let answer = statement(&error.message);
        match (usize::try_from(place.line), usize::try_from(place.column)) {
            (Ok(line), Ok(column)) if line > 0 => answer.at(line, column),
            _ => answer,
        }
    })?;
    let (mut levels, mut relations) = (vec![0_usize], 0_usize);
    for token in &tokens {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => levels.push(1),
            Token::RParen | Token::RBracket | Token::RBrace => {
                if levels.len() > 1 {
                    levels.pop();
                }
            }
            Token::Comma | Token::SemiColon => reset(&mut levels),
            Token::Whitespace(_) | Token::Number(..) | Token::SingleQuotedString(_) | Token::Period => {}
            Token::Word(word) => match word.keyword {
                Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT | Keyword::JOIN => {
                    relations += 1;
                    reset(&mut levels);
                }
                Keyword::SELECT | Keyword::FROM | Keyword::WHERE | Keyword::GROUP | Keyword::HAVING | Keyword::ON => {
                    reset(&mut levels);
                }
                Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::IS
                | Keyword::BETWEEN
                | Keyword::CASE
                | Keyword::WHEN
                | Keyword::ELSE => count(&mut levels),
                _ => {}
            },
            _ => count(&mut levels),
        }
        if levels.iter().sum::<usize>() + relations > MAX_DEPTH {
            let message = format!("the query is nested deeper than {MAX_DEPTH} operators; use IN lists or parameters");
            return Err(statement(&message));
        }
    }
    Ok(())
}

fn reset(levels: &mut [usize]) {
    if let Some(last) = levels.last_mut() {
        *last = 1;
    }
}

fn count(levels: &mut [usize]) {
    if let Some(last) = levels.last_mut() {
        *last += 1;
    }
}

#[cfg(test)]
mod tests;
