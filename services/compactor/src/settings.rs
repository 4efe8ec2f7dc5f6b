//! `CompactorSettings`: when to do what.

use std::sync::Arc;
use std::time::Duration;

use bigpeer_types::{Clock, SystemClock};

use crate::Readers;

/// When to flush, compact and trim.
#[derive(Clone, Debug)]
pub struct CompactorSettings {
    /// Flush when the overlay has this many bytes. A start replays about this much, and what came while a flush went on.
    pub flush_bytes: usize,
    /// Flush when something has been waiting in the overlay for this long.
    pub flush_after: Duration,
    /// Compact everything when nothing was flushed for this long.
    pub tidy_after: Duration,
    /// Keep this much of the log behind the manifest, so that peers that come back soon resume from it.
    pub keep_tail: Duration,
    /// Keep at most the log of this many flushes.
    pub keep_tail_flushes: usize,
    /// Who needs more of the log than that, and the manifests from which it can be read.
    pub readers: Option<Arc<dyn Readers>>,
    /// How often attachments are looked for that nothing refers to, and other garbage whatever is written.
    pub attachments_every: Duration,
    /// Flush once more at shutdown, so that the next start replays nothing.
    pub flush_at_shutdown: bool,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
}

impl Default for CompactorSettings {
    fn default() -> Self {
        Self {
            flush_bytes: 32 << 20,
            flush_after: Duration::from_secs(10),
            tidy_after: Duration::from_secs(15),
            keep_tail: Duration::from_secs(600),
            keep_tail_flushes: 12,
            readers: None,
            attachments_every: Duration::from_secs(6 * 3600),
            flush_at_shutdown: false,
            clock: Arc::new(SystemClock),
        }
    }
}
