//! Plans: statements with their parameters bound, ready to run. The caller fetches documents and feeds them.

use bigpeer_crdt::{DocId, Document, FieldCondition, Object, Value};
use bigpeer_types::{CollectionName, HlcClock, IdGenerator};
use std::sync::Arc;

use crate::ast::Statement;
use crate::error::DqlError;

/// A statement's parameters, by name without the colon.
pub type Params = Object;

/// Which dialect: `/api/v4` is strict, `/api/v5` is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    /// Objects that are not declared MAP are registers, and what is a map, counter or attachment must be declared.
    pub strict: bool,
}

/// What a statement is to the one who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryType {
    /// It reads.
    Select,
    /// It writes.
    Mutation,
}

/// A statement ready to run.
#[derive(Clone, Debug)]
pub enum Plan {
    /// Reads rows.
    Select(SelectPlan),
    /// Inserts documents.
    Insert(InsertPlan),
    /// Changes documents.
    Update(UpdatePlan),
    /// Deletes documents.
    Delete(DeletePlan),
    /// Forgets documents locally, without tombstones: for peers. A server refuses it.
    Evict(DeletePlan),
    /// Answers with rows that describe another plan; needs no documents.
    Explain(Vec<Value>),
}

/// Whether a run wants more documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    More,
    /// Nothing that follows can change the result.
    Enough,
}

/// Something that the one who asked should know, though the statement was done.
#[derive(Clone, Debug, PartialEq)]
pub struct Warning {
    /// Which document.
    pub id: Option<Value>,
    /// What about it.
    pub description: String,
}

/// What a mutation does: to be committed as one transaction.
#[derive(Clone, Debug, Default)]
pub struct Mutation {
    /// The deltas, one per document.
    pub changes: Vec<(CollectionName, DocId, Document)>,
    /// The documents that the statement touched.
    pub mutated: Vec<DocId>,
    /// Documents that must still be as they were fed (or absent, as they were) when the transaction commits: what was
    /// decided depends on them.
    pub must_be_unchanged: Vec<DocId>,
    /// What the one who asked should know.
    pub warnings: Vec<Warning>,
    /// The rows of RETURNING.
    pub items: Vec<Value>,
}

impl Statement {
    /// Whether the statement reads or writes.
    #[must_use]
    pub fn query_type(&self) -> QueryType {
        match self {
            Self::Select(_) | Self::Explain(_) => QueryType::Select,
            Self::Insert(_) | Self::Update(_) | Self::Delete(_) | Self::Evict(_) => QueryType::Mutation,
        }
    }
    /// Puts in the parameters and compiles. `ids` gives documents without `_id` theirs.
    ///
    /// # Errors
    /// When a parameter is missing or of the wrong type, or the statement makes no sense.
    pub fn bind(self, params: &Params, mode: Mode, ids: &dyn IdGenerator) -> Result<Plan, DqlError> {
        let _ = (params, mode, ids);
        Err(DqlError::new("not yet"))
    }
}

macro_rules! common {
    () => {
        /// The collection.
        #[must_use]
        pub fn collection(&self) -> &CollectionName {
            &self.collection
        }
        /// The only documents that can matter, when the statement pins `_id`: look these up instead of scanning.
        #[must_use]
        pub fn ids(&self) -> Option<Vec<DocId>> {
            None
        }
        /// What a scan may prune with.
        #[must_use]
        pub fn conditions(&self) -> Vec<FieldCondition> {
            Vec::new()
        }
    };
}

/// A SELECT ready to run.
#[derive(Clone, Debug)]
pub struct SelectPlan {
    collection: CollectionName,
}
impl SelectPlan {
    common!();
    /// Whether WHERE is true of the document.
    #[must_use]
    pub fn matches(&self, id: &DocId, document: &Document) -> bool {
        let _ = (id, document);
        false
    }
    /// Whether it can be a subscription: `SELECT * FROM c [WHERE …]`.
    /// # Errors
    /// Says what cannot be part of a subscription.
    pub fn is_subscription(&self) -> Result<(), DqlError> {
        Ok(())
    }
    /// The paths that must equal one of some values for WHERE to be true: what a subscription can be indexed by.
    #[must_use]
    pub fn equalities(&self) -> Vec<Equality> {
        Vec::new()
    }
    /// One text for all statements that bind to the same plan: what equal subscriptions are found by.
    #[must_use]
    pub fn canonical(&self) -> String {
        String::new()
    }
    /// Starts to run.
    #[must_use]
    pub fn run(self) -> SelectRun {
        SelectRun {}
    }
}
/// A path that must equal one of `values`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Equality {
    /// The field.
    pub path: Vec<Box<str>>,
    /// The values, scalars.
    pub values: Vec<Value>,
}
/// A SELECT under way.
#[derive(Debug)]
pub struct SelectRun {}
impl SelectRun {
    /// Takes a document. Invisible ones are ignored.
    /// # Errors
    /// When the result becomes too large to hold.
    pub fn push(&mut self, id: &DocId, document: &Document) -> Result<Flow, DqlError> {
        let _ = (id, document);
        Ok(Flow::Enough)
    }
    /// The rows.
    /// # Errors
    /// When the result is too large to hold.
    pub fn finish(self) -> Result<Vec<Value>, DqlError> {
        Ok(Vec::new())
    }
}
/// An INSERT ready to run.
#[derive(Clone, Debug)]
pub struct InsertPlan {
    collection: CollectionName,
}
impl InsertPlan {
    common!();
    /// Makes the deltas. `existing` must answer for each of [`Self::ids`], deleted documents' states included.
    /// # Errors
    /// On a conflict of ids under the FAIL policy, and for documents that are too deep.
    pub fn apply(
        &self,
        existing: &dyn Fn(&DocId) -> Option<Arc<Document>>,
        clock: &mut HlcClock,
    ) -> Result<Mutation, DqlError> {
        let _ = (existing, clock);
        Ok(Mutation::default())
    }
}
macro_rules! mutation {
    ($plan:ident, $run:ident) => {
        /// Ready to run.
        #[derive(Clone, Debug)]
        pub struct $plan {
            collection: CollectionName,
        }
        impl $plan {
            common!();
            /// Starts to run.
            #[must_use]
            pub fn run(self) -> $run {
                $run {}
            }
        }
        /// Under way.
        #[derive(Debug)]
        pub struct $run {}
        impl $run {
            /// Takes a document. Invisible ones are ignored.
            /// # Errors
            /// When there are too many to change in one transaction.
            pub fn push(&mut self, id: &DocId, document: Arc<Document>) -> Result<Flow, DqlError> {
                let _ = (id, document);
                Ok(Flow::More)
            }
            /// Makes the deltas.
            /// # Errors
            /// When a change does not fit the document.
            pub fn finish(self, clock: &mut HlcClock) -> Result<Mutation, DqlError> {
                let _ = clock;
                Ok(Mutation::default())
            }
        }
    };
}
mutation!(UpdatePlan, UpdateRun);
mutation!(DeletePlan, DeleteRun);
