//! `SqlSettings`: what one query, those of one key, and all of them together may use.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// Limits of queries. The defaults suit a server of a few cores with a few gigabytes of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlSettings {
    /// Most queries that run at once; a query runs until its last byte is read or its client goes away.
    pub max_concurrent: usize,
    /// Most queries of one key that run at once: one key cannot take every turn.
    pub max_concurrent_per_key: usize,
    /// Most queries that wait for their turn; more are refused at once.
    pub max_waiting: usize,
    /// How long a query waits for its turn before it is refused.
    pub queue_wait: Duration,
    /// How long a query may take, from its turn to the last byte.
    pub time_limit: Duration,
    /// Most bytes of memory that the operators of one query may hold (hash tables, sorts).
    pub query_memory_bytes: usize,
    /// Most bytes of memory that the operators of all queries may hold.
    pub memory_bytes: usize,
    /// Most bytes of segments that one query may read.
    pub scan_bytes: u64,
    /// Where sorts and groups go that are larger than memory; without, such queries fail.
    pub spill: Option<Spill>,
    /// How many threads one query uses.
    pub parallelism: NonZeroUsize,
    /// How long a query waits for the transaction that it names before it is answered "not found".
    pub transaction_wait: Duration,
}

/// Room on disk for what does not fit into memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spill {
    /// A directory of its own: what is in it at the start is deleted.
    pub dir: PathBuf,
    /// Most bytes in it, of all queries together.
    pub bytes: u64,
}

impl Default for SqlSettings {
    fn default() -> Self {
        Self {
            max_concurrent: 16,
            max_concurrent_per_key: 8,
            max_waiting: 128,
            queue_wait: Duration::from_secs(10),
            time_limit: Duration::from_secs(300),
            query_memory_bytes: 512 << 20,
            memory_bytes: 1 << 30,
            scan_bytes: 256 << 30,
            spill: None,
            parallelism: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            transaction_wait: Duration::from_secs(10),
        }
    }
}
