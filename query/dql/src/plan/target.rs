//! `Target`: which documents a statement is about. Shared by SELECT, UPDATE, DELETE and EVICT.

#![allow(clippy::wildcard_enum_match_arm, reason = "whatever is not named is refused")]

use bigpeer_crdt::{DocId, Document, FieldCondition, Value};
use bigpeer_types::CollectionName;

use super::{Mode, prune};
use crate::ast::{Expr, Source, UseIds};
use crate::error::{DqlError, shown};
use crate::eval::compile::Compiler;
use crate::eval::node::Node;
use crate::eval::schema::Schema;
use crate::eval::{Env, Row, Truth, full_tank};

/// Collection, declared types, WHERE and USE IDS, bound and compiled.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) collection: CollectionName,
    pub(crate) schema: Schema,
    /// The bound WHERE.
    pub(crate) filter: Option<Expr>,
    node: Option<Node>,
    /// USE IDS, sorted.
    pub(crate) use_ids: Option<Vec<DocId>>,
}

impl Target {
    pub(crate) fn new(source: &Source, filter: Option<Expr>, mode: Mode) -> Result<Self, DqlError> {
        if let Some(aggregate) = filter.as_ref().filter(|filter| filter.has_aggregate()) {
            return Err(DqlError::new(format!("WHERE cannot use an aggregate: {}", shown(&aggregate.to_string())))
                .hint("conditions on aggregates belong into HAVING"));
        }
        let schema = Schema::new(&source.types, mode.strict)?;
        let node = filter.as_ref().map(|filter| Compiler::new(&schema).node(filter)).transpose()?;
        let use_ids = source.ids.as_ref().map(use_ids).transpose()?;
        Ok(Self { collection: source.collection.clone(), schema, filter, node, use_ids })
    }

    /// The only documents that can matter.
    pub(crate) fn ids(&self) -> Option<Vec<DocId>> {
        let pinned = prune::ids(self.filter.as_ref());
        match (&self.use_ids, pinned) {
            (None, pinned) => pinned,
            (Some(used), None) => Some(used.clone()),
            (Some(used), Some(mut pinned)) => {
                pinned.retain(|id| used.binary_search(id).is_ok());
                Some(pinned)
            }
        }
    }

    pub(crate) fn conditions(&self) -> Vec<FieldCondition> {
        prune::conditions(self.filter.as_ref())
    }

    /// Whether the document is one of them.
    ///
    /// # Errors
    /// When the condition takes too long.
    pub(crate) fn accepts(&self, id: &DocId, document: &Document) -> Result<bool, DqlError> {
        if !document.is_visible() || self.use_ids.as_ref().is_some_and(|ids| ids.binary_search(id).is_err()) {
            return Ok(false);
        }
        self.holds(Row::Document(id, document, &self.schema))
    }

    /// Whether WHERE is true of `row`.
    pub(crate) fn holds(&self, row: Row<'_>) -> Result<bool, DqlError> {
        let Some(node) = &self.node else { return Ok(true) };
        let fuel = full_tank();
        let truth = node.truth(Env::new(row, &fuel));
        if fuel.get() == 0 { Err(too_expensive()) } else { Ok(truth == Truth::True) }
    }

    /// Whether WHERE looks at anything but `_id`.
    pub(crate) fn reads_fields(&self) -> bool {
        self.filter.as_ref().is_some_and(reads_fields)
    }
}

/// Whether the expression looks at a field other than `_id`.
pub(crate) fn reads_fields(expr: &Expr) -> bool {
    expr.any(&|expr| matches!(expr, Expr::Path(path) if path.first().is_none_or(|first| first != "_id")))
}

pub(crate) fn too_expensive() -> DqlError {
    DqlError::new("The statement takes too long to evaluate on one document")
        .hint("it goes through too many elements of arrays")
}

fn use_ids(ids: &UseIds) -> Result<Vec<DocId>, DqlError> {
    let not_constant = || DqlError::new("USE IDS takes constants or parameters, not fields");
    let values = match ids {
        UseIds::List(list) => match &**list {
            Expr::Literal(Value::Array(items)) => items.clone(),
            Expr::Literal(_) => return Err(DqlError::new("USE IDS LIST takes an array")),
            _ => return Err(not_constant()),
        },
        UseIds::Each(ids) => {
            let literal =
                |id: &Expr| if let Expr::Literal(value) = id { Ok(value.clone()) } else { Err(not_constant()) };
            ids.iter().map(literal).collect::<Result<_, _>>()?
        }
    };
    Ok(prune::known(&values))
}

/// Refuses writes to collections that the system fills.
pub(crate) fn writable(collection: &CollectionName) -> Result<(), DqlError> {
    if collection.is_system() || collection.as_str().starts_with("system:") {
        return Err(DqlError::new(format!("The collection `{collection}` cannot be written to"))
            .hint("names that begin with __ or system: are the system's"));
    }
    Ok(())
}
