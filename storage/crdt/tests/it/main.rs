//! The crate from outside: random histories of editors, hostile bytes, sizes, and bytes that were written once and must
//! be read for ever.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod golden;
mod histories;
mod hostile;
mod sizes;
mod transactions;
mod world;
