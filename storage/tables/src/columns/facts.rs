//! `Facts`: what typed columns do not say about the values in them, kept beside them: in the footer of a segment, and for
//! what is in memory. They only ever become more, and what is not known is taken for the worst.
//!
//! **Layout**: the entry [`FACTS_KEY`] of a Parquet footer's key-value metadata, JSON: `{"version": 1}` and, for each trait,
//! the sorted names of the top-level fields that have it.

use bigpeer_crdt::{Document, Object, Value, Visible};
use parquet::file::metadata::ParquetMetaData;
use serde::{Deserialize, Serialize};

use super::MAX_COLUMNS;

/// The key of the facts in a Parquet footer.
pub const FACTS_KEY: &str = "bigpeer.facts";

const VERSION: u32 = 1;

/// Names of fields beyond which nothing is known any more.
const MAX_NAMES: usize = 4 * MAX_COLUMNS;

/// What may be true of the values of one top-level field, those below it in maps included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// Some are `null`: a null of the column may be that, or a missing field.
    pub nulls: bool,
    /// Some are integers: a number of a float column may be one.
    pub ints: bool,
    /// Some are floats that no comparison of floats treats as the others: NaN and -0.0.
    pub odd: bool,
    /// Some are maps, counters or attachments, which strict mode shows only where they are declared.
    pub nodes: bool,
}

impl Traits {
    const ALL: Self = Self { nulls: true, ints: true, odd: true, nodes: true };

    fn join(&mut self, other: Self) {
        self.nulls |= other.nulls;
        self.ints |= other.ints;
        self.odd |= other.odd;
        self.nodes |= other.nodes;
    }

    fn observe(&mut self, value: &Value) {
        match value {
            Value::Null => self.nulls = true,
            Value::Int(_) | Value::UInt(_) => self.ints = true,
            Value::Float(number) => self.odd |= number.is_nan() || (*number == 0.0 && number.is_sign_negative()),
            Value::Object(object) => object.iter().for_each(|(_, value)| self.observe(value)),
            // An array is compared as a whole or not at all.
            Value::Bool(_) | Value::String(_) | Value::Bytes(_) | Value::Array(_) => {}
        }
    }
}

/// Traits of fields. The default is those of no document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Sorted by name.
    fields: Vec<(Box<str>, Traits)>,
    unknown: bool,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    #[serde(default)]
    nulls: Vec<Box<str>>,
    #[serde(default)]
    ints: Vec<Box<str>>,
    #[serde(default)]
    odd: Vec<Box<str>>,
    #[serde(default)]
    nodes: Vec<Box<str>>,
}

impl Facts {
    /// Of documents about which nothing is known.
    #[must_use]
    pub fn unknown() -> Self {
        Self { fields: Vec::new(), unknown: true }
    }

    /// Of the documents of a segment; unknown where its footer does not say, or not in a way that is understood.
    #[must_use]
    pub fn of_footer(footer: &ParquetMetaData) -> Self {
        let entries = footer.file_metadata().key_value_metadata().into_iter().flatten();
        let text = entries.filter(|entry| entry.key == FACTS_KEY).find_map(|entry| entry.value.as_deref());
        let stored = text.and_then(|text| serde_json::from_str::<Stored>(text).ok());
        stored.filter(|stored| stored.version == VERSION).map_or_else(Self::unknown, Self::from)
    }

    /// As they are stored; nothing when they are unknown.
    pub(crate) fn stored(&self) -> Option<String> {
        let names = |has: fn(&Traits) -> bool| {
            self.fields.iter().filter(|(_, traits)| has(traits)).map(|(name, _)| name.clone()).collect()
        };
        let stored = Stored {
            version: VERSION,
            nulls: names(|traits| traits.nulls),
            ints: names(|traits| traits.ints),
            odd: names(|traits| traits.odd),
            nodes: names(|traits| traits.nodes),
        };
        if self.unknown { None } else { serde_json::to_string(&stored).ok() }
    }

    /// What may be true of the values of the field `name`.
    #[must_use]
    pub fn of(&self, name: &str) -> Traits {
        if self.unknown {
            return Traits::ALL;
        }
        let place = self.fields.binary_search_by(|(field, _)| field.as_ref().cmp(name));
        place.ok().and_then(|place| self.fields.get(place)).map(|(_, traits)| *traits).unwrap_or_default()
    }

    /// Takes note of a document, and of `object`, which is what is visible of it.
    pub(crate) fn observe(&mut self, document: &Document, object: &Object) {
        const ROOT: &[&str] = &[];
        let view = match document.get(ROOT) {
            Some(Visible::Map(view)) => Some(view),
            Some(Visible::Value(_) | Visible::Counter(_) | Visible::Attachment(_)) | None => None,
        };
        // Both are in the order of their names, and have the same.
        let mut visible = view.iter().flat_map(bigpeer_crdt::MapView::iter);
        let mut at = 0;
        for (name, value) in object.iter() {
            let mut traits = Traits::default();
            traits.observe(value);
            if let Some((key, visible)) = visible.next() {
                traits.nodes = key != name || !matches!(visible, Visible::Value(_));
            }
            at = self.add(name, traits, at);
        }
    }

