//! Permissions on documents: what a key may read and write of one collection, compiled for one statement. Default deny.

use std::sync::Arc;

use bigpeer_chassis::{Access, ApiError, ErrorCode, Rule};
use bigpeer_crdt::{DocId, Document};
use bigpeer_dql::{Mode, Params, Plan, SelectPlan, parse};
use bigpeer_types::{CollectionName, IdGenerator};

use crate::statements::Recent;

/// Most lists of conditions that are kept compiled, twice.
const MAX_RULES: usize = 256;

/// Conditions by their texts, compiled: what a text means never changes.
#[derive(Debug, Default)]
pub(crate) struct CompiledRules(Recent<Vec<String>, Arc<Vec<SelectPlan>>>);

/// Which documents of one collection.
#[derive(Clone, Debug)]
pub(crate) enum Allowed {
    Everything,
    /// Those for which one of these holds.
    AnyOf(Arc<Vec<SelectPlan>>),
}

impl CompiledRules {
    fn compile(&self, queries: &[String], ids: &dyn IdGenerator) -> Arc<Vec<SelectPlan>> {
        if let Some(known) = self.0.get(queries) {
            return known;
        }
        let compiled: Arc<Vec<SelectPlan>> =
            Arc::new(queries.iter().filter_map(|query| condition(query, ids)).collect());
        self.0.add(queries.to_vec(), Arc::clone(&compiled), MAX_RULES);
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
        ids: &dyn IdGenerator,
    ) -> Result<Self, ApiError> {
        match access.on(collection) {
            Rule::Everything => Ok(Self::Everything),
            Rule::Nothing => {
                let message = format!("this key may not {verb} the collection '{collection}'");
                Err(ApiError::new(ErrorCode::Forbidden, message))
            }
            Rule::AnyOf(queries) => Ok(Self::AnyOf(known.compile(queries, ids))),
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
fn condition(query: &str, ids: &dyn IdGenerator) -> Option<SelectPlan> {
    // Which collection is named does not matter: only the condition is asked.
    let compiled = parse(&format!("SELECT * FROM c WHERE {query}"))
        .and_then(|statement| statement.bind(&Params::default(), Mode { strict: false }, ids));
    match compiled {
        Ok(Plan::Select(plan)) => Some(plan),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(%error, "a permission rule cannot be understood; it allows nothing");
            None
        }
    }
}
