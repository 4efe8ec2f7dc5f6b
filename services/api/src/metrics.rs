//! What the data API counts.

/// A statement was answered.
pub(crate) fn statement(query_type: &'static str, outcome: &'static str, seconds: f64) {
    metrics::counter!("bigpeer_api_statements_total", "type" => query_type, "outcome" => outcome).increment(1);
    metrics::histogram!("bigpeer_api_statement_seconds", "type" => query_type).record(seconds);
}

/// A mutation has to run again because what it read changed.
pub(crate) fn retried() {
    metrics::counter!("bigpeer_api_mutations_retried_total").increment(1);
}

/// So many transactions went into the log in one append.
#[allow(clippy::cast_precision_loss, reason = "a count below 2^52")]
pub(crate) fn appended(transactions: usize) {
    metrics::histogram!("bigpeer_api_append_transactions").record(transactions as f64);
}

/// An attachment was received, whole.
pub(crate) fn attachment_received(bytes: u64) {
    metrics::counter!("bigpeer_api_attachments_received_total").increment(1);
    metrics::counter!("bigpeer_api_attachments_received_bytes_total").increment(bytes);
}

/// So many bytes of an attachment were asked for, and may be had.
pub(crate) fn attachment_sent(bytes: u64) {
    metrics::counter!("bigpeer_api_attachments_sent_bytes_total").increment(bytes);
}

/// An upload was not finished in time.
pub(crate) fn upload_expired() {
    metrics::counter!("bigpeer_api_attachment_uploads_expired_total").increment(1);
}
