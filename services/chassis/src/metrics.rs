//! `/metrics`: what the process counts and measures, for Prometheus. A metric is a function in its crate's `metrics.rs`,
//! with its unit in the name and labels from enums, never a tenant's data.

use std::sync::OnceLock;
use std::time::Duration;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Upper bounds of the buckets of everything measured in seconds.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];
/// How often samples are folded into buckets when nobody asks for them.
const UPKEEP: Duration = Duration::from_secs(5);

/// The process's recorder.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Makes Prometheus the process's recorder; later calls answer the same one.
    #[must_use]
    pub fn install() -> Self {
        static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
        let handle = RECORDER.get_or_init(|| {
            let builder = PrometheusBuilder::new();
            let builder = match builder.set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS) {
                Ok(builder) => builder,
                // Only an empty list of buckets is refused.
                Err(_) => PrometheusBuilder::new(),
            };
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("another metrics recorder is installed already; /metrics stays empty");
            }
            handle
        });
        Self(handle.clone())
    }

    /// Keeps memory bounded while nobody asks for the metrics. Never ends.
    pub async fn upkeep(self) {
        loop {
            tokio::time::sleep(UPKEEP).await;
            self.0.run_upkeep();
        }
    }

    /// `GET /metrics`.
    pub fn router(&self) -> Router {
        let handle = self.0.clone();
        let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
        Router::new().route("/metrics", get(move || async move { (content_type, handle.render()) }))
    }
}

/// A request was answered. `route` is the matched pattern, never the path.
pub(crate) fn request(method: &str, route: &str, status: u16, seconds: f64) {
    let status = match status / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    };
    let labels: [(&str, metrics::SharedString); 3] =
        [("method", method.to_owned().into()), ("route", route.to_owned().into()), ("status", status.into())];
    metrics::counter!("bigpeer_http_requests_total", &labels).increment(1);
    metrics::histogram!("bigpeer_http_request_seconds", &labels).record(seconds);
}

/// A key, a token or a login was wrong, or was not looked at because too many were.
pub(crate) fn guess(outcome: &'static str) {
    metrics::counter!("bigpeer_auth_guesses_total", "outcome" => outcome).increment(1);
}

/// A request's body came too slowly.
pub(crate) fn slow_body() {
    metrics::counter!("bigpeer_http_slow_bodies_total").increment(1);
}

/// A connection was ended whose client did not read its answer.
pub(crate) fn slow_reader() {
    metrics::counter!("bigpeer_http_slow_readers_total").increment(1);
}

/// Something was refused because of the quota of its app.
pub(crate) fn over_quota(quota: &'static str) {
    metrics::counter!("bigpeer_quota_refusals_total", "quota" => quota).increment(1);
}

/// A client showed a certificate.
pub(crate) fn client_certificate(is_good: bool) {
    let outcome = if is_good { "good" } else { "refused" };
    metrics::counter!("bigpeer_tls_client_certificates_total", "outcome" => outcome).increment(1);
}

/// A TLS handshake ended.
pub(crate) fn handshake(outcome: &'static str) {
    metrics::counter!("bigpeer_tls_handshakes_total", "outcome" => outcome).increment(1);
}
