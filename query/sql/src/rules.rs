//! What a key may see of a collection, as the same DQL conditions that hold over sync and the HTTP API. Default deny.

use std::sync::Arc;

use bigpeer_chassis::{Access, Rule};
use bigpeer_crdt::{DocId, Document};
use bigpeer_dql::SelectPlan;
use bigpeer_types::CollectionName;

/// Which documents of one collection.
#[derive(Clone, Debug)]
pub(crate) enum Allowed {
    Everything,
    Nothing,
    /// Those for which one of these holds.
    AnyOf(Arc<Vec<SelectPlan>>),
}

impl Allowed {
    /// What `access` says about `collection`. System collections are read with everything only.
    pub(crate) fn new(access: &Access, collection: &CollectionName) -> Self {
        match access.on(collection) {
            Rule::Everything if access.everything || !collection.is_system() => Self::Everything,
            Rule::AnyOf(conditions) if !collection.is_system() => {
                let plans: Vec<_> = conditions.iter().filter_map(|condition| plan(collection, condition)).collect();
                if plans.is_empty() { Self::Nothing } else { Self::AnyOf(Arc::new(plans)) }
            }
            Rule::Everything | Rule::AnyOf(_) | Rule::Nothing => Self::Nothing,
        }
    }

    /// Whether the document may be seen.
    pub(crate) fn holds(&self, id: &DocId, document: &Document) -> bool {
        match self {
            Self::Everything => true,
            Self::Nothing => false,
            Self::AnyOf(plans) => plans.iter().any(|plan| plan.matches(id, document)),
        }
    }
}

/// A rule that cannot be understood allows nothing.
fn plan(collection: &CollectionName, condition: &str) -> Option<SelectPlan> {
    match SelectPlan::of_condition(collection, condition) {
        Ok(plan) => Some(plan),
        Err(error) => {
            tracing::warn!(%error, "a permission rule cannot be understood; it allows nothing");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(json: &str, collection: &str) -> Allowed {
        let access: Access = serde_json::from_str(json).unwrap();
        Allowed::new(&access, &CollectionName::new(collection).unwrap())
    }

    #[test]
    fn what_is_not_allowed_or_not_understood_is_denied() {
        let some = r#"{"queriesByCollection": {"a": ["x == 1"], "b": ["true"], "c": ["x ==="], "__rejections": ["true"],
            "d": ["true) OR (true"]}}"#;
        assert!(matches!(allowed(some, "a"), Allowed::AnyOf(_)));
        assert!(matches!(allowed(some, "b"), Allowed::Everything));
        for name in ["c", "d", "other", "__rejections", "__devices"] {
            assert!(matches!(allowed(some, name), Allowed::Nothing), "{name}");
        }
        assert!(matches!(allowed(r#"{"everything": true}"#, "__rejections"), Allowed::Everything));
    }

    #[test]
    fn a_rule_may_name_fields_by_their_collection() {
        let Allowed::AnyOf(plans) = allowed(r#"{"queriesByCollection": {"cars": ["cars.hidden IS MISSING"]}}"#, "cars")
        else {
            panic!("not a part");
        };
        assert_eq!(plans.first().map(SelectPlan::canonical), plan_of("hidden IS MISSING"));
    }

    fn plan_of(condition: &str) -> Option<String> {
        plan(&CollectionName::new("cars").unwrap(), condition).map(|plan| plan.canonical())
    }
}
