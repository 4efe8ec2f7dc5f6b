//! Numbers of sites that are being given away: who asks while others do shares their commit, so that many logins at once neither
//! contend for the counter nor wait for a commit each.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Apps whose queues are remembered, twice. One that is forgotten does no harm: the counter is checked in each commit.
pub(super) const MAX_QUEUES: usize = 1024;

/// Who waits for a site of an app.
#[derive(Debug, Default)]
pub(super) struct SiteQueue {
    waiting: AtomicU64,
    /// Numbers that are this process's, and nobody's yet.
    pub(super) free: tokio::sync::Mutex<Range<u64>>,
}

/// One who waits, until it is dropped.
pub(super) struct Waits<'q>(&'q SiteQueue);

impl SiteQueue {
    pub(super) fn wait(&self) -> Waits<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Waits(self)
    }

    /// How many wait, who asks included.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::SeqCst).max(1)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}
