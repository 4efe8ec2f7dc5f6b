//! Metrics: one function for each, so that names and labels are in one place.

use bigpeer_types::AppId;
use metrics::{counter, gauge, histogram};

/// Bytes in the overlay.
#[allow(clippy::cast_precision_loss, reason = "a gauge")]
pub(crate) fn overlay(app: &AppId, bytes: usize) {
    gauge!("bigpeer_tables_overlay_bytes", "app" => app.to_string()).set(bytes as f64);
}

/// The overlay is full: nothing is applied until a flush.
pub(crate) fn overlay_full(app: &AppId) {
    counter!("bigpeer_tables_overlay_full_total", "app" => app.to_string()).increment(1);
}

/// Transactions that were applied.
pub(crate) fn applied(app: &AppId, transactions: usize) {
    counter!("bigpeer_tables_transactions_applied_total", "app" => app.to_string()).increment(transactions as u64);
}

/// A manifest was committed.
pub(crate) fn committed(app: &AppId, kind: &'static str, seconds: f64, documents: u64, bytes: u64) {
    counter!("bigpeer_tables_documents_written_total", "app" => app.to_string(), "kind" => kind).increment(documents);
    counter!("bigpeer_tables_bytes_written_total", "app" => app.to_string(), "kind" => kind).increment(bytes);
    histogram!("bigpeer_tables_commit_seconds", "app" => app.to_string(), "kind" => kind).record(seconds);
}

/// Segment files and manifests that were deleted.
pub(crate) fn collected(app: &AppId, files: usize) {
    counter!("bigpeer_tables_files_deleted_total", "app" => app.to_string()).increment(files as u64);
}
