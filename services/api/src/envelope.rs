//! The envelope of `/store/execute`, for what worked and for what did not.

use axum::http::{HeaderValue, StatusCode, header};
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

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct QueryResponse<'a> {
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
    /// The response, unless it is larger than `max_bytes`.
    pub(crate) fn into_response(self, query_type: QueryType, max_bytes: usize) -> Result<Response, ApiError> {
        let body = QueryResponse {
            transaction_id: Some(self.transaction_id),
            query_type,
            items: &self.items,
            mutated_document_ids: &self.mutated,
            error: ErrorBody::default(),
            warnings: self.warnings.iter().take(MAX_WARNINGS).map(WarningBody::from).collect(),
            total_warnings_count: self.warnings.len(),
            request_id: None,
        };
        let mut out = Limited { bytes: Vec::new(), max_bytes };
        if serde_json::to_writer(&mut out, &body).is_err() {
            let message = format!("the answer is larger than {max_bytes} bytes; ask for less, with LIMIT and OFFSET");
            return Err(ApiError::new(ErrorCode::TooLarge, message));
        }
        let mut response = out.bytes.into_response();
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        if let Ok(id) = HeaderValue::from_str(&self.transaction_id.to_string()) {
            response.headers_mut().insert("x-ditto-txn-id", id);
        }
        Ok(response)
    }
}

impl<'a> From<&'a Warning> for WarningBody<'a> {
    fn from(warning: &'a Warning) -> Self {
        Self { id: warning.id.as_ref(), description: &warning.description }
    }
}

/// Collects JSON up to a limit; the only error of writing JSON to memory.
struct Limited {
    bytes: Vec<u8>,
    max_bytes: usize,
}

impl std::io::Write for Limited {
    fn write(&mut self, part: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + part.len() > self.max_bytes {
            return Err(std::io::Error::other("too large"));
        }
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
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
