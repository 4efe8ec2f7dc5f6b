//! UPDATE: SET, UNSET and APPLY on the documents of which WHERE is true.

use std::sync::Arc;

use bigpeer_crdt::{DocId, Document, Editor, FieldCondition, Value, Visible};
use bigpeer_types::limits::MAX_TRANSACTION_CHANGES;
use bigpeer_types::{CollectionName, HlcClock};

use super::bind::Binder;
use super::returning::Returning;
use super::sorter::Held;
use super::target::{Target, reads_fields, too_expensive, writable};
use super::{Flow, Mode, Mutation, Params, Warning, write};
use crate::ast::{CounterOp, Update};
use crate::error::{DqlError, shown};
use crate::eval::compile::Compiler;
use crate::eval::node::Node;
use crate::eval::schema::Declared;
use crate::eval::{Env, Row, full_tank};

/// An UPDATE ready to run.
#[derive(Clone, Debug)]
pub struct UpdatePlan {
    pub(crate) target: Target,
    changes: Vec<(Vec<String>, FieldChange)>,
    /// Whether what is written, or to which documents, depends on fields.
    depends: bool,
    returning: Returning,
}

#[derive(Clone, Debug)]
enum FieldChange {
    Increment(Node),
    Restart(Node),
    Set(Node),
    Unset,
}

impl UpdatePlan {
    pub(crate) fn new(mut update: Update, params: &Params, mode: Mode) -> Result<Self, DqlError> {
        writable(&update.source.collection)?;
        let returning = Returning::new(std::mem::take(&mut update.returning), &update.source, params, mode)?;
        let (collection, alias) = (update.source.collection.clone(), update.source.alias.clone());
        let mut binder = Binder::new(params, &collection, alias.as_deref());
        binder.source(&mut update.source)?;
        binder.optional(&mut update.filter)?;
        let target = Target::new(&update.source, update.filter.take(), mode)?;
        let mut depends = target.reads_fields();
        let mut compile = |mut expr: crate::ast::Expr, binder: &mut Binder<'_>| {
            binder.expr(&mut expr)?;
            depends |= reads_fields(&expr);
            Compiler::new(&target.schema).node(&expr)
        };
        let mut changes = Vec::new();
        for (mut path, op) in update.apply {
            binder.strip(&mut path);
            let change = match op {
                CounterOp::Increment(by) | CounterOp::PnIncrement(by) => {
                    FieldChange::Increment(compile(by, &mut binder)?)
                }
                CounterOp::Restart(None) => FieldChange::Restart(Node::Const(Value::Int(0))),
                CounterOp::Restart(Some(with)) => FieldChange::Restart(compile(with, &mut binder)?),
            };
            changes.push((path, change));
        }
        for (mut path, expr) in update.set {
            binder.strip(&mut path);
            changes.push((path, FieldChange::Set(compile(expr, &mut binder)?)));
        }
        for mut path in update.unset {
            binder.strip(&mut path);
            changes.push((path, FieldChange::Unset));
        }
        check_paths(&changes)?;
        Ok(Self { target, changes, depends, returning })
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
    pub fn run(self) -> UpdateRun {
        UpdateRun { plan: self, chosen: Vec::new(), held: Held::default() }
    }
}

fn check_paths(changes: &[(Vec<String>, FieldChange)]) -> Result<(), DqlError> {
    for (at, (path, _)) in changes.iter().enumerate() {
        if path.first().is_none_or(|first| first == "_id") {
            return Err(DqlError::new("The document id `_id` cannot be modified")
                .hint("insert a new document and delete this one"));
        }
        if changes.iter().take(at).any(|(other, _)| other.starts_with(path) || path.starts_with(other)) {
            return Err(DqlError::new(format!(
                "More than one modification specified for the path {}",
                shown(&path.join("."))
            )));
        }
    }
    Ok(())
}

/// An UPDATE under way: feed it documents, then take the deltas.
#[derive(Debug)]
pub struct UpdateRun {
    plan: UpdatePlan,
    chosen: Vec<(DocId, Arc<Document>)>,
    held: Held,
}

