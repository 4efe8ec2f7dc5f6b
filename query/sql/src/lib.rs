//! SQL for analysts: an app's collections as tables, at one transaction, read-only, over HTTP. The only crate that names
//! DataFusion.
//!
//! A query reads one snapshot of its app: [`catalog`] resolves names in it, [`table`] makes a collection's segments and what
//! is still in memory into one scan in which every document is seen once. [`engine`] plans, [`rows`] streams the answer in
//! one of the [`output`] formats, [`http`] is one door. Others are services over [`SqlContext`] ([`service`]). [`dql`] answers
//! large scans of DQL from the same tables.
//!
//! **Isolation.** A query's catalogue holds one app and nothing can be added to it; only queries are planned; the object
//! store behind a scan reads the snapshot's segments and no other path ([`objects`]); there are no file formats, table
//! factories or URLs. A collection of which the caller may see a part is read document by document ([`restricted`]).
//!
//! **Limits.** Queries at once, of all and of a key ([`turns`]), waiting and running time, memory ([`memory`]), bytes read
//! ([`budget`]), statement size and depth; see [`SqlSettings`].
//!
//! **Cancellation.** An [`Answer`] is a stream that the client pulls. Dropping it drops the plan's streams, which abort
//! their tasks and give back their memory.

#![allow(clippy::wildcard_enum_match_arm, reason = "types of Arrow and DataFusion have dozens of variants, and grow")]

mod access;
mod answer;
mod budget;
mod catalog;
mod dql;
mod engine;
mod error;
mod expr;
mod files;
mod http;
mod json;
mod language;
mod memory;
mod metrics;
mod objects;
mod output;
mod params;
mod past;
mod point;
mod postgres;
mod restricted;
mod rows;
mod rules;
mod service;
mod settings;
mod statement;
mod system;
mod table;
mod turns;

pub use answer::Answer;
pub use dql::DqlColumns;
pub use engine::Described;
pub use http::router;
pub use language::Language;
pub use metrics::Door;
pub use output::{Format, json_text, plain_batch, plain_schema};
pub use params::{Param, Params};
pub use postgres::{PgType, pg_type};
pub use service::{Question, SqlContext, SqlUser};
pub use settings::{Spill, SqlSettings};
