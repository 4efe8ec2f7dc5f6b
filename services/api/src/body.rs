//! Bodies: JSON, or CBOR where it is sent (`Content-Type`) or asked for (`Accept`). Errors are always JSON.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use bigpeer_chassis::{ApiError, ErrorCode, Json, body_bytes};
use bigpeer_crdt::{Object, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;

const CBOR: &str = "application/cbor";

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Json,
    Cbor,
}

impl Format {
    /// The first of the accepted types that is one of these.
    pub(crate) fn accepted(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let named = accepted.flat_map(|value| value.split(',')).find_map(|part| {
            match part.split(';').next().unwrap_or("").trim().to_ascii_lowercase().as_str() {
                CBOR => Some(Self::Cbor),
                "application/json" | "application/*" | "*/*" => Some(Self::Json),
                _ => None,
            }
        });
        named.unwrap_or_default()
    }

    /// The answer, unless it is larger than `max_bytes`.
    pub(crate) fn answer(
        self,
        body: &impl Serialize,
        transaction_id: Option<u64>,
        max_bytes: usize,
    ) -> Result<Response, ApiError> {
        let mut out = Limited { bytes: Vec::with_capacity(256), max_bytes };
        let written = match self {
            Self::Json => serde_json::to_writer(&mut out, body).is_ok(),
            Self::Cbor => ciborium::into_writer(body, &mut out).is_ok(),
        };
        if !written {
            let message = format!("the answer is larger than {max_bytes} bytes; ask for less, with LIMIT and OFFSET");
            return Err(ApiError::new(ErrorCode::TooLarge, message));
        }
        let mut response = Response::new(Body::from(out.bytes));
        let media_type = match self {
            Self::Json => "application/json",
            Self::Cbor => CBOR,
        };
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        if let Some(id) = transaction_id {
            response.headers_mut().insert(HeaderName::from_static("x-ditto-txn-id"), HeaderValue::from(id));
        }
        Ok(response)
    }
}

/// Collects an answer up to a limit; the only error of writing to memory.
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

/// The request's body. The content type is not insisted on, except that CBOR must say so.
pub(crate) async fn read<T: DeserializeOwned>(request: Request) -> Result<T, ApiError> {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let cbor = content_type.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case(CBOR);
    let bytes = body_bytes(request).await?;
    if !cbor {
        return Json::parse(&bytes).map(|Json(body)| body);
    }
    let wrong = |what: String| {
        let shown: String = what.chars().take(300).collect();
        ApiError::new(ErrorCode::BadRequest, format!("the body is not the CBOR expected here: {shown}"))
    };
    let body: ciborium::Value = ciborium::de::from_reader_with_recursion_limit(bytes.as_ref(), 128)
        .map_err(|error| wrong(error.to_string()))?;
    let json = value(body).map_err(wrong)?.to_json();
    serde_json::from_value(json).map_err(|error| wrong(error.to_string()))
}

#[allow(clippy::wildcard_enum_match_arm, reason = "the enum is open")]
fn value(cbor: ciborium::Value) -> Result<Value, String> {
    Ok(match cbor {
        ciborium::Value::Null => Value::Null,
        ciborium::Value::Bool(flag) => Value::Bool(flag),
        ciborium::Value::Integer(number) => {
            let number = i128::from(number);
            match (i64::try_from(number), u64::try_from(number)) {
                (Ok(number), _) => Value::Int(number),
                (Err(_), Ok(number)) => Value::UInt(number),
                (Err(_), Err(_)) => return Err(format!("{number} has more than 64 bits")),
            }
        }
        ciborium::Value::Float(number) if number.is_finite() => Value::Float(number),
        ciborium::Value::Float(_) => return Err("a number must be finite".to_owned()),
        ciborium::Value::Text(text) => Value::from(text),
        ciborium::Value::Bytes(bytes) => Value::from(bytes),
        ciborium::Value::Array(items) => Value::Array(items.into_iter().map(value).collect::<Result<_, _>>()?),
        ciborium::Value::Map(entries) => {
            let entries = entries.into_iter().map(|(key, item)| match key {
                ciborium::Value::Text(key) => Ok((key, value(item)?)),
                _ => Err("the keys of a map must be text".to_owned()),
            });
            Value::Object(entries.collect::<Result<Vec<_>, _>>()?.into_iter().collect::<Object>())
        }
        ciborium::Value::Tag(_, inner) => value(*inner)?,
        _ => return Err("something that JSON lacks".to_owned()),
    })
}
