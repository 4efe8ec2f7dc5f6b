//! System collections: what a process knows about itself, read like any other collection by DQL and SQL, written by nobody.
//! A role that has something to tell registers it; the roles that answer queries ask here.
//!
//! # Consistency
//! Rows are made when they are asked for, from state that may be lost at any moment. They belong to no snapshot of the
//! app, and only to this process.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use bigpeer_types::{AppId, CollectionName};
use serde_json::Value;

/// What a column of a system collection holds, for readers that need to know before the first row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// A string.
    Text,
    /// A whole number.
    Integer,
    /// True or false.
    Boolean,
    /// An array or an object.
    Json,
}

/// A field that every row has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: ColumnKind,
}

/// A collection that a role makes up from what it knows.
pub trait SystemCollection: Send + Sync + fmt::Debug {
    /// The fields of its rows, `_id` first.
    fn columns(&self) -> &'static [Column];

    /// The rows of `app`, in order of their `_id`, each an object with the fields of [`Self::columns`] and no others. Must
    /// be quick. Rows of another app never.
    fn rows(&self, app: &AppId) -> Vec<Value>;
}

/// The system collections of this process. Cheap to clone; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct SystemCollections(Arc<RwLock<BTreeMap<CollectionName, Arc<dyn SystemCollection>>>>);

impl SystemCollections {
    /// Adds a collection, in place of the one of this name. A name that [`CollectionName::is_system`] does not reserve could
    /// hide a collection of an app, and is refused.
    pub fn register(&self, name: &str, collection: Arc<dyn SystemCollection>) {
        match CollectionName::new(name) {
            Ok(name) if name.is_system() => {
                self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name, collection);
            }
            Ok(_) | Err(_) => tracing::error!(name, "not a name for a system collection; it is not served"),
        }
    }

    /// The collection of this name, if it is one.
    #[must_use]
    pub fn get(&self, name: &CollectionName) -> Option<Arc<dyn SystemCollection>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The names, in order.
    #[must_use]
    pub fn names(&self) -> Vec<CollectionName> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug)]
    struct Names;

    impl SystemCollection for Names {
        fn columns(&self) -> &'static [Column] {
            &[Column { name: "_id", kind: ColumnKind::Text }]
        }

        fn rows(&self, app: &AppId) -> Vec<Value> {
            vec![json!({"_id": app.as_str()})]
        }
    }

    #[test]
    fn only_reserved_names_are_taken_and_clones_are_the_same() {
        let system = SystemCollections::default();
        let other = system.clone();
        system.register("__names", Arc::new(Names));
        system.register("names", Arc::new(Names));
        let name = |text: &str| CollectionName::new(text).unwrap();
        assert_eq!(other.names(), [name("__names")]);
        assert!(other.get(&name("names")).is_none());
        let rows = other.get(&name("__names")).unwrap().rows(&AppId::new("a").unwrap());
        assert_eq!(rows, [json!({"_id": "a"})]);
    }
}
