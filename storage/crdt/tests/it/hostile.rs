//! Bytes from nobody knows whom: an error or a state, never a panic, and memory in proportion to the bytes.
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use bigpeer_crdt::{DocId, Document, Transaction, TransactionBuilder};
use bigpeer_types::CollectionName;
use bigpeer_types::limits::MAX_DEPTH;
use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::world::{Edit, Site, edits};

/// Counts what a thread holds, and the most that it held.
struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(by: isize) {
    let live = LIVE.get() + by;
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

// SAFETY: hands everything to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that were held during `work`, beyond what was held before.
fn peak<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = LIVE.get();
    PEAK.set(before);
    let done = work();
    ((PEAK.get() - before).unsigned_abs(), done)
}

/// For each byte that is read so many may be allocated: a child with nothing but a clearing takes three bytes on the wire.
const PER_BYTE: usize = 64;
const SLACK: usize = 1024;

fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    let (validating, header) = peak(|| Document::validate_encoded(bytes));
    prop_assert!(validating <= 32 * bytes.len(), "{validating} bytes to validate {}", bytes.len());
    let (decoding, decoded) = peak(|| Document::decode(bytes));
    prop_assert!(decoding <= PER_BYTE * bytes.len() + SLACK, "{decoding} bytes to decode {}", bytes.len());
    prop_assert_eq!(header.is_ok(), decoded.is_ok());
    match decoded {
        Ok(document) => {
            prop_assert_eq!(document.encode(), bytes, "what is accepted is canonical");
            let _ = (document.to_object(), document.newest(), document.heap_bytes());
        }
        Err(error) => prop_assert!(error.offset <= bytes.len()),
    }
    let (reading, transaction) = peak(|| Transaction::decode(Bytes::copy_from_slice(bytes)));
    prop_assert!(reading <= PER_BYTE * bytes.len() + SLACK);
    if let Ok(transaction) = transaction {
        prop_assert_eq!(rebuilt(&transaction), bytes);
    }
    let _ = DocId::from_key(bytes);
    Ok(())
}

fn rebuilt(transaction: &Transaction) -> Vec<u8> {
    let mut builder = TransactionBuilder::new();
    for change in transaction.changes() {
        builder.change(&change.collection, &change.id, &Document::decode(&change.delta).unwrap());
    }
    builder.finish().unwrap().to_vec()
}

fn sample(edits: &[Edit]) -> Vec<Vec<u8>> {
    let mut site = Site::new(0x1234);
    let mut samples = Vec::new();
    let mut builder = TransactionBuilder::new();
    let mut other = Site::new(1 << 60);
    for (at, edit) in edits.iter().enumerate() {
        let writer = if at % 3 == 0 { &mut other } else { &mut site };
        if let Some(delta) = writer.edit(std::slice::from_ref(edit)) {
            let id = DocId::from_value(&at.to_string().as_str().into()).unwrap();
            builder.change(&CollectionName::new("c").unwrap(), &id, &delta);
            samples.push(delta.encode());
        }
    }
    site.document.join(&other.document);
    samples.push(site.document.encode());
    samples.push(builder.finish().unwrap().to_vec());
    samples
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn random_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..200), version: bool) {
        if let (true, Some(first)) = (version, bytes.first_mut()) {
            *first = 1;
        }
        check(&bytes)?;
    }

    #[test]
    fn valid_bytes_with_errors(
        edits in prop::collection::vec(edits(), 1..12),
        changes in prop::collection::vec((any::<Index>(), any::<u8>(), 0..4_u8), 1..4),
    ) {
        for mut bytes in sample(&edits) {
            check(&bytes)?;
            for (at, byte, how) in &changes {
                let at = at.index(bytes.len());
                match how {
                    0 => bytes[at] = *byte,
                    1 => bytes[at] ^= 1 << (byte % 8),
                    2 => bytes.insert(at, *byte),
                    _ => { bytes.remove(at); }
                }
                check(&bytes)?;
                if bytes.is_empty() {
                    break;
                }
            }
        }
    }

    #[test]
    fn every_prefix_is_refused(edits in prop::collection::vec(edits(), 1..6)) {
        for bytes in sample(&edits) {
            for len in 0..bytes.len() {
                prop_assert!(Document::validate_encoded(&bytes[..len]).is_err());
            }
        }
    }
}

#[test]
fn nesting_is_bounded() {
    // One stamp of site 1; the root is a map of one key, whose node is a map of one key, and so on.
    let nested = |depth: usize| {
        let mut bytes = vec![1, 0x12, 1, 2];
        (0..depth).for_each(|_| bytes.extend([4, 1, 1, b'k']));
        bytes.push(0x80);
        bytes
    };
    assert!(Document::decode(&nested(MAX_DEPTH)).is_ok());
    assert!(Document::decode(&nested(MAX_DEPTH + 1)).is_err());
    assert!(Document::decode(&nested(1_000_000)).is_err());
    let arrays = |depth: usize| {
        let mut bytes = vec![1, 0x12, 1, 2, 4, 1, 1, b'k', 0x88];
        bytes.extend((1..depth).flat_map(|_| [1, 8]));
        bytes.push(0);
        bytes
    };
    assert!(Document::decode(&arrays(MAX_DEPTH - 1)).is_ok());
    assert!(Document::decode(&arrays(MAX_DEPTH)).is_err());
    assert!(Document::decode(&arrays(1_000_000)).is_err());
}

#[test]
fn counts_that_promise_more_than_there_is_allocate_nothing() {
    let huge = [0xff, 0xff, 0xff, 0xff, 0x0f];
    for head in [&[1, 0][..], &[1, 0, 1, 1, 1], &[1, 0x12, 1, 2, 4], &[1, 0x12, 1, 2, 4, 1, 1, b'k', 0x88], &[1]] {
        let bytes = [head, &huge, &[0; 16]].concat();
        let (held, decoded) = peak(|| Document::decode(&bytes).is_err());
        assert!(decoded && held < SLACK, "{head:?} held {held}");
        let bytes = Bytes::from(bytes);
        let (held, decoded) = peak(|| Transaction::decode(bytes).is_err());
        assert!(decoded && held < SLACK, "{head:?} held {held}");
    }
}

/// Two documents of many interleaved keys: joining them must not take time in proportion to the product.
#[test]
fn wide_maps_join_in_one_walk() {
    let wide = |site: u64, odd: usize| {
        let mut site = Site::new(site);
        let fields = (0..100_000).map(|number| (format!("{:06}", 2 * number + odd), 1.into())).collect();
        site.edit(&[Edit::Insert(fields, bigpeer_crdt::ObjectMode::Map)]).unwrap()
    };
    let (mut a, b) = (wide(1, 0), wide(2, 1));
    a.join_encoded(&b.encode()).unwrap();
    assert_eq!(a.to_object().len(), 200_000);
    assert_eq!(Arc::new(a).to_object().keys().nth(1), Some("000001"));
}
