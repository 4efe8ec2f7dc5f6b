//! Starts the real binary for end-to-end tests and talks to it from outside: by HTTP, by its command line, by Small
//! Peers, and by Python over its files.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on says so by panicking"
)]

mod data;
mod server;

pub use data::{Flights, python};
pub use server::{Credentials, Server, binary, free_port, wait_until};
