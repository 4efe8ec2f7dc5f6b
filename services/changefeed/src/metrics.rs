//! What the change feed counts.

use bigpeer_chassis::Name;
use bigpeer_types::AppId;

use crate::odometer::Lag;

/// A stream was opened, or ended if negative.
pub(crate) fn streams(by: f64) {
    metrics::gauge!("bigpeer_feed_streams").increment(by);
}

/// So many events were streamed.
pub(crate) fn streamed(events: usize) {
    metrics::counter!("bigpeer_feed_streamed_events_total").increment(events as u64);
}

fn labels(app: &AppId, name: &Name) -> [(&'static str, String); 2] {
    [("app", app.to_string()), ("feed", name.to_string())]
}

/// A feed delivered so many events.
pub(crate) fn delivered(app: &AppId, name: &Name, events: u64) {
    metrics::counter!("bigpeer_feed_delivered_events_total", &labels(app, name)).increment(events);
}

/// A feed failed at something.
pub(crate) fn failed(app: &AppId, name: &Name) {
    metrics::counter!("bigpeer_feed_errors_total", &labels(app, name)).increment(1);
}

/// A feed gave up an event.
pub(crate) fn dead_letter(app: &AppId, name: &Name) {
    metrics::counter!("bigpeer_feed_dead_letters_total", &labels(app, name)).increment(1);
}

/// A feed moved over a gap: its reader has to start anew.
pub(crate) fn gap(app: &AppId, name: &Name) {
    metrics::counter!("bigpeer_feed_requeries_total", &labels(app, name)).increment(1);
}

/// A webhook was tried.
#[allow(clippy::cast_precision_loss, reason = "milliseconds of a request")]
pub(crate) fn delivery(status: Option<u16>, latency_ms: u64) {
    let status = status.map_or_else(|| "none".to_owned(), |status| format!("{}xx", status / 100));
    metrics::histogram!("bigpeer_feed_webhook_seconds", "status" => status).record(latency_ms as f64 / 1000.0);
}

/// How far a feed is behind.
#[allow(clippy::cast_precision_loss, reason = "gauges are floats")]
pub(crate) fn lag(app: &AppId, name: &Name, lag: &Lag) {
    let labels = labels(app, name);
    metrics::gauge!("bigpeer_feed_lag_transactions", &labels).set(lag.transactions as f64);
    metrics::gauge!("bigpeer_feed_lag_bytes", &labels).set(lag.bytes as f64);
    metrics::gauge!("bigpeer_feed_lag_seconds", &labels).set(lag.ms as f64 / 1000.0);
}

/// Forgets how far a feed was behind, when it is somebody else's or gone.
pub(crate) fn no_lag(app: &AppId, name: &Name) {
    lag(app, name, &Lag::default());
}

/// When a feed delivered something last, in milliseconds since the epoch.
#[allow(clippy::cast_precision_loss, reason = "milliseconds as seconds")]
pub(crate) fn last_delivery(app: &AppId, name: &Name, at_ms: u64) {
    let gauge = metrics::gauge!("bigpeer_feed_last_delivery_timestamp_seconds", &labels(app, name));
    gauge.set(at_ms as f64 / 1000.0);
}
