//! What is written is what is read; what is not what was written is not read.

use bigpeer_types::{AppId, Lsn, SiteId};
use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::embedded::scan::{Scanned, scan};
use crate::{AppendEntry, ConflictKey, MetaOp};

#[derive(Clone, Debug)]
enum Step {
    Entry(u32, AppendEntry),
    App(u32, AppId),
    Trim(u32, Lsn),
    Metadata(Vec<MetaOp>),
}

fn bytes(most: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..most).prop_map(Bytes::from)
}

fn step() -> impl Strategy<Value = Step> {
    let entry = (any::<u64>(), any::<u64>(), prop::collection::vec(any::<u64>(), 0..4), bytes(300)).prop_map(
        |(site, seq, writes, payload)| AppendEntry {
            site: SiteId::new(site),
            seq,
            writes: writes.into_iter().map(ConflictKey).collect(),
            unchanged: Vec::new(),
            payload,
        },
    );
    let op = prop_oneof![
        (bytes(20), bytes(50)).prop_map(|(key, value)| MetaOp::Put { key, value }),
        bytes(20).prop_map(|key| MetaOp::Delete { key }),
    ];
    prop_oneof![
        4 => (any::<u32>(), entry).prop_map(|(app, entry)| Step::Entry(app, entry)),
        1 => (any::<u32>(), "[a-z0-9][a-z0-9-]{0,20}").prop_map(|(number, app)| Step::App(number, AppId::new(&app).unwrap())),
        1 => (any::<u32>(), any::<(u64, u32)>()).prop_map(|(app, at)| Step::Trim(app, Lsn::new(at.0, at.1))),
        1 => prop::collection::vec(op, 0..4).prop_map(Step::Metadata),
    ]
}

const HEADER: SegmentHeader =
    SegmentHeader { log_id: [7; 16], number: 3, salt: 0x5a17, first_version: 100, file_bytes: 1 << 20 };

/// A segment of batches, with zeros after it.
fn segment(header: &SegmentHeader, batches: &[Vec<Step>]) -> (Vec<u8>, Vec<usize>) {
    let mut segment = header.encode().to_vec();
    let mut ends = vec![segment.len()];
    let mut version = header.first_version;
    for batch in batches {
        let mut encoder = BatchEncoder::new(Vec::new(), header.seed(), segment.len() as u64, version, None);
        for step in batch {
            match step {
                Step::Entry(app, entry) => encoder.entry(*app, entry),
                Step::App(number, app) => encoder.app(*number, app),
                Step::Trim(app, through) => encoder.trim(*app, *through),
                Step::Metadata(ops) => encoder.metadata(ops),
            }
        }
        version = encoder.next_version();
        segment.extend(encoder.finish().unwrap());
        ends.push(segment.len());
    }
    segment.extend([0; 1000]);
    (segment, ends)
}

fn is_what_was_written(record: &Record<'_>, step: &Step) -> bool {
    match (record, step) {
        (Record::Entry(read), Step::Entry(app, wrote)) => {
            let keys: Vec<u8> = wrote.writes.iter().flat_map(|key| key.0.to_le_bytes()).collect();
            (read.app, read.site, read.seq) == (*app, wrote.site, wrote.seq)
                && (read.keys, read.payload) == (&keys[..], &wrote.payload[..])
        }
        (Record::App { number, app }, Step::App(wrote, name)) => (number, app) == (wrote, name),
        (Record::Trim { app, through }, Step::Trim(wrote, at)) => (app, through) == (wrote, at),
        (Record::Metadata(read), Step::Metadata(wrote)) => read == wrote,
        _ => false,
    }
}

/// The records of a segment, or that it is damaged.
fn read<'a>(bytes: &'a [u8], header: &SegmentHeader) -> Result<Vec<(u64, RawRecord<'a>)>, u64> {
    let mut found = Vec::new();
    let each = |scanned: Scanned<'a>| {
        found.push((scanned.version, scanned.raw));
        Ok(())
    };
    scan(bytes, header, None, each).map_err(|damage| damage.offset)?;
    Ok(found)
}

