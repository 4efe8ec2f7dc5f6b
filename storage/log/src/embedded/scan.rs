//! Reading a whole segment: finds its end, and tells a torn tail from damage.

use super::format::{BATCH_HEADER_BYTES, BATCH_MAGIC, BatchHeader, RawRecord, SEGMENT_HEADER_BYTES, SegmentHeader};

/// A record of a whole batch, and where it stands.
#[derive(Debug)]
pub(crate) struct Scanned<'a> {
    pub(crate) version: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) raw: RawRecord<'a>,
}

/// Where a segment's batches end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Where the next batch would go.
    pub(crate) offset: u64,
    /// The version of the next record.
    pub(crate) next_version: u64,
    /// Where the last batch starts; the segment's header counts as one.
    pub(crate) last_batch: u64,
    /// A batch that was being written is there in part: its bytes are no part of the log.
    pub(crate) torn: bool,
    /// The log was closed here.
    pub(crate) closed: bool,
}

/// A segment that is not what was written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) offset: u64,
    pub(crate) reason: String,
}

/// Goes through a segment's batches and hands the records of each whole one to `each`. `until` is the version at which the
/// next segment starts; `None` for the last segment, the only one that may end in a torn batch.
pub(crate) fn scan<'a>(
    bytes: &'a [u8],
    header: &SegmentHeader,
    until: Option<u64>,
    mut each: impl FnMut(Scanned<'a>) -> Result<(), &'static str>,
) -> Result<End, Damage> {
    let mut at = SEGMENT_HEADER_BYTES;
    let mut end =
        End { offset: at as u64, next_version: header.first_version, last_batch: 0, torn: false, closed: false };
    let mut records = Vec::new();
    loop {
        if until == Some(end.next_version) {
            return Ok(end);
        }
        let rest = bytes.get(at..).unwrap_or_default();
        let batch = match read_batch(rest, header, at as u64, end.next_version, &mut records) {
            Ok(batch) => batch,
            Err(bad) => {
                let offset = (at + bad.offset) as u64;
                if let Some(until) = until {
                    let reason = format!("{}, though the next segment starts at version {until}", bad.reason);
                    return Err(Damage { offset, reason });
                }
                if let Some(later) = later_batch(bytes, at + 1, header) {
                    let reason = format!("{}, though a batch written later is whole, at offset {later}", bad.reason);
                    return Err(Damage { offset, reason });
                }
                end.torn = bad.present;
                return Ok(end);
            }
        };
        for (record, raw) in records.drain(..) {
            let start = (at + record) as u64;
            let version = end.next_version;
            each(Scanned { version, start, end: start + raw.bytes as u64, raw })
                .map_err(|reason| Damage { offset: start, reason: reason.to_owned() })?;
            end.next_version += 1;
        }
        end.closed = batch.records == 0;
        end.last_batch = at as u64;
        at += BATCH_HEADER_BYTES + batch.body_bytes as usize;
        end.offset = at as u64;
    }
}

/// Why there is no whole batch.
struct Bad {
    /// Where, from the batch's start.
    offset: usize,
    reason: &'static str,
    /// Whether something else than zeros is there, of this life of the file.
    present: bool,
}

/// Reads one batch and checks all of it. Fills `records` with where each stands, from the batch's start.
fn read_batch<'a>(
    bytes: &'a [u8],
    header: &SegmentHeader,
    offset: u64,
    version: u64,
    records: &mut Vec<(usize, RawRecord<'a>)>,
) -> Result<BatchHeader, Bad> {
    let seed = header.seed();
    records.clear();
    let bad = |offset, reason, present| Bad { offset, reason, present };
    let batch = BatchHeader::decode(bytes, seed, offset).ok_or(bad(0, "no batch starts here", false))?;
    if batch.first_version != version {
        return Err(bad(0, "a batch with the wrong version starts here", true));
    }
    let length = BATCH_HEADER_BYTES + batch.body_bytes as usize;
    let body = bytes.get(..length).ok_or(bad(0, "a batch is longer than its file", true))?;
    let (mut at, mut crc) = (BATCH_HEADER_BYTES, 0);
    for record in 0..u64::from(batch.records) {
        let raw = body.get(at..).and_then(|rest| RawRecord::read(rest, seed, version + record)).ok_or(bad(
            at,
            "a record is not what was written",
            true,
        ))?;
        crc = crc32c::crc32c_append(crc, &raw.crc.to_le_bytes());
        records.push((at, raw));
        at += raw.bytes;
    }
    if at != length || crc != batch.body_crc {
        return Err(bad(BATCH_HEADER_BYTES, "the records are not those of their batch", true));
    }
    Ok(batch)
}

/// Finds a batch of this life of the file at `from` or later. It would have been written only after a sync of
/// everything before it.
fn later_batch(bytes: &[u8], from: usize, header: &SegmentHeader) -> Option<usize> {
    let seed = header.seed();
    let [first, ..] = BATCH_MAGIC;
    let mut at = from;
    loop {
        let rest = bytes.get(at..)?;
        at += rest.iter().position(|byte| *byte == first)?;
        let candidate = bytes.get(at..)?;
        if candidate.starts_with(&BATCH_MAGIC) && BatchHeader::decode(candidate, seed, at as u64).is_some() {
            return Some(at);
        }
        at += 1;
    }
}
