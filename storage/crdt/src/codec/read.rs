//! Reading states: first checking all of the bytes, then joining them. What was checked cannot fail to be joined, so a
//! join is all or nothing without a copy, and nothing is allocated for bytes that are refused (but tables of more than a
//! few stamps or sites, in proportion to the bytes).

use bigpeer_types::limits::MAX_DEPTH;
use bigpeer_types::{Hlc, Stamp};

use super::stamps::Stamps;
use super::{
    ATTACHMENT, CLEARED, COUNTER, DELETED, LEAST_CONTRIBUTION, LEAST_ENTRY, LONE, MAP, NO_FLAGS, REGISTER, SLOTS,
    VERSION, value,
};
use crate::attachment::Attachment;
use crate::document::{Header, Writers};
use crate::error::{DecodeError, DecodeErrorKind};
use crate::node::{Attached, Contribution, Floor, Incoming, Node, merge_into};
use crate::wire::{BitSet, Reader};

/// A state whose bytes were checked from first to last.
#[derive(Debug)]
pub(crate) struct Checked<'a> {
    stamps: Stamps,
    deleted: Option<Stamp>,
    /// Stands at the root.
    root: Reader<'a>,
    writers: Writers,
}

/// Checks that `bytes` are the canonical encoding of a state.
pub(crate) fn check(bytes: &[u8]) -> Result<Checked<'_>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let version = reader.byte()?;
    if version != VERSION {
        return Err(DecodeError { offset: 0, kind: DecodeErrorKind::UnknownVersion(version) });
    }
    let flags = reader.byte()?;
    if flags & NO_FLAGS != 0 {
        return Err(DecodeError { offset: 1, kind: DecodeErrorKind::BadTag(flags) });
    }
    let stamps = Stamps::read(&mut reader, flags)?;
    let used = BitSet::new(stamps.as_slice().len());
    let mut checker = Checker { reader, stamps: &stamps, used, writers: Writers::Nobody };
    let deleted = if flags & DELETED == 0 { None } else { Some(checker.written()?) };
    let root = checker.reader;
    let cleared = checker.root()?;
    let Checker { reader, used, writers, .. } = checker;
    reader.end()?;
    if !used.is_full() {
        return reader.not_canonical("a stamp is not used");
    }
    if deleted.is_some() && deleted <= cleared {
        return reader.not_canonical("a deletion is older than what cleared the root");
    }
    Ok(Checked { stamps, deleted, root, writers })
}

impl Checked<'_> {
    pub(crate) fn deleted(&self) -> Option<Stamp> {
        self.deleted
    }

    pub(crate) fn header(&self) -> Header {
        let stamps = self.stamps.as_slice();
        let hlc = |stamp: Option<&Stamp>| stamp.map_or(Hlc::ZERO, |stamp| stamp.hlc);
        Header { max_hlc: hlc(stamps.last()), min_hlc: hlc(stamps.first()), writers: self.writers }
    }

    /// Joins the tree into `root`.
    pub(crate) fn join_into(&self, root: &mut Node) -> Result<(), DecodeError> {
        Joiner { reader: self.root, stamps: &self.stamps }.node(root, None)
    }
}

struct Checker<'a, 's> {
    reader: Reader<'a>,
    stamps: &'s Stamps,
    used: BitSet,
    writers: Writers,
}

impl Checker<'_, '_> {
    #[inline]
    fn stamp(&mut self) -> Result<Stamp, DecodeError> {
        let index = self.stamps.index(&mut self.reader)?;
        self.used.insert(index);
        self.stamps.as_slice().get(index).copied().ok_or_else(|| self.reader.error(DecodeErrorKind::OutOfRange))
    }

    /// The stamp of content or a deletion.
    #[inline]
    fn written(&mut self) -> Result<Stamp, DecodeError> {
        let stamp = self.stamp()?;
        self.writers = self.writers.with(Writers::One(stamp.site));
        Ok(stamp)
    }

    /// The stamp of content, which must be above the floor.
    #[inline]
    fn live(&mut self, floor: Floor) -> Result<Stamp, DecodeError> {
        let stamp = self.written()?;
        if Some(stamp) > floor { Ok(stamp) } else { self.reader.not_canonical("something dead is kept") }
    }

    /// The root, which is a map; answers its `cleared`.
    fn root(&mut self) -> Result<Floor, DecodeError> {
        let slots = self.reader.byte()?;
        if slots == LONE | value::EMPTY_OBJECT {
            self.live(None)?;
            return Ok(None);
        }
        if slots & !(CLEARED | REGISTER | MAP) != 0 || slots == REGISTER {
            return Err(self.reader.error(DecodeErrorKind::BadTag(slots)));
        }
        let floor = if slots & CLEARED == 0 { None } else { Some(self.stamp()?) };
        if slots & REGISTER != 0 {
            self.live(floor)?;
            let tag = self.reader.byte()?;
            if tag != value::EMPTY_OBJECT {
                return Err(self.reader.error(DecodeErrorKind::BadTag(tag)));
            }
        }
        if slots & MAP != 0 {
            self.map(floor, MAX_DEPTH)?;
        }
        Ok(floor)
    }

