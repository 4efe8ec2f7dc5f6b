//! RETURNING: a SELECT without WHERE over the documents that a mutation touched.

use bigpeer_crdt::{DocId, Document, Value};

use super::select::{SelectPlan, SelectRun};
use super::{Mode, Params};
use crate::ast::{Order, Projection, Select, Source};
use crate::error::DqlError;

/// The rows of RETURNING, or nothing when there is no such clause.
#[derive(Clone, Debug)]
pub(crate) struct Returning(Option<Box<SelectPlan>>);

impl Returning {
    pub(crate) fn new(
        projections: Vec<Projection>,
        source: &Source,
        params: &Params,
        mode: Mode,
    ) -> Result<Self, DqlError> {
        if projections.is_empty() {
            return Ok(Self(None));
        }
        if projections.contains(&Projection::All) && projections.len() > 1 {
            return Err(DqlError::new("unqualified * with other projection elements is not supported"));
        }
        let select = Select {
            distinct: false,
            projections,
            source: Source { ids: None, ..source.clone() },
            joins: Vec::new(),
            filter: None,
            group_by: Vec::new(),
            having: None,
            order: Order::default(),
        };
        Ok(Self(Some(Box::new(SelectPlan::new(select, params, mode)?))))
    }

    pub(crate) fn run(self) -> Rows {
        Rows(self.0.map(|plan| plan.run()))
    }
}

/// RETURNING under way.
#[derive(Debug)]
pub(crate) struct Rows(Option<SelectRun>);

impl Rows {
    /// Takes a document as it was before.
    pub(crate) fn before(&mut self, id: &DocId, document: &Document) -> Result<(), DqlError> {
        match &mut self.0 {
            None => Ok(()),
            Some(run) => run.push(id, document).map(|_| ()),
        }
    }

    /// Takes a document as it is with `delta`.
    pub(crate) fn after(&mut self, id: &DocId, current: &Document, delta: &Document) -> Result<(), DqlError> {
        match &mut self.0 {
            None => Ok(()),
            Some(run) => {
                let mut joined = current.clone();
                joined.join(delta);
                run.push(id, &joined).map(|_| ())
            }
        }
    }

    pub(crate) fn finish(self) -> Result<Vec<Value>, DqlError> {
        self.0.map_or(Ok(Vec::new()), SelectRun::finish)
    }
}
