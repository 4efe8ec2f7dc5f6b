//! Batches: writing them.

use bigpeer_types::{AppId, Lsn};
use crc32c::crc32c_append;

use super::record::{KIND_APP, KIND_ENTRY, KIND_METADATA, KIND_TRIM, OP_DELETE, OP_PUT};
use super::{BATCH_HEADER_BYTES, BatchHeader, Seed, SegmentHeader, Varint};
use crate::{AppendEntry, MetaOp};

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
        let length = app.bytes().len()
            + 8
            + seq.bytes().len()
            + keys.bytes().len()
            + 8 * entry.writes.len()
            + entry.payload.len();
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
        let record = self.begin(KIND_APP, number.bytes().len() + app.as_str().len());
        self.out.extend_from_slice(number.bytes());
        self.out.extend_from_slice(app.as_str().as_bytes());
        self.end(record);
    }

    /// Adds a trim.
    pub fn trim(&mut self, app: u32, through: Lsn) {
        let parts = [Varint::new(app.into()), Varint::new(through.version), Varint::new(through.order.into())];
        let record = self.begin(KIND_TRIM, parts.iter().map(|part| part.bytes().len()).sum());
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
