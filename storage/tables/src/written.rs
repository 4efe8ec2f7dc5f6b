//! `Written`: how much was ever written to an app, exactly: a fold of its log. What a manifest says of the log up to its LSN is
//! committed with it, and what stands behind it is counted when it is applied. So a crash neither loses nor doubles any of it,
//! and every process that has applied the same says the same.

use serde::{Deserialize, Serialize};

/// Sums over the transactions of an app's log, from its beginning, or from the first manifest that has them, up to some LSN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// Transactions.
    pub transactions: u64,
    /// Documents that they changed; one that was changed twice counts twice.
    pub documents: u64,
    /// Bytes of the transactions as they stand in the log.
    pub bytes: u64,
}

impl Written {
    /// Nothing.
    pub const ZERO: Self = Self { transactions: 0, documents: 0, bytes: 0 };

    /// With one more transaction.
    pub(crate) fn add(&mut self, documents: usize, bytes: usize) {
        self.transactions = self.transactions.saturating_add(1);
        self.documents = self.documents.saturating_add(documents as u64);
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    pub(crate) fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
}
