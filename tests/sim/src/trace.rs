//! `Trace`: everything that happens, in order, as one number; two runs of one seed must agree on it.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

use xxhash_rust::xxh3::Xxh3;

/// Clones are the same trace.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Inner>>);

struct Inner {
    hash: Xxh3,
    events: u64,
    /// Whether events are printed, too: to find where two runs part.
    print: bool,
}

impl Trace {
    /// An empty trace. With `SIM_TRACE` in the environment its events are printed to stderr.
    pub fn new() -> Self {
        let print = std::env::var_os("SIM_TRACE").is_some();
        Self(Arc::new(Mutex::new(Inner { hash: Xxh3::new(), events: 0, print })))
    }

    /// Notes an event.
    pub fn event(&self, now: u64, event: impl Display) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = format!("{now} {event}\n");
        inner.hash.update(text.as_bytes());
        inner.events += 1;
        if inner.print {
            eprint!("{text}");
        }
    }

    /// Hash and number of events so far.
    pub fn digest(&self) -> (u64, u64) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.hash.digest(), inner.events)
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}
