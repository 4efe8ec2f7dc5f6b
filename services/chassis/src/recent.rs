//! What was asked for lately, in bounded room.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

/// Two generations, of which the older goes when the newer is full. What is found in the older moves to the newer, which may
/// so become as large as both. Never prints what it holds.
pub struct Recent<K, V>(Mutex<(HashMap<K, V>, HashMap<K, V>)>);

impl<K, V> fmt::Debug for Recent<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recent(…)")
    }
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq, V: Clone> Recent<K, V> {
    /// What was kept under `key`, if it is still here.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        let mut both = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = both.0.get(key) {
            return Some(value.clone());
        }
        let (key, value) = both.1.remove_entry(key)?;
        both.0.insert(key, value.clone());
        Some(value)
    }

    /// Keeps `value`. A generation is full with `max`.
    pub fn add(&self, key: K, value: V, max: usize) {
        let mut both = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if both.0.len() >= max {
            both.1 = std::mem::take(&mut both.0);
        }
        both.0.insert(key, value);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let both = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        both.0.len() + both.1.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_room_is_bounded() {
        let recent = Recent::<Box<str>, usize>::default();
        recent.add("kept".into(), 7, 10);
        for n in 0..1000_usize {
            recent.add(n.to_string().into(), n, 10);
            assert_eq!(recent.get("kept"), Some(7));
        }
        assert_eq!((recent.get("3"), recent.get("999")), (None, Some(999)));
        assert!(recent.len() <= 21, "{}", recent.len());
    }
}
