//! Who watches which prefix of the metadata space, within one process.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use crate::MetaWatch;

/// The watches of one log. Dropping it ends them all.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Mutex<Vec<(Bytes, watch::Sender<u64>)>>);

impl Watchers {
    /// A new watch on `prefix`. Watches that nobody holds any more are forgotten here.
    pub(crate) fn watch(&self, prefix: &[u8]) -> MetaWatch {
        let mut watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watches.retain(|(_, sender)| sender.receiver_count() > 0);
        if let Some((_, sender)) = watches.iter().find(|(known, _)| known == prefix) {
            return MetaWatch::new(sender.subscribe());
        }
        let (sender, receiver) = watch::channel(0);
        watches.push((Bytes::copy_from_slice(prefix), sender));
        MetaWatch::new(receiver)
    }

    /// Tells those whose prefix covers one of `keys`. Called after the commit can be read.
    pub(crate) fn committed<'a>(&self, keys: impl Iterator<Item = &'a Bytes> + Clone, revision: u64) {
        let watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (prefix, sender) in watches.iter() {
            if keys.clone().any(|key| key.starts_with(prefix)) {
                sender.send_replace(revision);
            }
        }
    }

    /// Ends every watch: the log is closed.
    pub(crate) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
