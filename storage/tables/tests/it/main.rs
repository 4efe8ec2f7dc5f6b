//! Integration tests of the tables: a real log in memory, real object stores, a model of the truth beside them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "tests: what is not as expected ends them"
)]

mod attachments;
mod chaos;
mod clones;
mod compaction;
mod faults;
mod feeds;
mod golden;
mod histories;
mod keeping;
mod model;
mod moto;
mod past;
mod pruning;
mod published;
mod s3;
mod s3_losses;
mod shapes;
mod stepped;
mod store;
mod tables;
mod writers;