proptest! {
    #[test]
    fn segments_come_back(batches in prop::collection::vec(prop::collection::vec(step(), 1..5), 0..5)) {
        let (bytes, _) = segment(&HEADER, &batches);
        prop_assert_eq!(SegmentHeader::decode(bytes[..SEGMENT_HEADER_BYTES].try_into().unwrap()), Some(HEADER));
        let found = read(&bytes, &HEADER).unwrap();
        let steps: Vec<_> = batches.iter().flatten().collect();
        prop_assert_eq!(found.len(), steps.len());
        for (at, ((version, raw), step)) in found.iter().zip(steps).enumerate() {
            prop_assert_eq!(*version, HEADER.first_version + at as u64);
            prop_assert!(is_what_was_written(&raw.parse().unwrap(), step));
        }
    }

    #[test]
    fn a_torn_end_costs_its_batch_and_no_other(
        batches in prop::collection::vec(prop::collection::vec(step(), 1..5), 1..5), cut: prop::sample::Index,
    ) {
        let (mut bytes, ends) = segment(&HEADER, &batches);
        let (start, end) = (ends[ends.len() - 2], ends[ends.len() - 1]);
        let cut = start + cut.index(end - start);
        let changed = bytes[cut..end].iter().any(|byte| *byte != 0);
        bytes[cut..].fill(0);
        let whole = if changed { batches.len() - 1 } else { batches.len() };
        prop_assert_eq!(read(&bytes, &HEADER).unwrap().len(), batches[..whole].iter().flatten().count());
    }

    #[test]
    fn a_changed_byte_is_noticed(
        batches in prop::collection::vec(prop::collection::vec(step(), 1..5), 2..5), at: prop::sample::Index, mask in 1..=255_u8,
    ) {
        let (mut bytes, ends) = segment(&HEADER, &batches);
        let used = ends[ends.len() - 1];
        let at = SEGMENT_HEADER_BYTES + at.index(used - SEGMENT_HEADER_BYTES);
        bytes[at] ^= mask;
        let last = ends[ends.len() - 2];
        match read(&bytes, &HEADER) {
            // The last batch passes for torn.
            Ok(found) => {
                prop_assert!(at >= last);
                prop_assert_eq!(found.len(), batches[..batches.len() - 1].iter().flatten().count());
            }
            Err(offset) => prop_assert!(at < last && offset <= at as u64),
        }
    }

    #[test]
    fn an_earlier_life_of_the_file_is_not_read(
        batches in prop::collection::vec(prop::collection::vec(step(), 1..5), 1..5), salt: u64, number in 0..5_u64,
    ) {
        let (bytes, _) = segment(&HEADER, &batches);
        let next = SegmentHeader { salt, number, ..HEADER };
        prop_assume!(next != HEADER);
        prop_assert!(read(&bytes, &next).unwrap().is_empty());
    }

    #[test]
    fn hostile_bytes_are_refused_without_harm(kind: u8, body in prop::collection::vec(any::<u8>(), 0..200)) {
        // Whatever it is: no panic, and no more memory than there are bytes.
        let _ = Record::parse(kind, &body);
        let _ = RawRecord::read(&body, HEADER.seed(), 1);
        let _ = BatchHeader::decode(&body, HEADER.seed(), 0);
    }

    #[test]
    fn varints_come_back(value: u64) {
        let varint = Varint::new(value);
        let mut reader = Reader(varint.bytes());
        prop_assert_eq!(reader.varint(), Some(value));
        prop_assert!(reader.0.is_empty());
    }
}

/// Bytes as version 1 of the format wrote them: they must be readable for ever.
#[test]
fn a_shipped_segment_is_still_read() {
    let entry = AppendEntry {
        site: SiteId::new(0x0102_0304_0506_0708),
        seq: 300,
        writes: vec![ConflictKey(9)],
        unchanged: Vec::new(),
        payload: Bytes::from_static(b"payload"),
    };
    let metadata = vec![MetaOp::Put { key: "k".into(), value: "v".into() }, MetaOp::Delete { key: "gone".into() }];
    let steps = vec![
        Step::App(0, AppId::new("app").unwrap()),
        Step::Entry(0, entry),
        Step::Trim(0, Lsn::new(101, 0)),
        Step::Metadata(metadata),
    ];
    let golden = include_str!("golden-1.hex").trim();
    let golden: Vec<u8> =
        (0..golden.len()).step_by(2).map(|at| u8::from_str_radix(&golden[at..at + 2], 16).unwrap()).collect();
    let found = read(&golden, &HEADER).unwrap();
    assert_eq!(found.len(), steps.len());
    assert!(found.iter().zip(&steps).all(|((_, raw), step)| is_what_was_written(&raw.parse().unwrap(), step)));
    // And what is written today is the same.
    let (bytes, ends) = segment(&HEADER, &[steps]);
    assert_eq!(bytes[..ends[1]], golden);
}
