//! SQL over whole apps: a log and an object store in memory, the tables over them, and the HTTP routes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on says so by panicking"
)]
#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod docs;
mod dql;
mod history;
mod json;
mod limits;
mod model;
mod past;
mod plans;
mod postgres;
mod queries;
mod refusals;
mod restricted;
mod streams;
mod system;
mod world;
