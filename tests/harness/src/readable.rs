//! `Readable`: what somebody may read, as queries.

use std::collections::BTreeMap;

use bigpeer_crdt::{DocId, Document, Object};
use bigpeer_dql::{Mode, Plan, SelectPlan, parse};
use bigpeer_types::{CollectionName, SeededIds};

use crate::check::Place;

/// A SELECT as a plan.
///
/// # Panics
/// When it is none: tests write their own queries.
#[must_use]
#[allow(clippy::panic, reason = "a test's own query")]
pub fn select(query: &str) -> SelectPlan {
    let plan = parse(query).and_then(|statement| statement.bind(&Object::new(), Mode::default(), &SeededIds::new(0)));
    match plan {
        Ok(Plan::Select(plan)) => plan,
        Ok(other) => panic!("{query} is no SELECT: {other:?}"),
        Err(error) => panic!("{query}: {error}"),
    }
}

/// What one set of permissions lets somebody read.
#[derive(Clone, Debug)]
pub enum Readable {
    /// Everything.
    Everything,
    /// In each collection the documents that one of the queries matches; nothing else.
    Matching(BTreeMap<CollectionName, Vec<SelectPlan>>),
}

impl Readable {
    /// Whether a document in this state may be read.
    #[must_use]
    pub fn allows(&self, collection: &CollectionName, id: &DocId, document: &Document) -> bool {
        match self {
            Self::Everything => true,
            Self::Matching(plans) => {
                plans.get(collection).is_some_and(|plans| plans.iter().any(|plan| plan.matches(id, document)))
            }
        }
    }

    /// Whether a document may be read in this state, or in one of these.
    pub(crate) fn allows_any<'d>(&self, place: &Place, documents: impl Iterator<Item = &'d Document>) -> bool {
        let mut documents = documents;
        documents.any(|document| document.is_visible() && self.allows(&place.0, &place.1, document))
    }
}
