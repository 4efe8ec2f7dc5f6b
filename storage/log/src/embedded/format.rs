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

use bigpeer_types::{AppId, Lsn, SiteId};
use bytes::Bytes;
use crc32c::{crc32c, crc32c_append};

use crate::{AppendEntry, MetaOp};

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

const KIND_ENTRY: u8 = 1;
const KIND_APP: u8 = 2;
const KIND_TRIM: u8 = 3;
const KIND_METADATA: u8 = 4;

const OP_PUT: u8 = 1;
const OP_DELETE: u8 = 2;

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

/// One record, its parts still in the bytes that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A transaction.
    Entry(EntryRecord<'a>),
    /// An app got a number, by which other records name it.
    App {
        /// The number.
        number: u32,
        /// The app.
        app: AppId,
    },
    /// An app's entries were given up.
    Trim {
        /// The app's number.
        app: u32,
        /// Up to here.
        through: Lsn,
    },
    /// A metadata commit whose checks held; only puts and deletes.
    Metadata(Vec<MetaOp>),
}

/// A transaction in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRecord<'a> {
    /// The app's number.
    pub app: u32,
    /// Who wrote it.
    pub site: SiteId,
    /// The site's number of it.
    pub seq: u64,
    /// Conflict keys written, 8 bytes each.
    pub keys: &'a [u8],
    /// What was appended.
    pub payload: &'a [u8],
}

/// A record as it stands in the file: checked, not yet taken apart.
#[derive(Clone, Copy, Debug)]
pub struct RawRecord<'a> {
    kind: u8,
    /// The checksum, for the batch's.
    pub crc: u32,
    body: &'a [u8],
    /// Bytes that it takes in the file.
    pub bytes: usize,
}

impl<'a> RawRecord<'a> {
    /// Reads the record of `version` at the start of `bytes`; `None`: there is no such record.
    #[must_use]
    pub fn read(bytes: &'a [u8], seed: Seed, version: u64) -> Option<Self> {
        let mut reader = Reader(bytes);
        let kind = reader.u8()?;
        if kind == BATCH_MAGIC[0] {
            return None;
        }
        let length = usize::try_from(reader.varint()?).ok()?;
        let head = bytes.get(..bytes.len() - reader.0.len())?;
        let crc = reader.u32()?;
        let body = reader.take(length)?;
        if crc32c_append(crc32c_append(seed.at(version), head), body) != crc {
            return None;
        }
        Some(Self { kind, crc, body, bytes: bytes.len() - reader.0.len() })
    }

    /// Takes the record apart; `None`: it is not of this format, though its checksum is right.
    #[must_use]
    pub fn parse(&self) -> Option<Record<'a>> {
        let mut reader = Reader(self.body);
        let record = match self.kind {
            KIND_ENTRY => Record::Entry(self.parse_entry()?),
            KIND_APP => {
                let number = reader.varint_u32()?;
                Record::App { number, app: AppId::new(std::str::from_utf8(reader.0).ok()?).ok()? }
            }
            KIND_TRIM => {
                let (app, version) = (reader.varint_u32()?, reader.varint()?);
                Record::Trim { app, through: Lsn::new(version, reader.varint_u32()?) }
            }
            KIND_METADATA => Record::Metadata(parse_ops(&mut reader)?),
            _ => return None,
        };
        Some(record)
    }

    /// The app of a transaction without taking all of it apart; `None`: it is another kind of record.
    #[must_use]
    pub fn entry_app(&self) -> Option<u32> {
        if self.kind == KIND_ENTRY { Reader(self.body).varint_u32() } else { None }
    }

    fn parse_entry(&self) -> Option<EntryRecord<'a>> {
        let mut reader = Reader(self.body);
        let (app, site, seq) = (reader.varint_u32()?, SiteId::new(reader.u64()?), reader.varint()?);
        let keys = usize::try_from(reader.varint()?).ok()?.checked_mul(8)?;
        let keys = reader.take(keys)?;
        Some(EntryRecord { app, site, seq, keys, payload: reader.0 })
    }
}

fn parse_ops(reader: &mut Reader<'_>) -> Option<Vec<MetaOp>> {
    let count = reader.varint()?;
    let mut ops = Vec::new();
    for _ in 0..count {
        let op = reader.u8()?;
        let key = Bytes::copy_from_slice(reader.chunk()?);
        ops.push(match op {
            OP_PUT => MetaOp::Put { key, value: Bytes::copy_from_slice(reader.chunk()?) },
            OP_DELETE => MetaOp::Delete { key },
            _ => return None,
        });
    }
    reader.0.is_empty().then_some(ops)
}

/// Encodes one batch. Records get consecutive versions.
#[derive(Debug)]
pub struct BatchEncoder {
    seed: Seed,
    /// Where the batch will stand in its file.
    offset: u64,
    first_version: u64,
    records: u32,
    body_crc: u32,
    /// The batch so far; its header is filled in at the end.
    out: Vec<u8>,
    /// Where `out` holds the batch's header: a segment's header may come before.
    start: usize,
}

impl BatchEncoder {
    /// A batch at `offset` of a segment's file. `out` is emptied and used, to save allocations; with `header` the first
    /// bytes are the segment's header, and `offset` is 0.
    #[must_use]
    pub fn new(mut out: Vec<u8>, seed: Seed, offset: u64, first_version: u64, header: Option<&SegmentHeader>) -> Self {
        out.clear();
        if let Some(header) = header {
            out.extend_from_slice(&header.encode());
        }
        let start = out.len();
        out.extend_from_slice(&[0; BATCH_HEADER_BYTES]);
        Self { seed, offset, first_version, records: 0, body_crc: 0, out, start }
    }

