//! Arrow Flight SQL: what ADBC and JDBC drivers speak, over the same SQL, keys and permissions as HTTP.
//!
//! **State.** None. A prepared statement's handle is the statement itself, with its parameters once they are bound
//! ([`handle`]); the token of a handshake is what it was given. Any server answers any request.
//!
//! **Who asks.** Each call carries the app and a key of it: `authorization: Bearer APP:KEY`, or user name (the app) and
//! password (the key) as drivers send them. Nothing is decoded before that is checked.
//!
//! **Limits.** Connections, streams of each, bytes of a message and of headers, see [`listener`]; queries have those of
//! [`bigpeer_sql::SqlSettings`]. Rows are made as fast as they are read; a client that goes away stops its query.

mod handle;
mod listener;
mod metadata;
mod metrics;
mod service;
mod status;

pub use listener::serve;
