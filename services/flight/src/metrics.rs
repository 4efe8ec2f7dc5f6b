//! What this crate counts. No label carries a tenant's data.

/// A call was answered, or refused.
pub(crate) fn call(method: &'static str, failed: bool) {
    let outcome = if failed { "failed" } else { "ok" };
    metrics::counter!("bigpeer_flight_calls_total", "method" => method, "outcome" => outcome).increment(1);
}

/// Connections that are open.
pub(crate) fn connections(change: f64) {
    metrics::gauge!("bigpeer_flight_connections").increment(change);
}
