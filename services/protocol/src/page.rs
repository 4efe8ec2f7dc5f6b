//! `PageWriter`: writes a Changes message with a Page straight into the frame, without a struct or an allocation per
//! document. What it writes is what the generated code would read back; a test compares the two.

use bigpeer_types::{Hlc, Lsn};
use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{encode_varint, encoded_len_varint};

use crate::frame::{self, Framed};
use crate::messages::pb;

// Keys of the fields: number << 3 | wire type (2 is length-delimited).
const ENVELOPE_CHANGES: u8 = 5 << 3 | 2;
const CHANGES_PAGE: u8 = 3 << 3 | 2;
const PAGE_SUBSCRIPTIONS: u8 = 1 << 3 | 2;
const PAGE_COLLECTION: u8 = 2 << 3 | 2;
const PAGE_SNAPSHOT: u8 = 3 << 3 | 2;
const PAGE_STATES: u8 = 4 << 3 | 2;
const PAGE_LEFT: u8 = 5 << 3 | 2;
const PAGE_POSITION: u8 = 6 << 3 | 2;
const PAGE_CLOCK: u8 = 7 << 3 | 1;
const PAGE_REACHED: u8 = 8 << 3 | 2;
const STATE_ID: u8 = 1 << 3 | 2;
const STATE_STATE: u8 = 2 << 3 | 2;
const STATE_LSN: u8 = 3 << 3 | 2;
const STATE_SUBSCRIPTIONS: u8 = 4 << 3 | 2;
const LEFT_ID: u8 = 1 << 3 | 2;
const LEFT_SUBSCRIPTIONS: u8 = 2 << 3 | 2;
const LEFT_HELD: u8 = 3 << 3;
const LSN_VERSION: u8 = 1 << 3;
const LSN_ORDER: u8 = 2 << 3;

/// Bytes of a length that is written before what it measures: a varint padded to its longest form for 32 bits.
const PADDED: usize = 5;
/// Flags, the envelope's key and length, Changes' key and length.
const HEADER: usize = 1 + 2 * (1 + PADDED);

