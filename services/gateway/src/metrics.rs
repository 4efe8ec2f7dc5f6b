//! What the gateway counts.

use bigpeer_protocol::pb::{CloseCode, RejectCode};

/// A session was opened.
pub(crate) fn session_opened() {
    metrics::gauge!("bigpeer_gateway_sessions").increment(1.0);
}

/// A session ended, and why.
pub(crate) fn session_ended(code: CloseCode) {
    metrics::gauge!("bigpeer_gateway_sessions").decrement(1.0);
    metrics::counter!("bigpeer_gateway_sessions_closed_total", "code" => code.as_str_name()).increment(1);
}

/// So many subscriptions were opened, or ended if negative.
pub(crate) fn subscriptions(by: f64) {
    metrics::gauge!("bigpeer_gateway_subscriptions").increment(by);
}

/// A session has something that its peer was not sent yet, or has nothing left.
pub(crate) fn behind(is: bool) {
    metrics::gauge!("bigpeer_gateway_sessions_behind").increment(if is { 1.0 } else { -1.0 });
}

/// A connection was turned away, because there are too many.
pub(crate) fn turned_away() {
    metrics::counter!("bigpeer_gateway_sessions_turned_away_total").increment(1);
}

/// A frame arrived.
pub(crate) fn received(bytes: usize) {
    metrics::counter!("bigpeer_gateway_received_bytes_total").increment(bytes as u64);
}

/// A frame that cannot be read arrived.
pub(crate) fn malformed_frame() {
    metrics::counter!("bigpeer_gateway_malformed_frames_total").increment(1);
}

/// A frame left, with so many bytes on the wire.
pub(crate) fn sent(bytes: usize) {
    metrics::counter!("bigpeer_gateway_sent_bytes_total").increment(bytes as u64);
}

/// Transactions were appended with one call.
pub(crate) fn appended(transactions: usize) {
    metrics::counter!("bigpeer_gateway_appends_total").increment(1);
    metrics::counter!("bigpeer_gateway_appended_transactions_total").increment(transactions as u64);
}

/// A transaction was rejected.
pub(crate) fn rejected(code: RejectCode) {
    metrics::counter!("bigpeer_gateway_rejected_transactions_total", "code" => code.as_str_name()).increment(1);
}

/// Live changes were queued for a session.
pub(crate) fn delivered(changes: usize) {
    metrics::counter!("bigpeer_gateway_live_changes_total").increment(changes as u64);
}

/// Documents were sent from a snapshot.
pub(crate) fn caught_up_documents(documents: usize) {
    metrics::counter!("bigpeer_gateway_snapshot_documents_total").increment(documents as u64);
}

/// A session was too slow and has to catch up from a snapshot.
pub(crate) fn put_back() {
    metrics::counter!("bigpeer_gateway_put_back_total").increment(1);
}

/// The hub fell behind the store's feed.
pub(crate) fn hub_lagged() {
    metrics::counter!("bigpeer_gateway_hub_lagged_total").increment(1);
}

/// A peer was asked what it holds.
pub(crate) fn asked_held() {
    metrics::counter!("bigpeer_gateway_asked_held_total").increment(1);
}

/// Sessions wait for documents of a batch to be read.
pub(crate) fn cold_batch() {
    metrics::counter!("bigpeer_gateway_cold_batches_total").increment(1);
}

/// A cursor could not be used.
pub(crate) fn resync() {
    metrics::counter!("bigpeer_gateway_resyncs_total").increment(1);
}

/// So many bytes of documents wait for sessions, in the whole process.
pub(crate) fn waiting_bytes(bytes: usize) {
    let bytes = u32::try_from(bytes >> 10).map_or(f64::from(u32::MAX), f64::from) * 1024.0;
    metrics::gauge!("bigpeer_gateway_waiting_bytes").set(bytes);
}

/// A session lost what waited for it, because too much waited in the whole process.
pub(crate) fn relieved() {
    metrics::counter!("bigpeer_gateway_relieved_total").increment(1);
}
