//! What the log tells the metrics: one function per event. Units are in the names; nothing of a tenant is in a label.

use std::time::Duration;

/// A batch was written and synced.
pub(crate) fn committed(took: Duration, records: u32, bytes: usize) {
    metrics::histogram!("bigpeer_log_commit_seconds").record(took.as_secs_f64());
    metrics::histogram!("bigpeer_log_commit_records").record(f64::from(records));
    metrics::counter!("bigpeer_log_written_bytes_total").increment(bytes as u64);
}

/// A sync failed; the log has stopped.
pub(crate) fn sync_failed() {
    metrics::counter!("bigpeer_log_sync_failures_total").increment(1);
}

/// Appends were refused because the disk is full.
pub(crate) fn full() {
    metrics::counter!("bigpeer_log_refused_full_total").increment(1);
}
