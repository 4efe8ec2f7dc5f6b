//! Which of the newest entries are kept in memory, over all apps: a bounded number of bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use super::index::AppIndex;

/// What an entry costs beside its payload.
const ENTRY_BYTES: usize = 128;

/// The entries in memory, oldest first.
#[derive(Debug)]
pub(crate) struct Recent {
    entries: VecDeque<(Arc<AppIndex>, u64, usize)>,
    bytes: usize,
    most_bytes: usize,
}

impl Recent {
    pub(crate) fn new(most_bytes: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, most_bytes }
    }

    /// Notes that an index now holds an entry.
    pub(crate) fn added(&mut self, index: &Arc<AppIndex>, version: u64, payload_bytes: usize) {
        let bytes = payload_bytes + ENTRY_BYTES;
        self.entries.push_back((Arc::clone(index), version, bytes));
        self.bytes += bytes;
    }

    /// Forgets the oldest while there is too much.
    pub(crate) fn evict(&mut self) {
        while self.bytes > self.most_bytes {
            let Some((index, version, bytes)) = self.entries.pop_front() else { break };
            index.evict(version);
            self.bytes -= bytes;
        }
    }
}