    /// A node below which containers may nest `levels` deep.
    fn node(&mut self, floor: Floor, levels: usize) -> Result<(), DecodeError> {
        let slots = self.reader.byte()?;
        if slots & LONE != 0 {
            self.live(floor)?;
            return value::check_body(&mut self.reader, slots & !LONE, levels);
        }
        if slots & !SLOTS != 0 || slots == 0 || slots == REGISTER {
            return Err(self.reader.error(DecodeErrorKind::BadTag(slots)));
        }
        let mut floor = floor;
        if slots & CLEARED != 0 {
            let cleared = Some(self.stamp()?);
            if cleared <= floor {
                return self.reader.not_canonical("a clearing says nothing new");
            }
            floor = cleared;
        }
        if slots & REGISTER != 0 {
            self.live(floor)?;
            let tag = self.reader.byte()?;
            value::check_body(&mut self.reader, tag, levels)?;
        }
        if slots & MAP != 0 {
            self.map(floor, levels)?;
        }
        if slots & COUNTER != 0 {
            self.counter(floor)?;
        }
        if slots & ATTACHMENT != 0 {
            self.live(floor)?;
            self.reader.take(32)?;
            self.reader.varint()?;
            value::check_object(&mut self.reader, levels)?;
        }
        Ok(())
    }

    fn map(&mut self, floor: Floor, levels: usize) -> Result<(), DecodeError> {
        let levels = levels.checked_sub(1).ok_or_else(|| self.reader.error(DecodeErrorKind::TooDeep))?;
        let count = self.reader.count(LEAST_ENTRY)?;
        if count == 0 {
            return self.reader.not_canonical("a map is empty");
        }
        let mut last: Option<&str> = None;
        for _ in 0..count {
            let key = self.reader.text()?;
            if last >= Some(key) {
                return self.reader.not_canonical("the keys of a map do not ascend");
            }
            last = Some(key);
            self.node(floor, levels)?;
        }
        Ok(())
    }

    fn counter(&mut self, floor: Floor) -> Result<(), DecodeError> {
        let count = self.reader.count(LEAST_CONTRIBUTION)?;
        if count == 0 {
            return self.reader.not_canonical("a counter is empty");
        }
        let mut before: Option<Stamp> = None;
        for _ in 0..count {
            let started = self.live(floor)?;
            if before >= Some(started) {
                return self.reader.not_canonical("the contributions do not ascend");
            }
            before = Some(started);
            let last = self.written()?;
            if last.site != started.site || last < started {
                return Err(self.reader.error(DecodeErrorKind::OutOfRange));
            }
            self.reader.varint()?;
            self.reader.varint()?;
        }
        Ok(())
    }
}

/// Joins what was checked.
struct Joiner<'a, 's> {
    reader: Reader<'a>,
    stamps: &'s Stamps,
}

impl Joiner<'_, '_> {
    fn node(&mut self, into: &mut Node, floor: Floor) -> Result<(), DecodeError> {
        let slots = self.reader.byte()?;
        if slots & LONE != 0 {
            // The node's own floor: what it was cleared at before.
            return self.register(into, floor.max(into.cleared()), Some(slots & !LONE));
        }
        let cleared = if slots & CLEARED == 0 { None } else { Some(self.stamps.stamp(&mut self.reader)?) };
        let floor = into.clear(cleared, floor);
        if slots & REGISTER != 0 {
            self.register(into, floor, None)?;
        }
        if slots & MAP != 0 {
            let count = self.reader.count(LEAST_ENTRY)?;
            let mut entries = Entries { joiner: self, floor };
            merge_into(&mut into.rest_mut().map, count, &mut entries)?;
        }
        if slots & COUNTER != 0 {
            let count = self.reader.count(LEAST_CONTRIBUTION)?;
            into.join_counter((0..count).map(|_| self.contribution()), floor)?;
        }
        if slots & ATTACHMENT != 0 {
            let attached = self.attached()?;
            into.join_attached(&attached, floor);
        }
        into.tidy();
        Ok(())
    }

    /// A register, whose tag stands before the stamp in a lone one and after it elsewhere.
    #[inline]
    fn register(&mut self, into: &mut Node, floor: Floor, tag: Option<u8>) -> Result<(), DecodeError> {
        let stamp = self.stamps.stamp(&mut self.reader)?;
        let tag = match tag {
            Some(tag) => tag,
            None => self.reader.byte()?,
        };
        if into.wants_register(stamp, floor) {
            into.put_register(stamp, value::body(&mut self.reader, tag)?);
            Ok(())
        } else {
            value::skip_body(&mut self.reader, tag)
        }
    }

    fn contribution(&mut self) -> Result<Contribution, DecodeError> {
        Ok(Contribution {
            started: self.stamps.stamp(&mut self.reader)?,
            last: self.stamps.stamp(&mut self.reader)?.hlc,
            increments: self.reader.varint()?,
            decrements: self.reader.varint()?,
        })
    }

    fn attached(&mut self) -> Result<Attached, DecodeError> {
        let stamp = self.stamps.stamp(&mut self.reader)?;
        let sha256 = self.reader.array()?;
        let length = self.reader.varint()?;
        let metadata = value::object(&mut self.reader)?;
        Ok(Attached { stamp, attachment: Attachment { sha256, length, metadata } })
    }
}

/// The entries of an encoded map.
struct Entries<'j, 'a, 's> {
    joiner: &'j mut Joiner<'a, 's>,
    floor: Floor,
}

impl<'a> Incoming<'a> for Entries<'_, 'a, '_> {
    type Error = DecodeError;

    fn key(&mut self) -> Result<&'a [u8], DecodeError> {
        self.joiner.reader.len_bytes()
    }

    fn owned(&self, key: &'a [u8]) -> Result<Box<str>, DecodeError> {
        self.joiner.reader.utf8(key).map(Into::into)
    }

    fn join_into(&mut self, node: &mut Node) -> Result<(), DecodeError> {
        self.joiner.node(node, self.floor)
    }
}
