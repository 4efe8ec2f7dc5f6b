//! `Lens`: what one reader sees of a change: its sources (collections, conditions, paths, fields) and what it may read.
//!
//! A condition makes a **view**: a document is in it while the condition is true of it. A reader of a view sees a document
//! that enters it as inserted and one that leaves it as removed, and never an image that is not in it. Permissions are such
//! a condition, always. A condition of a source may instead only select events, by the image before or after the change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bigpeer_chassis::{Access, Rule};
use bigpeer_crdt::{DocId, Document, FieldCondition, MapView, Object, Value, Visible};
use bigpeer_dql::SelectPlan;
use bigpeer_feed_spec::{CompiledSource, On, Path, Source, Values, compile_sources};
use bigpeer_types::CollectionName;

use crate::paths;
use crate::walker::WalkedChange;

/// A change as a reader sees it: at least one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The document before; none: it was not there, for this reader.
    pub before: Option<Object>,
    /// The document after; none: it is not there any more, for this reader.
    pub after: Option<Object>,
    /// The paths that differ; all of the document when there is one image only.
    pub paths: Vec<String>,
}

/// Sources and permissions, compiled.
#[derive(Debug)]
pub struct Lens {
    /// None: every collection that is not a system collection.
    sources: Option<BTreeMap<CollectionName, CompiledSource>>,
    access: Access,
    rules: std::sync::Mutex<BTreeMap<CollectionName, Arc<Allowed>>>,
    values: Values,
}

#[derive(Debug)]
enum Allowed {
    Everything,
    Nothing,
    AnyOf(Vec<SelectPlan>),
}

impl Lens {
    /// Compiles `sources` (empty: everything) for a reader that may read what `access` allows.
    ///
    /// # Errors
    /// Says which source cannot be understood, and why.
    pub fn compile(sources: &[Source], access: Access, values: Values) -> Result<Self, String> {
        let compiled = compile_sources(sources)?;
        let sources = (!sources.is_empty()).then_some(compiled);
        Ok(Self { sources, access, rules: std::sync::Mutex::default(), values })
    }

    /// The only collections that can be seen; none: all that are not system collections.
    #[must_use]
    pub fn collections(&self) -> Option<BTreeSet<CollectionName>> {
        self.sources.as_ref().map(|sources| sources.keys().cloned().collect())
    }

    /// Whether anything of a collection can be seen.
    #[must_use]
    pub fn sees(&self, collection: &CollectionName) -> bool {
        let named = match &self.sources {
            Some(sources) => sources.contains_key(collection),
            None => !collection.is_system(),
        };
        named && !matches!(*self.allowed(collection), Allowed::Nothing)
    }

    /// What of a collection could be seen, for a scan to leave out what cannot.
    #[must_use]
    pub fn conditions(&self, collection: &CollectionName) -> Vec<FieldCondition> {
        let plan = self.sources.as_ref().and_then(|sources| sources.get(collection)?.plan.as_ref());
        plan.map(SelectPlan::conditions).unwrap_or_default()
    }

    /// What the reader sees of a change; nothing, if that is nothing, or nothing that it sees has changed.
    #[must_use]
    pub fn change(&self, change: &WalkedChange) -> Option<Seen> {
        self.look(&change.collection, &change.id, change.before.as_deref(), Some(&change.after))
    }

    /// What the reader sees of a document; none, if it does not see it.
    #[must_use]
    pub fn document(&self, collection: &CollectionName, id: &DocId, document: &Document) -> Option<Object> {
        let (_, after, source) = self.images(collection, id, None, Some(document))?;
        let (wanted, fields) = source.map_or((&[][..], &[][..]), |source| (&source.paths, &source.fields));
        let object = self.projected(after?, fields);
        // All of it is new; which paths that are nobody asks, unless only some are wanted.
        let interesting = wanted.is_empty() || meets(&paths::changed(None, Some(&object)), wanted);
        interesting.then_some(object)
    }

    fn look(
        &self,
        collection: &CollectionName,
        id: &DocId,
        before: Option<&Document>,
        after: Option<&Document>,
    ) -> Option<Seen> {
        let (before, after, source) = self.images(collection, id, before, after)?;
        match source {
            None => self.show(before, after, &[], &[]),
            Some(source) => self.show(before, after, &source.paths, &source.fields),
        }
    }

