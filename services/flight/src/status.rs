//! Errors as gRPC has them.

use bigpeer_chassis::{ApiError, ErrorCode};
use tonic::{Code, Status};

/// `error` for a client: its message, and the code that goes with it.
pub(crate) fn status(error: &ApiError) -> Status {
    let code = match error.code {
        ErrorCode::BadRequest | ErrorCode::InvalidStatement | ErrorCode::UnsupportedMediaType => Code::InvalidArgument,
        ErrorCode::Unauthorized => Code::Unauthenticated,
        ErrorCode::Forbidden => Code::PermissionDenied,
        ErrorCode::NotFound => Code::NotFound,
        ErrorCode::MethodNotAllowed => Code::Unimplemented,
        ErrorCode::Timeout => Code::DeadlineExceeded,
        ErrorCode::Conflict => Code::Aborted,
        ErrorCode::TooLarge | ErrorCode::TooManyRequests | ErrorCode::QuotaExceeded => Code::ResourceExhausted,
        ErrorCode::Internal => Code::Internal,
        ErrorCode::Unavailable | ErrorCode::Unknown => Code::Unavailable,
    };
    let place = error.position.map(|place| format!(" (line {}, column {})", place.line, place.column));
    let again = error.retry_after_secs.map(|secs| format!(" (again in {secs} s)"));
    let message = format!("{}{}{}", error.message, place.unwrap_or_default(), again.unwrap_or_default());
    Status::new(code, message)
}

/// A request that does not make sense.
pub(crate) fn bad(message: impl Into<String>) -> Status {
    Status::invalid_argument(message.into())
}

/// What drivers may ask for and we do not have.
pub(crate) fn read_only() -> Status {
    Status::unimplemented("SQL is read-only here; write with DQL or from a device")
}
