//! The bytes of a segment file. Pure: no I/O, no state.
//!
//! # Layout
//! All integers are little-endian; a varint is LEB128 of at most 10 bytes.
//! ```text
//! segment  = header (64 bytes) batch* rest        rest: zeros, or what an earlier life of the file left
//! header   = magic "bpglog" 0x00 format(1)  log id (16)  number u64  salt u64  first version u64  file bytes u64
//!            zero u32  crc u32
//! batch    = 0xB5 "BP1"  body bytes u32  first version u64  records u32  body crc u32  zero u32  crc u32   (32 bytes), record*
//! record   = kind u8  length varint  crc u32  body (length bytes)
//! body     = entry:    app varint, site u64, seq varint, keys varint, key u64 *, payload
//!          | app:      number varint, name
//!          | trim:     app varint, through version varint, through order varint
//!          | metadata: ops varint, (1, key length varint, key, value length varint, value | 2, key length varint, key) *
//! ```
//! Records have consecutive versions over all segments of a log, of whatever kind; a version is not stored per record.
//!
//! Every checksum is a CRC-32C that starts from the segment's seed (log id, number and salt), a batch's then from its offset in
//! the file, a record's from its version. So bytes of another segment, of an earlier life of the file, of another place or
//! another position in the log are never taken for what they are not: for equal bytes, CRCs from different seeds differ
//! always. A batch's body crc covers the crcs of its records: a batch is whole or it is not there.

mod encode;
mod record;
#[cfg(test)]
mod tests;
mod varint;

use crc32c::{crc32c, crc32c_append};

pub use encode::BatchEncoder;
pub use record::{EntryRecord, RawRecord, Record};
pub(crate) use varint::{Reader, Varint};

/// Length of a segment's header.
pub const SEGMENT_HEADER_BYTES: usize = 64;
/// Length of a batch's header.
pub const BATCH_HEADER_BYTES: usize = 32;
/// First bytes of a batch. The first is no record's kind.
pub(crate) const BATCH_MAGIC: [u8; 4] = [0xB5, b'B', b'P', b'1'];
/// First bytes of a segment; the last is the version of the format.
const SEGMENT_MAGIC: [u8; 8] = *b"bpglog\x00\x01";

/// Most bytes that a record takes beside its keys, values and payload.
pub(crate) const RECORD_OVERHEAD_BYTES: usize = 64;

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The log that the segment belongs to.
    pub log_id: [u8; 16],
    /// Its place in the log: 1, 2, 3, …
    pub number: u64,
    /// Chance, new for each life of the file.
    pub salt: u64,
    /// The version of its first record.
    pub first_version: u64,
    /// Length of the file, in bytes.
    pub file_bytes: u64,
}

impl SegmentHeader {
    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        out.extend_from_slice(&SEGMENT_MAGIC);
        out.extend_from_slice(&self.log_id);
        for word in [self.number, self.salt, self.first_version, self.file_bytes] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&crc32c(&out).to_le_bytes());
        let mut header = [0; SEGMENT_HEADER_BYTES];
        header.copy_from_slice(&out);
        header
    }

    /// Reads the stored form; `None`: these bytes are no segment header of this format.
    #[must_use]
    pub fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Option<Self> {
        let (content, crc) = bytes.split_last_chunk::<4>()?;
        let mut reader = Reader(content);
        if reader.array::<8>()? != SEGMENT_MAGIC || crc32c(content) != u32::from_le_bytes(*crc) {
            return None;
        }
        Some(Self {
            log_id: reader.array()?,
            number: reader.u64()?,
            salt: reader.u64()?,
            first_version: reader.u64()?,
            file_bytes: reader.u64()?,
        })
    }

    /// Where the segment's checksums start from.
    #[must_use]
    pub fn seed(&self) -> Seed {
        let crc = crc32c_append(crc32c(&self.log_id), &self.number.to_le_bytes());
        Seed(crc32c_append(crc, &self.salt.to_le_bytes()))
    }
}

/// Where a segment's checksums start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u32);

impl Seed {
    fn at(self, place: u64) -> u32 {
        crc32c_append(self.0, &place.to_le_bytes())
    }
}

/// What a batch's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Bytes of the records that follow.
    pub body_bytes: u32,
    /// The version of the first record; that of the next batch when there are no records.
    pub first_version: u64,
    /// How many records follow. None: the log was closed here.
    pub records: u32,
    /// Checksum over the checksums of the records.
    pub body_crc: u32,
}

impl BatchHeader {
    /// The stored form of a batch at `offset` of its file.
    #[must_use]
    pub fn encode(&self, seed: Seed, offset: u64) -> [u8; BATCH_HEADER_BYTES] {
        let mut out = Vec::with_capacity(BATCH_HEADER_BYTES);
        out.extend_from_slice(&BATCH_MAGIC);
        out.extend_from_slice(&self.body_bytes.to_le_bytes());
        out.extend_from_slice(&self.first_version.to_le_bytes());
        out.extend_from_slice(&self.records.to_le_bytes());
        out.extend_from_slice(&self.body_crc.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let crc = crc32c_append(seed.at(offset), &out);
        out.extend_from_slice(&crc.to_le_bytes());
        let mut header = [0; BATCH_HEADER_BYTES];
        header.copy_from_slice(&out);
        header
    }

    /// Reads the stored form at `offset` of its file; `None`: no batch of this segment starts here.
    #[must_use]
    pub fn decode(bytes: &[u8], seed: Seed, offset: u64) -> Option<Self> {
        let (content, crc) = bytes.get(..BATCH_HEADER_BYTES)?.split_last_chunk::<4>()?;
        let mut reader = Reader(content);
        if reader.array::<4>()? != BATCH_MAGIC || crc32c_append(seed.at(offset), content) != u32::from_le_bytes(*crc) {
            return None;
        }
        Some(Self {
            body_bytes: reader.u32()?,
            first_version: reader.u64()?,
            records: reader.u32()?,
            body_crc: reader.u32()?,
        })
    }
}
