//! `Matcher`: a subscription's query together with what its session may read, and `Matchers`: all of one collection,
//! equal ones shared, those with equality conditions indexed by value.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bigpeer_crdt::{DocId, Document, FieldCondition, Object, Value, Visible};
use bigpeer_dql::SelectPlan;
use bigpeer_types::CollectionName;
use xxhash_rust::xxh3::xxh3_64;

use crate::rules::{self, Allowed};

/// Which documents a subscription gets.
#[derive(Debug)]
pub(crate) struct Matcher {
    plan: SelectPlan,
    read: Allowed,
    /// Equal matchers have equal keys.
    key: Box<str>,
    everything: bool,
}

impl Matcher {
    pub(crate) fn new(plan: SelectPlan, read: Allowed) -> Self {
        let canonical = plan.canonical();
        let plain = format!("SELECT * FROM `{}`", plan.collection().as_str().replace('`', "``"));
        let unconditional = rules::bind(&plain, &Object::default()).is_ok_and(|plain| plain.canonical() == canonical);
        let everything = unconditional && matches!(read, Allowed::Everything);
        Self { key: format!("{canonical}\0{}", read.text()).into(), plan, read, everything }
    }

    /// The same query, for someone who may read something else.
    pub(crate) fn with_rule(&self, read: Allowed) -> Self {
        Self::new(self.plan.clone(), read)
    }

    pub(crate) fn collection(&self) -> &CollectionName {
        self.plan.collection()
    }

    /// Names what is sent under this query and these permissions.
    pub(crate) fn scope(&self) -> u64 {
        xxh3_64(self.key.as_bytes())
    }

    /// What may be read.
    pub(crate) const fn rule(&self) -> &Allowed {
        &self.read
    }

    /// The query, with its arguments in place.
    pub(crate) fn query(&self) -> &str {
        self.key.split('\0').next().unwrap_or_default()
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Whether it gets every visible document of the collection.
    pub(crate) const fn is_everything(&self) -> bool {
        self.everything
    }

    /// What a scan may leave out.
    pub(crate) fn conditions(&self) -> Vec<FieldCondition> {
        self.plan.conditions()
    }

    /// Whether the subscription has the document.
    pub(crate) fn matches(&self, id: &DocId, document: &Document) -> bool {
        document.is_visible() && (self.everything || self.plan.matches(id, document) && self.read.holds(id, document))
    }

    /// Whether a document that it does not match may be named: it may be read, or everything may.
    pub(crate) fn may_name(&self, id: &DocId, document: &Document) -> bool {
        match self.read {
            Allowed::Everything => true,
            Allowed::Nothing => false,
            Allowed::AnyOf(..) => document.is_visible() && self.read.holds(id, document),
        }
    }
}

/// A scalar as equality sees it: numbers by their value, whatever their type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scalar {
    Bool(bool),
    Int(i128),
    Float(u64),
    String(Box<str>),
}

impl Scalar {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(value) => Some(Self::Bool(*value)),
            Value::Int(value) => Some(Self::Int((*value).into())),
            Value::UInt(value) => Some(Self::Int((*value).into())),
            Value::Float(value) => Some(Self::of_float(*value)),
            Value::String(value) => Some(Self::String(value.clone())),
            Value::Null | Value::Bytes(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "checked to be integral and within 2^64")]
    fn of_float(value: f64) -> Self {
        let integral = value.fract() == 0.0 && value.abs() < 18_446_744_073_709_551_616.0;
        if integral { Self::Int(value as i128) } else { Self::Float(value.to_bits()) }
    }

    /// The document's field at `path`, if an index can hold it.
    fn at(path: &[Box<str>], id: &DocId, document: &Document) -> Option<Self> {
        match path.split_first() {
            Some((first, rest)) if &**first == "_id" => {
                let mut value = &id.to_value();
                for key in rest {
                    let Value::Object(object) = value else { return None };
                    value = object.get(key)?;
                }
                Self::of(value)
            }
            Some(_) | None => match document.get(path)? {
                Visible::Value(value) => Self::of(value),
                Visible::Counter(value) => Some(Self::Int(value.into())),
                Visible::Map(_) | Visible::Attachment(_) => None,
            },
        }
    }
}

/// Who listens: a session's number and its subscription's id.
pub(super) type Listener = (u64, u32);

#[derive(Debug)]
struct Entry {
    matcher: Arc<Matcher>,
    listeners: BTreeSet<Listener>,
    /// Where it stands in the index: a path and the values there; none if every change must be shown to it.
    indexed: Option<(Vec<Box<str>>, Vec<Scalar>)>,
}

