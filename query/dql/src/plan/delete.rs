//! DELETE and EVICT: the documents of which WHERE is true, or the first of them.

use std::sync::Arc;

use bigpeer_crdt::{DocId, Document, Editor, FieldCondition};
use bigpeer_types::limits::MAX_TRANSACTION_CHANGES;
use bigpeer_types::{CollectionName, HlcClock};

use super::bind::Binder;
use super::returning::Returning;
use super::select::bounds;
use super::sorter::{Held, Sorter};
use super::target::{Target, writable};
use super::update::too_many;
use super::{Flow, Mode, Mutation, Params};
use crate::ast::Delete;
use crate::error::DqlError;
use crate::eval::compare::Key;
use crate::eval::compile::Compiler;
use crate::eval::node::Node;
use crate::eval::{Env, Row, full_tank};

/// A DELETE or EVICT ready to run.
#[derive(Clone, Debug)]
pub struct DeletePlan {
    pub(crate) target: Target,
    order: Vec<Node>,
    descending: Arc<[bool]>,
    limit: Option<usize>,
    offset: usize,
    depends: bool,
    returning: Returning,
}

impl DeletePlan {
    pub(crate) fn new(mut delete: Delete, params: &Params, mode: Mode) -> Result<Self, DqlError> {
        writable(&delete.source.collection)?;
        let returning = Returning::new(std::mem::take(&mut delete.returning), &delete.source, params, mode)?;
        let (collection, alias) = (delete.source.collection.clone(), delete.source.alias.clone());
        let mut binder = Binder::new(params, &collection, alias.as_deref());
        binder.source(&mut delete.source)?;
        binder.optional(&mut delete.filter)?;
        binder.order(&mut delete.order, &[])?;
        let target = Target::new(&delete.source, delete.filter.take(), mode)?;
        let mut compiler = Compiler::new(&target.schema);
        let order = delete.order.by.iter().map(|term| compiler.node(&term.expr)).collect::<Result<Vec<_>, _>>()?;
        let (limit, offset) = bounds(&delete.order)?;
        let depends = target.reads_fields() || !order.is_empty();
        let descending = delete.order.by.iter().map(|term| term.descending).collect();
        Ok(Self { target, order, descending, limit, offset, depends, returning })
    }

    /// The collection.
    #[must_use]
    pub fn collection(&self) -> &CollectionName {
        &self.target.collection
    }

    /// The only documents that can matter, sorted, when WHERE or USE IDS pins `_id`: look these up instead of scanning.
    #[must_use]
    pub fn ids(&self) -> Option<Vec<DocId>> {
        self.target.ids()
    }

    /// What a scan may prune with.
    #[must_use]
    pub fn conditions(&self) -> Vec<FieldCondition> {
        self.target.conditions()
    }

    /// Starts to run.
    #[must_use]
    pub fn run(self) -> DeleteRun {
        let most = MAX_TRANSACTION_CHANGES.saturating_add(self.offset).saturating_add(1);
        let keep = self.limit.map_or(most, |limit| limit.saturating_add(self.offset));
        let sorter = Sorter::new(Arc::clone(&self.descending), keep.min(most));
        DeleteRun { plan: self, sorter, held: Held::default() }
    }
}

/// A DELETE or EVICT under way: feed it documents, then take the deltas (or, to evict, the ids).
#[derive(Debug)]
pub struct DeleteRun {
    plan: DeletePlan,
    sorter: Sorter<(DocId, Arc<Document>)>,
    held: Held,
}

impl DeleteRun {
    /// Takes a document. Invisible ones, and those of which WHERE is not true, are ignored.
    ///
    /// # Errors
    /// When there are too many to delete in one transaction.
    pub fn push(&mut self, id: &DocId, document: Arc<Document>) -> Result<Flow, DqlError> {
        if !self.sorter.is_settled() && self.plan.target.accepts(id, &document)? {
            let fuel = full_tank();
            let env = Env::new(Row::Document(id, &document, &self.plan.target.schema), &fuel);
            let keys = self.plan.order.iter().map(|node| Key(node.eval(env).into_value())).collect();
            let bytes = document.heap_bytes();
            self.sorter.push(keys, &mut self.held, || Ok(((id.clone(), Arc::clone(&document)), bytes)))?;
        }
        Ok(if self.sorter.is_settled() { Flow::Enough } else { Flow::More })
    }

    /// Makes the deltas.
    ///
    /// # Errors
    /// When there are too many documents to delete in one transaction.
    pub fn finish(self, clock: &mut HlcClock) -> Result<Mutation, DqlError> {
        let mut mutation = Mutation::default();
        let mut returning = self.plan.returning.clone().run();
        for (id, document) in self.sorter.finish(self.plan.offset) {
            if self.plan.depends {
                mutation.must_be_unchanged.push(id.clone());
            }
            let mut editor = Editor::new(&document, clock);
            editor.delete();
            let Some(delta) = editor.finish() else { continue };
            if mutation.changes.len() >= MAX_TRANSACTION_CHANGES {
                return Err(too_many());
            }
            returning.before(&id, &document)?;
            mutation.mutated.push(id.clone());
            mutation.changes.push((self.plan.target.collection.clone(), id, delta));
        }
        mutation.items = returning.finish()?;
        Ok(mutation)
    }

    /// The documents themselves, in the order of the statement: for finding them.
    pub fn documents(self) -> impl Iterator<Item = (DocId, Arc<Document>)> {
        self.sorter.finish(self.plan.offset)
    }

    /// The ids of the documents, for EVICT, and the rows of RETURNING.
    ///
    /// # Errors
    /// When RETURNING gives too much to hold.
    pub fn evicted(self) -> Result<(Vec<DocId>, Vec<bigpeer_crdt::Value>), DqlError> {
        let mut returning = self.plan.returning.clone().run();
        let mut ids = Vec::new();
        for (id, document) in self.sorter.finish(self.plan.offset) {
            returning.before(&id, &document)?;
            ids.push(id);
        }
        Ok((ids, returning.finish()?))
    }
}
