//! What a key or token may read and write: one JSON object, compatible with Ditto's, where rules per collection are
//! conditions as text. What is not allowed is denied. Conditions of the older language become DQL before anybody asks them.

use std::collections::BTreeMap;

use bigpeer_types::CollectionName;
use serde::{Deserialize, Serialize};

/// What a caller may do. JSON: `{"read": {"everything": bool, "queriesByCollection": {name: [condition, …]}}, "write": …}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Permissions {
    /// The language of the conditions: 0 is the older query language, 1 is DQL.
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

    /// The same permissions with conditions in DQL. One that cannot be understood is false.
    #[must_use]
    pub fn in_dql(&self) -> Self {
        if self.ql_version != 0 {
            return self.clone();
        }
        let (read, write) = (self.read.in_dql(), self.write.in_dql());
        Self { ql_version: 1, remote_query: self.remote_query, read, write }
    }

    /// Refuses conditions that cannot be understood.
    ///
    /// # Errors
    /// Names the condition, its collection and what is wrong.
    pub fn check(&self) -> Result<(), String> {
        let language = match self.ql_version {
            0 => "a condition of the older language (qlVersion 0)",
            1 => "a DQL condition",
            other => return Err(format!("there is no qlVersion {other}; 0 is the older query language, 1 is DQL")),
        };
        for access in [&self.read, &self.write] {
            for (collection, conditions) in &access.queries_by_collection {
                for condition in conditions {
                    let checked = match self.ql_version {
                        0 => bigpeer_dql::parse_legacy(condition),
                        _ => bigpeer_dql::parse_expr(condition),
                    };
                    checked.map_err(|error| {
                        format!("the rule '{condition}' for '{collection}' is not {language}: {}", error.message)
                    })?;
                }
            }
        }
        Ok(())
    }
}

impl Access {
    /// Every document.
    #[must_use]
    pub fn all() -> Self {
        Self { everything: true, queries_by_collection: BTreeMap::new() }
    }

    /// The conditions of the older language in DQL.
    fn in_dql(&self) -> Self {
        let condition = |text: &String| match bigpeer_dql::parse_legacy(text) {
            Ok(condition) => condition.to_string(),
            Err(error) => {
                tracing::warn!(%error, "a permission rule of the older language cannot be understood; it allows nothing");
                "false".to_owned()
            }
        };
        let collections = self.queries_by_collection.iter();
        let queries_by_collection =
            collections.map(|(name, texts)| (name.clone(), texts.iter().map(condition).collect())).collect();
        Self { everything: self.everything, queries_by_collection }
    }

    /// What holds for `collection`.
    #[must_use]
    pub fn on(&self, collection: &CollectionName) -> Rule<'_> {
        if self.everything {
            return Rule::Everything;
        }
        match self.queries_by_collection.get(collection.as_str()) {
            None => Rule::Nothing,
            Some(queries) if queries.iter().any(|query| query.trim().eq_ignore_ascii_case("true")) => Rule::Everything,
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
    fn conditions_of_the_older_language_become_dql() {
        let text = r#"{"read": {"queriesByCollection": {"books": ["_id.shop == 'a' && !(n > 3)", "contains(['x', 'y'], kind)", "&&"],
            "news": ["true"]}}}"#;
        let old: Permissions = serde_json::from_str(text).unwrap();
        let new = old.in_dql();
        assert_eq!(new.ql_version, 1);
        let Rule::AnyOf([both, contains, broken]) = new.read.on(&books()) else { panic!("{new:?}") };
        assert_eq!(
            bigpeer_dql::parse_expr(both).unwrap(),
            bigpeer_dql::parse_legacy("_id.shop == 'a' && !(n > 3)").unwrap()
        );
        assert_eq!(bigpeer_dql::parse_expr(contains).unwrap(), bigpeer_dql::parse_expr("kind IN ('x', 'y')").unwrap());
        assert_eq!(broken, "false");
        assert_eq!(new.read.on(&CollectionName::new("news").unwrap()), Rule::Everything);
        assert_eq!(new.in_dql(), new);
        assert!(old.check().unwrap_err().contains("'&&' for 'books'"), "{:?}", old.check());
        let dql = Permissions { ql_version: 1, ..old.clone() };
        assert!(dql.check().unwrap_err().contains("is not a DQL condition"), "{:?}", dql.check());
        assert!(Permissions { ql_version: 2, ..Permissions::default() }.check().unwrap_err().contains("qlVersion 2"));
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
