//! What was committed: every key's values by version, and who wrote what when.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::super::cluster::{ErrorCode, Stamp};
use super::WINDOW;

/// A range of keys, without its end.
pub(super) type Range = (Vec<u8>, Vec<u8>);

/// One write.
#[derive(Clone, Debug)]
pub(super) enum Write {
    Set(Vec<u8>, Bytes),
    StampedKey(Vec<u8>, usize, Bytes),
    StampedValue(Vec<u8>, Bytes),
    ClearRange(Vec<u8>, Vec<u8>),
}

/// A transaction that is to be committed.
#[derive(Clone, Debug)]
pub(super) struct Proposal {
    pub(super) read_version: u64,
    pub(super) depends_on: Vec<Range>,
    pub(super) conflicts_with: Vec<Range>,
    pub(super) writes: Vec<Write>,
}

/// The database.
#[derive(Debug)]
pub(super) struct History {
    /// The newest version that was given out.
    version: u64,
    /// The newest version that can be read.
    readable: u64,
    /// Values by version, oldest first.
    keys: BTreeMap<Vec<u8>, VecDeque<(u64, Option<Bytes>)>>,
    /// Ranges written within the window, oldest first.
    written: VecDeque<(u64, Range)>,
    committed: (u64, u64),
}

impl History {
    pub(super) fn new() -> Self {
        // A cluster that has been there for a while.
        let version = 7_000_000;
        Self { version, readable: version, keys: BTreeMap::new(), written: VecDeque::new(), committed: (0, 0) }
    }

    pub(super) const fn readable(&self) -> u64 {
        self.readable
    }

    pub(super) const fn commits(&self) -> (u64, u64) {
        self.committed
    }

    pub(super) fn keys(&self) -> usize {
        self.keys.values().filter(|values| values.back().is_some_and(|(_, value)| value.is_some())).count()
    }

    pub(super) fn pass(&mut self, versions: u64) {
        self.version += versions;
        self.readable = self.version;
    }

    pub(super) const fn new_version(&mut self, step: u64) -> u64 {
        self.version += step;
        self.version
    }

    /// Whether a transaction at this read version is too old to go on.
    pub(super) const fn is_too_old(&self, read_version: u64) -> bool {
        read_version + WINDOW < self.version
    }

    /// Whether a commit may happen now.
    pub(super) fn check(&self, proposal: &Proposal) -> Result<(), ErrorCode> {
        if self.is_too_old(proposal.read_version) {
            return Err(ErrorCode::TRANSACTION_TOO_OLD);
        }
        let conflict = self
            .written
            .iter()
            .rev()
            .take_while(|(version, _)| *version > proposal.read_version)
            .any(|(_, (begin, end))| proposal.depends_on.iter().any(|(from, to)| begin < to && from < end));
        if conflict { Err(ErrorCode::NOT_COMMITTED) } else { Ok(()) }
    }

    /// Does what a commit says; answers the keys that it wrote.
    pub(super) fn apply(&mut self, proposal: Proposal, stamp: Stamp) -> Vec<Vec<u8>> {
        let mut changed = Vec::new();
        for write in proposal.writes {
            match write {
                Write::Set(key, value) => changed.push(self.put(key, Some(value), stamp.version)),
                Write::StampedKey(mut key, at, value) => {
                    if let Some(place) = key.get_mut(at..at + Stamp::BYTES) {
                        place.copy_from_slice(&stamp.to_bytes());
                    }
                    changed.push(self.put(key, Some(value), stamp.version));
                }
                Write::StampedValue(key, value) => {
                    let value = [&stamp.to_bytes(), value.get(Stamp::BYTES..).unwrap_or_default()].concat();
                    changed.push(self.put(key, Some(value.into()), stamp.version));
                }
                Write::ClearRange(begin, end) => {
                    let keys: Vec<_> = self.keys.range(begin..end).map(|(key, _)| key.clone()).collect();
                    changed.extend(keys.into_iter().map(|key| self.put(key, None, stamp.version)));
                }
            }
        }
        self.written.extend(proposal.conflicts_with.into_iter().map(|range| (stamp.version, range)));
        self.committed.0 += 1;
        changed
    }

    fn put(&mut self, key: Vec<u8>, value: Option<Bytes>, version: u64) -> Vec<u8> {
        let values = self.keys.entry(key.clone()).or_default();
        if values.back().is_some_and(|(at, _)| *at == version) {
            values.pop_back();
        }
        values.push_back((version, value));
        while values.get(1).is_some_and(|(at, _)| *at + WINDOW < version) {
            values.pop_front();
        }
        key
    }

    /// Lets a version be read.
    pub(super) fn publish(&mut self, version: u64) {
        self.readable = self.readable.max(version);
        self.committed.1 += 1;
        while self.written.front().is_some_and(|(at, _)| *at + WINDOW < version) {
            self.written.pop_front();
        }
        // Keys that have been gone for long.
        if self.committed.1.is_multiple_of(512) {
            self.keys.retain(|_, values| {
                values.len() > 1 || values.back().is_none_or(|(at, value)| value.is_some() || *at + WINDOW > version)
            });
        }
    }

    pub(super) fn newest(&self, key: &[u8]) -> Option<Bytes> {
        self.keys.get(key)?.back()?.1.clone()
    }

    pub(super) fn get(&self, key: &[u8], version: u64) -> Option<Bytes> {
        at(self.keys.get(key)?, version)
    }

    /// Rows of a range in order.
    pub(super) fn range<'a>(
        &'a self,
        begin: &[u8],
        end: &[u8],
        version: u64,
    ) -> impl Iterator<Item = (&'a Vec<u8>, Bytes)> + use<'a> {
        let range = if begin < end { begin.to_vec()..end.to_vec() } else { Vec::new()..Vec::new() };
        self.keys.range(range).filter_map(move |(key, values)| Some((key, at(values, version)?)))
    }
}

fn at(values: &VecDeque<(u64, Option<Bytes>)>, version: u64) -> Option<Bytes> {
    values.iter().rev().find(|(at, _)| *at <= version)?.1.clone()
}
