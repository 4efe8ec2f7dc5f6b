//! Integration tests: statements on documents in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines, reason = "tests")]
#![allow(clippy::wildcard_enum_match_arm, reason = "tests")]

mod store;

mod dates;
mod guide;
mod joins;
mod legacy;
mod logic;
mod merging;
mod properties;
mod reading;
mod system;
mod writing;
