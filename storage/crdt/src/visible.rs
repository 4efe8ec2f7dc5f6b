//! `Visible`: what a reader sees of the slots: of each node the live one with the greatest stamp.
//!
//! - A register `{}` is the marker with which a map says that it exists; it counts for the map, so a map whose last key
//!   was removed is `{}`, and a map whose existence was said again later does not hide its own older keys.
//! - On equal stamps: map before counter before attachment before register.

use bigpeer_types::Stamp;

use crate::attachment::Attachment;
use crate::node::Node;
use crate::value::{Object, Value};

/// What a reader sees at a path.
#[derive(Clone, Copy, Debug)]
pub enum Visible<'a> {
    /// A register's value, or a part of one.
    Value(&'a Value),
    /// A map; an empty one, too.
    Map(MapView<'a>),
    /// A counter's value: the sum of its contributions, held within `i64`.
    Counter(i64),
    /// An attachment's token.
    Attachment(&'a Attachment),
}

impl Visible<'_> {
    /// The value, materialized. A counter is an integer, an attachment is [`Attachment::to_value`].
    #[must_use]
    pub fn to_value(&self) -> Value {
        match self {
            Self::Value(value) => (*value).clone(),
            Self::Map(map) => Value::Object(map.to_object()),
            Self::Counter(sum) => Value::Int(*sum),
            Self::Attachment(attachment) => attachment.to_value(),
        }
    }
}

/// The visible keys of a map.
#[derive(Clone, Copy)]
pub struct MapView<'a>(pub(crate) &'a Node);

impl<'a> MapView<'a> {
    /// What is visible at `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Visible<'a>> {
        self.0.child(key)?.visible()
    }

    /// Visible keys, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Visible<'a>)> + use<'a> {
        self.0.map().iter().filter_map(|(key, node)| Some((key.as_ref(), node.visible()?)))
    }

    /// Whether no key is visible.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The visible keys, materialized.
    #[must_use]
    pub fn to_object(&self) -> Object {
        let mut entries = Vec::with_capacity(self.0.map().len());
        entries.extend(self.iter().map(|(key, visible)| (Box::from(key), visible.to_value())));
        Object::from_sorted(entries)
    }
}

impl std::fmt::Debug for MapView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Which slot of a node is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// None: there is nothing.
    Nothing,
    Register,
    Map,
    Counter,
    Attachment,
}

impl Node {
    /// Calls `visit` with every stamp in the node and below.
    pub(crate) fn each_stamp(&self, visit: &mut impl FnMut(Stamp)) {
        if let Some(register) = &self.register {
            visit(register.stamp);
        }
        let Some(rest) = &self.rest else { return };
        rest.cleared.into_iter().for_each(&mut *visit);
        for (_, node) in &rest.map {
            node.each_stamp(visit);
        }
        for contribution in &rest.counter {
            visit(contribution.started);
            visit(contribution.stamp());
        }
        if let Some(attached) = &rest.attachment {
            visit(attached.stamp);
        }
    }

    /// Whether there is content, not only clearings.
    pub(crate) fn has_content(&self) -> bool {
        self.register.is_some()
            || self.rest.as_ref().is_some_and(|rest| {
                !rest.counter.is_empty()
                    || rest.attachment.is_some()
                    || rest.map.iter().any(|(_, node)| node.has_content())
            })
    }

    /// The newest stamp of content.
    pub(crate) fn newest(&self) -> Option<Stamp> {
        let register = self.register.as_ref().map(|register| register.stamp);
        let Some(rest) = &self.rest else { return register };
        let attachment = rest.attachment.as_ref().map(|attached| attached.stamp);
        register.max(self.newest_in_map()).max(self.newest_in_counter()).max(attachment)
    }

    fn newest_in_map(&self) -> Option<Stamp> {
        self.map().iter().filter_map(|(_, node)| node.newest()).max()
    }

    fn newest_in_counter(&self) -> Option<Stamp> {
        self.counter().iter().map(|contribution| contribution.stamp()).max()
    }

    /// Which slot is seen.
    pub(crate) fn kind(&self) -> Kind {
        let marker = self.register.as_ref().is_some_and(|register| register.is_marker());
        let register = self.register.as_ref().map(|register| register.stamp);
        let Some(rest) = &self.rest else {
            return match (&self.register, marker) {
                (None, _) => Kind::Nothing,
                (Some(_), true) => Kind::Map,
                (Some(_), false) => Kind::Register,
            };
        };
        if rest.counter.is_empty() && rest.attachment.is_none() && (marker || register.is_none()) {
            return if self.has_content() { Kind::Map } else { Kind::Nothing };
        }
        let map = if marker { self.newest_in_map().max(register) } else { self.newest_in_map() };
        let attachment = rest.attachment.as_ref().map(|attached| attached.stamp);
        let mut seen = (map, Kind::Map);
        for (stamp, kind) in [
            (self.newest_in_counter(), Kind::Counter),
            (attachment, Kind::Attachment),
            (if marker { None } else { register }, Kind::Register),
        ] {
            if stamp > seen.0 {
                seen = (stamp, kind);
            }
        }
        if seen.0.is_some() { seen.1 } else { Kind::Nothing }
    }

    /// What is seen.
    pub(crate) fn visible(&self) -> Option<Visible<'_>> {
        match self.kind() {
            Kind::Nothing => None,
            Kind::Register => self.register.as_ref().map(|register| Visible::Value(&register.value)),
            Kind::Map => Some(Visible::Map(MapView(self))),
            Kind::Counter => Some(Visible::Counter(self.counter_value())),
            Kind::Attachment => self.attached().map(|attached| Visible::Attachment(&attached.attachment)),
        }
    }

    fn counter_value(&self) -> i64 {
        let add = |sum: i128, part: &crate::node::Contribution| {
            sum + i128::from(part.increments) - i128::from(part.decrements)
        };
        let sum = self.counter().iter().fold(0, add);
        i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
    }

    /// Heap bytes behind the node, estimated from lengths.
    pub(crate) fn heap_bytes(&self) -> usize {
        let register = self.register.as_ref().map_or(0, |register| register.value.heap_bytes());
        let Some(rest) = &self.rest else { return register };
        let map: usize = rest.map.iter().map(|(key, node)| key.len() + node.heap_bytes()).sum();
        let attachment = rest
            .attachment
            .as_ref()
            .map_or(0, |attached| size_of::<crate::node::Attached>() + attached.attachment.metadata.heap_bytes());
        register
            + size_of::<crate::node::Rest>()
            + rest.map.capacity() * size_of::<(Box<str>, Self)>()
            + map
            + rest.counter.capacity() * size_of::<crate::node::Contribution>()
            + attachment
    }
}
