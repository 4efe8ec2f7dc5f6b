//! `Editor`: the way in which deltas are made.
//!
//! What an edit leaves behind when it changes what kind of thing stands at a path is cleared up to the newest stamp that
//! the writer saw there, not up to now: concurrent changes that the writer did not see, and that are newer, survive.

use bigpeer_types::limits::MAX_DEPTH;
use bigpeer_types::{HlcClock, Stamp};
use thiserror::Error;

use crate::attachment::Attachment;
use crate::document::Document;
use crate::node::{Attached, Contribution, Floor, Node};
use crate::value::{Object, Value};
use crate::visible::Kind;

/// How an object value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectMode {
    /// As a map of nodes that merge key by key; nested objects, too. Keys that are there already stay.
    Map,
    /// As one register that is replaced as a whole.
    Register,
}

/// A change that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EditError {
    /// The path names no field.
    #[error("a path needs at least one key")]
    EmptyPath,
    /// Nested deeper than documents may be.
    #[error("the document would be nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// Changes to one document by one site. Each sees those before it; together they are one delta.
///
/// A site's edits of one document must follow each other: counters keep one sum per site, so an editor whose `current` lacks
/// an earlier increment of the same site would count both as one.
#[derive(Debug)]
pub struct Editor<'a> {
    current: Document,
    delta: Document,
    clock: &'a mut HlcClock,
}

impl<'a> Editor<'a> {
    /// Changes to `current`, all of which will win over everything in it: `clock` is moved past its stamps.
    pub fn new(current: &Document, clock: &'a mut HlcClock) -> Self {
        clock.observe(current.max_hlc());
        Self { current: current.clone(), delta: Document::new(), clock }
    }

    /// The document as it is with the changes so far.
    #[must_use]
    pub fn current(&self) -> &Document {
        &self.current
    }

    /// Inserts a whole document, or merges it into the one that is there. Over a deletion it starts from nothing. An `_id`
    /// among `fields` is left out.
    ///
    /// # Errors
    /// [`EditError::TooDeep`]; then nothing is changed.
    pub fn insert(&mut self, fields: &Object, mode: ObjectMode) -> Result<(), EditError> {
        if fields.iter().any(|(_, value)| 1 + value.depth() > MAX_DEPTH) {
            return Err(EditError::TooDeep);
        }
        let cleared = if self.current.is_visible() { None } else { self.current.deleted };
        let seen = if cleared.is_some() { None } else { Some(&self.current.root) };
        let stamp = self.clock.tick();
        let mut root = Node { register: Some(Node::marker(stamp)), rest: None };
        let fields = fields.iter().filter(|(key, _)| *key != "_id");
        let map: Vec<_> = fields
            .map(|(key, value)| {
                (key.into(), written(seen.and_then(|seen| seen.child(key)), value.clone(), mode, stamp))
            })
            .collect();
        let rest = root.rest_mut();
        rest.cleared = cleared;
        rest.map = map;
        root.tidy();
        self.apply(Document::from_parts(None, root));
        Ok(())
    }

    /// Sets a field. Maps on the way are made where there are none; within an object that was written as one register,
    /// that register is written anew.
    ///
    /// # Errors
    /// [`EditError`]; then nothing is changed.
    pub fn set(&mut self, path: &[impl AsRef<str>], value: Value, mode: ObjectMode) -> Result<(), EditError> {
        let path = checked(path, value.depth())?;
        let stamp = self.clock.tick();
        let root = if let Some((outer, inner)) = self.in_register(&path) {
            let object = self.object_at(outer);
            let written = with_path(object, inner, value);
            self.place(outer, stamp, |seen, _| register(seen, Value::Object(written), stamp))
        } else {
            self.place(&path, stamp, |seen, _| written(seen, value, mode, stamp))
        };
        self.apply(Document::from_parts(None, root));
        Ok(())
    }

