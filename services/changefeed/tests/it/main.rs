//! The change feed over a log and an object store in memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on says so by panicking"
)]

mod checker;
mod kafka;
mod kept;
mod reading;
mod receiver;
mod served;
mod streams;
mod watched;
mod webhooks;
mod world;
