//! `Node`: the product of slots that a document is a tree of, its join and its canonical form.
//!
//! # Algebra
//! A node's content is live above its **floor**, the greatest `cleared` of itself and its ancestors. Content at or below
//! the floor is dead, and so is a `cleared` at or below the floor of the ancestors, for it says nothing new. The canonical
//! form is the state without what is dead and without nodes that are then empty.
//!
//! Dropping the dead commutes with the join: floors only rise, so what is dead stays dead in every later join, and a dead
//! part can win over no live one: slots choose the greater stamp, and whatever is below a dead stamp is dead, too.
//! Contributions live and die by `started`, which is also their key. So joins of canonical forms, made canonical, are
//! the joins of the histories behind them.

mod merge;

use std::convert::Infallible;

use bigpeer_types::{Hlc, Stamp};

use crate::attachment::Attachment;
use crate::codec::tie_order;
use crate::value::{Object, Value};
use merge::Entries;
pub(crate) use merge::{Incoming, merge_into};

/// The greatest `cleared` of a node and its ancestors. `None` is below everything.
pub(crate) type Floor = Option<Stamp>;

/// One node. Most are a lone register, so everything else is behind one pointer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) register: Option<Register>,
    /// Present only if something is in it: equal nodes are equal field by field.
    pub(crate) rest: Option<Box<Rest>>,
}

/// A value, and when it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Register {
    pub(crate) stamp: Stamp,
    pub(crate) value: Value,
}

/// The slots that few nodes have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rest {
    pub(crate) cleared: Option<Stamp>,
    /// Sorted by key; no child is empty.
    pub(crate) map: Vec<(Box<str>, Node)>,
    /// Sorted by `started`.
    pub(crate) counter: Vec<Contribution>,
    pub(crate) attachment: Option<Box<Attached>>,
}

/// What one site added to a counter since `started`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contribution {
    /// The counter's age that the site contributes to; its key. A later `cleared` ends it.
    pub(crate) started: Stamp,
    /// When the site last changed it; not before `started`.
    pub(crate) last: Hlc,
    pub(crate) increments: u64,
    pub(crate) decrements: u64,
}

/// A token, and when it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) stamp: Stamp,
    pub(crate) attachment: Attachment,
}

impl Register {
    /// Whether this is `{}`, with which a map says that it exists.
    pub(crate) fn is_marker(&self) -> bool {
        matches!(&self.value, Value::Object(object) if object.is_empty())
    }
}

impl Contribution {
    /// The stamp of the last change.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp::new(self.last, self.started.site)
    }

    fn join(&mut self, other: &Self) {
        self.last = self.last.max(other.last);
        self.increments = self.increments.max(other.increments);
        self.decrements = self.decrements.max(other.decrements);
    }
}

impl Attached {
    /// Whether `self` beats `other`.
    fn beats(&self, other: &Self) -> bool {
        let order = self.stamp.cmp(&other.stamp);
        let order = order.then_with(|| self.attachment.tie_order(&other.attachment));
        order.is_gt()
    }
}

impl Rest {
    fn is_empty(&self) -> bool {
        self.cleared.is_none() && self.map.is_empty() && self.counter.is_empty() && self.attachment.is_none()
    }
}

impl Node {
    /// A node that is a lone register.
    pub(crate) fn of_register(stamp: Stamp, value: Value) -> Self {
        Self { register: Some(Register { stamp, value }), rest: None }
    }

