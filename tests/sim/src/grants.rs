//! What peers are allowed, and what of it the checkers know.

use std::collections::BTreeMap;

use bigpeer_chassis::{Access, Permissions};
use bigpeer_harness::{Readable, select};
use bigpeer_types::CollectionName;

/// The collections of the simulated app.
pub const COLLECTIONS: [&str; 4] = ["items", "counts", "pairs", "graves"];

/// What a grant says about `items`; the other collections are open to all.
const ITEMS: [&str; 5] = ["true", "realm = 'a'", "realm = 'a' OR realm = 'b'", "realm = 'b'", "grp < 3"];

/// One set of permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant(pub usize);

impl Grant {
    /// How many there are.
    pub const COUNT: usize = ITEMS.len();

    /// As the catalogue takes them.
    pub fn permissions(self) -> Permissions {
        let queries = COLLECTIONS.map(|collection| {
            let rule = if collection == "items" { ITEMS[self.0] } else { "true" };
            (collection.to_owned(), vec![rule.to_owned()])
        });
        let access = Access { everything: false, queries_by_collection: BTreeMap::from(queries) };
        Permissions { ql_version: 1, remote_query: false, read: access.clone(), write: access }
    }

    /// Whether it allows every document of a collection: then even those that never were visible may be named.
    pub fn is_everything(self, collection: &str) -> bool {
        collection != "items" || ITEMS[self.0] == "true"
    }

    /// As the checkers take them.
    pub fn readable(self) -> Readable {
        let plans = COLLECTIONS.map(|collection| {
            let rule = if collection == "items" { ITEMS[self.0] } else { "true" };
            (collection_name(collection), vec![select(&format!("SELECT * FROM {collection} WHERE {rule}"))])
        });
        Readable::Matching(BTreeMap::from(plans))
    }
}

/// A collection's name.
pub fn collection_name(name: &str) -> CollectionName {
    CollectionName::new(name).expect("a good name")
}
