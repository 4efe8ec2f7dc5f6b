//! INSERT: documents, ids, and what happens when a document is there already.

#![allow(clippy::wildcard_enum_match_arm, reason = "whatever is not named is refused or printed")]

use std::collections::BTreeSet;
use std::sync::Arc;

use bigpeer_crdt::{DocId, Document, Editor, FieldCondition, Object, Value};
use bigpeer_types::limits::MAX_TRANSACTION_CHANGES;
use bigpeer_types::{CollectionName, Hlc, HlcClock, IdGenerator, ManualClock, SiteId};

use super::bind::Binder;
use super::returning::Returning;
use super::select::SelectPlan;
use super::target::writable;
use super::{Mode, Mutation, Params, write};
use crate::ast::{ConflictPolicy, Expr, Insert, InsertInput};
use crate::error::{DqlError, shown};
use crate::eval::schema::Schema;

/// An INSERT ready to run.
#[derive(Clone, Debug)]
pub struct InsertPlan {
    collection: CollectionName,
    schema: Schema,
    conflict: ConflictPolicy,
    documents: Vec<NewDocument>,
    source: Option<Box<SelectPlan>>,
    returning: Returning,
}

#[derive(Clone, Debug)]
struct NewDocument {
    id: DocId,
    /// The id was made up here: no other document has it.
    generated: bool,
    fields: Object,
}

impl InsertPlan {
    pub(crate) fn new(insert: Insert, params: &Params, mode: Mode, ids: &dyn IdGenerator) -> Result<Self, DqlError> {
        let collection = insert.source.collection.clone();
        writable(&collection)?;
        let schema = Schema::new(&insert.source.types, mode.strict)?;
        let returning = Returning::new(insert.returning, &insert.source, params, mode)?;
        let mut plan =
            Self { collection, schema, conflict: insert.conflict, documents: Vec::new(), source: None, returning };
        match insert.input {
            InsertInput::Documents(documents) => plan.add_documents(documents, params, ids)?,
            InsertInput::Select(select) => plan.source = Some(Box::new(SelectPlan::new(*select, params, mode)?)),
        }
        Ok(plan)
    }

    fn add_documents(&mut self, documents: Vec<Expr>, params: &Params, ids: &dyn IdGenerator) -> Result<(), DqlError> {
        let collection = self.collection.clone();
        let mut binder = Binder::new(params, &collection, None);
        let mut values = Vec::new();
        for mut expr in documents {
            binder.expr(&mut expr)?;
            match expr {
                Expr::Literal(Value::Array(items)) => values.extend(items),
                Expr::Literal(value) => values.push(value),
                other => {
                    return Err(DqlError::new(format!(
                        "A document must be a constant or a parameter, not {}",
                        shown(&other.to_string())
                    ))
                    .hint("keys and text are quoted: {'name': 'value'}"));
                }
            }
        }
        self.add(values, ids)
    }

    fn add(&mut self, values: Vec<Value>, ids: &dyn IdGenerator) -> Result<(), DqlError> {
        if values.len() > MAX_TRANSACTION_CHANGES {
            return Err(DqlError::new(format!("A statement can insert at most {MAX_TRANSACTION_CHANGES} documents"))
                .hint("use several statements"));
        }
        let mut seen = BTreeSet::new();
        for value in values {
            let Value::Object(mut fields) = value else {
                return Err(DqlError::new(format!(
                    "A document must be an object, not {}",
                    shown(&Expr::Literal(value).to_string())
                )));
            };
            let (id, generated) = match fields.remove("_id") {
                Some(Value::Null) => {
                    return Err(DqlError::new("The document id `_id` cannot be null").hint("leave it out to get one"));
                }
                Some(id) => (id, false),
                None => (Value::from(ids.uuid()), true),
            };
            let id = DocId::from_value(&id)
                .map_err(|error| DqlError::new(format!("The document id cannot be used: {error}")))?;
            if !seen.insert(id.clone()) {
                return Err(
                    DqlError::new("Expected unique document identifiers").hint(format!("{} comes twice", id_text(&id)))
                );
            }
            self.documents.push(NewDocument { id, generated, fields });
        }
        Ok(())
    }

    /// The collection.
    #[must_use]
    pub fn collection(&self) -> &CollectionName {
        &self.collection
    }

    /// The ids of the documents to insert, in their order: what [`Self::apply`] asks for.
    #[must_use]
    pub fn ids(&self) -> Option<Vec<DocId>> {
        Some(self.documents.iter().map(|document| document.id.clone()).collect())
    }

