//! How many bytes of segments a query may read. The budget travels in the query's session, so every scan of it takes from
//! the same one.

use std::sync::atomic::{AtomicU64, Ordering};

use bigpeer_chassis::{ApiError, ErrorCode};

/// One query's budget.
#[derive(Debug)]
pub(crate) struct ScanBudget {
    limit: u64,
    read: AtomicU64,
}

impl ScanBudget {
    pub(crate) const fn new(limit: u64) -> Self {
        Self { limit, read: AtomicU64::new(0) }
    }

    /// Takes `bytes`.
    ///
    /// # Errors
    /// When they are more than are left; from then on always.
    pub(crate) fn take(&self, bytes: u64) -> Result<(), ApiError> {
        let before = self.read.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.limit { Err(self.error()) } else { Ok(()) }
    }

    /// Whether more was asked for than there was.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.read.load(Ordering::Relaxed) > self.limit
    }

    /// What the client is told.
    pub(crate) fn error(&self) -> ApiError {
        let message = format!(
            "the query reads more than {} bytes of stored data, which is the most for one query; name fewer columns, or \
             narrow it by _id or by columns that follow the order of _id",
            self.limit
        );
        ApiError::new(ErrorCode::TooLarge, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_once() {
        let budget = ScanBudget::new(10);
        assert!(budget.take(10).is_ok());
        assert!(!budget.is_exceeded());
        assert!(budget.take(1).is_err());
        assert!(budget.is_exceeded() && budget.take(0).is_err());
    }
}