/// The matchers of one collection.
#[derive(Debug, Default)]
pub(super) struct Matchers {
    entries: BTreeMap<u64, Entry>,
    by_key: BTreeMap<Box<str>, u64>,
    next: u64,
    index: BTreeMap<Vec<Box<str>>, BTreeMap<Scalar, BTreeSet<u64>>>,
    unindexed: BTreeSet<u64>,
}

impl Matchers {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Who listens; a session once for each of its subscriptions.
    pub(super) fn sessions(&self) -> impl Iterator<Item = u64> {
        self.entries.values().flat_map(|entry| entry.listeners.iter().map(|(session, _)| *session))
    }

    /// The equal one that somebody listens with.
    pub(super) fn equal(&self, matcher: &Matcher) -> Option<Arc<Matcher>> {
        let entry = self.by_key.get(matcher.key()).and_then(|number| self.entries.get(number))?;
        Some(Arc::clone(&entry.matcher))
    }

    pub(super) fn add(&mut self, matcher: &Arc<Matcher>, listener: Listener) {
        if let Some(entry) = self.by_key.get(matcher.key()).and_then(|number| self.entries.get_mut(number)) {
            entry.listeners.insert(listener);
            return;
        }
        let number = self.next;
        self.next += 1;
        let indexed = index_place(&matcher.plan);
        match &indexed {
            Some((path, values)) => {
                let places = self.index.entry(path.clone()).or_default();
                for value in values {
                    places.entry(value.clone()).or_default().insert(number);
                }
            }
            None => {
                self.unindexed.insert(number);
            }
        }
        self.by_key.insert(matcher.key().into(), number);
        self.entries.insert(number, Entry { matcher: Arc::clone(matcher), listeners: [listener].into(), indexed });
    }

    pub(super) fn remove(&mut self, matcher: &Matcher, listener: Listener) {
        let Some(&number) = self.by_key.get(matcher.key()) else { return };
        let Some(entry) = self.entries.get_mut(&number) else { return };
        entry.listeners.remove(&listener);
        if !entry.listeners.is_empty() {
            return;
        }
        self.unindexed.remove(&number);
        if let Some((path, values)) = self.entries.remove(&number).and_then(|entry| entry.indexed)
            && let Some(places) = self.index.get_mut(&path)
        {
            for value in &values {
                if let Some(numbers) = places.get_mut(value) {
                    numbers.remove(&number);
                    if numbers.is_empty() {
                        places.remove(value);
                    }
                }
            }
            if places.is_empty() {
                self.index.remove(&path);
            }
        }
        self.by_key.remove(matcher.key());
    }

    /// Calls `hit` with every listener whose matcher has the document before or after a change, and which of the two.
    pub(super) fn hits(
        &self,
        id: &DocId,
        before: Option<&Document>,
        after: &Document,
        mut hit: impl FnMut(Listener, bool, bool),
    ) {
        let mut candidates: Vec<u64> = self.unindexed.iter().copied().collect();
        for (path, places) in &self.index {
            let old = before.and_then(|before| Scalar::at(path, id, before));
            let new = Scalar::at(path, id, after);
            let values = [old.as_ref().filter(|_| old != new), new.as_ref()];
            let found = values.into_iter().flatten().filter_map(|value| places.get(value)).flatten();
            candidates.extend(found);
        }
        // A matcher with several values may have been found by the old and by the new one.
        candidates.sort_unstable();
        candidates.dedup();
        for entry in candidates.iter().filter_map(|number| self.entries.get(number)) {
            let was = before.is_some_and(|before| entry.matcher.matches(id, before));
            let is = entry.matcher.matches(id, after);
            if was || is {
                for listener in &entry.listeners {
                    hit(*listener, was, is);
                }
            }
        }
    }
}

/// The condition to index by: on `_id` if there is one, else the one with the fewest values.
fn index_place(plan: &SelectPlan) -> Option<(Vec<Box<str>>, Vec<Scalar>)> {
    let usable = plan.equalities().into_iter().filter_map(|equality| {
        let values: Option<Vec<Scalar>> = equality.values.iter().map(Scalar::of).collect();
        Some((equality.path, values?))
    });
    usable.min_by_key(|(path, values)| (path.first().is_none_or(|first| &**first != "_id"), values.len()))
}

#[cfg(test)]
mod tests;
