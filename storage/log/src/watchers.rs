//! Who watches which prefix of the metadata space, within one process.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use crate::MetaWatch;

/// The watches of one log. Dropping it ends them all.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    watches: Vec<(Bytes, watch::Sender<u64>)>,
    closed: bool,
}

impl Watchers {
    /// A new watch on `prefix`. Watches that nobody holds any more are forgotten here.
    pub(crate) fn watch(&self, prefix: &[u8]) -> MetaWatch {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let watches = &mut state.watches;
        watches.retain(|(_, sender)| sender.receiver_count() > 0);
        if let Some((_, sender)) = watches.iter().find(|(known, _)| known == prefix) {
            return MetaWatch::new(sender.subscribe());
        }
        let (sender, receiver) = watch::channel(0);
        // Of a closed log the watch ends at once.
        if !state.closed {
            state.watches.push((Bytes::copy_from_slice(prefix), sender));
        }
        MetaWatch::new(receiver)
    }

    /// Tells those whose prefix covers one of `keys`. Called after the commit can be read.
    pub(crate) fn committed<'a>(&self, keys: impl Iterator<Item = &'a Bytes> + Clone, revision: u64) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (prefix, sender) in &state.watches {
            if keys.clone().any(|key| key.starts_with(prefix)) {
                sender.send_replace(revision);
            }
        }
    }

    /// Tells everybody: what was committed is not known any more.
    #[cfg(any(feature = "foundationdb", feature = "conformance"))]
    pub(crate) fn all(&self, revision: u64) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, sender) in &state.watches {
            sender.send_replace(revision);
        }
    }

    /// Ends every watch: the log is closed.
    pub(crate) fn close(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (state.closed, state.watches) = (true, Vec::new());
    }
}
