//! Evaluation of compiled expressions on one row. Nothing here fails: what makes no sense is MISSING. Fields are fetched
//! from the document when they are asked for; nothing else of the document is touched.

pub(crate) mod aggregate;
pub(crate) mod compare;
pub(crate) mod compile;
pub(crate) mod node;
pub(crate) mod number;
pub(crate) mod pattern;
pub(crate) mod schema;

use std::cell::Cell as Fuel;
use std::sync::Arc;

use bigpeer_crdt::{DocId, Document, Object, Value};

use schema::Schema;

/// How many elements quantifiers and comprehensions may visit for one document, so that nesting them cannot keep the
/// server busy for ever.
pub(crate) const FUEL_PER_DOCUMENT: u64 = 1_000_000;

/// The result of an expression.
#[derive(Clone, Debug)]
pub(crate) enum Cell<'a> {
    Missing,
    Ref(&'a Value),
    Own(Value),
}

impl<'a> Cell<'a> {
    pub(crate) const NULL: Self = Cell::Own(Value::Null);

    pub(crate) fn get(&self) -> Option<&Value> {
        match self {
            Self::Missing => None,
            Self::Ref(value) => Some(value),
            Self::Own(value) => Some(value),
        }
    }

    pub(crate) fn into_value(self) -> Option<Value> {
        match self {
            Self::Missing => None,
            Self::Ref(value) => Some(value.clone()),
            Self::Own(value) => Some(value),
        }
    }

    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Missing)
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.get(), Some(Value::Null))
    }

    pub(crate) fn text(&self) -> Option<&str> {
        self.get().and_then(Value::as_str)
    }

    pub(crate) fn of(value: impl Into<Value>) -> Self {
        Self::Own(value.into())
    }

    pub(crate) fn from_option(value: Option<&'a Value>) -> Self {
        value.map_or(Self::Missing, Self::Ref)
    }

    /// What is at `key` of an object.
    pub(crate) fn member(self, key: &str) -> Self {
        match self {
            Self::Ref(Value::Object(object)) => Self::from_option(object.get(key)),
            Self::Own(Value::Object(mut object)) => object.remove(key).map_or(Self::Missing, Self::Own),
            Self::Missing | Self::Ref(_) | Self::Own(_) => Self::Missing,
        }
    }

    /// The element `at` of an array; from the end when negative.
    pub(crate) fn element(self, at: i64) -> Self {
        let index = |length: usize| {
            let at = if at < 0 { at + i64::try_from(length).unwrap_or(i64::MAX) } else { at };
            usize::try_from(at).ok().filter(|at| *at < length)
        };
        match self {
            Self::Ref(Value::Array(items)) => Self::from_option(index(items.len()).and_then(|at| items.get(at))),
            Self::Own(Value::Array(mut items)) => match index(items.len()) {
                Some(at) => Self::Own(items.swap_remove(at)),
                None => Self::Missing,
            },
            Self::Missing | Self::Ref(_) | Self::Own(_) => Self::Missing,
        }
    }
}

/// Three-valued logic, and MISSING.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Truth {
    True,
    False,
    Null,
    Missing,
}

impl Truth {
    pub(crate) fn of(value: Option<&Value>) -> Self {
        match value {
            Some(Value::Bool(true)) => Self::True,
            Some(Value::Bool(false)) => Self::False,
            Some(Value::Null) => Self::Null,
            // Not a truth value: the wrong type.
            Some(
                Value::Int(_)
                | Value::UInt(_)
                | Value::Float(_)
                | Value::String(_)
                | Value::Bytes(_)
                | Value::Array(_)
                | Value::Object(_),
            )
            | None => Self::Missing,
        }
    }

    pub(crate) const fn from_bool(flag: bool) -> Self {
        if flag { Self::True } else { Self::False }
    }

    pub(crate) const fn not(self) -> Self {
        match self {
            Self::True => Self::False,
            Self::False => Self::True,
            Self::Null => Self::Null,
            Self::Missing => Self::Missing,
        }
    }

    /// Negated if `negated`.
    pub(crate) const fn negate_if(self, negated: bool) -> Self {
        if negated { self.not() } else { self }
    }

