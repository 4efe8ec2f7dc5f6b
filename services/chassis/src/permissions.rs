//! What a key or token may read and write: one JSON object, compatible with Ditto's, where rules per collection are
//! conditions as text. What is not allowed is denied.

use std::collections::BTreeMap;

use bigpeer_types::CollectionName;
use serde::{Deserialize, Serialize};

/// What a caller may do. JSON: `{"read": {"everything": bool, "queriesByCollection": {name: [condition, …]}}, "write": …}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Permissions {
    /// The language of the conditions; 1 is DQL.
    #[serde(default)]
    pub ql_version: u8,
    /// Whether queries may be sent to devices.
    #[serde(default)]
    pub remote_query: bool,
    /// What may be read.
    #[serde(default)]
    pub read: Access,
    /// What may be written.
    #[serde(default)]
    pub write: Access,
}

/// One half of [`Permissions`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Access {
    /// Every document of every collection.
    #[serde(default)]
    pub everything: bool,
    /// Per collection, conditions as DQL text; one that holds is enough. `true` allows the whole collection.
    #[serde(default)]
    pub queries_by_collection: BTreeMap<String, Vec<String>>,
}

/// What [`Access`] says about one collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule<'a> {
    /// Every document.
    Everything,
    /// No document.
    Nothing,
    /// Documents for which one of these DQL conditions holds. Never empty.
    AnyOf(&'a [String]),
}

impl Permissions {
    /// Everything may be read and written.
    #[must_use]
    pub fn all() -> Self {
        Self { ql_version: 1, remote_query: false, read: Access::all(), write: Access::all() }
    }

    /// Everything may be read, nothing written.
    #[must_use]
    pub fn read_only() -> Self {
        Self { ql_version: 1, remote_query: false, read: Access::all(), write: Access::default() }
    }
}

impl Access {
    /// Every document.
    #[must_use]
    pub fn all() -> Self {
        Self { everything: true, queries_by_collection: BTreeMap::new() }
    }

    /// What holds for `collection`.
    #[must_use]
    pub fn on(&self, collection: &CollectionName) -> Rule<'_> {
        if self.everything {
            return Rule::Everything;
        }
        match self.queries_by_collection.get(collection.as_str()) {
            None => Rule::Nothing,
            Some(queries) if queries.iter().any(|query| query.trim() == "true") => Rule::Everything,
            Some(queries) if queries.is_empty() => Rule::Nothing,
            Some(queries) => Rule::AnyOf(queries),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books() -> CollectionName {
        CollectionName::new("books").unwrap()
    }

    #[test]
    fn the_documented_json_is_understood_and_the_rest_is_denied() {
        let text = r#"{"qlVersion": 1, "remoteQuery": false,
            "read": {"everything": false, "queriesByCollection": {"books": ["_id.locationId == 'abc'"], "news": ["true"]}},
            "write": {"everything": true, "queriesByCollection": {}}}"#;
        let permissions: Permissions = serde_json::from_str(text).unwrap();
        assert_eq!(permissions.read.on(&books()), Rule::AnyOf(&["_id.locationId == 'abc'".to_owned()]));
        assert_eq!(permissions.read.on(&CollectionName::new("news").unwrap()), Rule::Everything);
        assert_eq!(permissions.read.on(&CollectionName::new("other").unwrap()), Rule::Nothing);
        assert_eq!(permissions.write.on(&books()), Rule::Everything);
        let again: Permissions = serde_json::from_value(serde_json::to_value(&permissions).unwrap()).unwrap();
        assert_eq!(again, permissions);
    }

    #[test]
    fn what_is_missing_is_denied_and_what_is_misspelt_is_refused() {
        let nothing: Permissions = serde_json::from_str("{}").unwrap();
        assert_eq!((nothing.read.on(&books()), nothing.write.on(&books())), (Rule::Nothing, Rule::Nothing));
        let empty: Access = serde_json::from_str(r#"{"queriesByCollection": {"books": []}}"#).unwrap();
        assert_eq!(empty.on(&books()), Rule::Nothing);
        assert!(serde_json::from_str::<Permissions>(r#"{"reed": {"everything": true}}"#).is_err());
    }
}
