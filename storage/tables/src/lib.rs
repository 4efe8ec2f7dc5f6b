//! Documents as Parquet segments and manifests on object storage; `DocumentStore` over them and the log's tail.
//!
//! # Layout
//! An app is a [`manifest::Manifest`] (a numbered list of immutable [segments](SegmentPart), at one LSN) and an overlay:
//! what the log holds behind that LSN, in memory. [`paths`] says where everything lies. Each document is live in exactly
//! one segment; older rows of it are marked in deletion vectors, which are part of the manifest.
//!
//! What lies there is also published, where a collection's settings ask for it, as a Delta Lake table over the same files.
//!
//! # Consistency
//! A [`Snapshot`] is the app at one LSN: every transaction up to it, nothing after it, whatever is written, flushed or
//! compacted meanwhile. LSNs of snapshots only grow. [`DocumentStore::wait_for`] gives read-your-writes.
//!
//! # Crash safety
//! Everything here can be rebuilt from the last manifest and the log behind it, and is, at every start. A manifest is
//! committed by put-if-absent of the next number, after the files that it names; before that nothing has happened, after
//! it everything has. The log must not be trimmed beyond [`DocumentStore::flushed`].
//!
//! # Cancellation
//! Every call may be dropped at any time. Reads leave nothing; writes leave at most files that nothing refers to, which
//! [`Writer::collect_garbage`] deletes.

#![warn(missing_docs)]

mod attachments;
mod bases;
mod cloning;
pub mod columns;
mod error;
mod examine;
mod feed;
mod local;
pub mod manifest;
mod metrics;
mod objects;
mod overlay;
mod past;
pub mod paths;
mod publish;
mod scan;
mod segment;
mod settings;
mod snapshot;
mod store;
mod table;
mod tail;
mod version;
mod writer;
mod written;

pub use attachments::{AttachmentPlace, Attachments};
pub use cloning::{Apps, Cloned};
pub use error::TablesError;
pub use examine::{Examination, Finding, FindingKind};
pub use feed::{AppliedBatch, AppliedTransaction, Feed, FeedError};
pub use local::LocalObjects;
pub use objects::{
    CacheSettings, Objects, ObjectsError, ObjectsLocation, ObjectsSettings, S3Encryption, S3Settings, Usage,
};
pub use past::Pin;
pub use publish::PublishedTable;
pub use settings::TablesSettings;
pub use snapshot::{Scan, ScannedDocument, Snapshot, StoredDocument};
pub use store::{DocumentStore, Stores};
pub use table::{SegmentPart, TableSnapshot};
pub use writer::{Compacted, Debt, Extent, Flushed, Writer};
pub use written::Written;
