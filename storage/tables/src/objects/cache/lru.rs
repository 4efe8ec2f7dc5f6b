//! `Lru`: values up to a number of bytes; what was not used for longest goes first.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

#[derive(Debug)]
pub(super) struct Lru<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Keys by when they were last used.
    used: BTreeMap<u64, K>,
    uses: u64,
    bytes: u64,
    limit: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    bytes: u64,
    used: u64,
}

impl<K: Clone + Eq + Hash, V: Clone> Lru<K, V> {
    pub(super) fn new(limit: u64) -> Self {
        Self { entries: HashMap::new(), used: BTreeMap::new(), uses: 0, bytes: 0, limit }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.get_mut(key)?;
        self.uses += 1;
        if let Some(key) = self.used.remove(&entry.used) {
            self.used.insert(self.uses, key);
        }
        entry.used = self.uses;
        Some(entry.value.clone())
    }

    /// Adds a value, and returns what had to go for it; the value itself, if it is larger than everything may be.
    pub(super) fn insert(&mut self, key: K, value: V, bytes: u64) -> Vec<(K, V)> {
        self.remove(&key);
        if bytes > self.limit {
            return vec![(key, value)];
        }
        self.uses += 1;
        self.bytes += bytes;
        self.used.insert(self.uses, key.clone());
        self.entries.insert(key, Entry { value, bytes, used: self.uses });
        let mut gone = Vec::new();
        while self.bytes > self.limit {
            let Some((_, oldest)) = self.used.first_key_value() else { break };
            let oldest = oldest.clone();
            gone.extend(self.remove(&oldest).map(|value| (oldest, value)));
        }
        gone
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.used.remove(&entry.used);
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        Some(entry.value)
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}