    /// Removes a field; nothing changes if there is none. The map that held it stays, even if empty.
    ///
    /// # Errors
    /// [`EditError`]; then nothing is changed.
    pub fn unset(&mut self, path: &[impl AsRef<str>]) -> Result<(), EditError> {
        let path = checked(path, 0)?;
        if !self.current.is_visible() {
            return Ok(());
        }
        if let Some((outer, inner)) = self.in_register(&path) {
            let mut object = self.object_at(outer);
            if remove_path(&mut object, inner) {
                let stamp = self.clock.tick();
                let mut root = self.place(outer, stamp, |seen, _| register(seen, Value::Object(object), stamp));
                root.register = Some(Node::marker(stamp));
                self.apply(Document::from_parts(None, root));
            }
            return Ok(());
        }
        let mut seen = Some(&self.current.root);
        for key in &path {
            seen = seen.filter(|node| node.kind() == Kind::Map).and_then(|node| node.child(key));
        }
        if seen.is_some_and(Node::has_content) {
            let stamp = self.clock.tick();
            let mut root = self.place(&path, stamp, |_, _| {
                let mut node = Node::default();
                node.rest_mut().cleared = Some(stamp);
                node
            });
            // A removal is a change: it must bring the document back from a deletion that is older, as any other does.
            root.register = Some(Node::marker(stamp));
            self.keep_map(&mut root, &path, stamp);
            self.apply(Document::from_parts(None, root));
        }
        Ok(())
    }

    /// Adds to a counter, which starts at zero if no counter is seen there.
    ///
    /// # Errors
    /// [`EditError`]; then nothing is changed.
    pub fn increment(&mut self, path: &[impl AsRef<str>], by: i64) -> Result<(), EditError> {
        let path = checked(path, 0)?;
        let stamp = self.clock.tick();
        let root = self.place(&path, stamp, |seen, floor| {
            let kept = seen.filter(|node| node.kind() == Kind::Counter);
            let mut node = if kept.is_some() { Node::default() } else { emptied(seen) };
            let mut part = kept.map_or_else(|| fresh(stamp), |node| own_part(node.counter(), stamp, floor));
            count(&mut part, by);
            node.rest_mut().counter.push(part);
            node
        });
        self.apply(Document::from_parts(None, root));
        Ok(())
    }

    /// Makes the counter start over at `value`: increments that this site has not seen are void, those made by sites that
    /// have seen the restart count.
    ///
    /// # Errors
    /// [`EditError`]; then nothing is changed.
    pub fn restart(&mut self, path: &[impl AsRef<str>], value: i64) -> Result<(), EditError> {
        let path = checked(path, 0)?;
        let cleared = self.clock.tick();
        let stamp = self.clock.tick();
        let root = self.place(&path, stamp, |_, _| {
            let mut part = fresh(stamp);
            count(&mut part, value);
            let mut node = Node::default();
            let rest = node.rest_mut();
            rest.cleared = Some(cleared);
            rest.counter.push(part);
            node
        });
        self.apply(Document::from_parts(None, root));
        Ok(())
    }

    /// Sets a field to an attachment.
    ///
    /// # Errors
    /// [`EditError`]; then nothing is changed.
    pub fn attach(&mut self, path: &[impl AsRef<str>], attachment: Attachment) -> Result<(), EditError> {
        let Attachment { sha256, length, metadata } = attachment;
        let metadata = Value::Object(metadata).normalized();
        let path = checked(path, metadata.depth())?;
        let Value::Object(metadata) = metadata else { return Ok(()) };
        let stamp = self.clock.tick();
        let root = self.place(&path, stamp, |seen, _| {
            let alone = seen.is_none_or(|node| {
                node.register.is_none()
                    && node.rest.as_ref().is_none_or(|rest| rest.map.is_empty() && rest.counter.is_empty())
            });
            let mut node = if alone { Node::default() } else { emptied(seen) };
            let attachment = Attachment { sha256, length, metadata };
            node.rest_mut().attachment = Some(Box::new(Attached { stamp, attachment }));
            node
        });
        self.apply(Document::from_parts(None, root));
        Ok(())
    }

    /// Deletes the document; nothing changes if it is not visible.
    pub fn delete(&mut self) {
        if self.current.is_visible() {
            let deleted = Some(self.clock.tick());
            self.apply(Document::from_parts(deleted, Node::default()));
        }
    }

    /// Removes the document with all that was ever in it, visible or not: unlike a deletion it leaves no content behind that a
    /// later change could bring back. What others write later, without having seen this, stands alone. Nothing changes if
    /// there is nothing to remove.
    pub fn purge(&mut self) {
        if self.current.deleted.is_some() || self.current.root.has_content() {
            let mut root = Node::default();
            root.rest_mut().cleared = Some(self.clock.tick());
            self.apply(Document::from_parts(None, root));
        }
    }

    /// The delta of all changes; none when nothing changed.
    #[must_use]
    pub fn finish(self) -> Option<Document> {
        (!self.delta.is_empty()).then_some(self.delta)
    }