    /// The version that the next record gets.
    #[must_use]
    pub fn next_version(&self) -> u64 {
        self.first_version + u64::from(self.records)
    }

    /// How many records there are.
    #[must_use]
    pub const fn records(&self) -> u32 {
        self.records
    }

    /// Where in the file the next record starts.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.offset + self.out.len() as u64
    }

    /// Adds a transaction.
    pub fn entry(&mut self, app: u32, entry: &AppendEntry) {
        let (app, seq, keys) =
            (Varint::new(app.into()), Varint::new(entry.seq), Varint::new(entry.writes.len() as u64));
        let length = app.len + 8 + seq.len + keys.len + 8 * entry.writes.len() + entry.payload.len();
        let record = self.begin(KIND_ENTRY, length);
        self.out.extend_from_slice(app.bytes());
        self.out.extend_from_slice(&entry.site.get().to_le_bytes());
        self.out.extend_from_slice(seq.bytes());
        self.out.extend_from_slice(keys.bytes());
        for key in &entry.writes {
            self.out.extend_from_slice(&key.0.to_le_bytes());
        }
        self.out.extend_from_slice(&entry.payload);
        self.end(record);
    }

    /// Adds an app's number.
    pub fn app(&mut self, number: u32, app: &AppId) {
        let number = Varint::new(number.into());
        let record = self.begin(KIND_APP, number.len + app.as_str().len());
        self.out.extend_from_slice(number.bytes());
        self.out.extend_from_slice(app.as_str().as_bytes());
        self.end(record);
    }

    /// Adds a trim.
    pub fn trim(&mut self, app: u32, through: Lsn) {
        let parts = [Varint::new(app.into()), Varint::new(through.version), Varint::new(through.order.into())];
        let record = self.begin(KIND_TRIM, parts.iter().map(|part| part.len).sum());
        for part in &parts {
            self.out.extend_from_slice(part.bytes());
        }
        self.end(record);
    }

    /// Adds a metadata commit; checks are left out.
    pub fn metadata(&mut self, ops: &[MetaOp]) {
        let mut body = Vec::new();
        let writes = || ops.iter().filter(|op| !matches!(op, MetaOp::Check { .. }));
        body.extend_from_slice(Varint::new(writes().count() as u64).bytes());
        for op in writes() {
            match op {
                MetaOp::Check { .. } => {}
                MetaOp::Put { key, value } => {
                    body.push(OP_PUT);
                    put_chunk(&mut body, key);
                    put_chunk(&mut body, value);
                }
                MetaOp::Delete { key } => {
                    body.push(OP_DELETE);
                    put_chunk(&mut body, key);
                }
            }
        }
        let record = self.begin(KIND_METADATA, body.len());
        self.out.extend_from_slice(&body);
        self.end(record);
    }

    /// Starts a record: kind, length, room for the checksum. Answers where it starts and where its body does.
    fn begin(&mut self, kind: u8, length: usize) -> (usize, usize) {
        let start = self.out.len();
        self.out.push(kind);
        self.out.extend_from_slice(Varint::new(length as u64).bytes());
        self.out.extend_from_slice(&[0; 4]);
        (start, self.out.len())
    }

    fn end(&mut self, (start, body): (usize, usize)) {
        let version = self.next_version();
        let (head, rest) = self.out[start..].split_at(body - start - 4);
        let crc = crc32c_append(crc32c_append(self.seed.at(version), head), &rest[4..]).to_le_bytes();
        self.out[body - 4..body].copy_from_slice(&crc);
        self.body_crc = crc32c_append(self.body_crc, &crc);
        self.records += 1;
    }

    /// The finished bytes, to be written at the offset given at the start.
    ///
    /// # Errors
    /// When the batch is larger than its length field can say: 4 GiB.
    pub fn finish(mut self) -> Result<Vec<u8>, std::num::TryFromIntError> {
        self.take()
    }

    /// As [`Self::finish`], leaving an encoder that must not be used any more.
    pub(crate) fn take(&mut self) -> Result<Vec<u8>, std::num::TryFromIntError> {
        let header = BatchHeader {
            body_bytes: u32::try_from(self.out.len() - self.start - BATCH_HEADER_BYTES)?,
            first_version: self.first_version,
            records: self.records,
            body_crc: self.body_crc,
        };
        let offset = self.offset + self.start as u64;
        self.out[self.start..self.start + BATCH_HEADER_BYTES].copy_from_slice(&header.encode(self.seed, offset));
        Ok(std::mem::take(&mut self.out))
    }
}

fn put_chunk(out: &mut Vec<u8>, chunk: &[u8]) {
    out.extend_from_slice(Varint::new(chunk.len() as u64).bytes());
    out.extend_from_slice(chunk);
}

/// A varint on the stack.
pub(crate) struct Varint {
    bytes: [u8; 10],
    len: usize,
}

impl Varint {
    #[allow(clippy::cast_possible_truncation, reason = "the low 7 bits are taken")]
    pub(crate) fn new(mut value: u64) -> Self {
        let (mut bytes, mut len) = ([0; 10], 0);
        for byte in &mut bytes {
            len += 1;
            if value < 0x80 {
                *byte = value as u8;
                break;
            }
            *byte = (value as u8) | 0x80;
            value >>= 7;
        }
        Self { bytes, len }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Takes bytes apart from the front; `None` when there are too few, or a varint is too long.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    pub(crate) fn varint_u32(&mut self) -> Option<u32> {
        self.varint().and_then(|value| u32::try_from(value).ok())
    }

    /// A length and as many bytes.
    pub(crate) fn chunk(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        self.take(length)
    }
}
