//! Entries packed into values: one row for many small entries, many rows for a large one.
//!
//! # Layout
//! A pack holds entries of one app and one commit, in order. It is cut into chunks below FoundationDB's limit of 100,000
//! bytes a value; the key of each carries the place of the pack's *last* entry, so that a reader who has seen up to there
//! starts behind the pack, and one who has seen less starts at its beginning.
//!
//! `length: u32 | format: u8 = 1 | crc32c of what follows: u32 | entries`, numbers little-endian; an entry is
//! `place: varint | site: u64 | seq: varint | payload: varint length and bytes`.

use bigpeer_types::{Lsn, SiteId};
use bytes::{Bytes, BytesMut};

use crate::embedded::format::{Reader, Varint};
use crate::{AppendEntry, LogEntry};

/// Largest value.
pub(crate) const CHUNK_BYTES: usize = 90_000;
/// A pack takes no more entries when it has this many bytes.
const PACK_BYTES: usize = 32 * 1024;
const FORMAT: u8 = 1;
/// Length, format and checksum.
const HEADER_BYTES: usize = 9;

// The number of a chunk is one byte, and 255 is never used: see `AppSpace::entries_after`.
const _: () = assert!((crate::limits::MAX_PAYLOAD_BYTES + PACK_BYTES) / CHUNK_BYTES + 1 < 255);

/// Puts the entries of one app and one commit together.
#[derive(Debug, Default)]
pub(crate) struct Packer {
    open: Vec<u8>,
    last: u16,
    done: Vec<Pack>,
}

/// A pack to be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pack {
    /// Place of its last entry in the commit.
    pub(crate) last: u16,
    pub(crate) bytes: Vec<u8>,
}

impl Packer {
    pub(crate) fn add(&mut self, place: u16, entry: &AppendEntry) {
        if self.open.len() >= PACK_BYTES {
            self.close();
        }
        if self.open.is_empty() {
            self.open.resize(HEADER_BYTES, 0);
        }
        self.open.extend_from_slice(Varint::new(place.into()).bytes());
        self.open.extend_from_slice(&entry.site.get().to_le_bytes());
        self.open.extend_from_slice(Varint::new(entry.seq).bytes());
        self.open.extend_from_slice(Varint::new(entry.payload.len() as u64).bytes());
        self.open.extend_from_slice(&entry.payload);
        self.last = place;
    }

    fn close(&mut self) {
        let mut bytes = std::mem::take(&mut self.open);
        let crc = crc32c::crc32c(bytes.get(HEADER_BYTES..).unwrap_or_default());
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let header = [&length.to_le_bytes()[..], &[FORMAT], &crc.to_le_bytes()].concat();
        if let Some(start) = bytes.get_mut(..HEADER_BYTES) {
            start.copy_from_slice(&header);
            self.done.push(Pack { last: self.last, bytes });
        }
    }

    /// The packs, in order.
    pub(crate) fn finish(mut self) -> Vec<Pack> {
        self.close();
        self.done
    }
}

impl Pack {
    /// The values to be written, in order.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = (u8, &[u8])> {
        (0..u8::MAX).zip(self.bytes.chunks(CHUNK_BYTES))
    }
}

/// Puts a pack together from its chunks, and takes it apart.
#[derive(Debug, Default)]
pub(crate) struct Unpacker {
    last: Lsn,
    chunks: u8,
    bytes: BytesMut,
}

impl Unpacker {
    /// Takes the next row of a range of packs. Answers the pack's entries when it is whole; `None` is damage.
    pub(crate) fn add(&mut self, last: Lsn, chunk: u8, value: &[u8]) -> Option<Vec<LogEntry>> {
        if chunk != self.chunks || (chunk > 0 && last != self.last) {
            return None;
        }
        if chunk == 0 && value.len() == length(value)? {
            return unpack(last, Bytes::copy_from_slice(value));
        }
        self.last = last;
        self.chunks += 1;
        self.bytes.extend_from_slice(value);
        let length = length(&self.bytes)?;
        if self.bytes.len() < length {
            return Some(Vec::new());
        }
        self.chunks = 0;
        unpack(last, self.bytes.split().freeze())
    }

    /// Whether chunks of a pack are still missing.
    pub(crate) fn is_open(&self) -> bool {
        self.chunks > 0
    }
}

fn length(bytes: &[u8]) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(*bytes.first_chunk()?)).ok()
}

