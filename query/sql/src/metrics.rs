//! What this crate counts. No label carries a tenant's data.

use bigpeer_chassis::ErrorCode;

use crate::Format;

/// Where a query came in, and how its rows leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// HTTP, in this format.
    Http(Format),
    /// Arrow Flight SQL.
    Flight,
    /// The PostgreSQL wire protocol.
    Postgres,
}

impl Door {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Http(format) => format.as_str(),
            Self::Flight => "flight",
            Self::Postgres => "postgres",
        }
    }
}

/// How a query ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The last byte was handed over.
    Finished,
    /// The client went away before.
    Abandoned,
    /// It failed.
    Failed(ErrorCode),
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Abandoned => "abandoned",
            Self::Failed(code) => code.as_str(),
        }
    }
}

/// A query that was let in has ended.
pub(crate) fn query_ended(door: Door, outcome: Outcome, seconds: f64) {
    let (format, outcome) = (door.as_str(), outcome.as_str());
    metrics::counter!("bigpeer_sql_queries_total", "format" => format, "outcome" => outcome).increment(1);
    metrics::histogram!("bigpeer_sql_query_seconds", "format" => format).record(seconds);
}

/// Time from a query's text to its physical plan.
pub(crate) fn planned(seconds: f64) {
    metrics::histogram!("bigpeer_sql_planning_seconds").record(seconds);
}

/// A scan of DQL was asked for; whether columns could answer it.
pub(crate) fn dql(answered: bool) {
    let answer = if answered { "columns" } else { "documents" };
    metrics::counter!("bigpeer_dql_scans_total", "from" => answer).increment(1);
}

/// Rows that were handed over.
pub(crate) fn sent(rows: usize) {
    metrics::counter!("bigpeer_sql_rows_sent_total").increment(rows as u64);
}

/// Bytes that were handed over.
pub(crate) fn sent_bytes(bytes: usize) {
    metrics::counter!("bigpeer_sql_bytes_sent_total").increment(bytes as u64);
}

/// Memory that the operators of all queries hold, as of the last query that began or ended.
#[allow(clippy::cast_precision_loss, reason = "a gauge")]
pub(crate) fn memory(bytes: usize) {
    metrics::gauge!("bigpeer_sql_memory_bytes").set(bytes as f64);
}

/// Queries that run now.
pub(crate) fn running(change: f64) {
    metrics::gauge!("bigpeer_sql_queries_running").increment(change);
}

/// Whether a snapshot's tables were still known from an earlier query.
pub(crate) fn snapshot_cache(hit: bool) {
    metrics::counter!("bigpeer_sql_snapshot_cache_total", "result" => if hit { "hit" } else { "miss" }).increment(1);
}