    /// The value with which a map says that it exists.
    pub(crate) fn marker(stamp: Stamp) -> Register {
        Register { stamp, value: Value::Object(Object::new()) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.register.is_none() && self.rest.is_none()
    }

    pub(crate) fn cleared(&self) -> Option<Stamp> {
        self.rest.as_ref().and_then(|rest| rest.cleared)
    }

    pub(crate) fn map(&self) -> &[(Box<str>, Self)] {
        self.rest.as_ref().map_or(&[], |rest| &rest.map)
    }

    pub(crate) fn counter(&self) -> &[Contribution] {
        self.rest.as_ref().map_or(&[], |rest| &rest.counter)
    }

    pub(crate) fn attached(&self) -> Option<&Attached> {
        self.rest.as_ref().and_then(|rest| rest.attachment.as_deref())
    }

    pub(crate) fn child(&self, key: &str) -> Option<&Self> {
        let map = self.map();
        let at = map.binary_search_by(|(probe, _)| probe.as_ref().cmp(key)).ok()?;
        map.get(at).map(|(_, node)| node)
    }

    /// The slots beyond the register, to write to. Whoever asks puts something there or calls [`Self::tidy`].
    pub(crate) fn rest_mut(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }

    /// Drops the box behind which nothing is.
    pub(crate) fn tidy(&mut self) {
        if self.rest.as_ref().is_some_and(|rest| rest.is_empty()) {
            self.rest = None;
        }
    }

    /// Joins `other`. `self` is canonical below `floor`, and still is afterwards.
    pub(crate) fn join(&mut self, other: &Self, floor: Floor) {
        let floor = self.clear(other.cleared(), floor);
        if let Some(register) = &other.register {
            self.join_register(register.stamp, floor, &register.value);
        }
        let Some(rest) = &other.rest else { return };
        if !rest.map.is_empty() {
            let mut entries = Entries { left: &rest.map, floor };
            let done = merge_into(&mut self.rest_mut().map, rest.map.len(), &mut entries);
            done.unwrap_or_else(|never: Infallible| match never {});
        }
        if !rest.counter.is_empty() {
            let done = self.join_counter(rest.counter.iter().copied().map(Ok), floor);
            done.unwrap_or_else(|never: Infallible| match never {});
        }
        if let Some(attached) = &rest.attachment {
            self.join_attached(attached, floor);
        }
        self.tidy();
    }

    /// Joins `cleared` from elsewhere; answers this node's floor.
    pub(crate) fn clear(&mut self, cleared: Option<Stamp>, floor: Floor) -> Floor {
        let own = floor.max(self.cleared());
        if cleared > own {
            self.rest_mut().cleared = cleared;
            self.prune(cleared);
            return cleared;
        }
        own
    }

    /// Drops what is dead at `floor`.
    fn prune(&mut self, floor: Floor) {
        if self.register.as_ref().is_some_and(|register| Some(register.stamp) <= floor) {
            self.register = None;
        }
        let Some(rest) = &mut self.rest else { return };
        rest.map.retain_mut(|(_, node)| {
            node.prune_child(floor);
            !node.is_empty()
        });
        rest.counter.retain(|contribution| Some(contribution.started) > floor);
        if rest.attachment.as_ref().is_some_and(|attached| Some(attached.stamp) <= floor) {
            rest.attachment = None;
        }
        self.tidy();
    }

    /// As [`Self::prune`], of a node below the one that was cleared: a `cleared` up to the floor says nothing new, and
    /// below a later one everything was pruned already.
    fn prune_child(&mut self, floor: Floor) {
        if let Some(rest) = &mut self.rest {
            if rest.cleared > floor {
                return;
            }
            rest.cleared = None;
        }
        self.prune(floor);
    }

    /// Whether a register with `stamp` would not be dead or beaten by stamp; on equal stamps values decide.
    #[inline]
    fn register_may_win(&self, stamp: Stamp, floor: Floor) -> bool {
        Some(stamp) > floor && self.register.as_ref().is_none_or(|register| stamp >= register.stamp)
    }

    fn join_register(&mut self, stamp: Stamp, floor: Floor, value: &Value) {
        if self.register_may_win(stamp, floor) && self.wins_tie(stamp, value) {
            self.register = Some(Register { stamp, value: value.clone() });
        }
    }

    fn wins_tie(&self, stamp: Stamp, value: &Value) -> bool {
        self.register
            .as_ref()
            .is_none_or(|register| stamp != register.stamp || tie_order(value, &register.value).is_gt())
    }

    /// Whether the value of a register with `stamp` needs to be read at all.
    #[inline]
    pub(crate) fn wants_register(&self, stamp: Stamp, floor: Floor) -> bool {
        self.register_may_win(stamp, floor)
    }

    /// Joins a register that [`Self::wants_register`].
    #[inline]
    pub(crate) fn put_register(&mut self, stamp: Stamp, value: Value) {
        if self.wins_tie(stamp, &value) {
            self.register = Some(Register { stamp, value });
        }
    }

    /// Joins contributions, which come with ascending `started`.
    pub(crate) fn join_counter<E>(
        &mut self,
        parts: impl ExactSizeIterator<Item = Result<Contribution, E>>,
        floor: Floor,
    ) -> Result<(), E> {
        let counter = &mut self.rest_mut().counter;
        let many = parts.len().saturating_mul(counter.len()) > merge::FEW;
        for part in parts {
            let part = part?;
            if Some(part.started) <= floor {
                continue;
            }
            if many {
                counter.push(part);
                continue;
            }
            match counter.binary_search_by_key(&part.started, |probe| probe.started) {
                Ok(at) => counter.iter_mut().skip(at).take(1).for_each(|own| own.join(&part)),
                Err(at) => counter.insert(at, part),
            }
        }
        if many {
            // Two ascending runs: the sort is one walk.
            counter.sort_by_key(|part| part.started);
            counter.dedup_by(|later, own| {
                let same = later.started == own.started;
                if same {
                    own.join(later);
                }
                same
            });
        }
        Ok(())
    }

    pub(crate) fn join_attached(&mut self, attached: &Attached, floor: Floor) {
        if Some(attached.stamp) <= floor {
            return;
        }
        let slot = &mut self.rest_mut().attachment;
        if slot.as_ref().is_none_or(|own| attached.beats(own)) {
            *slot = Some(Box::new(attached.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