/// The entries of a whole pack that ends at `last`.
fn unpack(last: Lsn, bytes: Bytes) -> Option<Vec<LogEntry>> {
    let mut reader = Reader(&bytes);
    if usize::try_from(reader.u32()?).ok()? != bytes.len() || reader.u8()? != FORMAT {
        return None;
    }
    if reader.u32()? != crc32c::crc32c(reader.0) {
        return None;
    }
    let mut entries: Vec<LogEntry> = Vec::new();
    while !reader.0.is_empty() {
        let place = u16::try_from(reader.varint()?).ok()?;
        let lsn = Lsn::new(last.version, (last.order & 0xffff_0000) | u32::from(place));
        let site = SiteId::new(reader.u64()?);
        let seq = reader.varint()?;
        let payload = bytes.slice_ref(reader.chunk()?);
        if entries.last().is_some_and(|before| before.lsn >= lsn) {
            return None;
        }
        entries.push(LogEntry { lsn, site, seq, payload });
    }
    (entries.last()?.lsn == last).then_some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(site: u64, seq: u64, bytes: usize) -> AppendEntry {
        let payload = (0..bytes).map(|byte| (byte as u64 * 31 + seq).to_le_bytes()[0]).collect::<Vec<_>>().into();
        AppendEntry { site: SiteId::new(site), seq, writes: Vec::new(), unchanged: Vec::new(), payload }
    }

    fn read_back(packs: &[Pack], version: u64, batch: u32) -> Option<Vec<LogEntry>> {
        let (mut unpacker, mut all) = (Unpacker::default(), Vec::new());
        for pack in packs {
            let last = Lsn::new(version, batch << 16 | u32::from(pack.last));
            for (chunk, value) in pack.chunks() {
                assert!(value.len() <= CHUNK_BYTES);
                all.extend(unpacker.add(last, chunk, value)?);
            }
            assert!(!unpacker.is_open());
        }
        Some(all)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn entries_are_read_back(sizes in proptest::collection::vec(prop_oneof![0..500_usize, 0..200_000_usize], 1..20),
            gap in 1..300_u16, version in any::<u64>(), batch in any::<u16>()) {
            let mut packer = Packer::default();
            let mut expected = Vec::new();
            for (at, size) in (1_u16..).zip(sizes) {
                let entry = entry(u64::MAX / u64::from(at), u64::from(at) << 20, size);
                let place = at * gap;
                packer.add(place, &entry);
                let lsn = Lsn::new(version, u32::from(batch) << 16 | u32::from(place));
                expected.push(LogEntry { lsn, site: entry.site, seq: entry.seq, payload: entry.payload });
            }
            prop_assert_eq!(read_back(&packer.finish(), version, batch.into()), Some(expected));
        }

        #[test]
        fn damage_is_seen(size in 0..300_usize, at in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let mut packer = Packer::default();
            packer.add(3, &entry(1, 1, 20));
            packer.add(4, &entry(2, 1, size));
            let mut packs = packer.finish();
            let at = at.index(packs[0].bytes.len());
            packs[0].bytes[at] ^= 1 << bit;
            let [pack] = &packs[..] else { panic!("one pack") };
            let mut unpacker = Unpacker::default();
            // A length that is too long waits for more, and never gets it.
            let found = unpacker.add(Lsn::new(1, 4), 0, &pack.bytes);
            prop_assert!(found.is_none() || found == Some(Vec::new()) && unpacker.is_open());
        }
    }

    #[test]
    fn small_entries_share_a_row() {
        let mut packer = Packer::default();
        for place in 0..64 {
            packer.add(place, &entry(place.into(), 1, 200));
        }
        let packs = packer.finish();
        assert_eq!(packs.len(), 1);
        assert!(packs[0].bytes.len() < 64 * 215);
        assert!(Packer::default().finish().is_empty());
    }

    #[test]
    fn missing_chunks_are_damage() {
        let mut packer = Packer::default();
        packer.add(0, &entry(1, 1, 3 * CHUNK_BYTES));
        let packs = packer.finish();
        let chunks: Vec<_> = packs[0].chunks().collect();
        assert_eq!(chunks.len(), 4);
        let mut unpacker = Unpacker::default();
        assert_eq!(unpacker.add(Lsn::new(1, 0), 0, chunks[0].1), Some(Vec::new()));
        assert_eq!(unpacker.add(Lsn::new(1, 0), 2, chunks[2].1), None);
        assert_eq!(Unpacker::default().add(Lsn::new(1, 0), 1, chunks[1].1), None);
        let mut unpacker = Unpacker::default();
        assert_eq!(unpacker.add(Lsn::new(1, 0), 0, chunks[0].1), Some(Vec::new()));
        assert_eq!(unpacker.add(Lsn::new(2, 0), 1, chunks[1].1), None);
    }
}
