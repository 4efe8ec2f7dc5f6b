//! For tests that judge bigpeer from outside: [`Truth`], what an app is, folded from its log by the simplest means;
//! numbered checkers that compare what peers and stores hold with it; and logs and object stores that fail on command.
//!
//! # The checkers
//! | number | what must hold |
//! | --- | --- |
//! | 1 | convergence: when it is quiet, all hold the same |
//! | 2 | nothing acknowledged is lost |
//! | 3 | nothing is applied twice, and a site's transactions stand in order |
//! | 4 | atomic and causal delivery: what a peer holds of a live subscription is one cut of the log |
//! | 5 | nobody ever holds, or hears of, what it may not read |
//! | 6 | what left is gone: nothing is held that does not match |
//! | 7 | what was deleted does not come back |
//! | 8 | it goes on: when the faults end, everything is delivered |

mod check;
mod faults;
mod inline;
mod log;
mod objects;
mod readable;
mod truth;
mod violation;

pub use check::{Held, Place, Reader, Subscribed, check_counters, check_cut, check_dead, check_log, check_outcomes};
pub use check::{check_permitted, check_store};
pub use faults::Faults;
pub use inline::InlineLog;
pub use log::{FaultyLog, Treachery};
pub use objects::FaultyObjects;
pub use readable::{Readable, select};
pub use truth::{Entry, Truth};
pub use violation::{Checker, Violation};
