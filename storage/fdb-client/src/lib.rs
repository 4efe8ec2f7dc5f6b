//! FoundationDB's client library, opened at run time instead of linked: the binary runs where it is not installed, and says so
//! when it is asked for.
//!
//! # Safety
//! The one crate of the workspace that may be unsafe. The bindings call functions that jump through a table; [`open`] is the
//! only way to a [`Database`], and fills the table before anything else. The client's network runs in one thread for as long
//! as the process lives, and is stopped and waited for when it exits, as the client demands.

#![cfg_attr(feature = "client", warn(missing_docs))]

#[cfg(feature = "client")]
mod network;

#[cfg(feature = "client")]
pub use foundationdb::{self, Database};
#[cfg(feature = "client")]
pub use network::{ClientError, open};
