//! `SqlSettings`: what one query, those of one key, and all of them together may use.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use bigpeer_chassis::KeyLimits;

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

/// What a query of one key may use: the least of what the process and the key allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Most queries of the key at once.
    pub(crate) concurrent: usize,
    pub(crate) time: Duration,
    pub(crate) memory_bytes: usize,
    pub(crate) scan_bytes: u64,
}

impl Share {
    /// That of a key with `limits`.
    pub(crate) fn new(settings: &SqlSettings, limits: KeyLimits) -> Self {
        let size = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        let concurrent = limits.sql_queries.map_or(usize::MAX, |limit| size(limit.into()));
        let time = limits.sql_time_secs.map_or(Duration::MAX, |limit| Duration::from_secs(limit.into()));
        let memory = limits.sql_memory_bytes.map_or(usize::MAX, size);
        Self {
            concurrent: settings.max_concurrent_per_key.min(concurrent),
            time: settings.time_limit.min(time),
            memory_bytes: settings.query_memory_bytes.min(memory),
            scan_bytes: settings.scan_bytes.min(limits.sql_scan_bytes.unwrap_or(u64::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_have_less_than_others_and_never_more() {
        let settings = SqlSettings::default();
        let all = Share::new(&settings, KeyLimits::default());
        assert_eq!((all.concurrent, all.time), (settings.max_concurrent_per_key, settings.time_limit));
        assert_eq!((all.memory_bytes, all.scan_bytes), (settings.query_memory_bytes, settings.scan_bytes));
        let limits = |n| KeyLimits {
            sql_queries: Some(n),
            sql_time_secs: Some(n),
            sql_memory_bytes: Some(n.into()),
            sql_scan_bytes: Some(n.into()),
            ..KeyLimits::default()
        };
        let less = Share { concurrent: 1, time: Duration::from_secs(1), memory_bytes: 1, scan_bytes: 1 };
        assert_eq!(Share::new(&settings, limits(1)), less);
        let small = SqlSettings {
            max_concurrent_per_key: 1,
            time_limit: Duration::from_secs(1),
            query_memory_bytes: 1,
            scan_bytes: 1,
            ..settings
        };
        assert_eq!(Share::new(&small, limits(u32::MAX)), less);
    }
}
