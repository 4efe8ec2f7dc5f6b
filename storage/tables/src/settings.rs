//! `TablesSettings`: the sizes that may differ between installations, with defaults that are right for most.

use std::sync::Arc;
use std::time::Duration;

use bigpeer_types::{Clock, IdGenerator, RandomIds, SystemClock};

use crate::cloning::Apps;

/// How a store behaves. The defaults suit a server with a gigabyte of memory.
#[derive(Clone, Debug)]
pub struct TablesSettings {
    /// Most bytes in the overlay. When flushing cannot keep up, the store stops applying here: reads become stale,
    /// writes go on into the log, nothing is lost.
    pub max_overlay_bytes: usize,
    /// Most bytes of payload that one read of the log asks for.
    pub read_bytes: usize,
    /// Most bytes of documents of segments that are kept for lookups by id.
    pub lookup_bytes: usize,
    /// Bytes of applied transactions that feeds may lag behind.
    pub feed_bytes: usize,
    /// Bytes of document states after which a segment file is cut.
    pub segment_bytes: usize,
    /// Bytes of document states after which a row group is cut.
    pub row_group_bytes: usize,
    /// Rows after which a row group is cut.
    pub row_group_rows: usize,
    /// Memory that a compaction may take for files that it reads and writes, in bytes, whatever there is to compact.
    pub compaction_bytes: u64,
    /// How many manifests are kept at least, the newest included. At least 1.
    pub keep_manifests: usize,
    /// How long a manifest is kept after a later one took its place: for readers in other processes, and for reads of the
    /// past.
    pub keep_for: Duration,
    /// How long a deletion is remembered after it was flushed. Who comes back later starts anew.
    pub keep_tombstones: Duration,
    /// How long an attachment is kept that no document refers to: the document may still be on its way.
    pub attachment_age: Duration,
    /// How long an attachment that was marked as garbage can still be found before it is deleted.
    pub garbage_delay: Duration,
    /// How old a segment that no kept manifest refers to must be before it is deleted.
    pub orphan_age: Duration,
    /// Which apps there are: for clones of this one that are not, nothing is kept. None: what clones need is kept for ever.
    pub apps: Option<Arc<dyn Apps>>,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where chance comes from.
    pub ids: Arc<dyn IdGenerator>,
}

impl Default for TablesSettings {
    fn default() -> Self {
        Self {
            max_overlay_bytes: 256 << 20,
            read_bytes: 1 << 20,
            lookup_bytes: 32 << 20,
            feed_bytes: 16 << 20,
            segment_bytes: 256 << 20,
            row_group_bytes: 32 << 20,
            row_group_rows: 128 << 10,
            compaction_bytes: 256 << 20,
            keep_manifests: 3,
            keep_for: Duration::from_secs(600),
            keep_tombstones: Duration::from_secs(30 * 86_400),
            attachment_age: Duration::from_secs(7 * 86_400),
            garbage_delay: Duration::from_secs(3600),
            orphan_age: Duration::from_secs(3600),
            apps: None,
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
        }
    }
}
