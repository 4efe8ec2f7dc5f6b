//! The one shape in which a failed request is answered: a stable code, a message that says what to do, the request's id.

use std::fmt;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use thiserror::Error;

/// What went wrong, as programs read it. Stable: names are never reused for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request is malformed.
    BadRequest,
    /// A DQL or SQL statement that cannot be understood or carried out.
    InvalidStatement,
    /// No valid key or token for this app.
    Unauthorized,
    /// The key or token is valid, and may not do this.
    Forbidden,
    /// Nothing is there.
    NotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// The request took longer than it may.
    Timeout,
    /// It contradicts what is stored, now; a new attempt may succeed.
    Conflict,
    /// The body, the statement or the result is larger than it may be.
    TooLarge,
    /// The body's content type is not understood.
    UnsupportedMediaType,
    /// Too many requests; see `Retry-After`.
    TooManyRequests,
    /// More than the app's quota allows; see `Retry-After`.
    QuotaExceeded,
    /// A defect of the server.
    Internal,
    /// The server cannot serve this now; a later attempt may succeed.
    Unavailable,
    /// The server cannot say whether a write happened.
    Unknown,
}

impl ErrorCode {
    /// Every code.
    pub const ALL: [Self; 15] = [
        Self::BadRequest,
        Self::InvalidStatement,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Timeout,
        Self::Conflict,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::TooManyRequests,
        Self::QuotaExceeded,
        Self::Internal,
        Self::Unavailable,
        Self::Unknown,
    ];

    /// The HTTP status that goes with it.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest | Self::InvalidStatement => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooManyRequests | Self::QuotaExceeded => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable | Self::Unknown => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The code as it stands in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::InvalidStatement => "invalid_statement",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Timeout => "timeout",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::TooManyRequests => "too_many_requests",
            Self::QuotaExceeded => "quota_exceeded",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
        }
    }
}

/// Where in a text something is wrong; lines and columns count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// A failed request. Holds only what a client may read: the chain of causes is logged where it is handled.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{}: {message}", code.as_str())]
pub struct ApiError {
    /// What went wrong, for programs.
    pub code: ErrorCode,
    /// What went wrong and what to do, for people.
    pub message: String,
    /// Where in the request's text.
    pub position: Option<Position>,
    /// After how many seconds another attempt makes sense.
    pub retry_after_secs: Option<u32>,
}

#[derive(Serialize)]
struct Body<'a> {
    error: Inner<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

#[derive(Serialize)]
struct Inner<'a> {
    code: ErrorCode,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<Position>,
}

impl ApiError {
    /// The error of `code` with `message`.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let retry_after_secs = match code {
            ErrorCode::Unavailable | ErrorCode::TooManyRequests | ErrorCode::QuotaExceeded | ErrorCode::Unknown => {
                Some(1)
            }
            ErrorCode::BadRequest
            | ErrorCode::InvalidStatement
            | ErrorCode::Unauthorized
            | ErrorCode::Forbidden
            | ErrorCode::NotFound
            | ErrorCode::MethodNotAllowed
            | ErrorCode::Timeout
            | ErrorCode::Conflict
            | ErrorCode::TooLarge
            | ErrorCode::UnsupportedMediaType
            | ErrorCode::Internal => None,
        };
        Self { code, message: message.into(), position: None, retry_after_secs }
    }

    /// The one answer to every request whose key or token does not open this app: missing, wrong, expired, of another
    /// app, or the app does not exist. All look the same, so that nothing can be found out by asking.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(
            ErrorCode::Unauthorized,
            "no valid API key or token for this app; send one of this app as 'Authorization: Bearer KEY'",
        )
    }

    /// A defect: `cause` is logged with the request's id, and not shown.
    #[must_use]
    pub fn internal(cause: &dyn fmt::Display) -> Self {
        let request_id = crate::http::current_request_id().unwrap_or_default();
        tracing::error!(request_id, %cause, "a request failed for a reason that is not the client's");
        Self::new(ErrorCode::Internal, "the server failed; report the request id to its operator")
    }

    /// The error, pointing at a place in the request's text.
    #[must_use]
    pub fn at(mut self, line: usize, column: usize) -> Self {
        self.position = Some(Position { line, column });
        self
    }

    /// The error, with a number of seconds to wait before another attempt.
    #[must_use]
    pub const fn retry_after(mut self, secs: u32) -> Self {
        self.retry_after_secs = Some(secs);
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Body {
            error: Inner { code: self.code, message: &self.message, position: self.position },
            request_id: crate::http::current_request_id(),
        };
        let mut response = (self.code.status(), axum::Json(body)).into_response();
        if let Some(secs) = self.retry_after_secs {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if self.code == ErrorCode::Unauthorized {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A time to wait in whole seconds, one at least.
pub(crate) fn whole_secs(wait: std::time::Duration) -> u32 {
    let secs = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    u32::try_from(secs.max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_read_the_same_in_json_and_text() {
        let mut seen = std::collections::BTreeSet::new();
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert!(seen.insert(code.as_str()));
            assert!(code.status().is_client_error() || code.status().is_server_error());
        }
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let response = ApiError::new(ErrorCode::TooManyRequests, "slow down").retry_after(7).into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "7");
    }
}
