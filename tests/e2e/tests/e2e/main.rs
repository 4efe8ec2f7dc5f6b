//! End-to-end tests: the real binary, real data, real kills.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on says so by panicking"
)]

mod admin_token;
mod attachments;
mod bad_input;
mod certificates;
mod deleting;
mod devices;
mod docs;
mod doors;
mod every_door;
mod feed_commands;
mod feeds;
mod flights;
mod keeping;
mod kill;
mod quotas;
mod rotation;
mod secrets;
mod shell;
mod tls;
