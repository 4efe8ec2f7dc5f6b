//! Starts the real binary for end-to-end tests and talks to it from outside: by HTTP, by its command line, by Small
//! Peers, and by Python over its files.

mod data;
mod server;

pub use data::{Flights, python};
pub use server::{Credentials, Server, binary, wait_until};
