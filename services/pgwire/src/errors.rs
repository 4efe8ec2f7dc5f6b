//! Errors as PostgreSQL's clients know them: five letters for programs, words for people, a place in the statement.

use bigpeer_chassis::{ApiError, ErrorCode, Position};

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PgError {
    pub(crate) sqlstate: &'static str,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// Where in the statement, in characters from 1.
    pub(crate) position: Option<usize>,
    /// The session ends with it.
    pub(crate) fatal: bool,
}

impl PgError {
    pub(crate) fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self { sqlstate, message: message.into(), hint: None, position: None, fatal: false }
    }

    pub(crate) fn fatal(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self { fatal: true, ..Self::new(sqlstate, message) }
    }

    /// `error`, about `statement`.
    pub(crate) fn of(error: &ApiError, statement: &str) -> Self {
        let (message, hint) = match error.message.split_once('\n') {
            Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
            None => (error.message.clone(), None),
        };
        let position = error.position.map(|place| offset(statement, place));
        Self { sqlstate: sqlstate(error), message, hint, position, fatal: false }
    }

    /// The statement was cancelled by its client.
    pub(crate) fn cancelled() -> Self {
        Self::new("57014", "the statement was cancelled at the client's request")
    }
}

fn sqlstate(error: &ApiError) -> &'static str {
    match error.code {
        ErrorCode::InvalidStatement => {
            let message = error.message.as_str();
            if message.starts_with("table ") && message.contains("not found") {
                "42P01"
            } else if message.contains("No field named") || message.starts_with("column ") {
                "42703"
            } else if message.contains("Invalid function") {
                "42883"
            } else if message.contains("division by zero") || message.contains("Divide by zero") {
                "22012"
            } else if message.contains("is refused: only queries") {
                "25006"
            } else {
                "42601"
            }
        }
        ErrorCode::BadRequest | ErrorCode::UnsupportedMediaType => "22023",
        ErrorCode::Unauthorized => "28P01",
        ErrorCode::Forbidden => "42501",
        ErrorCode::NotFound => "22023",
        ErrorCode::MethodNotAllowed => "0A000",
        ErrorCode::Timeout => "57014",
        ErrorCode::Conflict => "40001",
        ErrorCode::TooLarge => "54000",
        ErrorCode::TooManyRequests | ErrorCode::QuotaExceeded => "53300",
        ErrorCode::Internal => "XX000",
        ErrorCode::Unavailable | ErrorCode::Unknown => "57P03",
    }
}

/// The number of the character at `place`, from 1.
fn offset(statement: &str, place: Position) -> usize {
    let before: usize =
        statement.split('\n').take(place.line.saturating_sub(1)).map(|line| line.chars().count() + 1).sum();
    before + place.column
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_characters() {
        let error = ApiError::new(ErrorCode::InvalidStatement, "what\nDid you mean that?").at(2, 3);
        let error = PgError::of(&error, "sälect\nfoo");
        assert_eq!((error.position, error.hint.as_deref()), (Some(10), Some("Did you mean that?")));
    }

    #[test]
    fn programs_can_tell_what_went_wrong() {
        let refused = |message: &str| sqlstate(&ApiError::new(ErrorCode::InvalidStatement, message));
        assert_eq!(refused("table 'app.public.x' not found"), "42P01");
        assert_eq!(refused("Schema error: No field named y."), "42703");
        assert_eq!(refused("Expected: an expression"), "42601");
    }
}
