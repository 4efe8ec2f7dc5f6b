//! How much memory a query's operators may hold: a fair share each of the query's own, and all queries together no more
//! than the process has set aside.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::error::Result;
use datafusion::execution::memory_pool::{
    FairSpillPool, GreedyMemoryPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};

/// One query's memory, taken from the process's.
#[derive(Debug)]
pub(crate) struct QueryPool {
    own: FairSpillPool,
    bytes: usize,
    shared: Arc<GreedyMemoryPool>,
    /// The process's memory was used up by others when this query asked for more.
    starved: AtomicBool,
}

impl QueryPool {
    /// At most `bytes` for this query, and only what `shared` has left.
    pub(crate) fn new(bytes: usize, shared: &Arc<GreedyMemoryPool>) -> Self {
        Self { own: FairSpillPool::new(bytes), bytes, shared: Arc::clone(shared), starved: AtomicBool::new(false) }
    }

    /// Whether other queries had the memory that this one asked for last.
    pub(crate) fn is_starved(&self) -> bool {
        self.starved.load(Ordering::Relaxed)
    }
}

impl fmt::Display for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("query")
    }
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &str {
        "query"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.own.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.own.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.own.grow(reservation, additional);
        self.shared.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.own.shrink(reservation, shrink);
        self.shared.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        self.own.try_grow(reservation, additional)?;
        let shared = self.shared.try_grow(reservation, additional);
        if shared.is_err() {
            self.own.shrink(reservation, additional);
        }
        self.starved.store(shared.is_err(), Ordering::Relaxed);
        shared
    }

    fn reserved(&self) -> usize {
        self.own.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_its_own_and_no_more_than_is_left_of_all() {
        let shared = Arc::new(GreedyMemoryPool::new(100));
        let one: Arc<dyn MemoryPool> = Arc::new(QueryPool::new(80, &shared));
        let two = Arc::new(QueryPool::new(80, &shared));
        let pool: Arc<dyn MemoryPool> = Arc::clone(&two) as _;
        let (first, second) = (MemoryConsumer::new("a").register(&one), MemoryConsumer::new("b").register(&pool));
        assert!(first.try_grow(81).is_err());
        first.try_grow(80).unwrap();
        assert!(second.try_grow(21).is_err());
        assert!(two.is_starved());
        assert_eq!((two.reserved(), shared.reserved()), (0, 80), "what was refused holds nothing");
        second.try_grow(20).unwrap();
        assert!(!two.is_starved());
        drop((first, second));
        assert_eq!(shared.reserved(), 0);
    }
}
