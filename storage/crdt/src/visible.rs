//! `Visible`: what a reader sees.
use crate::attachment::Attachment;
use crate::value::{Object, Value};

/// What a reader sees at a path.
#[derive(Clone, Copy, Debug)]
pub enum Visible<'a> {
    /// A register's value, or a part of one.
    Value(&'a Value),
    /// A map; `{}` is an empty one.
    Map(MapView<'a>),
    /// A counter.
    Counter(i64),
    /// An attachment's token.
    Attachment(&'a Attachment),
}

impl Visible<'_> {
    /// The value, materialized.
    #[must_use]
    pub fn to_value(&self) -> Value {
        Value::Null
    }
}

/// The visible keys of a map.
#[derive(Clone, Copy, Debug)]
pub struct MapView<'a>(pub(crate) &'a ());

impl<'a> MapView<'a> {
    /// What is visible at `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Visible<'a>> {
        let _ = key;
        None
    }
    /// Visible keys, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Visible<'a>)> + use<'a> {
        std::iter::empty()
    }
    /// Whether no key is visible.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
    /// The visible keys, materialized.
    #[must_use]
    pub fn to_object(&self) -> Object {
        Object::new()
    }
}
