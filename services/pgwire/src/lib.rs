//! The PostgreSQL wire protocol (version 3), read-only: psql, drivers and BI tools over the same SQL, keys and permissions as
//! HTTP. The database is the app, the password a key of it; the user's name is whatever the client likes.
//!
//! The protocol is read and written here, without a library: what a stranger may send is bounded at every byte
//! ([`frontend`]), and so are statements, portals and waiting times of a session ([`session`]).
//!
//! **Transactions.** `BEGIN` and `COMMIT` are answered and change nothing: every statement reads the newest state, and never
//! an older one than the statement before it in the session. `SET bigpeer.as_of = N` reads the state after transaction N.
//!
//! **Cancellation.** A cancel request, a closed connection and the end of a statement's time all drop the query.

#![allow(clippy::wildcard_enum_match_arm, reason = "types of Arrow have dozens of variants, and grow")]

mod backend;
mod binary;
mod column;
mod errors;
mod extended;
mod frontend;
mod io;
mod listener;
mod metrics;
mod parameters;
mod run;
mod session;
mod split;
mod text;
mod words;

pub use listener::{PgSettings, serve};
