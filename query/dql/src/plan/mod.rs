//! Plans: statements with their parameters bound, ready to run. The caller fetches documents and feeds them.

mod bind;
mod columnar;
mod delete;
mod explain;
mod insert;
mod join;
mod join_run;
mod moment;
mod projection;
mod prune;
mod returning;
mod select;
mod show;
mod sorter;
mod target;
mod update;
mod write;

use bigpeer_crdt::{DocId, Document, Object, Value};
use bigpeer_types::{CollectionName, IdGenerator};

pub use columnar::{ByColumns, ByColumnsWanted, Found};
pub use delete::{DeletePlan, DeleteRun};
pub use insert::InsertPlan;
pub use join::Wanted;
pub use moment::Moment;
pub use select::{Equality, SelectPlan, SelectRun};
pub use update::{UpdatePlan, UpdateRun};

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
#[allow(clippy::large_enum_variant, reason = "made once per statement, moved a few times")]
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
            Self::Select(_)
            | Self::Explain(_)
            | Self::Profile(_)
            | Self::Advise(_)
            | Self::Show(_)
            | Self::Alter(_) => QueryType::Select,
            Self::Insert(_) | Self::Update(_) | Self::Delete(_) | Self::Evict(_) => QueryType::Mutation,
        }
    }

    /// Puts in the parameters and compiles. `ids` gives documents without `_id` theirs. The statement knows of no time.
    ///
    /// # Errors
    /// When a parameter is missing or of the wrong type, or the statement makes no sense.
    pub fn bind(self, params: &Params, mode: Mode, ids: &dyn IdGenerator) -> Result<Plan, DqlError> {
        self.bind_with(params, mode, ids, None)
    }

    /// As [`Self::bind`], for a statement that is run at `moment`.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn bind_at(
        self,
        params: &Params,
        mode: Mode,
        ids: &dyn IdGenerator,
        moment: &Moment,
    ) -> Result<Plan, DqlError> {
        self.bind_with(params, mode, ids, Some(moment))
    }

    fn bind_with(
        mut self,
        params: &Params,
        mode: Mode,
        ids: &dyn IdGenerator,
        moment: Option<&Moment>,
    ) -> Result<Plan, DqlError> {
        moment::fix(&mut self, moment)?;
        self.plan(params, mode, ids)
    }

    fn plan(self, params: &Params, mode: Mode, ids: &dyn IdGenerator) -> Result<Plan, DqlError> {
        Ok(match self {
            Self::Select(select) => Plan::Select(SelectPlan::new(select, params, mode)?),
            Self::Insert(insert) => Plan::Insert(InsertPlan::new(insert, params, mode, ids)?),
            Self::Update(update) => Plan::Update(UpdatePlan::new(update, params, mode)?),
            Self::Delete(delete) => Plan::Delete(DeletePlan::new(delete, params, mode)?),
            Self::Evict(delete) => Plan::Evict(DeletePlan::new(delete, params, mode)?),
            Self::Explain(inner) => Plan::Explain(explain::rows(&inner.plan(params, mode, ids)?)),
            Self::Profile(inner) => match inner.plan(params, mode, ids)? {
                Plan::Select(mut select) => {
                    select.profile = true;
                    Plan::Select(select)
                }
                Plan::Insert(_) | Plan::Update(_) | Plan::Delete(_) | Plan::Evict(_) | Plan::Explain(_) => {
                    return Err(DqlError::new("PROFILE takes a SELECT"));
                }
            },
            Self::Advise(inner) => {
                let text = inner.to_string();
                Plan::Explain(explain::advice(&inner.plan(params, mode, ids)?, &text))
            }
            Self::Show(show) => Plan::Explain(show::rows(&show, mode)?),
            Self::Alter(alter) => Plan::Explain(show::altered(&alter, mode)?),
        })
    }
}

impl Plan {
    /// The SELECT of a subscription.
    ///
    /// # Errors
    /// When the statement is not `SELECT * FROM collection [WHERE …]`.
    pub fn into_subscription(self) -> Result<SelectPlan, DqlError> {
        match self {
            Self::Select(select) => select.is_subscription().map(|()| select),
            Self::Insert(_) | Self::Update(_) | Self::Delete(_) | Self::Evict(_) | Self::Explain(_) => {
                Err(DqlError::new("Unsupported feature: non-SELECT statement in sync subscription"))
            }
        }
    }
}
