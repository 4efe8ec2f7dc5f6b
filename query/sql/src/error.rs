//! What a client is told when a query fails: a stable code, DataFusion's message and position where they are about the
//! client's SQL, and nothing of the inside where they are not.

use std::fmt::Write as _;

use arrow::error::ArrowError;
use bigpeer_chassis::{ApiError, ErrorCode};
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;

/// The answer to a query that failed with `error`. Causes that are not the client's are logged here, and not shown.
pub(crate) fn api_error(error: &DataFusionError) -> ApiError {
    match error {
        DataFusionError::Context(_, inner) => api_error(inner),
        DataFusionError::Shared(inner) => api_error(inner),
        DataFusionError::Collection(errors) => match errors.first() {
            Some(first) => api_error(first),
            None => ApiError::internal(error),
        },
        DataFusionError::Diagnostic(diagnostic, inner) => {
            let mut answer = api_error(inner);
            if let (Some(span), None) = (diagnostic.span, answer.position) {
                answer = at(answer, span.start.line, span.start.column);
            }
            for help in &diagnostic.helps {
                let _ = write!(answer.message, "\n{}", help.message);
            }
            answer
        }
        DataFusionError::SQL(parser, _) => parser_error(&parser.to_string()),
        DataFusionError::Plan(message) | DataFusionError::Execution(message) => statement(message),
        DataFusionError::NotImplemented(message) => statement(&format!("not supported: {message}")),
        DataFusionError::SchemaError(schema, _) => schema_error(schema),
        DataFusionError::ArrowError(arrow, _) => arrow_error(arrow, error),
        DataFusionError::ResourcesExhausted(_) => memory_exhausted(),
        DataFusionError::External(inner) => match inner.downcast_ref::<DataFusionError>() {
            Some(inner) => api_error(inner),
            None => inner.downcast_ref::<ApiError>().cloned().unwrap_or_else(|| ApiError::internal(error)),
        },
        DataFusionError::ParquetError(_)
        | DataFusionError::ObjectStore(_)
        | DataFusionError::IoError(_)
        | DataFusionError::Internal(_)
        | DataFusionError::Configuration(_)
        | DataFusionError::ExecutionJoin(_)
        | DataFusionError::Substrait(_)
        | DataFusionError::Ffi(_) => ApiError::internal(error),
    }
}

/// `error`, on its way through DataFusion.
pub(crate) fn for_client(error: ApiError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The answer when a query would have had enough memory, and others hold it.
pub(crate) fn starved(answer: ApiError) -> ApiError {
    if answer.code != ErrorCode::TooLarge {
        return answer;
    }
    let message = "the memory for queries is used by others now; try again";
    ApiError::new(ErrorCode::TooManyRequests, message).retry_after(5)
}

/// A statement that cannot be carried out as it stands.
pub(crate) fn statement(message: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidStatement, plain(message))
}

/// DataFusion's message without what it says about itself: kinds of errors from inside, and where to report its bugs.
fn plain(message: &str) -> String {
    const REPORT: (&str, &str) = ("\nThis issue was likely caused by a bug", "datafusion/issues.");
    let mut text = message.replace("Internal error: ", "").replace("Error during planning: ", "");
    text = text.replace("Execution error: ", "");
    if let Some(start) = text.find(REPORT.0) {
        let end =
            text.get(start..).and_then(|rest| rest.find(REPORT.1)).map_or(text.len(), |at| start + at + REPORT.1.len());
        text.replace_range(start..end, "");
    }
    text.trim().to_owned()
}

fn memory_exhausted() -> ApiError {
    ApiError::new(
        ErrorCode::TooLarge,
        "the query needs more memory than one query may use; aggregate, sort or join fewer rows at once",
    )
}

