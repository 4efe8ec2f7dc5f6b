//! Metrics: one function for each, so that names and labels are in one place.

use bigpeer_types::AppId;
use metrics::{counter, gauge, histogram};

use crate::manifest::SegmentMeta;

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

/// Segments were written and committed. What compactions write beside what flushes write is the write amplification.
pub(crate) fn written(app: &AppId, kind: &'static str, documents: u64, bytes: u64) {
    counter!("bigpeer_tables_documents_written_total", "app" => app.to_string(), "kind" => kind).increment(documents);
    counter!("bigpeer_tables_bytes_written_total", "app" => app.to_string(), "kind" => kind).increment(bytes);
}

/// A flush or a compaction has ended.
pub(crate) fn finished(app: &AppId, kind: &'static str, seconds: f64) {
    histogram!("bigpeer_tables_commit_seconds", "app" => app.to_string(), "kind" => kind).record(seconds);
}

/// Bytes in the manifest's files, and those of them whose rows count: their ratio is the space amplification.
#[allow(clippy::cast_precision_loss, reason = "gauges")]
pub(crate) fn rows<'a>(app: &AppId, segments: impl Iterator<Item = &'a SegmentMeta>) {
    let (mut bytes, mut live) = (0.0, 0.0);
    for segment in segments {
        bytes += segment.size as f64;
        live += segment.size as f64 * segment.live_rows() as f64 / f64::from(segment.rows.max(1));
    }
    gauge!("bigpeer_tables_segment_bytes", "app" => app.to_string(), "rows" => "all").set(bytes);
    gauge!("bigpeer_tables_segment_bytes", "app" => app.to_string(), "rows" => "live").set(live);
}

/// Segment files and manifests that were deleted.
pub(crate) fn collected(app: &AppId, files: usize) {
    counter!("bigpeer_tables_files_deleted_total", "app" => app.to_string()).increment(files as u64);
}

/// A request to object storage has ended.
pub(crate) fn request(operation: &'static str, outcome: &'static str, bytes: u64, seconds: f64) {
    counter!("bigpeer_objects_requests_total", "operation" => operation, "outcome" => outcome).increment(1);
    counter!("bigpeer_objects_bytes_total", "operation" => operation).increment(bytes);
    histogram!("bigpeer_objects_request_seconds", "operation" => operation).record(seconds);
}

/// One attempt of a request to S3 was answered, or not: repetitions count.
pub(crate) fn attempt(method: &'static str, status: Option<u16>) {
    let status = match status {
        None => "none",
        Some(429 | 503) => "throttled",
        Some(200..=299) => "2xx",
        Some(300..=399) => "3xx",
        Some(400..=499) => "4xx",
        Some(_) => "5xx",
    };
    counter!("bigpeer_objects_s3_attempts_total", "method" => method, "status" => status).increment(1);
}

/// Blocks of objects were looked for in the cache and found there, or not: `memory`, `disk` or `miss`.
pub(crate) fn cached(found: &'static str, blocks: u64) {
    counter!("bigpeer_objects_cache_blocks_total", "found" => found).increment(blocks);
}
