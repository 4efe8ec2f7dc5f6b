//! The limits of the data API.

use std::time::Duration;

/// The limits of the data API. The defaults are production's.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// How long one statement may take before it is answered 408.
    pub statement_timeout: Duration,
    /// How long `X-DITTO-TXN-ID` waits for its transaction before it is answered 404.
    pub transaction_wait: Duration,
    /// Largest answer, in bytes of JSON.
    pub max_answer_bytes: usize,
    /// How many statements run at once; others wait for their turn.
    pub max_concurrent_statements: usize,
    /// How often a mutation is run again because what it read changed.
    pub max_attempts: usize,
    /// How often a transaction of several statements is run again before it is answered 409.
    pub max_transaction_attempts: usize,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            statement_timeout: Duration::from_secs(30),
            transaction_wait: Duration::from_secs(5),
            max_answer_bytes: 64 << 20,
            max_concurrent_statements: 256,
            max_attempts: 1000,
            max_transaction_attempts: 20,
        }
    }
}