impl UpdateRun {
    /// Takes a document. Invisible ones, and those of which WHERE is not true, are ignored.
    ///
    /// # Errors
    /// When there are too many to change in one transaction.
    pub fn push(&mut self, id: &DocId, document: Arc<Document>) -> Result<Flow, DqlError> {
        if self.plan.target.accepts(id, &document)? {
            if self.chosen.len() >= MAX_TRANSACTION_CHANGES {
                return Err(too_many());
            }
            self.held.add(document.heap_bytes())?;
            self.chosen.push((id.clone(), document));
        }
        Ok(Flow::More)
    }

    /// Makes the deltas. All values are computed from the documents as they were.
    ///
    /// # Errors
    /// When a change does not fit a document.
    pub fn finish(self, clock: &mut HlcClock) -> Result<Mutation, DqlError> {
        let mut mutation = Mutation::default();
        let mut returning = self.plan.returning.clone().run();
        for (id, document) in self.chosen {
            if self.plan.depends {
                mutation.must_be_unchanged.push(id.clone());
            }
            let Some(delta) = self.plan.delta(&id, &document, clock, &mut mutation.warnings)? else { continue };
            returning.after(&id, &document, &delta)?;
            mutation.mutated.push(id.clone());
            mutation.changes.push((self.plan.target.collection.clone(), id, delta));
        }
        mutation.items = returning.finish()?;
        Ok(mutation)
    }
}

pub(crate) fn too_many() -> DqlError {
    DqlError::new(format!("The statement would change more than {MAX_TRANSACTION_CHANGES} documents"))
        .hint("narrow WHERE, or use several statements")
}

impl UpdatePlan {
    fn delta(
        &self,
        id: &DocId,
        document: &Document,
        clock: &mut HlcClock,
        warnings: &mut Vec<Warning>,
    ) -> Result<Option<Document>, DqlError> {
        let fuel = full_tank();
        let env = Env::new(Row::Document(id, document, &self.target.schema), &fuel);
        let mut editor = Editor::new(document, clock);
        for (path, change) in &self.changes {
            self.check_parents(document, path)?;
            match change {
                FieldChange::Unset => editor.unset(path).map_err(write::edit_error)?,
                FieldChange::Increment(by) => {
                    let by = by.eval(env);
                    editor.increment(path, operand(by.get())?).map_err(write::edit_error)?;
                }
                FieldChange::Restart(with) => {
                    let with = with.eval(env);
                    editor.restart(path, operand(with.get())?).map_err(write::edit_error)?;
                }
                FieldChange::Set(node) => match node.eval(env).get() {
                    Some(value) => write::set(&mut editor, &self.target.schema, &mut path.clone(), value)?,
                    None => warnings.push(Warning {
                        id: Some(id.to_value()),
                        description: format!(
                            "The value for {} is MISSING; the field was left as it was",
                            shown(&path.join("."))
                        ),
                    }),
                },
            }
        }
        if fuel.get() == 0 { Err(too_expensive()) } else { Ok(editor.finish()) }
    }

    /// Refuses to write below what is not a map: its value would be hidden.
    fn check_parents(&self, document: &Document, path: &[String]) -> Result<(), DqlError> {
        for length in 1..path.len() {
            let parent = path.get(..length).unwrap_or(path);
            let declared = matches!(self.target.schema.declared(parent), Some(Declared::Map(_)));
            let kind = match document.get(parent) {
                Some(Visible::Map(_)) if declared || !self.target.schema.strict => None,
                Some(Visible::Value(Value::Null)) if declared || !self.target.schema.strict => None,
                Some(Visible::Value(Value::Object(object)))
                    if object.is_empty() && (declared || !self.target.schema.strict) =>
                {
                    None
                }
                None if declared || !self.target.schema.strict => None,
                Some(Visible::Counter(_)) => Some("COUNTER"),
                Some(Visible::Attachment(_)) => Some("ATTACHMENT"),
                Some(Visible::Map(_) | Visible::Value(_)) | None => Some("REGISTER"),
            };
            if let Some(kind) = kind {
                return Err(DqlError::new(format!(
                    "Unsupported DML operation on {kind} field \"{}\"",
                    shown(&parent.join("."))
                ))
                .hint("set the whole field; or declare it as MAP in strict mode"));
            }
        }
        Ok(())
    }
}

fn operand(value: Option<&Value>) -> Result<i64, DqlError> {
    value.map_or_else(|| Err(DqlError::new("Expected MISSING to be an integer value")), write::integer)
}
