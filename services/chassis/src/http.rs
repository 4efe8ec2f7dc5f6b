//! What surrounds every route: the request's id, one log line and one count per request, JSON for what axum itself refuses,
//! and for panics.

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use bigpeer_types::limits::MAX_REQUEST_BYTES;
use bigpeer_types::{AppId, Clock, IdGenerator};
use serde::de::DeserializeOwned;
use tower_http::catch_panic::CatchPanicLayer;

use crate::pace::{Noted, Paced, TooSlow};
use crate::strict::Strict;
use crate::traffic::counted;
use crate::{ApiError, ClientAddr, ErrorCode, as_client, metrics};

const REQUEST_ID: &str = "x-request-id";

tokio::task_local! {
    static CURRENT: String;
}

/// The id of the request that is being answered, if this is called while one is.
#[must_use]
pub fn current_request_id() -> Option<String> {
    CURRENT.try_with(Clone::clone).ok()
}

/// Puts around all routes what every request needs: its id (the client's `X-Request-Id` when it is sane), its log line, its
/// metrics, the limits of how large and how slow bodies are, JSON answers for unknown paths, wrong methods and panics.
pub fn finish_router(router: Router, clock: Arc<dyn Clock>, ids: Arc<dyn IdGenerator>) -> Router {
    router
        .fallback(|uri: Uri| async move {
            let path: String = uri.path().chars().take(200).collect();
            ApiError::new(
                ErrorCode::NotFound,
                format!("there is nothing at {path}; see docs/http-api.md for the paths"),
            )
        })
        .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
            let path: String = uri.path().chars().take(200).collect();
            ApiError::new(ErrorCode::MethodNotAllowed, format!("{path} does not answer to {method}"))
        })
        .layer(CatchPanicLayer::custom(panicked))
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .layer(from_fn(move |request: Request, next: Next| {
            let (clock, ids) = (Arc::clone(&clock), Arc::clone(&ids));
            async move { around(request, next, clock.as_ref(), ids.as_ref()).await }
        }))
}

