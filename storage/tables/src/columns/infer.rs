//! Inference: the narrowest columns that hold given documents.

use std::collections::HashMap;

use bigpeer_crdt::{Object, Value};

use super::{ColumnType, Columns, MAX_COLUMNS, MAX_LEAVES, MAX_STRUCT_DEPTH, MAX_STRUCT_FIELDS, is_column_name};

/// New top-level names beyond which inference stops to take note of more: they would go to the rest anyway.
const MAX_NAMES_SEEN: usize = 4 * MAX_COLUMNS;

impl ColumnType {
    /// The narrowest type that holds what either holds. Associative, commutative and idempotent.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        self.join_at(other, 0)
    }

    fn join_at(self, other: Self, depth: usize) -> Self {
        match (self, other) {
            (Self::Null, kind) | (kind, Self::Null) => kind,
            (a, b) if a == b => a,
            (Self::Int, Self::Decimal) | (Self::Decimal, Self::Int) => Self::Decimal,
            (Self::Int | Self::Decimal, Self::Float) | (Self::Float, Self::Int | Self::Decimal) => Self::Float,
            (Self::List(a), Self::List(b)) => {
                let element = a.join_at(*b, depth);
                if element == Self::Json { Self::Json } else { Self::List(Box::new(element)) }
            }
            (Self::Struct(a), Self::Struct(b)) => join_structs(a, b, depth),
            (
                Self::Bool
                | Self::Int
                | Self::Decimal
                | Self::Float
                | Self::Text
                | Self::Bytes
                | Self::List(_)
                | Self::Struct(_)
                | Self::Json,
                _,
            ) => Self::Json,
        }
    }

    /// Widens the type so that it holds `value`.
    fn observe(&mut self, value: &Value) {
        self.observe_at(value, 0);
    }

    fn observe_at(&mut self, value: &Value, depth: usize) {
        // The common cases first: nothing to do.
        match (&mut *self, value) {
            (Self::Json, _)
            | (_, Value::Null)
            | (Self::Bool, Value::Bool(_))
            | (Self::Int | Self::Decimal | Self::Float, Value::Int(_))
            | (Self::Float, Value::Float(_))
            | (Self::Text, Value::String(_)) => {}
            (Self::Struct(fields), Value::Object(object)) => {
                if observe_fields(fields, object, depth).is_err() {
                    *self = Self::Json;
                }
            }
            _ => {
                let old = std::mem::replace(self, Self::Null);
                *self = old.join_at(Self::of(value, depth), depth);
            }
        }
    }

    /// The type of one value that lies `depth` structs deep.
    fn of(value: &Value, depth: usize) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Bool,
            Value::Int(_) => Self::Int,
            Value::UInt(_) => Self::Decimal,
            Value::Float(_) => Self::Float,
            Value::String(_) => Self::Text,
            Value::Bytes(_) => Self::Bytes,
            Value::Array(values) => values
                .iter()
                .try_fold(Self::Null, Self::join_element)
                .map_or(Self::Json, |element| Self::List(Box::new(element))),
            Value::Object(object) => {
                let mut fields = Vec::new();
                match observe_fields(&mut fields, object, depth) {
                    Ok(()) => Self::Struct(fields),
                    Err(TooWide) => Self::Json,
                }
            }
        }
    }

    fn join_element(element: Self, value: &Value) -> Option<Self> {
        if matches!(value, Value::Array(_) | Value::Object(_)) {
            return None;
        }
        Some(element.join(Self::of(value, 0))).filter(|element| *element != Self::Json)
    }
}

/// A struct with too many fields, or too deep.
struct TooWide;

fn observe_fields(fields: &mut Vec<(Box<str>, ColumnType)>, object: &Object, depth: usize) -> Result<(), TooWide> {
    if depth >= MAX_STRUCT_DEPTH {
        return Err(TooWide);
    }
    let mut at = 0;
    for (name, value) in object.iter() {
        // Both sides are sorted, so that one walk finds every field.
        while fields.get(at).is_some_and(|(field, _)| &**field < name) {
            at += 1;
        }
        let full = fields.len() >= MAX_STRUCT_FIELDS;
        match fields.get_mut(at) {
            Some((field, kind)) if &**field == name => kind.observe_at(value, depth + 1),
            _ if name.is_empty() || full => return Err(TooWide),
            _ => fields.insert(at, (name.into(), ColumnType::of(value, depth + 1))),
        }
    }
    Ok(())
}

