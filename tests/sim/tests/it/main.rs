//! The simulator is tested first; then a few seeds of it.

mod meta;
mod planted;
mod seeds;
