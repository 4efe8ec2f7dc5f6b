//! Statements by their text: clients send the same ones again and again, with other arguments. What a text parses to never
//! changes, so nothing has to be thrown away but for room.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use bigpeer_dql::{DqlError, Statement, parse};

/// Longest statement that is kept, in bytes: longer ones have their values in them, and do not come again.
const MAX_TEXT: usize = 2048;

/// Most statements that are kept, twice.
const MAX_STATEMENTS: usize = 1024;

/// Parsed statements.
#[derive(Debug, Default)]
pub(crate) struct Statements(Recent<Box<str>, Arc<Statement>>);

impl Statements {
    /// What `text` parses to.
    ///
    /// # Errors
    /// Those of [`parse`].
    pub(crate) fn parse(&self, text: &str) -> Result<Arc<Statement>, DqlError> {
        if text.len() > MAX_TEXT {
            return parse(text).map(Arc::new);
        }
        if let Some(known) = self.0.get(text) {
            return Ok(known);
        }
        let statement = Arc::new(parse(text)?);
        self.0.add(text.into(), Arc::clone(&statement), MAX_STATEMENTS);
        Ok(statement)
    }
}

/// What was asked for lately: two generations, of which the older goes when the newer is full. What is found in the older
/// moves to the newer, which may so become as large as both.
#[derive(Debug)]
pub(crate) struct Recent<K, V>(Mutex<(HashMap<K, V>, HashMap<K, V>)>);

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq, V: Clone> Recent<K, V> {
    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<V>
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
    pub(crate) fn add(&self, key: K, value: V, max: usize) {
        let mut both = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if both.0.len() >= max {
            both.1 = std::mem::take(&mut both.0);
        }
        both.0.insert(key, value);
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
        let both = recent.0.lock().unwrap();
        assert!(both.0.len() + both.1.len() <= 21, "{} and {}", both.0.len(), both.1.len());
    }

    #[test]
    fn a_text_means_the_same_the_second_time_and_errors_are_not_kept() {
        let statements = Statements::default();
        let first = statements.parse("SELECT * FROM c WHERE x = :x").unwrap();
        assert!(Arc::ptr_eq(&first, &statements.parse("SELECT * FROM c WHERE x = :x").unwrap()));
        let error = statements.parse("SELECT FROM").unwrap_err();
        assert_eq!(statements.parse("SELECT FROM").unwrap_err(), error);
        let long = format!("SELECT * FROM c WHERE x = '{}'", "x".repeat(MAX_TEXT));
        assert!(!Arc::ptr_eq(&statements.parse(&long).unwrap(), &statements.parse(&long).unwrap()));
    }
}
