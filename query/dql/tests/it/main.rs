//! Integration tests: statements on documents in memory.

mod store;

mod logic;
mod reading;
mod writing;
