//! `Rules`: what a token allows, compiled: which documents of a collection may be read or written.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bigpeer_chassis::{Access, Permissions, Rule};
use bigpeer_crdt::{DocId, Document, Object};
use bigpeer_dql::{Mode, Plan, SelectPlan, parse};
use bigpeer_types::{CollectionName, RandomIds};

/// What is allowed in one collection.
#[derive(Clone, Debug)]
pub(crate) enum Allowed {
    /// Every document.
    Everything,
    /// No document.
    Nothing,
    /// Those that one of the plans matches; the text names the rule.
    AnyOf(Arc<Vec<SelectPlan>>, Arc<str>),
}

impl Allowed {
    /// Whether the rule holds for a document that exists.
    pub(crate) fn holds(&self, id: &DocId, document: &Document) -> bool {
        match self {
            Self::Everything => true,
            Self::Nothing => false,
            Self::AnyOf(plans, _) => plans.iter().any(|plan| plan.matches(id, document)),
        }
    }

    /// Whether it takes a document to decide.
    pub(crate) const fn is_conditional(&self) -> bool {
        matches!(self, Self::AnyOf(..))
    }

    /// One text for equal rules.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Everything => "everything",
            Self::Nothing => "nothing",
            Self::AnyOf(_, text) => text,
        }
    }
}

/// Permissions with their conditions compiled as they are needed.
#[derive(Debug)]
pub(crate) struct Rules {
    permissions: Arc<Permissions>,
    read: Mutex<BTreeMap<CollectionName, Allowed>>,
    write: Mutex<BTreeMap<CollectionName, Allowed>>,
}

impl Rules {
    pub(crate) fn new(permissions: Arc<Permissions>) -> Self {
        Self { permissions, read: Mutex::default(), write: Mutex::default() }
    }

    pub(crate) fn permissions(&self) -> &Permissions {
        &self.permissions
    }

    /// What may be read of a collection. System collections are read with everything only.
    pub(crate) fn read(&self, collection: &CollectionName) -> Allowed {
        if collection.is_system() {
            return if self.permissions.read.everything { Allowed::Everything } else { Allowed::Nothing };
        }
        rule(&self.read, &self.permissions.read, collection)
    }

    /// What may be written to a collection. Nobody writes system collections.
    pub(crate) fn write(&self, collection: &CollectionName) -> Allowed {
        rule(&self.write, &self.permissions.write, collection)
    }
}

fn rule(compiled: &Mutex<BTreeMap<CollectionName, Allowed>>, access: &Access, collection: &CollectionName) -> Allowed {
    match access.on(collection) {
        Rule::Everything => Allowed::Everything,
        Rule::Nothing => Allowed::Nothing,
        Rule::AnyOf(conditions) => {
            let mut compiled = compiled.lock().unwrap_or_else(PoisonError::into_inner);
            compiled.entry(collection.clone()).or_insert_with(|| compile(collection, conditions)).clone()
        }
    }
}

/// Conditions that cannot be understood allow nothing; they are checked when a key is made.
fn compile(collection: &CollectionName, conditions: &[String]) -> Allowed {
    let plans: Vec<SelectPlan> = conditions.iter().filter_map(|condition| plan(collection, condition)).collect();
    if plans.is_empty() {
        return Allowed::Nothing;
    }
    let text = plans.iter().map(SelectPlan::canonical).collect::<Vec<_>>().join("\n");
    Allowed::AnyOf(Arc::new(plans), text.into())
}

fn plan(collection: &CollectionName, condition: &str) -> Option<SelectPlan> {
    match SelectPlan::of_condition(collection, condition) {
        Ok(plan) => Some(plan),
        Err(error) => {
            tracing::warn!(%error, "a condition of a permission cannot be understood; it allows nothing");
            None
        }
    }
}

/// A statement that can be subscribed to, as a plan.
///
/// # Errors
/// Says where it is wrong.
pub(crate) fn bind(text: &str, arguments: &Object) -> Result<SelectPlan, String> {
    let plan = parse(text).and_then(|statement| statement.bind(arguments, Mode::default(), &RandomIds));
    plan.and_then(Plan::into_subscription).map_err(|error| error.to_string())
}
