//! The admin API as a client meets it.
