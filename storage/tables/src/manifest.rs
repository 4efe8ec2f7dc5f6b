//! Manifests: immutable, numbered lists of the segments that together are an app at one LSN.
//!
//! **Layout** (all numbers little-endian):
//! ```text
//! 8 bytes   "bpmanif" and the format version (4; 1 and 2 are read, too)
//! 4 bytes   crc32c of everything that follows
//! 4 bytes   length of the body
//! body      JSON: `Manifest`
//! blobs     serialized roaring bitmaps, in the order in which the body's segments name them
//! ```

mod codec;
mod moments;
mod repository;
mod settings;
#[cfg(test)]
mod tests;

pub use codec::{decode, encode};
pub use moments::Moments;
pub(crate) use repository::{Committed, Repository};
pub use settings::{CollectionSettings, Expiry, MIN_EXPIRY_SECS, MIN_INTERVAL_SECS, Publication, PublicationMode};

use std::collections::BTreeMap;
use std::sync::Arc;

use bigpeer_types::{AppId, CollectionName, Lsn};
use roaring::RoaringBitmap;
use ulid::Ulid;

use crate::columns::Columns;
use crate::written::Written;

/// An app at one LSN.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Its place in the sequence of manifests: 1, 2, 3, …; 0 is the empty manifest that is never stored.
    pub number: u64,
    /// The epoch of the writer that committed it. A writer that meets a later epoch than its own stops.
    pub epoch: u64,
    /// Which writer committed it: a random number, to tell two writers of one epoch apart.
    pub writer: u64,
    /// Every transaction up to here is in the segments.
    pub lsn: Lsn,
    /// How much was written up to there.
    pub written: Written,
    /// When it was committed, in milliseconds since the epoch, by the writer's clock.
    pub committed_ms: u64,
    /// When which LSN was in segments.
    pub moments: Moments,
    /// The apps that this one is a clone of, the nearest last: attachments that it does not have itself are there.
    pub origins: Vec<AppId>,
    /// The collections that have segments, or settings.
    pub collections: BTreeMap<CollectionName, Collection>,
}

/// A collection's segments and columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Collection {
    /// The columns of all its segments ever: types only widen, places never change.
    pub columns: Columns,
    /// Its segments. Each document is live in exactly one of them.
    pub segments: Vec<SegmentMeta>,
    /// What is to be done with it.
    pub settings: CollectionSettings,
    /// Deletions up to here may be unknown by now: whoever has seen nothing later has to start anew.
    pub forgotten: Lsn,
}

/// One segment file, and which of its rows still count.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentMeta {
    /// The file's name.
    pub ulid: Ulid,
    /// The app in whose folder it lies, if that is another: this one is a clone, and has not written these rows anew yet.
    pub home: Option<AppId>,
    /// Length of the file in bytes.
    pub size: u64,
    /// Checksum of the whole file.
    pub crc32c: u32,
    /// Length of the file's end that says how to read the rest: bloom filters, page indexes, metadata.
    pub tail_bytes: u64,
    /// Checksum of that end; checked whenever the file is opened.
    pub tail_crc32c: u32,
    /// Rows in the file.
    pub rows: u32,
    /// Bytes of document states in the file, before compression.
    pub state_bytes: u64,
    /// Whether the segment is part of the sorted run, made by a compaction. Others are new from a flush.
    pub run: bool,
    /// Key of the first row.
    pub min_key: Vec<u8>,
    /// Key of the last row.
    pub max_key: Vec<u8>,
    /// LSN of the least recent change in it.
    pub min_lsn: Lsn,
    /// LSN of the most recent change in it.
    pub max_lsn: Lsn,
    /// How its typed columns are stored.
    pub columns: Arc<Columns>,
    /// The deletion vector: rows that a newer segment supersedes.
    pub superseded: Arc<RoaringBitmap>,
    /// Rows of documents that readers do not see.
    pub tombstones: Arc<RoaringBitmap>,
}

impl SegmentMeta {
    /// Rows that are not superseded.
    #[must_use]
    pub fn live_rows(&self) -> u64 {
        u64::from(self.rows).saturating_sub(self.superseded.len())
    }

    /// Whether no row of the file is a document that readers see: a compaction keeps deletions apart.
    #[must_use]
    pub fn is_graveyard(&self) -> bool {
        self.tombstones.len() == u64::from(self.rows)
    }
}

impl Manifest {
    /// The state of an app that has never been flushed.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            number: 0,
            epoch: 0,
            writer: 0,
            lsn: Lsn::ZERO,
            written: Written::ZERO,
            committed_ms: 0,
            moments: Moments::default(),
            origins: Vec::new(),
            collections: BTreeMap::new(),
        }
    }

    /// All segments, with their collections.
    pub fn segments(&self) -> impl Iterator<Item = (&CollectionName, &SegmentMeta)> {
        self.collections
            .iter()
            .flat_map(|(name, collection)| collection.segments.iter().map(move |segment| (name, segment)))
    }
}
