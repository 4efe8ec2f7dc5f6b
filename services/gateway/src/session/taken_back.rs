//! `TakenBack`: documents that a rejection took from the peer, because they were not there, or not to be read, where it looked.
//! The rejection overtakes live changes that are queued: deltas among them that lie before that place have no document to be
//! added to any more, and are not sent.

use std::collections::BTreeMap;

use bigpeer_protocol::pb;
use bigpeer_types::Lsn;
use bytes::Bytes;

/// Most documents.
const MAX_DOCUMENTS: usize = 10_000;

/// Where each was looked at.
#[derive(Debug, Default)]
pub(super) struct TakenBack(BTreeMap<(String, Bytes), Lsn>);

impl TakenBack {
    /// Notes what a rejection takes back, looked at `at`. Answers `false` when that is too much to remember.
    pub(super) fn add(&mut self, rejected: &pb::Rejected, at: Lsn) -> bool {
        for restore in rejected.restore.iter().filter(|restore| restore.state.is_none()) {
            self.0.insert((restore.collection.clone(), restore.id.clone()), at);
        }
        self.0.len() <= MAX_DOCUMENTS
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything up to here was sent.
    pub(super) fn forget(&mut self, through: Lsn) {
        self.0.retain(|_, at| *at > through);
    }

    /// Whether the peer has what a change of the transaction at `lsn` is to be added to, or does not need it.
    pub(super) fn may_follow(&mut self, change: &pb::Change, lsn: Lsn) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let place = (change.collection.clone(), change.id.clone());
        let Some(at) = self.0.get(&place) else { return true };
        match change.content {
            Some(pb::change::Content::Delta(_)) => lsn > *at,
            // The document is there again.
            Some(pb::change::Content::State(_)) => {
                self.0.remove(&place);
                true
            }
            None => true,
        }
    }
}