fn join_structs(a: Vec<(Box<str>, ColumnType)>, b: Vec<(Box<str>, ColumnType)>, depth: usize) -> ColumnType {
    let mut out: Vec<(Box<str>, ColumnType)> = Vec::with_capacity(a.len().max(b.len()));
    let (mut a, mut b) = (a.into_iter().peekable(), b.into_iter().peekable());
    loop {
        let order = match (a.peek(), b.peek()) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((x, _)), Some((y, _))) => x.cmp(y),
        };
        match order {
            std::cmp::Ordering::Less => out.extend(a.next()),
            std::cmp::Ordering::Greater => out.extend(b.next()),
            std::cmp::Ordering::Equal => {
                if let (Some((name, x)), Some((_, y))) = (a.next(), b.next()) {
                    out.push((name, x.join_at(y, depth + 1)));
                }
            }
        }
    }
    if out.len() > MAX_STRUCT_FIELDS { ColumnType::Json } else { ColumnType::Struct(out) }
}

/// Watches documents and widens columns to hold them.
#[derive(Debug)]
pub(super) struct Inference {
    columns: Columns,
    /// Where each column of `columns` is.
    places: HashMap<Box<str>, usize>,
    /// Which columns a document had a value for, `null` included.
    seen: Vec<bool>,
    /// Columns up to here were there before and keep their place; later ones are put in order of their names.
    known: usize,
}

impl Inference {
    /// Starts from the columns that a collection has.
    fn new(columns: Columns) -> Self {
        let places = columns.fields.iter().enumerate().map(|(place, (name, _))| (name.clone(), place)).collect();
        let known = columns.fields.len();
        Self { columns, places, seen: vec![false; known], known }
    }

    /// Starts from the columns' names alone: types are what the documents of one segment need.
    pub(super) fn narrow(known: &Columns) -> Self {
        let fields = known.fields.iter().map(|(name, _)| (name.clone(), ColumnType::Null)).collect();
        Self::new(Columns { id: ColumnType::Null, fields, rest: false })
    }

    /// Takes note of one document.
    pub(super) fn observe(&mut self, id: &Value, document: &Object) {
        self.columns.id.observe(id);
        let mut next = 0;
        for (name, value) in document.iter() {
            // Documents of a collection tend to have the same fields in the same order.
            let place = match self.columns.fields.get(next) {
                Some((field, _)) if &**field == name => Some(next),
                _ => self.places.get(name).copied(),
            };
            if let Some((at, (_, kind))) = place.and_then(|at| Some((at, self.columns.fields.get_mut(at)?))) {
                kind.observe(value);
                if let Some(seen) = self.seen.get_mut(at) {
                    *seen = true;
                }
                next = at + 1;
            } else if is_column_name(name) && self.columns.fields.len() < MAX_NAMES_SEEN {
                self.places.insert(name.into(), self.columns.fields.len());
                let mut kind = ColumnType::Null;
                kind.observe(value);
                self.columns.fields.push((name.into(), kind));
                self.seen.push(true);
            } else {
                self.columns.rest = true;
            }
        }
    }

    /// The columns that hold everything observed, within the limits, and all that there were at the start.
    fn finish(mut self) -> Columns {
        if let Some(new) = self.columns.fields.get_mut(self.known..) {
            new.sort_by(|(a, _), (b, _)| a.cmp(b));
        }
        self.columns.limit();
        self.columns
    }

    /// As [`Self::finish`], without columns that no document had a value for.
    pub(super) fn finish_used(self) -> Columns {
        let unused: Vec<Box<str>> = (self.columns.fields.iter().zip(&self.seen))
            .filter(|(_, seen)| !**seen)
            .map(|((name, _), _)| name.clone())
            .collect();
        let mut columns = self.finish();
        columns.fields.retain(|(name, _)| !unused.contains(name));
        columns
    }
}

impl Columns {
    /// Widens these columns to hold what `other` holds; names that are new come last, in the order of `other`.
    #[must_use]
    pub fn join(mut self, other: &Self) -> Self {
        self.id = self.id.join(other.id.clone());
        self.rest |= other.rest;
        let places: HashMap<Box<str>, usize> =
            self.fields.iter().enumerate().map(|(place, (name, _))| (name.clone(), place)).collect();
        for (name, kind) in &other.fields {
            match places.get(name).and_then(|place| self.fields.get_mut(*place)) {
                Some((_, mine)) => {
                    let old = std::mem::replace(mine, ColumnType::Null);
                    *mine = old.join(kind.clone());
                }
                None => self.fields.push((name.clone(), kind.clone())),
            }
        }
        self.limit();
        self
    }

