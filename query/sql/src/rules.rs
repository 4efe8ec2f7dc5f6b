//! What a key may see of a collection, as the same DQL conditions that hold over sync and the HTTP API. Default deny.

use std::sync::Arc;

use bigpeer_chassis::{Access, Rule};
use bigpeer_crdt::{DocId, Document};
use bigpeer_dql::{Mode, Params, Plan, SelectPlan, parse};
use bigpeer_types::{CollectionName, RandomIds};

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
                let plans: Vec<_> = conditions.iter().filter_map(|condition| plan(condition)).collect();
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
fn plan(condition: &str) -> Option<SelectPlan> {
    // Which collection is named does not matter: only the condition is asked.
    let plan = parse(&format!("SELECT * FROM c WHERE {condition}"))
        .and_then(|statement| statement.bind(&Params::default(), Mode { strict: false }, &RandomIds));
    match plan {
        Ok(Plan::Select(plan)) => Some(plan),
        Ok(_) => None,
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
        for name in ["c", "other", "__rejections", "__devices"] {
            assert!(matches!(allowed(some, name), Allowed::Nothing), "{name}");
        }
        assert!(matches!(allowed(r#"{"everything": true}"#, "__rejections"), Allowed::Everything));
    }
}
