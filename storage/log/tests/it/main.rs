//! Tests of the log from outside: the suite on every engine, crashes, and what is particular to the embedded engine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "these are tests"
)]

mod concurrent;
mod crashes;
mod damage;
mod fdb;
mod fdb_suites;
mod history;
mod kills;
mod opening;
mod suites;
