//! `/healthz` (alive) and `/readyz` (able to serve, and if not, why not). Readiness is asked of the parts when it is asked
//! for, never remembered.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The parts that must be able to serve before the process says that it can.
#[derive(Clone, Default)]
pub struct Health(Arc<RwLock<Vec<(&'static str, Check)>>>);

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("reasons", &self.reasons()).finish()
    }
}

impl Health {
    /// With no parts: ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part. `check` is called for each question: it must be quick, and its error is shown to anyone.
    pub fn register(&self, part: &'static str, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push((part, Box::new(check)));
    }

    /// Why it is not ready, part by part; empty when it is.
    #[must_use]
    pub fn reasons(&self) -> Vec<(&'static str, String)> {
        let parts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        parts.iter().filter_map(|(part, check)| check().err().map(|reason| (*part, reason))).collect()
    }

    /// `GET /healthz` and `GET /readyz`.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/healthz", get(|| async { Json(json!({"alive": true})) }))
            .route("/readyz", get(ready))
            .with_state(self.clone())
    }
}

async fn ready(State(health): State<Health>) -> Response {
    let reasons = health.reasons();
    if reasons.is_empty() {
        return Json(json!({"ready": true})).into_response();
    }
    let reasons: Vec<_> = reasons.into_iter().map(|(part, reason)| json!({"part": part, "reason": reason})).collect();
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"ready": false, "reasons": reasons}))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tower::ServiceExt;

    async fn status(health: &Health, path: &str) -> StatusCode {
        let request = axum::http::Request::get(path).body(axum::body::Body::empty()).unwrap();
        health.router().oneshot(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn readiness_follows_the_parts_and_aliveness_does_not() {
        let (health, up) = (Health::new(), Arc::new(AtomicBool::new(false)));
        assert_eq!(status(&health, "/readyz").await, StatusCode::OK);
        let seen = Arc::clone(&up);
        health.register("log", move || seen.load(Ordering::SeqCst).then_some(()).ok_or("replaying".to_owned()));
        assert_eq!(status(&health, "/readyz").await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(status(&health, "/healthz").await, StatusCode::OK);
        assert_eq!(health.reasons(), [("log", "replaying".to_owned())]);
        up.store(true, Ordering::SeqCst);
        assert_eq!(status(&health, "/readyz").await, StatusCode::OK);
    }
}
