//! What a key or token may read and write: one JSON object, compatible with Ditto's, where rules per collection are
//! conditions as text. What is not allowed is denied. Before anybody asks them conditions of the older language become DQL,
//! and the caller's claims constants in them: every door compiles the same text, which has no parameters any more.

use std::collections::BTreeMap;

use bigpeer_crdt::{Object, Value};
use bigpeer_dql::{DqlError, Expr, parse_expr, parse_legacy};
use bigpeer_types::CollectionName;
use serde::{Deserialize, Serialize};
use serde_json::Map;

/// What conditions call the claims of whoever asks.
const CLAIMS: &str = "claims";

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

    /// The same permissions for a caller with these claims: conditions in DQL, without parameters. A claim that is not there is
    /// MISSING. A condition that cannot be understood is false.
    #[must_use]
    pub fn bound(&self, claims: &Map<String, serde_json::Value>) -> Self {
        let json = serde_json::Value::Object(claims.clone());
        let claims = match Value::from_json(json) {
            Ok(Value::Object(claims)) => claims,
            Ok(_) => Object::default(),
            Err(error) => {
                tracing::warn!(%error, "claims that are no document's value are left out of permission rules");
                Object::default()
            }
        };
        let bind = |access: &Access| access.bound(self.ql_version, &claims);
        Self { ql_version: 1, remote_query: self.remote_query, read: bind(&self.read), write: bind(&self.write) }
    }

    /// What either allows. Both must be in DQL.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        self.remote_query |= other.remote_query;
        self.read.add(other.read);
        self.write.add(other.write);
        self
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
                    compile(self.ql_version, condition, &Object::default()).map_err(|error| {
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

    fn bound(&self, ql_version: u8, claims: &Object) -> Self {
        let condition = |text: &String| {
            // Most have nothing to replace.
            if ql_version != 0 && !text.contains(CLAIMS) {
                return text.clone();
            }
            match compile(ql_version, text, claims) {
                Ok(condition) => condition.to_string(),
                Err(error) => {
                    tracing::warn!(%error, "a permission rule cannot be understood; it allows nothing");
                    "false".to_owned()
                }
            }
        };
        let collections = self.queries_by_collection.iter();
        let queries_by_collection =
            collections.map(|(name, texts)| (name.clone(), texts.iter().map(condition).collect())).collect();
        Self { everything: self.everything, queries_by_collection }
    }

    fn add(&mut self, other: Self) {
        self.everything |= other.everything;
        for (collection, conditions) in other.queries_by_collection {
            let mine = self.queries_by_collection.entry(collection).or_default();
            conditions.into_iter().for_each(|condition| {
                if !mine.contains(&condition) {
                    mine.push(condition);
                }
            });
        }
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

/// A condition with the claims in it.
fn compile(ql_version: u8, text: &str, claims: &Object) -> Result<Expr, DqlError> {
    let condition = if ql_version == 0 { parse_legacy(text)? } else { parse_expr(text)? };
    condition.with_object(CLAIMS, claims)
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
        let new = old.bound(&Map::new());
        assert_eq!(new.ql_version, 1);
        let Rule::AnyOf([both, contains, broken]) = new.read.on(&books()) else { panic!("{new:?}") };
        assert_eq!(parse_expr(both).unwrap(), parse_legacy("_id.shop == 'a' && !(n > 3)").unwrap());
        assert_eq!(parse_expr(contains).unwrap(), parse_expr("kind IN ('x', 'y')").unwrap());
        assert_eq!(broken, "false");
        assert_eq!(new.read.on(&CollectionName::new("news").unwrap()), Rule::Everything);
        assert_eq!(new.bound(&Map::new()), new);
        assert!(old.check().unwrap_err().contains("'&&' for 'books'"), "{:?}", old.check());
        let dql = Permissions { ql_version: 1, ..old.clone() };
        assert!(dql.check().unwrap_err().contains("is not a DQL condition"), "{:?}", dql.check());
        assert!(Permissions { ql_version: 2, ..Permissions::default() }.check().unwrap_err().contains("qlVersion 2"));
    }

    fn bound(conditions: &[&str], claims: serde_json::Value) -> Vec<String> {
        let json = serde_json::json!({"qlVersion": 1, "read": {"queriesByCollection": {"books": conditions}}});
        let permissions: Permissions = serde_json::from_value(json).unwrap();
        permissions.check().unwrap();
        let bound = permissions.bound(claims.as_object().unwrap());
        bound.read.queries_by_collection.get("books").unwrap().clone()
    }

    #[test]
    fn claims_become_constants_and_those_that_are_not_there_missing() {
        let rules = [
            "store = :claims.store",
            "store IN :claims.stores",
            "a = :claims.deep.er AND b = :claims.deep.no",
            "x = :claims.userID.y",
            "n > :claims.`odd name` OR :claims.flag",
            "claims = 1",
        ];
        let claims = serde_json::json!({"store": "it's", "stores": ["a", 2, null], "deep": {"er": -1.5}, "userID": "u",
            "odd name": 7, "flag": false});
        let expected = [
            "store = 'it''s'",
            "store IN ['a', 2, NULL]",
            "a = -1.5 AND b = MISSING",
            "x = MISSING",
            "n > 7 OR FALSE",
            "claims = 1",
        ];
        let parsed = |text: &String| parse_expr(text).unwrap().to_string();
        let expected: Vec<String> = expected.iter().map(|text| parse_expr(text).unwrap().to_string()).collect();
        assert_eq!(bound(&rules, claims).iter().map(parsed).collect::<Vec<_>>(), expected);
        assert_eq!(bound(&["store = :claims.store"], serde_json::json!({})), ["store = MISSING"]);
        let old = r#"{"read": {"queriesByCollection": {"books": ["store == $args.claims.store"]}}}"#;
        let old: Permissions = serde_json::from_str(old).unwrap();
        assert_eq!(old.check(), Ok(()));
        let claims = serde_json::json!({"store": "a"});
        let new = old.bound(claims.as_object().unwrap());
        assert_eq!(new.read.on(&books()), Rule::AnyOf(&["store = 'a'".to_owned()]));
    }

    #[test]
    fn a_claim_is_a_value_whatever_it_looks_like() {
        for text in ["' OR TRUE OR '", "x' = 'x", "\\' OR true --", "true) OR (true", ":claims.b", "\u{0}\n'\"`"] {
            let rules = bound(&["owner = :claims.a"], serde_json::json!({"a": text, "b": 1}));
            let Ok(Expr::Binary(_, _, right)) = parse_expr(&rules[0]) else { panic!("{rules:?}") };
            assert_eq!(*right, Expr::Literal(Value::from(text)), "{rules:?}");
        }
    }

    #[test]
    fn rules_with_other_parameters_are_refused() {
        for (version, rule) in [(1, "store = :store"), (1, "store = :args.store"), (0, "store == $args.store")] {
            let json = serde_json::json!({"qlVersion": version, "write": {"queriesByCollection": {"books": [rule]}}});
            let permissions: Permissions = serde_json::from_value(json).unwrap();
            assert!(permissions.check().unwrap_err().contains("has no value"), "{rule}");
            assert_eq!(permissions.bound(&Map::new()).write.on(&books()), Rule::AnyOf(&[rule_of(version, rule)]));
        }
        fn rule_of(version: u8, rule: &str) -> String {
            // One without the word is left to the doors, which refuse it as well.
            if version == 0 { "false".to_owned() } else { rule.to_owned() }
        }
    }

    #[test]
    fn what_either_allows_is_allowed() {
        let rule = |text: &str| Access {
            queries_by_collection: [("books".to_owned(), vec![text.to_owned()])].into(),
            ..Access::default()
        };
        let a = Permissions { ql_version: 1, read: rule("x = 1"), ..Permissions::default() };
        let b = Permissions { ql_version: 1, read: rule("y = 1"), write: Access::all(), ..Permissions::default() };
        let both = a.clone().or(b).or(a);
        assert_eq!(both.read.on(&books()), Rule::AnyOf(&["x = 1".to_owned(), "y = 1".to_owned()]));
        assert_eq!(both.write.on(&books()), Rule::Everything);
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