/// What a peer may note of a page, so that it need not be sent again. A key must be one that the peer may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// Nothing.
    None,
    /// All documents up to this key have been sent: `Page.position`.
    Everything(&'a [u8]),
    /// What has changed has been sent, of the documents up to this key: `Page.reached`.
    Changed(&'a [u8]),
}

/// Collects one page.
#[derive(Debug)]
pub struct PageWriter {
    frame: BytesMut,
    documents: usize,
    clock: u64,
}

impl PageWriter {
    /// A page of `collection` at `snapshot` for these subscriptions.
    #[must_use]
    pub fn new(collection: &str, snapshot: Lsn, subscriptions: &[u32], capacity: usize) -> Self {
        let mut frame = BytesMut::with_capacity(capacity + HEADER + collection.len() + 64);
        frame.put_bytes(0, HEADER);
        put_ids(&mut frame, PAGE_SUBSCRIPTIONS, subscriptions);
        put_bytes(&mut frame, PAGE_COLLECTION, collection.as_bytes());
        put_lsn(&mut frame, PAGE_SNAPSHOT, snapshot);
        Self { frame, documents: 0, clock: 0 }
    }

    /// Adds a document that matches `subscriptions` (empty for all of the page's).
    pub fn state(&mut self, id: &[u8], state: &[u8], lsn: Lsn, subscriptions: &[u32]) {
        let length = bytes_len(id)
            + bytes_len(state)
            + 1
            + encoded_len_varint(lsn_len(lsn) as u64)
            + lsn_len(lsn)
            + ids_len(subscriptions);
        self.frame.put_u8(PAGE_STATES);
        encode_varint(length as u64, &mut self.frame);
        put_bytes(&mut self.frame, STATE_ID, id);
        put_bytes(&mut self.frame, STATE_STATE, state);
        put_lsn(&mut self.frame, STATE_LSN, lsn);
        put_ids(&mut self.frame, STATE_SUBSCRIPTIONS, subscriptions);
        self.documents += 1;
    }

    /// Adds a document that does not match `subscriptions` (empty for all of the page's). `newest` is the greatest
    /// reading in it: the peer's clock must be moved past it.
    pub fn left(&mut self, id: &[u8], newest: Hlc, subscriptions: &[u32]) {
        self.clock = self.clock.max(newest.to_bits());
        self.frame.put_u8(PAGE_LEFT);
        encode_varint((bytes_len(id) + ids_len(subscriptions)) as u64, &mut self.frame);
        put_bytes(&mut self.frame, LEFT_ID, id);
        put_ids(&mut self.frame, LEFT_SUBSCRIPTIONS, subscriptions);
        self.documents += 1;
    }

    /// As [`Self::left`], for a document that the peer may not read: named by its place in the peer's `Held`.
    pub fn left_held(&mut self, place: u32, newest: Hlc, subscriptions: &[u32]) {
        self.clock = self.clock.max(newest.to_bits());
        self.frame.put_u8(PAGE_LEFT);
        let length = ids_len(subscriptions) + 1 + encoded_len_varint(place.into());
        encode_varint(length as u64, &mut self.frame);
        put_ids(&mut self.frame, LEFT_SUBSCRIPTIONS, subscriptions);
        self.frame.put_u8(LEFT_HELD);
        encode_varint(place.into(), &mut self.frame);
        self.documents += 1;
    }

    /// Bytes written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frame.len()
    }

    /// Documents written, those that left included.
    #[must_use]
    pub const fn documents(&self) -> usize {
        self.documents
    }

    /// Whether there is no document in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.documents == 0
    }

    /// The frame.
    #[must_use]
    pub fn finish(mut self, progress: Progress<'_>, compression: pb::Compression) -> Framed<Bytes> {
        if let Progress::Everything(position) = progress {
            put_bytes(&mut self.frame, PAGE_POSITION, position);
        }
        if self.clock != 0 {
            self.frame.put_u8(PAGE_CLOCK);
            self.frame.put_u64_le(self.clock);
        }
        if let Progress::Changed(reached) = progress {
            put_bytes(&mut self.frame, PAGE_REACHED, reached);
        }
        let bytes = self.frame.len();
        let changes = bytes - 1 - (1 + PADDED);
        let page = changes - (1 + PADDED);
        if let Some(header) = self.frame.first_chunk_mut::<HEADER>() {
            let [flags, envelope_key, envelope @ .., _, _, _, _, _, _] = header;
            *flags = frame::RAW;
            *envelope_key = ENVELOPE_CHANGES;
            pad(envelope, changes);
            let [.., changes_key, a, b, c, d, e] = header;
            *changes_key = CHANGES_PAGE;
            let mut length = [0; PADDED];
            pad(&mut length, page);
            [*a, *b, *c, *d, *e] = length;
        }
        Framed { message: frame::compressed(self.frame.freeze(), compression), bytes }
    }
}

/// Writes `length` as a varint of all of `out`.
#[allow(clippy::cast_possible_truncation, reason = "seven bits at a time")]
fn pad(out: &mut [u8; PADDED], length: usize) {
    let [first @ .., last] = out;
    let mut rest = length;
    for byte in first {
        *byte = (rest & 0x7f) as u8 | 0x80;
        rest >>= 7;
    }
    *last = (rest & 0x7f) as u8;
}

fn bytes_len(bytes: &[u8]) -> usize {
    1 + encoded_len_varint(bytes.len() as u64) + bytes.len()
}

fn put_bytes(out: &mut BytesMut, key: u8, bytes: &[u8]) {
    out.put_u8(key);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn lsn_len(lsn: Lsn) -> usize {
    let part = |value: u64| if value == 0 { 0 } else { 1 + encoded_len_varint(value) };
    part(lsn.version) + part(lsn.order.into())
}

fn put_lsn(out: &mut BytesMut, key: u8, lsn: Lsn) {
    out.put_u8(key);
    encode_varint(lsn_len(lsn) as u64, out);
    for (key, value) in [(LSN_VERSION, lsn.version), (LSN_ORDER, lsn.order.into())] {
        if value != 0 {
            out.put_u8(key);
            encode_varint(value, out);
        }
    }
}

fn packed_len(ids: &[u32]) -> usize {
    ids.iter().map(|&id| encoded_len_varint(id.into())).sum()
}

fn ids_len(ids: &[u32]) -> usize {
    if ids.is_empty() { 0 } else { 1 + encoded_len_varint(packed_len(ids) as u64) + packed_len(ids) }
}

fn put_ids(out: &mut BytesMut, key: u8, ids: &[u32]) {
    if ids.is_empty() {
        return;
    }
    out.put_u8(key);
    encode_varint(packed_len(ids) as u64, out);
    for &id in ids {
        encode_varint(id.into(), out);
    }
}

#[cfg(test)]
mod tests;
