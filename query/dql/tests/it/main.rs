//! Integration tests: statements on documents in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines, reason = "tests")]
#![allow(clippy::wildcard_enum_match_arm, reason = "tests")]

mod store;

mod guide;
mod logic;
mod properties;
mod reading;
mod writing;