    fn apply(&mut self, delta: Document) {
        self.current.join(&delta);
        if self.delta.is_empty() {
            self.delta = delta;
        } else {
            self.delta.join(&delta);
        }
    }

    /// The delta that has at `path` what `leaf` makes of the node that is seen there and its floor.
    fn place(&self, path: &[&str], stamp: Stamp, leaf: impl FnOnce(Option<&Node>, Floor) -> Node) -> Node {
        let seen = Some(&self.current.root);
        let mut root = placed(seen, None, path, stamp, leaf);
        if self.current.root.register.is_none() {
            root.register = Some(Node::marker(stamp));
        }
        root
    }

    /// Marks the map that `path` leads into, so that it stays when its last key goes; and when what goes was what made it, or
    /// a map around it, newer than something else that stands in the same place.
    fn keep_map(&self, root: &mut Node, path: &[&str], stamp: Stamp) {
        let Some((_, outer)) = path.split_last() else { return };
        let mut seen = Some(&self.current.root);
        let mut delta = root;
        let mut is_contested = false;
        for key in outer {
            seen = seen.and_then(|node| node.child(key));
            is_contested |= seen.is_some_and(|node| {
                let is_value = node.register.as_ref().is_some_and(|register| !register.is_marker());
                is_value || !node.counter().is_empty() || node.attached().is_some()
            });
            let map = &mut delta.rest_mut().map;
            let Some((_, child)) = map.iter_mut().find(|(probe, _)| probe.as_ref() == *key) else { return };
            delta = child;
        }
        if is_contested || seen.is_some_and(|node| node.register.is_none()) {
            delta.register = Some(Node::marker(stamp));
        }
    }

    /// Where `path` leads into an object that is one register: the path to the register, and the path within.
    fn in_register<'p, 'k>(&self, path: &'p [&'k str]) -> Option<(&'p [&'k str], &'p [&'k str])> {
        let mut seen = &self.current.root;
        for (depth, key) in path.iter().enumerate() {
            if depth > 0 && seen.kind() == Kind::Register {
                let object = matches!(seen.register.as_ref().map(|register| &register.value), Some(Value::Object(_)));
                return if object { path.split_at_checked(depth) } else { None };
            }
            if depth > 0 && seen.kind() != Kind::Map {
                return None;
            }
            seen = seen.child(key)?;
        }
        None
    }

    /// The object in the register at `path`.
    fn object_at(&self, path: &[&str]) -> Object {
        let node = path.iter().try_fold(&self.current.root, |node, key| node.child(key));
        match node.and_then(|node| node.register.as_ref()).map(|register| &register.value) {
            Some(Value::Object(object)) => object.clone(),
            Some(_) | None => Object::new(),
        }
    }
}

fn checked<S: AsRef<str>>(path: &[S], depth: usize) -> Result<Vec<&str>, EditError> {
    if path.is_empty() {
        Err(EditError::EmptyPath)
    } else if path.len() + depth > MAX_DEPTH {
        Err(EditError::TooDeep)
    } else {
        Ok(path.iter().map(AsRef::as_ref).collect())
    }
}

/// The delta, from a node that is seen as `seen` below `floor`, down `path`.
fn placed(
    seen: Option<&Node>,
    floor: Floor,
    path: &[&str],
    stamp: Stamp,
    leaf: impl FnOnce(Option<&Node>, Floor) -> Node,
) -> Node {
    let floor = floor.max(seen.and_then(Node::cleared));
    let Some((key, rest)) = path.split_first() else { return leaf(seen, floor) };
    let child = seen.and_then(|node| node.child(key));
    let below = match child.map_or(Kind::Nothing, Node::kind) {
        Kind::Map => placed(child, floor, rest, stamp, leaf),
        Kind::Nothing | Kind::Register | Kind::Counter | Kind::Attachment if rest.is_empty() => {
            placed(child, floor, rest, stamp, leaf)
        }
        Kind::Nothing | Kind::Register | Kind::Counter | Kind::Attachment => through(child, floor, rest, stamp, leaf),
    };
    let mut node = Node::default();
    node.rest_mut().map.push(((*key).into(), below));
    node
}

