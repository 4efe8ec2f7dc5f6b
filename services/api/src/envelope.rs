//! The envelope of `/store/execute`, for what worked and for what did not.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bigpeer_chassis::{ApiError, ErrorCode, Position, current_request_id};
use bigpeer_crdt::Value;
use bigpeer_dql::{DqlError, Warning};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// Most warnings that are shown; all are counted.
const MAX_WARNINGS: usize = 10;

/// One DQL statement and its arguments.
#[derive(Debug, Deserialize)]
pub(crate) struct QueryRequest {
    pub(crate) statement: String,
    #[serde(default)]
    pub(crate) args: Option<Json>,
}

/// What kind of statement it was, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum QueryType {
    Select,
    Mutation,
    Unknown,
}

impl QueryType {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Select => "select",
            Self::Mutation => "mutation",
            Self::Unknown => "unknown",
        }
    }
}

impl From<bigpeer_dql::QueryType> for QueryType {
    fn from(of: bigpeer_dql::QueryType) -> Self {
        match of {
            bigpeer_dql::QueryType::Select => Self::Select,
            bigpeer_dql::QueryType::Mutation => Self::Mutation,
        }
    }
}

/// What a statement came to.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Reads: the snapshot's; mutations: the commit's.
    pub(crate) transaction_id: u64,
    pub(crate) items: Vec<Value>,
    pub(crate) mutated: Vec<Value>,
    pub(crate) warnings: Vec<Warning>,
}

/// [`Answer`] as it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QueryResponse<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_id: Option<u64>,
    query_type: QueryType,
    items: &'a [Value],
    mutated_document_ids: &'a [Value],
    error: ErrorBody<'a>,
    warnings: Vec<WarningBody<'a>>,
    total_warnings_count: usize,
    #[serde(rename = "request_id", skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

/// `{}` when nothing is wrong. `description` is what Ditto's clients read, `code` and `message` are as everywhere.
#[derive(Default, Serialize)]
struct ErrorBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<ErrorCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<Position>,
}

#[derive(Serialize)]
struct WarningBody<'a> {
    #[serde(rename = "_id", skip_serializing_if = "Option::is_none")]
    id: Option<&'a Value>,
    description: &'a str,
}

impl Answer {
    /// The envelope.
    pub(crate) fn envelope(&self, query_type: QueryType) -> QueryResponse<'_> {
        QueryResponse {
            transaction_id: Some(self.transaction_id),
            query_type,
            items: &self.items,
            mutated_document_ids: &self.mutated,
            error: ErrorBody::default(),
            warnings: self.warnings.iter().take(MAX_WARNINGS).map(WarningBody::from).collect(),
            total_warnings_count: self.warnings.len(),
            request_id: None,
        }
    }
}

impl<'a> From<&'a Warning> for WarningBody<'a> {
    fn from(warning: &'a Warning) -> Self {
        Self { id: warning.id.as_ref(), description: &warning.description }
    }
}

/// A failed statement in the envelope, with the status and headers of `error`.
pub(crate) fn failure(query_type: QueryType, error: ApiError) -> Response {
    let body = QueryResponse {
        transaction_id: None,
        query_type,
        items: &[],
        mutated_document_ids: &[],
        error: ErrorBody {
            code: Some(error.code),
            message: Some(&error.message),
            description: Some(&error.message),
            position: error.position,
        },
        warnings: Vec::new(),
        total_warnings_count: 0,
        request_id: current_request_id(),
    };
    let body = serde_json::to_vec(&body);
    with_body(error, body)
}

/// The answer to `error`, with another body.
pub(crate) fn with_body(error: ApiError, body: Result<Vec<u8>, serde_json::Error>) -> Response {
    let mut response = error.into_response();
    match body {
        Ok(body) => {
            response.headers_mut().remove(header::CONTENT_LENGTH);
            *response.body_mut() = body.into();
        }
        Err(_) => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
    }
    response
}

/// A statement that DQL refuses.
pub(crate) fn refused(error: &DqlError) -> ApiError {
    let refusal = ApiError::new(ErrorCode::InvalidStatement, error.to_string());
    match error.position {
        Some(at) => refusal.at(at.line as usize, at.column as usize),
        None => refusal,
    }
}