    /// FALSE wins, then MISSING, then NULL.
    pub(crate) const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::False, _) | (_, Self::False) => Self::False,
            (Self::Missing, _) | (_, Self::Missing) => Self::Missing,
            (Self::Null, _) | (_, Self::Null) => Self::Null,
            (Self::True, Self::True) => Self::True,
        }
    }

    /// TRUE wins, then NULL, then MISSING.
    pub(crate) const fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::True, _) | (_, Self::True) => Self::True,
            (Self::Null, _) | (_, Self::Null) => Self::Null,
            (Self::Missing, _) | (_, Self::Missing) => Self::Missing,
            (Self::False, Self::False) => Self::False,
        }
    }

    pub(crate) const fn cell<'a>(self) -> Cell<'a> {
        match self {
            Self::True => Cell::Own(Value::Bool(true)),
            Self::False => Cell::Own(Value::Bool(false)),
            Self::Null => Cell::NULL,
            Self::Missing => Cell::Missing,
        }
    }
}

/// What an expression is evaluated on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Row<'a> {
    Nothing,
    Document(&'a DocId, &'a Document, &'a Schema),
    /// A row that is not a document: of a virtual collection.
    Object(&'a Object),
    /// One part of each source of a join, in the order of the sources.
    Joined(&'a [Scope], &'a [Arc<Part>]),
    /// The keys of a group, then its aggregates.
    Group(&'a [Option<Value>]),
}

/// One source of a join: what the statement calls it, and its types.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) name: String,
    pub(crate) schema: Schema,
}

/// What one source gives to a row of a join.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    /// Nothing matched: all fields are MISSING.
    Absent,
    Document(DocId, Arc<Document>),
    /// A row that is not a document.
    Object(Object),
}

impl Part {
    pub(crate) fn row<'a>(&'a self, schema: &'a Schema) -> Row<'a> {
        match self {
            Self::Absent => Row::Nothing,
            Self::Document(id, document) => Row::Document(id, document, schema),
            Self::Object(object) => Row::Object(object),
        }
    }
}

impl<'a> Row<'a> {
    /// The row of the join's source `at`.
    pub(crate) fn source(self, at: usize) -> Self {
        match self {
            Row::Joined(scopes, parts) => match (scopes.get(at), parts.get(at)) {
                (Some(scope), Some(part)) => part.row(&scope.schema),
                _ => Row::Nothing,
            },
            Row::Nothing | Row::Document(..) | Row::Object(_) | Row::Group(_) => Row::Nothing,
        }
    }

    /// `_id` and everything visible.
    pub(crate) fn to_object(self) -> Object {
        match self {
            Row::Nothing | Row::Group(_) => Object::new(),
            Row::Document(id, document, schema) => {
                let mut object = schema.object(document);
                object.insert("_id", id.to_value());
                object
            }
            Row::Object(object) => object.clone(),
            // One object for each source that has a part.
            Row::Joined(scopes, parts) => {
                let present = scopes.iter().zip(parts).filter(|(_, part)| !matches!(***part, Part::Absent));
                present
                    .map(|(scope, part)| (scope.name.clone(), Value::Object(part.row(&scope.schema).to_object())))
                    .collect()
            }
        }
    }
}

/// A variable of ANY, EVERY, ARRAY or OBJECT, and those around it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) value: &'a Value,
    pub(crate) index: &'a Value,
    pub(crate) outer: Option<&'a Frame<'a>>,
}

/// The row, the variables, and what may still be spent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Env<'a> {
    pub(crate) row: Row<'a>,
    pub(crate) frame: Option<&'a Frame<'a>>,
    fuel: &'a Fuel<u64>,
}

impl<'a> Env<'a> {
    pub(crate) fn new(row: Row<'a>, fuel: &'a Fuel<u64>) -> Self {
        Self { row, frame: None, fuel }
    }

    /// The same row with one more variable.
    pub(crate) fn with<'b>(self, frame: &'b Frame<'b>) -> Env<'b>
    where
        'a: 'b,
    {
        Env { row: self.row, frame: Some(frame), fuel: self.fuel }
    }

    /// The join's source `at` alone, with the same variables.
    pub(crate) fn of_source(self, at: usize) -> Self {
        Env { row: self.row.source(at), ..self }
    }

    /// Takes `amount` of fuel; false when there is not enough left.
    pub(crate) fn spend(&self, amount: u64) -> bool {
        let left = self.fuel.get().checked_sub(amount);
        self.fuel.set(left.unwrap_or(0));
        left.is_some()
    }
}

/// Fuel for one document.
pub(crate) fn full_tank() -> Fuel<u64> {
    Fuel::new(FUEL_PER_DOCUMENT)
}
