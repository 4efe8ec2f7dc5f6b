//! Permissions on documents: what a key may read and write of one collection, compiled for one statement. Default deny.

use bigpeer_chassis::{Access, ApiError, ErrorCode, Rule};
use bigpeer_crdt::{DocId, Document};
use bigpeer_dql::{Mode, Params, Plan, SelectPlan, parse};
use bigpeer_types::{CollectionName, IdGenerator};

/// Which documents of one collection.
#[derive(Debug)]
pub(crate) enum Allowed {
    Everything,
    /// Those for which one of these holds.
    AnyOf(Vec<SelectPlan>),
}

impl Allowed {
    /// What `access` says about `collection`; `verb` is for the message.
    pub(crate) fn compile(
        access: &Access,
        collection: &CollectionName,
        verb: &str,
        ids: &dyn IdGenerator,
    ) -> Result<Self, ApiError> {
        match access.on(collection) {
            Rule::Everything => Ok(Self::Everything),
            Rule::Nothing => {
                let message = format!("this key may not {verb} the collection '{collection}'");
                Err(ApiError::new(ErrorCode::Forbidden, message))
            }
            Rule::AnyOf(queries) => Ok(Self::AnyOf(queries.iter().filter_map(|query| condition(query, ids)).collect())),
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
