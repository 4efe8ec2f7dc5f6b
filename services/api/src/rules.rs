//! Permissions on documents: what a key may read and write of one collection, compiled for one statement. Default deny.

use std::sync::Arc;

use bigpeer_chassis::{Access, ApiError, ErrorCode, Recent, Rule};
use bigpeer_crdt::{DocId, Document};
use bigpeer_dql::SelectPlan;
use bigpeer_types::CollectionName;

/// Most lists of conditions that are kept compiled, twice.
const MAX_RULES: usize = 256;

/// Conditions by their collection and texts, compiled: what they mean never changes.
#[derive(Debug, Default)]
pub(crate) struct CompiledRules(Recent<(CollectionName, Vec<String>), Arc<Vec<SelectPlan>>>);

/// Which documents of one collection.
#[derive(Clone, Debug)]
pub(crate) enum Allowed {
    Everything,
    /// Those for which one of these holds.
    AnyOf(Arc<Vec<SelectPlan>>),
}

impl CompiledRules {
    fn compile(&self, collection: &CollectionName, queries: &[String]) -> Arc<Vec<SelectPlan>> {
        let key = (collection.clone(), queries.to_vec());
        if let Some(known) = self.0.get(&key) {
            return known;
        }
        let plans = queries.iter().filter_map(|query| condition(collection, query));
        let compiled: Arc<Vec<SelectPlan>> = Arc::new(plans.collect());
        self.0.add(key, Arc::clone(&compiled), MAX_RULES);
        compiled
    }
}

impl Allowed {
    /// What `access` says about `collection`; `verb` is for the message.
    pub(crate) fn compile(
        access: &Access,
        collection: &CollectionName,
        verb: &str,
        known: &CompiledRules,
    ) -> Result<Self, ApiError> {
        match access.on(collection) {
            Rule::Everything => Ok(Self::Everything),
            Rule::Nothing => {
                let message = format!("this key may not {verb} the collection '{collection}'");
                Err(ApiError::new(ErrorCode::Forbidden, message))
            }
            Rule::AnyOf(queries) => Ok(Self::AnyOf(known.compile(collection, queries))),
        }
    }

    pub(crate) fn holds(&self, id: &DocId, document: &Document) -> bool {
        match self {
            Self::Everything => true,
            Self::AnyOf(conditions) => conditions.iter().any(|condition| condition.matches(id, document)),
        }
    }
}

/// Whether `collection` can be read at all, and if so, whether all of it can.
pub(crate) fn may_see(access: &Access, collection: &CollectionName) -> Option<bool> {
    match access.on(collection) {
        Rule::Everything => Some(true),
        Rule::AnyOf(_) => Some(false),
        Rule::Nothing => None,
    }
}

/// A rule that cannot be understood allows nothing.
fn condition(collection: &CollectionName, query: &str) -> Option<SelectPlan> {
    match SelectPlan::of_condition(collection, query) {
        Ok(plan) => Some(plan),
        Err(error) => {
            tracing::warn!(%error, "a permission rule cannot be understood; it allows nothing");
            None
        }
    }
}