async fn around(request: Request, next: Next, clock: &dyn Clock, ids: &dyn IdGenerator) -> Response {
    let id = sane_id(request.headers()).unwrap_or_else(|| ids.uuid());
    let method = request.method().clone();
    let route =
        request.extensions().get::<MatchedPath>().map_or("unmatched".to_owned(), |path| path.as_str().to_owned());
    let started = clock.monotonic();
    let from = request.extensions().get::<ClientAddr>().map(|from| from.0.ip());
    let (version, uri, slow) = (request.version(), request.uri().clone(), Noted::default());
    let request = paced(request, &slow);
    let answer = as_client(from, counted(request, |request| next.run(request)));
    let mut response = CURRENT.scope(id.clone(), answer).await;
    if let Some(slow) = slow.get().filter(|_| !response.status().is_success()) {
        // To whom the body merely broke off, it is said here why.
        if response.status() != StatusCode::REQUEST_TIMEOUT {
            response = CURRENT.sync_scope(id.clone(), || slow.refusal(&method, &uri).into_response());
        }
        if version < Version::HTTP_2 {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
    let taken = clock.monotonic().saturating_sub(started);
    let status = response.status().as_u16();
    metrics::request(method.as_str(), &route, status, taken.as_secs_f64());
    // Probes and scrapes come every few seconds and say nothing.
    if matches!(route.as_str(), "/healthz" | "/readyz" | "/metrics") {
        tracing::debug!(%method, route, status, "request");
    } else {
        let ms = u64::try_from(taken.as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(%method, route, status, ms, request_id = id, "request");
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The request, whose body has to come on if there is one.
fn paced(request: Request, slow: &Noted) -> Request {
    if request.body().is_end_stream() {
        return request;
    }
    request.map(|body| Body::new(Paced::noting(body, Noted::clone(slow))))
}

fn sane_id(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(REQUEST_ID)?.to_str().ok()?;
    let sane =
        (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    sane.then(|| text.to_owned())
}

fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let what = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    ApiError::internal(&format!("panic: {}", what.unwrap_or("unknown"))).into_response()
}

/// The app that a path names. What is no app id is answered as an unknown app is.
///
/// # Errors
/// [`ApiError::unauthorized`].
pub fn app_of(text: &str) -> Result<AppId, ApiError> {
    AppId::new(text).map_err(|_| ApiError::unauthorized())
}

/// A JSON body; objects in it are written as objects. Refusals are [`ApiError`]s that say where the body is wrong; the content type is not
/// insisted on.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        Self::parse(&body_bytes(request).await?)
    }
}

/// The whole body of a request.
///
/// # Errors
/// `too_large`, `timeout` when it comes too slowly, and `bad_request` when it ends early.
pub async fn body_bytes(request: Request) -> Result<bytes::Bytes, ApiError> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    bytes::Bytes::from_request(request, &()).await.map_err(|rejection| {
        if let Some(slow) = TooSlow::among_causes(&rejection) {
            return slow.refusal(&method, &uri);
        }
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let message = format!("the request's body is larger than {MAX_REQUEST_BYTES} bytes; send less at once");
            ApiError::new(ErrorCode::TooLarge, message)
        } else {
            ApiError::new(ErrorCode::BadRequest, "the request's body ended early")
        }
    })
}

impl<T: DeserializeOwned> Json<T> {
    /// Reads `bytes`.
    ///
    /// # Errors
    /// `bad_request`, with the position of what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let read = T::deserialize(Strict(&mut reader)).and_then(|read| reader.end().map(|()| read));
        read.map(Self).map_err(|error| {
            let text = error.to_string();
            let text = text.split(" at line ").next().unwrap_or_default();
            let shown: String = text.chars().take(300).collect();
            ApiError::new(ErrorCode::BadRequest, format!("the body is not the JSON expected here: {shown}"))
                .at(error.line().max(1), error.column().max(1))
        })
    }

    /// Reads a body of which every field may be left out, and so the whole.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_or_default(bytes: &[u8]) -> Result<Self, ApiError>
    where
        T: Default,
    {
        if bytes.trim_ascii().is_empty() { Ok(Self(T::default())) } else { Self::parse(bytes) }
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(ErrorCode::BadRequest, rejection.body_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;
    use axum::routing::{get, post};
    use bigpeer_types::{ManualClock, SeededIds};
    use tower::ServiceExt;

    #[derive(serde::Deserialize)]
    struct Counted {
        list: Vec<u32>,
    }

    async fn ask(method: &str, path: &str, id: &str, body: Vec<u8>) -> (StatusCode, HeaderMap, serde_json::Value) {
        #[allow(clippy::unused_async, reason = "axum's handlers are futures")]
        async fn count(Json(Counted { list }): Json<Counted>) -> axum::Json<usize> {
            axum::Json(list.len())
        }
        let router = Router::new().route("/count", post(count)).route(
            "/panic",
            get(|| async {
                assert!(std::hint::black_box(false), "password in a panic");
                "unreachable"
            }),
        );
        let router = finish_router(router, Arc::new(ManualClock::new(0)), Arc::new(SeededIds::new(1)));
        let request = Request::builder().method(method).uri(path).header(REQUEST_ID, id);
        let response = router.oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        (parts.status, parts.headers, serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test]
    async fn every_refusal_is_json_with_the_requests_id() {
        for (method, path, body, status, code) in [
            ("GET", "/nothing", vec![], 404, "not_found"),
            ("GET", "/count", vec![], 405, "method_not_allowed"),
            ("GET", "/panic", vec![], 500, "internal"),
            ("POST", "/count", b"{\"list\": [1,\n 2,,]}".to_vec(), 400, "bad_request"),
            ("POST", "/count", b" [[1, 2]]".to_vec(), 400, "bad_request"),
            ("POST", "/count", vec![b' '; MAX_REQUEST_BYTES + 1], 413, "too_large"),
        ] {
            let (got, headers, json) = ask(method, path, "mine-1", body).await;
            assert_eq!((got.as_u16(), json["error"]["code"].as_str()), (status, Some(code)), "{path}");
            assert_eq!(
                (headers[REQUEST_ID].to_str().unwrap(), json["request_id"].as_str()),
                ("mine-1", Some("mine-1"))
            );
            assert!(!json.to_string().contains("password"));
        }
    }

    #[tokio::test]
    async fn broken_json_is_answered_with_its_position() {
        let (_, _, json) = ask("POST", "/count", "a", b"{\"list\": [1,\n 2,,]}".to_vec()).await;
        assert_eq!(json["error"]["position"], serde_json::json!({"line": 2, "column": 4}));
    }

    #[tokio::test]
    async fn an_id_that_could_forge_a_log_line_is_replaced() {
        let (_, headers, json) = ask("POST", "/count", "a b", b"{\"list\": [1]}".to_vec()).await;
        assert_eq!((headers[REQUEST_ID].len(), json), (36, serde_json::json!(1)));
    }
}
