//! Records: reading them back.

use bigpeer_types::{AppId, Lsn, SiteId};
use bytes::Bytes;
use crc32c::crc32c_append;

use super::{BATCH_MAGIC, Reader, Seed};
use crate::MetaOp;

pub(super) const KIND_ENTRY: u8 = 1;
pub(super) const KIND_APP: u8 = 2;
pub(super) const KIND_TRIM: u8 = 3;
pub(super) const KIND_METADATA: u8 = 4;

pub(super) const OP_PUT: u8 = 1;
pub(super) const OP_DELETE: u8 = 2;

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

impl<'a> Record<'a> {
    /// Takes the body of a record of some kind apart; `None`: it is not of this format.
    #[must_use]
    pub fn parse(kind: u8, body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let record = match kind {
            KIND_ENTRY => Record::Entry(EntryRecord::parse(body)?),
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
}

impl<'a> EntryRecord<'a> {
    fn parse(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let (app, site, seq) = (reader.varint_u32()?, SiteId::new(reader.u64()?), reader.varint()?);
        let keys = usize::try_from(reader.varint()?).ok()?.checked_mul(8)?;
        let keys = reader.take(keys)?;
        Some(Self { app, site, seq, keys, payload: reader.0 })
    }
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
        Record::parse(self.kind, self.body)
    }

    /// The app of a transaction without taking all of it apart; `None`: it is another kind of record.
    #[must_use]
    pub fn entry_app(&self) -> Option<u32> {
        if self.kind == KIND_ENTRY { Reader(self.body).varint_u32() } else { None }
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