/// As [`placed`], through a node that is no map and so becomes one. An object in its register becomes the map's keys.
fn through(
    seen: Option<&Node>,
    floor: Floor,
    path: &[&str],
    stamp: Stamp,
    leaf: impl FnOnce(Option<&Node>, Floor) -> Node,
) -> Node {
    let object = match seen.filter(|node| node.kind() == Kind::Register).and_then(|node| node.register.as_ref()) {
        Some(register) => register.value.as_object().cloned().unwrap_or_default(),
        None => Object::new(),
    };
    let object = without_path(object, path);
    let mut node = written(seen, Value::Object(object), ObjectMode::Map, stamp);
    let below = placed(Some(&node), floor, path, stamp, leaf);
    node.join(&below, None);
    node
}

/// `object` without what stands at `path`, or in its way.
fn without_path(mut object: Object, path: &[&str]) -> Object {
    if let Some((key, rest)) = path.split_first()
        && let Some(Value::Object(inner)) = object.remove(key)
        && !rest.is_empty()
    {
        object.insert(*key, without_path(inner, rest));
    }
    object
}

/// A delta that clears everything that is seen.
fn emptied(seen: Option<&Node>) -> Node {
    let mut node = Node::default();
    if let Some(newest) = seen.and_then(Node::newest) {
        node.rest_mut().cleared = Some(newest);
    }
    node
}

/// The delta that writes `value` over what is seen.
fn written(seen: Option<&Node>, value: Value, mode: ObjectMode, stamp: Stamp) -> Node {
    let (Value::Object(object), ObjectMode::Map) = (&value, mode) else { return register(seen, value, stamp) };
    let other = |node: &Node| node.kind() != Kind::Map && node.rest.is_some() && node.has_content();
    let cleared = seen.is_some_and(other);
    let mut node = if cleared { emptied(seen) } else { Node::default() };
    node.register = Some(Node::marker(stamp));
    let seen = if cleared { None } else { seen };
    if !object.is_empty() {
        let Value::Object(object) = value else { return node };
        node.rest_mut().map = object
            .into_iter()
            .map(|(key, value)| {
                let below = written(seen.and_then(|seen| seen.child(&key)), value, mode, stamp);
                (key, below)
            })
            .collect();
    }
    node
}

/// The delta that writes `value` as one register over what is seen.
fn register(seen: Option<&Node>, value: Value, stamp: Stamp) -> Node {
    let more = seen.filter(|node| {
        node.attached().is_some() || !node.counter().is_empty() || node.map().iter().any(|(_, node)| node.has_content())
    });
    let mut node = emptied(more);
    node.register = Node::of_register(stamp, value.normalized()).register;
    node
}

/// A contribution of the stamp's site that starts now.
fn fresh(stamp: Stamp) -> Contribution {
    Contribution { started: stamp, last: stamp.hlc, increments: 0, decrements: 0 }
}

/// The site's contribution to a counter, to be changed at `stamp`. A new one belongs to the counter's newest age, as that of
/// every site that has not seen a later clearing: a restart by someone who has not seen it ends it with the others.
fn own_part(counter: &[Contribution], stamp: Stamp, floor: Floor) -> Contribution {
    if let Some(own) = counter.iter().rev().find(|part| part.started.site == stamp.site) {
        return Contribution { last: stamp.hlc, ..*own };
    }
    let age = counter.last().map_or(stamp.hlc, |newest| newest.started.hlc);
    let started = Stamp::new(age, stamp.site);
    let started = if Some(started) > floor { started } else { stamp };
    Contribution { started, ..fresh(stamp) }
}

fn count(part: &mut Contribution, by: i64) {
    let side = if by < 0 { &mut part.decrements } else { &mut part.increments };
    *side = side.saturating_add(by.unsigned_abs());
}

/// `object` with `value` at `path` within it.
fn with_path(mut object: Object, path: &[&str], value: Value) -> Object {
    if let Some((key, rest)) = path.split_first() {
        let value = if rest.is_empty() {
            value
        } else {
            let inner = match object.remove(key) {
                Some(Value::Object(inner)) => inner,
                Some(_) | None => Object::new(),
            };
            Value::Object(with_path(inner, rest, value))
        };
        object.insert(*key, value);
    }
    object
}

/// Removes what is at `path` within `object`; answers whether there was anything.
fn remove_path(object: &mut Object, path: &[&str]) -> bool {
    match path.split_first() {
        None => false,
        Some((key, [])) => object.remove(key).is_some(),
        Some((key, rest)) => match object.get_mut(key) {
            Some(Value::Object(inner)) => remove_path(inner, rest),
            Some(_) | None => false,
        },
    }
}

#[cfg(test)]
mod tests;
