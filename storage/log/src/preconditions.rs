//! What an app's log remembers in order to judge appends: each site's last `seq`, and which keys were written when.
//! Shared by the engines that keep it in memory.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bigpeer_types::{Lsn, SiteId};

use crate::limits::{MAX_CONFLICT_KEYS, MAX_PAYLOAD_BYTES};
use crate::{AppendEntry, AppendError, AppendOutcome, ConflictKey};

/// How many written keys an app's log remembers by default.
pub(crate) const DEFAULT_CONFLICT_KEYS: usize = 1 << 17;

/// Refuses entries that are over a limit, before anything of the call is applied.
pub(crate) fn check_entries(entries: &[AppendEntry]) -> Result<(), AppendError> {
    for entry in entries {
        let reason = if entry.seq == 0 {
            "sequence numbers start at 1".to_owned()
        } else if entry.payload.len() > MAX_PAYLOAD_BYTES {
            format!("a transaction has at most {MAX_PAYLOAD_BYTES} bytes, not {}", entry.payload.len())
        } else if entry.writes.len() > MAX_CONFLICT_KEYS || entry.unchanged.len() > MAX_CONFLICT_KEYS {
            format!("a transaction writes and depends on at most {MAX_CONFLICT_KEYS} keys each")
        } else {
            continue;
        };
        return Err(AppendError::Rejected { reason });
    }
    Ok(())
}

/// A site's last applied entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastWrite {
    pub(crate) seq: u64,
    pub(crate) lsn: Lsn,
}

/// What one app's log remembers.
#[derive(Clone, Debug)]
pub(crate) struct Preconditions {
    /// Never forgotten: what makes appends exactly-once.
    pub(crate) sites: BTreeMap<SiteId, LastWrite>,
    pub(crate) keys: WrittenKeys,
}

impl Preconditions {
    pub(crate) fn new(key_limit: usize) -> Self {
        Self { sites: BTreeMap::new(), keys: WrittenKeys::new(key_limit) }
    }

    /// What keeps `entry` from being applied, or `None`: it may be.
    pub(crate) fn judge(&self, entry: &AppendEntry) -> Option<AppendOutcome> {
        let last = self.sites.get(&entry.site).copied();
        let last_seq = last.map_or(0, |last| last.seq);
        if let Some(last) = last
            && entry.seq <= last.seq
        {
            return Some(AppendOutcome::Duplicate { through_seq: last.seq, lsn: last.lsn });
        }
        if entry.seq - 1 != last_seq {
            return Some(AppendOutcome::SeqGap { last_seq });
        }
        let mut too_old = false;
        for &(key, since) in &entry.unchanged {
            match self.keys.written_after(key, since) {
                Written::No => {}
                Written::Yes => return Some(AppendOutcome::Conflict { key }),
                Written::Forgotten => too_old = true,
            }
        }
        too_old.then_some(AppendOutcome::SnapshotTooOld)
    }

    /// Remembers that an entry was applied.
    pub(crate) fn applied(&mut self, site: SiteId, seq: u64, lsn: Lsn, writes: impl Iterator<Item = ConflictKey>) {
        self.sites.insert(site, LastWrite { seq, lsn });
        for key in writes {
            self.keys.write(key, lsn);
        }
    }
}

/// Whether a key was written after a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Yes,
    No,
    /// Too long ago to say.
    Forgotten,
}

/// The newest write of each of the last so many written keys.
#[derive(Clone, Debug)]
pub(crate) struct WrittenKeys {
    newest: HashMap<ConflictKey, Lsn>,
    /// Every write that is remembered, oldest first; those that are not their key's newest are dropped when they reach the front.
    order: VecDeque<(ConflictKey, Lsn)>,
    /// The newest write that was forgotten.
    forgotten: Lsn,
    limit: usize,
}

impl WrittenKeys {
    pub(crate) fn new(limit: usize) -> Self {
        Self { newest: HashMap::new(), order: VecDeque::new(), forgotten: Lsn::ZERO, limit }
    }

    pub(crate) fn written_after(&self, key: ConflictKey, since: Lsn) -> Written {
        match self.newest.get(&key) {
            Some(&lsn) if lsn > since => Written::Yes,
            Some(_) => Written::No,
            None if since < self.forgotten => Written::Forgotten,
            None => Written::No,
        }
    }

    /// The newest write that was forgotten.
    pub(crate) const fn forgotten(&self) -> Lsn {
        self.forgotten
    }

    /// Says that writes up to `lsn` may have been forgotten.
    pub(crate) fn forget_through(&mut self, lsn: Lsn) {
        self.forgotten = self.forgotten.max(lsn);
    }

    /// The newest write of each key that is remembered, oldest first.
    pub(crate) fn remembered(&self) -> impl Iterator<Item = (ConflictKey, Lsn)> {
        self.order.iter().copied().filter(|(key, lsn)| self.newest.get(key) == Some(lsn))
    }

    pub(crate) fn write(&mut self, key: ConflictKey, lsn: Lsn) {
        self.newest.insert(key, lsn);
        self.order.push_back((key, lsn));
        while self.order.len() > self.limit {
            let Some((key, lsn)) = self.order.pop_front() else { break };
            if self.newest.get(&key) == Some(&lsn) {
                self.newest.remove(&key);
                self.forgotten = self.forgotten.max(lsn);
            }
        }
    }
}
