//! SQL as `serve` offers it: its limits, and doors besides HTTP.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bigpeer_chassis::Tls;
use bigpeer_pgwire::PgSettings;
use bigpeer_sql::{Spill, SqlContext, SqlSettings};
use clap::Args;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::Parts;
use crate::failure::Failure;
use crate::output;

/// Flags of SQL.
#[derive(Args, Clone, Debug)]
pub(super) struct SqlArgs {
    /// Speak the PostgreSQL wire protocol here, read-only: the database is an app, the password a key of it
    #[arg(long, env = "BIGPEER_LISTEN_PG", value_name = "ADDR:PORT", help_heading = "SQL")]
    listen_pg: Option<String>,
    /// Speak Arrow Flight SQL here: the user is an app, the password a key of it
    #[arg(long, env = "BIGPEER_LISTEN_FLIGHT", value_name = "ADDR:PORT", help_heading = "SQL")]
    listen_flight: Option<String>,
    /// Most SQL queries at once
    #[arg(long, env = "BIGPEER_SQL_MAX_QUERIES", default_value_t = SqlSettings::default().max_concurrent, value_name = "N", help_heading = "SQL")]
    sql_max_queries: usize,
    /// Most SQL queries of one key at once
    #[arg(long, env = "BIGPEER_SQL_MAX_QUERIES_PER_KEY", default_value_t = SqlSettings::default().max_concurrent_per_key, value_name = "N", help_heading = "SQL")]
    sql_max_queries_per_key: usize,
    /// How long one SQL query may take, reading of its answer included, in seconds
    #[arg(long, env = "BIGPEER_SQL_TIME_LIMIT_SECS", default_value_t = SqlSettings::default().time_limit.as_secs(), value_name = "SECS", help_heading = "SQL")]
    sql_time_limit_secs: u64,
    /// Most bytes of stored data that one SQL query may read
    #[arg(long, env = "BIGPEER_SQL_SCAN_BYTES", default_value_t = SqlSettings::default().scan_bytes, value_name = "BYTES", help_heading = "SQL")]
    sql_scan_bytes: u64,
    /// Memory for sorts, joins and groups of one SQL query, in bytes
    #[arg(long, env = "BIGPEER_SQL_QUERY_MEMORY_BYTES", default_value_t = SqlSettings::default().query_memory_bytes, value_name = "BYTES", help_heading = "SQL")]
    sql_query_memory_bytes: usize,
    /// Memory for sorts, joins and groups of all SQL queries, in bytes
    #[arg(long, env = "BIGPEER_SQL_MEMORY_BYTES", default_value_t = SqlSettings::default().memory_bytes, value_name = "BYTES", help_heading = "SQL")]
    sql_memory_bytes: usize,
    /// Room in the data directory for what sorts and groups hold beyond memory, in bytes; 0 for none
    #[arg(long, env = "BIGPEER_SQL_SPILL_BYTES", default_value_t = 10 << 30, value_name = "BYTES", help_heading = "SQL")]
    sql_spill_bytes: u64,
}

/// SQL over the apps of this process.
pub(super) fn context(parts: &Parts, args: &SqlArgs, data_dir: &Path) -> Result<SqlContext, Failure> {
    let spill = Spill { dir: data_dir.join("sql-spill"), bytes: args.sql_spill_bytes };
    let settings = SqlSettings {
        max_concurrent: args.sql_max_queries,
        max_concurrent_per_key: args.sql_max_queries_per_key,
        time_limit: Duration::from_secs(args.sql_time_limit_secs),
        scan_bytes: args.sql_scan_bytes,
        query_memory_bytes: args.sql_query_memory_bytes,
        memory_bytes: args.sql_memory_bytes,
        spill: (args.sql_spill_bytes > 0).then_some(spill),
        ..SqlSettings::default()
    };
    let context = SqlContext::new(
        Arc::clone(&parts.stores) as _,
        Arc::clone(&parts.catalogue),
        settings,
        parts.computing.handle().clone(),
    );
    let context = context.map_err(|error| Failure::new(format!("SQL cannot be set up: {error}")))?;
    Ok(context.with_system(parts.system.clone()))
}

/// Listeners besides HTTP's, opened and not served yet.
#[derive(Debug)]
pub(super) struct Doors {
    pg: Option<TcpListener>,
    flight: Option<TcpListener>,
}

impl Doors {
    pub(super) async fn open(args: &SqlArgs) -> Result<Self, Failure> {
        Ok(Self {
            pg: listen(args.listen_pg.as_deref(), "--listen-pg").await?,
            flight: listen(args.listen_flight.as_deref(), "--listen-flight").await?,
        })
    }

    /// Says where they are.
    pub(super) fn print(&self, tls: bool) -> Result<(), Failure> {
        let flight = if tls { "Flight SQL at grpc+tls://" } else { "Flight SQL at grpc://" };
        for (listener, what) in [(&self.pg, "PostgreSQL at postgresql://"), (&self.flight, flight)] {
            if let Some(address) = listener.as_ref().and_then(|listener| listener.local_addr().ok()) {
                output::raw(format!("{what}{address}\n").as_bytes())?;
            }
        }
        Ok(())
    }

    pub(super) fn serve(self, context: &SqlContext, parts: &Parts, tls: Option<&Tls>) -> Result<Served, Failure> {
        let acceptor =
            |alpn: &[&[u8]]| tls.map(|tls| tls.acceptor(alpn)).transpose().map_err(|error| super::cannot_tls(&error));
        let mut tasks = JoinSet::new();
        if let Some(listener) = self.pg {
            let (ids, shutdown) = (Arc::clone(&parts.ids), parts.shutdown.clone());
            let settings = PgSettings { tls: acceptor(&[b"postgresql"])?, ..PgSettings::default() };
            tasks.spawn(bigpeer_pgwire::serve(listener, context.clone(), settings, ids, shutdown));
        }
        if let Some(listener) = self.flight {
            let tls = acceptor(&[b"h2"])?;
            let served = bigpeer_flight::serve(listener, tls, context.clone(), parts.shutdown.clone());
            tasks.spawn(async move {
                if let Err(error) = served.await {
                    tracing::error!(%error, "the listener for Flight SQL has ended");
                }
            });
        }
        Ok(Served(tasks))
    }
}

/// Listeners that are served.
pub(super) struct Served(JoinSet<()>);

impl Served {
    /// Waits until what is under way has ended, for `time` at most.
    pub(super) async fn ended(mut self, time: Duration) {
        let all = async { while self.0.join_next().await.is_some() {} };
        if tokio::time::timeout(time, all).await.is_err() {
            tracing::warn!(seconds = time.as_secs(), "some SQL sessions did not end in time and are cut off");
        }
    }
}

async fn listen(address: Option<&str>, flag: &str) -> Result<Option<TcpListener>, Failure> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address).await;
    let cannot = |error| Failure::new(format!("cannot listen on {address}: {error}; choose another with {flag}"));
    listener.map(Some).map_err(cannot)
}
