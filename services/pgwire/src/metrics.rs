//! What this crate counts. No label carries a tenant's data.

/// Sessions that are open.
pub(crate) fn sessions(change: f64) {
    metrics::gauge!("bigpeer_pg_sessions").increment(change);
}

/// A session has ended before it could ask anything, or was not let in.
pub(crate) fn refused(reason: &'static str) {
    metrics::counter!("bigpeer_pg_sessions_refused_total", "reason" => reason).increment(1);
}

/// A statement was answered, or refused with this SQLSTATE.
pub(crate) fn statement(sqlstate: &'static str) {
    metrics::counter!("bigpeer_pg_statements_total", "sqlstate" => sqlstate).increment(1);
}