    /// Everything that either says.
    pub fn join(&mut self, other: &Self) {
        self.unknown |= other.unknown;
        let mut at = 0;
        for (name, traits) in &other.fields {
            at = self.add(name, *traits, at);
        }
    }

    /// Adds to the traits of `name`, which is at `from` or behind it; where the next name may be.
    fn add(&mut self, name: &str, traits: Traits, from: usize) -> usize {
        let mut at = from;
        while self.fields.get(at).is_some_and(|(field, _)| field.as_ref() < name) {
            at += 1;
        }
        match self.fields.get_mut(at) {
            Some((field, known)) if field.as_ref() == name => known.join(traits),
            _ if self.unknown => return at,
            _ => self.fields.insert(at, (name.into(), traits)),
        }
        if self.fields.len() > MAX_NAMES {
            *self = Self::unknown();
            return 0;
        }
        at + 1
    }
}

impl From<Stored> for Facts {
    fn from(stored: Stored) -> Self {
        let mut facts = Self::default();
        let sets: [(_, fn(&mut Traits)); 4] = [
            (stored.nulls, |traits| traits.nulls = true),
            (stored.ints, |traits| traits.ints = true),
            (stored.odd, |traits| traits.odd = true),
            (stored.nodes, |traits| traits.nodes = true),
        ];
        for (names, set) in sets {
            let mut traits = Traits::default();
            set(&mut traits);
            for name in names {
                facts.add(&name, traits, 0);
            }
        }
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigpeer_crdt::{Editor, ObjectMode};
    use bigpeer_types::{Hlc, HlcClock, ManualClock, SiteId};
    use std::sync::Arc;

    fn observed(json: serde_json::Value, mode: ObjectMode, counter: bool) -> Facts {
        let mut clock = HlcClock::new(SiteId::new(1), Hlc::ZERO, Arc::new(ManualClock::new(1000)));
        let base = Document::new();
        let mut editor = Editor::new(&base, &mut clock);
        editor.insert(Value::from_json(json).unwrap().as_object().unwrap(), mode).unwrap();
        if counter {
            editor.increment(&["hits"], 1).unwrap();
        }
        let document = editor.finish().unwrap();
        let mut facts = Facts::default();
        facts.observe(&document, &document.to_object());
        facts
    }

    #[test]
    fn what_columns_lose_is_noted() {
        let json =
            serde_json::json!({"a": 1, "b": null, "c": "x", "m": {"n": null, "f": 1.5}, "z": -0.0, "l": [null, 1]});
        let facts = observed(json, ObjectMode::Map, true);
        assert_eq!(facts.of("a"), Traits { ints: true, ..Traits::default() });
        assert_eq!(facts.of("b"), Traits { nulls: true, ..Traits::default() });
        assert_eq!(facts.of("m"), Traits { nulls: true, nodes: true, ..Traits::default() });
        assert_eq!(facts.of("z"), Traits { odd: true, ..Traits::default() });
        assert_eq!(facts.of("hits"), Traits { ints: true, nodes: true, ..Traits::default() });
        for plain in ["c", "l", "absent"] {
            assert_eq!(facts.of(plain), Traits::default(), "{plain}");
        }
        let registers = observed(serde_json::json!({"m": {"n": true}}), ObjectMode::Register, false);
        assert_eq!(registers.of("m"), Traits::default());
    }

    #[test]
    fn they_are_read_as_they_were_stored_and_join() {
        let one = observed(serde_json::json!({"a": 1, "m": {"b": null}}), ObjectMode::Map, true);
        let other = observed(serde_json::json!({"a": null, "q": 2}), ObjectMode::Map, false);
        let again = |facts: &Facts| Facts::from(serde_json::from_str::<Stored>(&facts.stored().unwrap()).unwrap());
        let mut both = again(&one);
        both.join(&again(&other));
        assert_eq!(both.of("a"), Traits { nulls: true, ints: true, ..Traits::default() });
        assert_eq!((both.of("m"), both.of("q")), (one.of("m"), other.of("q")));
        both.join(&Facts::unknown());
        assert_eq!((both.of("a"), both.of("never")), (Traits::ALL, Traits::ALL));
        assert_eq!(both.stored(), None);
    }

    #[test]
    fn too_many_names_are_as_good_as_none() {
        let mut facts = Facts::default();
        for n in 0..=MAX_NAMES {
            facts.add(&format!("{n:08}"), Traits::default(), 0);
        }
        assert_eq!(facts.of("x"), Traits::ALL);
    }
}
