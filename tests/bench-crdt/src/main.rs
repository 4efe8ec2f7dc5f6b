//! The same work for bigpeer-crdt, automerge, loro and yrs: a server has a document of ten fields and 300 bytes of JSON
//! loaded; a device has changed one field of it, again and again, and each change arrives as bytes. On one core.
//!
//! Prints `name value unit` lines: updates applied per second (median of rounds; the first updates of a fresh document,
//! so that libraries that keep history are not measured with a long one), mean bytes of an update, bytes of the saved
//! document, heap bytes of a loaded document. Every round checks the value that the last update set.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ReadDoc};
use bigpeer_crdt::{Document, Editor, Object, ObjectMode, Value};
use bigpeer_types::{Hlc, HlcClock, ManualClock, SiteId};
use loro::{ExportMode, LoroDoc};
use yrs::updates::decoder::Decode;
use yrs::{Doc, Map, ReadTxn, StateVector, Transact, Update};

/// Counts the bytes that are allocated at a time, as they were asked for.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands everything to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const UPDATES: usize = 2_000;
const ROUNDS: usize = 9;
const DOCUMENTS: usize = 500;
const FIELD: &str = "dep_delay";
const NOW_MS: u64 = 1_795_392_000_000;

/// Text fields, then integer fields, then the float.
fn texts() -> [(&'static str, String); 7] {
    [
        ("carrier", "UA".into()),
        ("tailnum", "N14228".into()),
        ("origin", "EWR".into()),
        ("dest", "IAH".into()),
        ("gate", "C-121".into()),
        ("time_hour", "2013-01-01T10:00:00Z".into()),
        ("remarks", "x".repeat(128)),
    ]
}
const INTS: [(&str, i64); 2] = [("flight", 1545), (FIELD, 2)];
const FLOAT: (&str, f64) = ("distance", 1400.5);

/// The value that update `number` sets.
fn value(number: usize) -> i64 {
    number as i64 + 16
}

/// What a library does: save a document, make updates to it, load it, apply an update, read the field.
struct Library<D> {
    name: &'static str,
    saved: Vec<u8>,
    updates: Vec<Vec<u8>>,
    load: fn(&[u8]) -> D,
    apply: fn(&mut D, &[u8]),
    read: fn(&D) -> i64,
}

fn measure<D>(library: &Library<D>) {
    let Library { name, saved, updates, load, apply, read } = library;
    println!("{name}.state_bytes {} bytes", saved.len());
    println!("{name}.delta_bytes {} bytes", updates.iter().map(Vec::len).sum::<usize>() / updates.len());
    let mut documents = Vec::with_capacity(DOCUMENTS);
    let before = LIVE.load(Ordering::Relaxed);
    for _ in 0..DOCUMENTS {
        documents.push(load(saved));
    }
    let heap = (LIVE.load(Ordering::Relaxed) - before) / DOCUMENTS;
    println!("{name}.document_heap_bytes {} bytes", heap + size_of::<D>());
    drop(black_box(documents));
    let mut rates: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let mut document = load(saved);
            let start = Instant::now();
            for update in updates {
                apply(&mut document, black_box(update));
            }
            let seconds = start.elapsed().as_secs_f64();
            assert_eq!(read(&document), value(UPDATES - 1), "{name} applied every update");
            UPDATES as f64 / seconds
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    println!("{name}.joins_per_second {:.0} joins/s", rates[ROUNDS / 2]);
}

fn bigpeer() -> Library<Document> {
    let wall = Arc::new(ManualClock::new(NOW_MS));
    let clock = |site| HlcClock::new(SiteId::new(site), Hlc::ZERO, Arc::<ManualClock>::clone(&wall));
    let (mut server, mut device) = (clock(0x9a3c_51e0_77b2_04d8), clock(0xd1f2_8c44_0b6e_95a7));
    let mut fields: Object = texts().into_iter().map(|(key, text)| (key, Value::from(text))).collect();
    INTS.iter().for_each(|(key, number)| drop(fields.insert(*key, *number)));
    fields.insert(FLOAT.0, FLOAT.1);
    assert_eq!(fields.to_json().to_string().len(), 300);
    let mut document = Document::new();
    let mut editor = Editor::new(&document, &mut server);
    editor.insert(&fields, ObjectMode::Map).unwrap();
    document.join(&editor.finish().unwrap());
    let saved = document.encode();
    let updates = (0..UPDATES).map(|number| {
        wall.advance(3);
        let mut editor = Editor::new(&document, &mut device);
        editor.set(&[FIELD], value(number).into(), ObjectMode::Map).unwrap();
        let delta = editor.finish().unwrap();
        document.join(&delta);
        delta.encode()
    });
    Library {
        name: "bigpeer",
        updates: updates.collect(),
        saved,
        load: |saved| Document::decode(saved).unwrap(),
        apply: |document, update| document.join_encoded(update).unwrap(),
        read: |document| match document.get(&[FIELD]).unwrap().to_value() {
            Value::Int(number) => number,
            other => panic!("{other:?}"),
        },
    }
}

fn automerge() -> Library<AutoCommit> {
    let mut document = AutoCommit::new();
    for (key, text) in texts() {
        document.put(automerge::ROOT, key, text).unwrap();
    }
    for (key, number) in INTS {
        document.put(automerge::ROOT, key, number).unwrap();
    }
    document.put(automerge::ROOT, FLOAT.0, FLOAT.1).unwrap();
    let saved = document.save();
    let mut device = AutoCommit::load(&saved).unwrap();
    device.save_incremental();
    let updates = (0..UPDATES).map(|number| {
        device.put(automerge::ROOT, FIELD, value(number)).unwrap();
        device.save_incremental()
    });
    Library {
        name: "automerge",
        updates: updates.collect(),
        saved,
        load: |saved| AutoCommit::load(saved).unwrap(),
        apply: |document, update| {
            document.load_incremental(update).unwrap();
        },
        read: |document| document.get(automerge::ROOT, FIELD).unwrap().unwrap().0.as_i64().unwrap(),
    }
}

fn loro() -> Library<LoroDoc> {
    let document = LoroDoc::new();
    let map = document.get_map("root");
    for (key, text) in texts() {
        map.insert(key, text).unwrap();
    }
    for (key, number) in INTS {
        map.insert(key, number).unwrap();
    }
    map.insert(FLOAT.0, FLOAT.1).unwrap();
    document.commit();
    let saved = document.export(ExportMode::snapshot()).unwrap();
    let device = LoroDoc::from_snapshot(&saved).unwrap();
    let updates = (0..UPDATES).map(|number| {
        let before = device.oplog_vv();
        device.get_map("root").insert(FIELD, value(number)).unwrap();
        device.commit();
        device.export(ExportMode::updates(&before)).unwrap()
    });
    Library {
        name: "loro",
        updates: updates.collect(),
        saved,
        load: |saved| LoroDoc::from_snapshot(saved).unwrap(),
        apply: |document, update| {
            document.import(update).unwrap();
        },
        read: |document| {
            let value = document.get_map("root").get(FIELD).unwrap();
            *value.into_value().unwrap().as_i64().unwrap()
        },
    }
}

fn yrs() -> Library<Doc> {
    let document = Doc::new();
    let map = document.get_or_insert_map("root");
    let mut transaction = document.transact_mut();
    for (key, text) in texts() {
        map.insert(&mut transaction, key, text);
    }
    for (key, number) in INTS {
        map.insert(&mut transaction, key, number);
    }
    map.insert(&mut transaction, FLOAT.0, FLOAT.1);
    drop(transaction);
    let saved = document.transact().encode_state_as_update_v1(&StateVector::default());
    let load: fn(&[u8]) -> Doc = |saved| {
        let document = Doc::new();
        document.get_or_insert_map("root");
        document.transact_mut().apply_update(Update::decode_v1(saved).unwrap()).unwrap();
        document
    };
    let device = load(&saved);
    let map = device.get_or_insert_map("root");
    let updates = (0..UPDATES).map(|number| {
        let mut transaction = device.transact_mut();
        map.insert(&mut transaction, FIELD, value(number));
        transaction.encode_update_v1()
    });
    Library {
        name: "yrs",
        updates: updates.collect(),
        saved,
        load,
        apply: |document, update| {
            document.transact_mut().apply_update(Update::decode_v1(update).unwrap()).unwrap();
        },
        read: |document| {
            let map = document.get_or_insert_map("root");
            match map.get(&document.transact(), FIELD) {
                Some(yrs::Out::Any(yrs::Any::Number(number))) => number.as_i64().unwrap(),
                other => panic!("{other:?}"),
            }
        },
    }
}

fn main() {
    measure(&bigpeer());
    measure(&automerge());
    measure(&loro());
    measure(&yrs());
}
