//! What PostgreSQL's clients expect of SQL: a `pg_catalog` that tells about the app's collections ([`catalog`]), the types
//! that PostgreSQL has for columns ([`types`]), and their habits of asking, put into words that the planner knows
//! ([`rewrite`]).
//!
//! The catalogue is as deep as clients need to list tables and columns. What an app cannot have (indexes, constraints,
//! triggers, policies, …) is known to be empty: a query that can have no rows for that reason is answered without planning
//! the rest of it.

mod catalog;
mod empty;
mod functions;
mod rewrite;
mod types;

pub(crate) use catalog::PgCatalog;
pub(crate) use functions::functions;
pub(crate) use rewrite::rewrite;
pub use types::{PgType, pg_type};
