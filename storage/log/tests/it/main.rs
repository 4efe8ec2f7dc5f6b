//! Tests of the log from outside: the suite on every engine, crashes, and what is particular to the embedded engine.

mod crashes;
mod damage;
mod history;
mod kills;
mod suites;
