//! Records of the transaction log: any body is taken apart without a panic, and what is understood is what it says when it
//! is written and read again. Any bytes are looked at as headers.
#![no_main]

use bigpeer_log::embedded::format::{BATCH_HEADER_BYTES, BatchEncoder, BatchHeader, RawRecord, Record, SegmentHeader};
use bigpeer_log::{AppendEntry, ConflictKey};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

const HEADER: SegmentHeader = SegmentHeader { log_id: [1; 16], number: 1, salt: 2, first_version: 3, file_bytes: 4 };

fuzz_target!(|data: &[u8]| {
    if let Some((header, _)) = data.split_first_chunk() {
        let _ = SegmentHeader::decode(header);
    }
    let _ = BatchHeader::decode(data, HEADER.seed(), 0);
    let _ = RawRecord::read(data, HEADER.seed(), 3);
    let Some((kind, body)) = data.split_first() else { return };
    let Some(record) = Record::parse(*kind, body) else { return };
    let mut encoder = BatchEncoder::new(Vec::new(), HEADER.seed(), 0, 3, None);
    match &record {
        Record::Entry(entry) => {
            let (keys, _) = entry.keys.as_chunks::<8>();
            let writes = keys.iter().map(|key| ConflictKey(u64::from_le_bytes(*key))).collect();
            let payload = Bytes::copy_from_slice(entry.payload);
            let entry_again =
                AppendEntry { site: entry.site, seq: entry.seq, writes, unchanged: Vec::new(), payload };
            encoder.entry(entry.app, &entry_again);
        }
        Record::App { number, app } => encoder.app(*number, app),
        Record::Trim { app, through } => encoder.trim(*app, *through),
        Record::Metadata(ops) => encoder.metadata(ops),
    }
    let bytes = encoder.finish().unwrap();
    assert!(BatchHeader::decode(&bytes, HEADER.seed(), 0).is_some());
    let again = RawRecord::read(&bytes[BATCH_HEADER_BYTES..], HEADER.seed(), 3).unwrap();
    assert_eq!(again.parse(), Some(record));
});
