//! End-to-end tests: the real binary, real data, real kills.

mod bad_input;
mod deleting;
mod docs;
mod flights;
mod kill;
