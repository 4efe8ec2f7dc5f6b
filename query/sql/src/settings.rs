//! `SqlSettings`: what one query, and all of them together, may use.

use std::num::NonZeroUsize;
use std::time::Duration;

/// Limits of queries. The defaults suit a server of a few cores with a few gigabytes of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlSettings {
    /// Most queries that run at once; a query runs until its last byte is read or its client goes away.
    pub max_concurrent: usize,
    /// How long a query waits for its turn before it is refused.
    pub queue_wait: Duration,
    /// How long a query may take, from its turn to the last byte.
    pub time_limit: Duration,
    /// Most bytes of memory that the operators of one query may hold (hash tables, sorts).
    pub query_memory_bytes: usize,
    /// How many threads one query uses.
    pub parallelism: NonZeroUsize,
    /// How long a query waits for the transaction that it names before it is answered "not found".
    pub transaction_wait: Duration,
}

impl Default for SqlSettings {
    fn default() -> Self {
        Self {
            max_concurrent: 16,
            queue_wait: Duration::from_secs(10),
            time_limit: Duration::from_secs(300),
            query_memory_bytes: 512 << 20,
            parallelism: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            transaction_wait: Duration::from_secs(10),
        }
    }
}
