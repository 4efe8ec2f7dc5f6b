//! SQL for analysts: an app's collections as tables, at one transaction, read-only, over HTTP. The only crate that names
//! DataFusion.
//!
//! A query reads one snapshot of its app: [`catalog`] resolves names in it, [`table`] makes a collection's segments and what
//! is still in memory into one scan in which every document is seen once. [`engine`] plans, [`rows`] streams the answer in
//! one of the [`output`] formats, [`http`] is what clients see.
//!
//! **Isolation.** A query's catalogue holds one app and nothing can be added to it; only queries are planned; the object
//! store behind a scan reads the snapshot's segments and no other path ([`objects`]); there are no file formats, table
//! factories or URLs.
//!
//! **Limits.** Queries at once, waiting time, running time, memory per query, statement size and depth; see [`SqlSettings`].
//!
//! **Cancellation.** An answer is a stream that the client pulls. Dropping it drops the plan's streams, which abort their
//! tasks.

#![allow(clippy::wildcard_enum_match_arm, reason = "types of Arrow and DataFusion have dozens of variants, and grow")]

mod access;
mod catalog;
mod engine;
mod error;
mod expr;
mod files;
mod http;
mod metrics;
mod objects;
mod output;
mod params;
mod rows;
mod settings;
mod statement;
mod system;
mod table;

pub use http::{SqlContext, router};
pub use output::Format;
pub use settings::SqlSettings;
