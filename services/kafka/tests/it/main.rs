//! Topics on the cluster that the client library brings for tests, and on a real broker.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test that cannot go on says so by panicking"
)]

mod app;
mod broker;
mod feeds;
mod mock;
mod world;