    /// The images that are seen, and by which source.
    #[allow(clippy::type_complexity, reason = "before, after, and the source")]
    fn images<'a>(
        &self,
        collection: &CollectionName,
        id: &DocId,
        before: Option<&'a Document>,
        after: Option<&'a Document>,
    ) -> Option<(Option<&'a Document>, Option<&'a Document>, Option<&CompiledSource>)> {
        let allowed = self.allowed(collection);
        let before = before.filter(|document| allowed.holds(id, document));
        let after = after.filter(|document| allowed.holds(id, document));
        match &self.sources {
            None if collection.is_system() => None,
            None => Some((before, after, None)),
            Some(sources) => {
                let source = sources.get(collection)?;
                let holds = |document: &&Document| source.plan.as_ref().is_none_or(|plan| plan.matches(id, document));
                let (before, after) = match source.on {
                    On::View => (before.filter(holds), after.filter(holds)),
                    On::Before => (Some(before.filter(holds)?), after),
                    On::After => (before, Some(after.filter(holds)?)),
                };
                Some((before, after, Some(source)))
            }
        }
    }

    fn show(
        &self,
        before: Option<&Document>,
        after: Option<&Document>,
        wanted: &[Path],
        fields: &[Path],
    ) -> Option<Seen> {
        let object = |document| self.projected(document, fields);
        let (before, after) = (before.map(object), after.map(object));
        if before == after {
            return None;
        }
        let changed = paths::changed(before.as_ref(), after.as_ref());
        let interesting = wanted.is_empty() || meets(&changed, wanted);
        interesting.then(|| Seen { before, after, paths: changed.iter().map(paths::text).collect() })
    }

    fn projected(&self, document: &Document, fields: &[Path]) -> Object {
        let object = self.object(document);
        if fields.is_empty() { object } else { paths::project(&object, fields) }
    }

    fn object(&self, document: &Document) -> Object {
        match self.values {
            Values::Untyped => document.to_object(),
            Values::Typed => {
                const ROOT: &[&str] = &[];
                match document.get(ROOT) {
                    Some(Visible::Map(view)) => typed_map(view),
                    Some(Visible::Value(_) | Visible::Counter(_) | Visible::Attachment(_)) | None => {
                        document.to_object()
                    }
                }
            }
        }
    }

    /// System collections are read with everything only.
    fn allowed(&self, collection: &CollectionName) -> Arc<Allowed> {
        let mut rules = self.rules.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(allowed) = rules.get(collection) {
            return Arc::clone(allowed);
        }
        let allowed = match self.access.on(collection) {
            _ if collection.is_system() && !self.access.everything => Allowed::Nothing,
            Rule::Everything => Allowed::Everything,
            Rule::Nothing => Allowed::Nothing,
            // Conditions that cannot be understood allow nothing; they are checked when a key is made.
            Rule::AnyOf(rules) => Allowed::AnyOf(
                rules.iter().filter_map(|rule| SelectPlan::of_condition(collection, rule).ok()).collect(),
            ),
        };
        let allowed = Arc::new(allowed);
        rules.insert(collection.clone(), Arc::clone(&allowed));
        allowed
    }
}

fn meets(changed: &[Path], wanted: &[Path]) -> bool {
    changed.iter().any(|path| wanted.iter().any(|wanted| paths::meet(path, wanted)))
}

impl Allowed {
    /// Whether the document is visible, and may be read.
    fn holds(&self, id: &DocId, document: &Document) -> bool {
        match self {
            Self::Everything => document.is_visible(),
            Self::Nothing => false,
            Self::AnyOf(plans) => plans.iter().any(|plan| plan.matches(id, document)),
        }
    }
}

fn typed_map(view: MapView<'_>) -> Object {
    view.iter().map(|(key, visible)| (key, typed(visible))).collect()
}

fn typed(visible: Visible<'_>) -> Value {
    let (kind, value) = match visible {
        Visible::Value(value) => ("register", value.clone()),
        Visible::Counter(number) => ("counter", Value::Int(number)),
        Visible::Map(view) => ("map", Value::Object(typed_map(view))),
        Visible::Attachment(attachment) => ("attachment", attachment.to_value()),
    };
    let inner: Object = [("value", value)].into_iter().collect();
    Value::Object([(kind, Value::Object(inner))].into_iter().collect())
}
