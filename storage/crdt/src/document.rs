//! `Document`: a state; a delta is a small one.

use bigpeer_types::{Hlc, SiteId, Stamp};

use crate::attachment::Attachment;
use crate::codec;
use crate::error::DecodeError;
use crate::node::Node;
use crate::value::{Object, Value};
use crate::visible::{MapView, Visible};

/// A document's state. A delta is a small state, and applying is joining: associative, commutative, idempotent.
///
/// Always in canonical form, so equality is equality of meaning, and equal states have equal encodings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// Left out once the root is cleared at or after it: what lives then is newer, and nothing is deleted.
    pub(crate) deleted: Option<Stamp>,
    pub(crate) root: Node,
}

/// What an encoding says about itself when it is validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The greatest reading of any stamp in it; zero if there is none.
    pub max_hlc: Hlc,
    /// The least reading of any stamp in it; zero if there is none.
    pub min_hlc: Hlc,
    /// Who wrote what is in it, apart from `cleared`, which may name anyone's stamp that its writer has seen.
    pub writers: Writers,
}

/// Whose stamps live content and deletions bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// Nobody's: there is no content, at most `cleared`.
    Nobody,
    /// One site's, as in every delta of an editor.
    One(SiteId),
    /// Several sites', as in most states.
    Several,
}

impl Writers {
    /// The writers of both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nobody, both) | (both, Self::Nobody) => both,
            (Self::One(a), Self::One(b)) if a == b => Self::One(a),
            (Self::One(_) | Self::Several, Self::One(_) | Self::Several) => Self::Several,
        }
    }
}

impl Document {
    /// The empty state, which is that of a document of which nothing was heard.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The deletion alone, without what was deleted: what somebody who held the document has to join, so that it is gone
    /// there, too, and a later insert starts empty. None when nothing was deleted, or the document is visible all the same.
    #[must_use]
    pub fn tombstone(&self) -> Option<Self> {
        let deleted = self.deleted.filter(|_| !self.is_visible())?;
        Some(Self { deleted: Some(deleted), root: Node::default() })
    }

    /// From parts that may hold dead content only in `deleted`.
    pub(crate) fn from_parts(deleted: Option<Stamp>, root: Node) -> Self {
        let mut document = Self { deleted: None, root };
        document.join_deleted(deleted);
        document
    }

    fn join_deleted(&mut self, deleted: Option<Stamp>) {
        self.deleted = self.deleted.max(deleted);
        if self.deleted <= self.root.cleared() {
            self.deleted = None;
        }
    }

    /// Joins `other` into this state.
    pub fn join(&mut self, other: &Self) {
        self.root.join(&other.root, None);
        self.join_deleted(other.deleted);
    }

    /// The canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }

    /// Appends the canonical bytes to `out`.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        codec::put_state(out, self.deleted, &self.root);
    }

    /// Reads canonical bytes. There is no limit on their length: states can outgrow what one delta may have. What is
    /// allocated is in proportion to it.
    ///
    /// # Errors
    /// On anything but the canonical bytes of a state, with the offset.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut document = Self::new();
        document.join_encoded(bytes)?;
        Ok(document)
    }

    /// Joins an encoded state, as [`Self::join`] of [`Self::decode`], without building it: all of it, or nothing on an
    /// error.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn join_encoded(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let checked = codec::check(bytes)?;
        checked.join_into(&mut self.root)?;
        self.join_deleted(checked.deleted());
        Ok(())
    }

    /// Checks bytes as [`Self::decode`] does, without building anything: for hostile bytes that are passed on as they are.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn validate_encoded(bytes: &[u8]) -> Result<Header, DecodeError> {
        codec::check(bytes).map(|checked| checked.header())
    }

    /// Whether readers see the document: it has content, of which the newest is later than its deletion.
    #[must_use]
    pub fn is_visible(&self) -> bool {
        match self.deleted {
            None => self.root.has_content(),
            deleted @ Some(_) => self.root.newest() > deleted,
        }
    }

    /// The newest stamp of content, which a deletion must beat.
    #[must_use]
    pub fn newest(&self) -> Option<Stamp> {
        self.root.newest()
    }

    /// The newest deletion, whether or not a later change has brought the document back; none if the document was
    /// inserted anew over it.
    #[must_use]
    pub fn deleted(&self) -> Option<Stamp> {
        self.deleted
    }

    /// The greatest reading of any stamp in the state; zero if there is none.
    #[must_use]
    pub fn max_hlc(&self) -> Hlc {
        let mut max = self.deleted.map_or(Hlc::ZERO, |stamp| stamp.hlc);
        self.root.each_stamp(&mut |stamp| max = max.max(stamp.hlc));
        max
    }

    /// Whether nothing was ever heard of this document.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deleted.is_none() && self.root.is_empty()
    }

    /// What a reader sees at `path`, without materializing anything; nothing if the document is not visible. The empty
    /// path is the whole document. Paths lead through maps and through objects in registers. `_id` is not in here.
    #[must_use]
    pub fn get(&self, path: &[impl AsRef<str>]) -> Option<Visible<'_>> {
        if !self.is_visible() {
            return None;
        }
        path.iter().try_fold(Visible::Map(MapView(&self.root)), |seen, key| match seen {
            Visible::Map(map) => map.get(key.as_ref()),
            Visible::Value(Value::Object(object)) => object.get(key.as_ref()).map(Visible::Value),
            Visible::Value(_) | Visible::Counter(_) | Visible::Attachment(_) => None,
        })
    }

    /// The visible fields, without `_id`; empty if the document is not visible.
    #[must_use]
    pub fn to_object(&self) -> Object {
        if self.is_visible() { MapView(&self.root).to_object() } else { Object::new() }
    }

    /// The attachments that a reader sees, wherever in the document they are, in the order of their paths; none if the
    /// document is not visible.
    #[must_use]
    pub fn attachments(&self) -> Vec<&Attachment> {
        fn collect<'a>(map: MapView<'a>, found: &mut Vec<&'a Attachment>) {
            for (_, visible) in map.iter() {
                match visible {
                    Visible::Map(below) => collect(below, found),
                    Visible::Attachment(attachment) => found.push(attachment),
                    Visible::Value(_) | Visible::Counter(_) => {}
                }
            }
        }
        let mut found = Vec::new();
        if self.is_visible() {
            collect(MapView(&self.root), &mut found);
        }
        found
    }

    /// All attachments in the state, those of a deleted document included: a later change may bring it back.
    #[must_use]
    pub fn held_attachments(&self) -> Vec<&Attachment> {
        fn collect<'a>(node: &'a Node, found: &mut Vec<&'a Attachment>) {
            found.extend(node.attached().map(|attached| &attached.attachment));
            node.map().iter().for_each(|(_, node)| collect(node, found));
        }
        let mut found = Vec::new();
        collect(&self.root, &mut found);
        found
    }

    /// Heap bytes behind this state, estimated from lengths.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.root.heap_bytes()
    }
}
