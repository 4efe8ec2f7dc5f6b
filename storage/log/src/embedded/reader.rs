//! Reading entries back from segments, with positioned reads beside the writer.

use std::io;

use bigpeer_types::Lsn;
use bytes::Bytes;

use super::format::{BATCH_HEADER_BYTES, BatchHeader, RawRecord, Record};
use super::index::Span;
use super::segments::Segment;
use super::shared::Shared;
use crate::{LogEntry, ReadBatch, ReadError};

/// Pieces that are this close to one another are read at once.
const GAP_BYTES: u64 = 16 * 1024;

/// Reads the entries of an app in `spans` that come after `after`, at least one, up to `max_bytes` of payload.
pub(crate) fn read_spans(
    shared: &Shared,
    app: u32,
    after: Lsn,
    spans: &[Span],
    max_bytes: usize,
) -> Result<ReadBatch, ReadFailure> {
    let mut batch = ReadBatch { entries: Vec::new(), through: after };
    let mut bytes = 0;
    for group in spans.chunk_by(|left, right| left.segment == right.segment && right.start - left.end <= GAP_BYTES) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let segment = shared.segments.get(first.segment).ok_or(ReadFailure::Freed)?;
        let mut buffer = vec![0; usize::try_from(last.end - first.start).unwrap_or(usize::MAX)];
        segment.file.read_at(&mut buffer, first.start).map_err(ReadFailure::Io)?;
        let buffer = Bytes::from(buffer);
        for span in group {
            let mut walk = Walk { segment: &segment, version: span.first, at: span.start, end: span.end };
            let piece = buffer.slice(index(span.start - first.start)..index(span.end - first.start));
            while let Some((version, raw_at, raw)) = walk.next(&piece, span.start)? {
                if Lsn::new(version, 0) <= after || raw.entry_app() != Some(app) {
                    continue;
                }
                let Some(Record::Entry(entry)) = raw.parse() else { return Err(walk.damage(raw_at)) };
                bytes += entry.payload.len();
                if bytes > max_bytes && !batch.entries.is_empty() {
                    return Ok(batch);
                }
                let lsn = Lsn::new(version, 0);
                let payload = piece.slice_ref(entry.payload);
                batch.entries.push(LogEntry { lsn, site: entry.site, seq: entry.seq, payload });
                batch.through = lsn;
            }
        }
    }
    Ok(batch)
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// Why a read failed.
#[derive(Debug)]
pub(crate) enum ReadFailure {
    /// The segment was trimmed meanwhile.
    Freed,
    /// The disk failed.
    Io(io::Error),
    /// The bytes are not what was written.
    Damage { file: String, offset: u64 },
}

impl ReadFailure {
    /// What the reader is told.
    pub(crate) fn into_error(self, shared: &Shared) -> ReadError {
        match self {
            Self::Freed => ReadError::Unavailable { reason: "the log was trimmed while it was read".to_owned() },
            Self::Io(error) => ReadError::Unavailable { reason: format!("reading the disk failed ({error})") },
            Self::Damage { file, offset } => {
                let file = shared.disk.path().join(file);
                let reason = format!("{}, offset {offset}: a record is not what was written", file.display());
                tracing::error!(%reason, "the transaction log is damaged");
                ReadError::Corrupt { reason }
            }
        }
    }
}

/// Goes through the records of a span, of whatever app, and over the headers of batches between them.
struct Walk<'s> {
    segment: &'s Segment,
    version: u64,
    at: u64,
    end: u64,
}

impl Walk<'_> {
    fn damage(&self, offset: u64) -> ReadFailure {
        ReadFailure::Damage { file: self.segment.name.clone(), offset }
    }

    /// The next record: its version, where it stands, itself. `piece` starts at `start` of the file.
    fn next<'a>(&mut self, piece: &'a [u8], start: u64) -> Result<Option<(u64, u64, RawRecord<'a>)>, ReadFailure> {
        let seed = self.segment.seed;
        loop {
            if self.at >= self.end {
                return Ok(None);
            }
            let rest = piece.get(index(self.at - start)..).unwrap_or_default();
            if let Some(raw) = RawRecord::read(rest, seed, self.version) {
                let (version, at) = (self.version, self.at);
                self.version += 1;
                self.at += raw.bytes as u64;
                return Ok(Some((version, at, raw)));
            }
            match BatchHeader::decode(rest, seed, self.at) {
                Some(batch) if batch.first_version == self.version => self.at += BATCH_HEADER_BYTES as u64,
                Some(_) | None => return Err(self.damage(self.at)),
            }
        }
    }
}