    /// Nothing: an INSERT looks documents up by id.
    #[must_use]
    pub fn conditions(&self) -> Vec<FieldCondition> {
        Vec::new()
    }

    /// The SELECT of `INSERT … SELECT`: run it, then hand its rows to [`Self::with_rows`].
    #[must_use]
    pub fn source(&self) -> Option<&SelectPlan> {
        self.source.as_deref()
    }

    /// Puts in the rows of [`Self::source`].
    ///
    /// # Errors
    /// When rows have the same `_id`, or one that cannot be used.
    pub fn with_rows(mut self, rows: Vec<Value>, ids: &dyn IdGenerator) -> Result<Self, DqlError> {
        self.source = None;
        self.add(rows, ids)?;
        Ok(self)
    }

    /// Makes the deltas. `existing` must answer for each of [`Self::ids`], states of deleted documents included.
    ///
    /// # Errors
    /// On a conflict of ids under the FAIL policy, and for documents that cannot be written.
    pub fn apply(
        &self,
        existing: &dyn Fn(&DocId) -> Option<Arc<Document>>,
        clock: &mut HlcClock,
    ) -> Result<Mutation, DqlError> {
        if self.source.is_some() {
            return Err(DqlError::new("The rows of INSERT … SELECT have not been put in"));
        }
        let nothing = Arc::new(Document::new());
        let mut mutation = Mutation::default();
        let mut returning = self.returning.clone().run();
        for document in &self.documents {
            let current = if document.generated { None } else { existing(&document.id) };
            let current = current.unwrap_or_else(|| Arc::clone(&nothing));
            let depends = !document.generated
                && matches!(self.conflict, ConflictPolicy::Fail | ConflictPolicy::DoNothing | ConflictPolicy::Initial);
            if depends {
                mutation.must_be_unchanged.push(document.id.clone());
            }
            let Some(delta) = self.delta(document, &current, clock)? else { continue };
            returning.after(&document.id, &current, &delta)?;
            mutation.mutated.push(document.id.clone());
            mutation.changes.push((self.collection.clone(), document.id.clone(), delta));
        }
        mutation.items = returning.finish()?;
        Ok(mutation)
    }

    fn delta(
        &self,
        document: &NewDocument,
        current: &Document,
        clock: &mut HlcClock,
    ) -> Result<Option<Document>, DqlError> {
        if self.conflict == ConflictPolicy::Initial {
            return self.initial(document, current);
        }
        let exists = current.is_visible();
        let mut editor = Editor::new(current, clock);
        match (self.conflict, exists) {
            (_, false) => write::insert(&mut editor, &self.schema, &document.fields)?,
            (ConflictPolicy::DoNothing | ConflictPolicy::Initial, true) => return Ok(None),
            (ConflictPolicy::Fail, true) => {
                return Err(DqlError::new(format!(
                    "Identifier conflict on document \"{}\": using FAIL conflict policy",
                    id_text(&document.id)
                ))
                .hint("ON ID CONFLICT DO NOTHING, DO UPDATE or DO UPDATE_LOCAL_DIFF say what else to do"));
            }
            (ConflictPolicy::DoUpdate, true) => write::merge(&mut editor, &self.schema, &document.fields)?,
            (ConflictPolicy::DoUpdateLocalDiff, true) => {
                write::merge_differing(&mut editor, &self.schema, current, &mut Vec::new(), &document.fields)?;
            }
        }
        Ok(editor.finish())
    }

    /// `INITIAL`: written by nobody at the beginning of time, so that the same document inserted anywhere is the same,
    /// and everything else wins. Nothing happens when there was ever a document.
    fn initial(&self, document: &NewDocument, current: &Document) -> Result<Option<Document>, DqlError> {
        if !current.is_empty() {
            return Ok(None);
        }
        let mut clock = HlcClock::new(SiteId::new(0), Hlc::ZERO, Arc::new(ManualClock::new(0)));
        let mut editor = Editor::new(current, &mut clock);
        write::insert(&mut editor, &self.schema, &document.fields)?;
        Ok(editor.finish())
    }
}

/// An id as the reference prints it: a string without quotes, anything else as a literal.
fn id_text(id: &DocId) -> String {
    match id.to_value() {
        Value::String(text) => shown(&text),
        other => shown(&Expr::Literal(other).to_string()),
    }
}