    /// Brings the columns within the limits.
    fn limit(&mut self) {
        if self.fields.len() > MAX_COLUMNS {
            self.fields.truncate(MAX_COLUMNS);
            self.rest = true;
        }
        let mut leaves: usize = self.fields.iter().map(|(_, kind)| kind.leaves()).sum();
        while leaves > MAX_LEAVES {
            let Some((_, largest)) = self.fields.iter_mut().max_by_key(|(_, kind)| kind.leaves()) else { return };
            leaves -= largest.leaves() - 1;
            *largest = ColumnType::Json;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            Just(Value::UInt(u64::MAX)),
            any::<f64>().prop_map(Value::Float),
            "[a-c]{0,2}".prop_map(|text| Value::String(text.into())),
            Just(Value::Bytes(Box::from(&b"x"[..]))),
        ];
        leaf.prop_recursive(8, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::vec(("[a-e]?", inner), 0..4)
                    .prop_map(|fields| Value::Object(Object::from_iter(fields))),
            ]
        })
    }

    fn kind_of(values: &[Value]) -> ColumnType {
        let mut kind = ColumnType::Null;
        values.iter().for_each(|value| kind.observe(value));
        kind
    }

    proptest! {
        #[test]
        fn the_order_of_documents_does_not_matter(a in prop::collection::vec(value(), 0..5), b in prop::collection::vec(value(), 0..5)) {
            let both: Vec<Value> = a.iter().chain(&b).cloned().collect();
            let turned: Vec<Value> = b.iter().chain(&a).cloned().collect();
            let kind = kind_of(&both);
            prop_assert_eq!(&kind, &kind_of(&turned));
            prop_assert_eq!(&kind, &kind_of(&a).join(kind_of(&b)));
            prop_assert_eq!(&kind, &kind_of(&b).join(kind_of(&a)));
            prop_assert_eq!(kind.clone().join(kind.clone()), kind);
        }
    }

    #[test]
    fn types_widen_as_documented() {
        use ColumnType::{Decimal, Float, Int, Json, List, Text};
        let of = |values: &[Value]| kind_of(values);
        assert_eq!(of(&[Value::Int(1), Value::Null]), Int);
        assert_eq!(of(&[Value::Int(1), Value::Float(0.5)]), Float);
        assert_eq!(of(&[Value::Int(-1), Value::UInt(u64::MAX)]), Decimal);
        assert_eq!(of(&[Value::Int(1), Value::String("a".into())]), Json);
        let list = |values: &[Value]| Value::Array(values.to_vec());
        assert_eq!(of(&[list(&[Value::Int(1)]), list(&[])]), List(Box::new(Int)));
        assert_eq!(of(&[list(&[Value::Int(1), Value::Float(0.5)])]), List(Box::new(Float)));
        assert_eq!(of(&[list(&[Value::Int(1), Value::String("a".into())])]), Json);
        assert_eq!(of(&[list(&[list(&[])])]), Json);
        let map = |key: &str, value: Value| Value::Object(Object::from_iter([(key, value)]));
        assert_eq!(
            of(&[map("b", Value::Int(1)), map("a", Value::String("x".into()))]),
            ColumnType::Struct(vec![("a".into(), Text), ("b".into(), Int)])
        );
    }

    #[test]
    fn wide_maps_and_many_columns_stay_within_the_limits() {
        let wide = Object::from_iter((0..1000).map(|n| (format!("k{n:04}"), Value::Int(n))));
        assert_eq!(kind_of(&[Value::Object(wide.clone())]), ColumnType::Json);

        let mut inference = Inference::new(Columns::default());
        inference.observe(&Value::Int(1), &Object::from_iter([("z", Value::Int(1))]));
        let before = inference.finish();
        let mut inference = Inference::new(before);
        inference.observe(&Value::Int(1), &wide);
        let columns = inference.finish();
        assert_eq!(columns.fields.len(), MAX_COLUMNS);
        assert!(columns.rest);
        assert_eq!(columns.fields.first().map(|(name, _)| &**name), Some("z"), "a column never loses its place");
    }

    #[test]
    fn reserved_names_go_to_the_rest() {
        let mut inference = Inference::new(Columns::default());
        let names = ["_key", "_CRDT", "_rest", "", "_transaction", "fine"];
        inference.observe(&Value::Int(1), &Object::from_iter(names.map(|name| (name, Value::Int(1)))));
        let columns = inference.finish();
        assert_eq!(columns.fields, vec![("fine".into(), ColumnType::Int)]);
        assert!(columns.rest);
    }
}