fn arrow_error(arrow: &ArrowError, whole: &DataFusionError) -> ApiError {
    match arrow {
        ArrowError::DivideByZero => statement("division by zero"),
        ArrowError::CastError(message)
        | ArrowError::ComputeError(message)
        | ArrowError::ArithmeticOverflow(message)
        | ArrowError::ParseError(message)
        | ArrowError::InvalidArgumentError(message) => statement(message),
        ArrowError::NotYetImplemented(message) => statement(&format!("not supported: {message}")),
        ArrowError::ExternalError(inner) => match inner.downcast_ref::<DataFusionError>() {
            Some(inner) => api_error(inner),
            None => ApiError::internal(whole),
        },
        ArrowError::MemoryError(_) => memory_exhausted(),
        _ => ApiError::internal(whole),
    }
}

fn schema_error(error: &SchemaError) -> ApiError {
    let text = error.to_string();
    // The advice about DataFusion's settings is nothing that a client can follow; the name it suggests is repeated below.
    let lines = text.lines().filter(|line| !line.starts_with("Column names are case sensitive."));
    statement(&lines.collect::<Vec<_>>().join("\n"))
}

/// sqlparser says where in its message only: "… at Line: 1, Column: 8".
fn parser_error(text: &str) -> ApiError {
    let text = text.strip_prefix("sql parser error: ").unwrap_or(text);
    let Some((message, place)) = text.rsplit_once(" at Line: ") else { return statement(text) };
    let (line, column) = place.split_once(", Column: ").unwrap_or((place, ""));
    match (line.trim().parse(), column.trim().parse()) {
        (Ok(line), Ok(column)) => at(statement(message), line, column),
        _ => statement(text),
    }
}

fn at(answer: ApiError, line: u64, column: u64) -> ApiError {
    match (usize::try_from(line), usize::try_from(column)) {
        // Zero is how sqlparser says that it does not know.
        (Ok(line), Ok(column)) if line > 0 => answer.at(line, column.max(1)),
        _ => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::common::{Column, DataFusionError};

    #[test]
    fn a_position_in_the_parsers_message_becomes_a_position() {
        let answer = parser_error("sql parser error: Expected: an expression, found: EOF at Line: 3, Column: 8");
        assert_eq!(answer.message, "Expected: an expression, found: EOF");
        assert_eq!(answer.position.map(|position| (position.line, position.column)), Some((3, 8)));
        assert_eq!(parser_error("odd").position, None);
    }

    #[test]
    fn what_is_not_the_clients_fault_is_not_shown() {
        for error in [
            DataFusionError::ObjectStore(Box::new(object_store::Error::NotFound {
                path: "apps/secret".to_owned(),
                source: "secret".into(),
            })),
            DataFusionError::Internal("secret".to_owned()),
            DataFusionError::External("secret".into()).context("secret"),
            DataFusionError::ArrowError(Box::new(ArrowError::ExternalError("secret".into())), None),
        ] {
            let answer = api_error(&error);
            assert_eq!(answer.code, ErrorCode::Internal, "{error}");
            assert!(!answer.message.contains("secret"), "{}", answer.message);
        }
    }

    #[test]
    fn what_is_the_clients_fault_says_what_it_is() {
        let unknown = DataFusionError::SchemaError(
            Box::new(SchemaError::FieldNotFound {
                field: Box::new(Column::from_name("Dest")),
                valid_fields: vec![Column::from_name("dest")],
            }),
            Box::new(None),
        );
        let answer = api_error(&unknown.context("anything"));
        assert_eq!(answer.code, ErrorCode::InvalidStatement);
        assert!(answer.message.contains("dest") && !answer.message.contains("datafusion"), "{}", answer.message);
        let zero = DataFusionError::ArrowError(Box::new(ArrowError::DivideByZero), None);
        assert_eq!(api_error(&zero).message, "division by zero");
        let memory = DataFusionError::ResourcesExhausted("pool".to_owned());
        assert_eq!(api_error(&memory).code, ErrorCode::TooLarge);
    }
}
