//! Measures the fast path of the system on one core: joining an encoded one-field delta into a loaded document of ten
//! fields and 300 bytes of JSON. Prints `name value unit` lines for scripts. Rates are per second of the thread's CPU time,
//! so that whatever else runs on the machine counts as little as can be. The deltas lie one behind the other in memory, as
//! they do in the frames and transactions that they arrive in.
#![allow(unsafe_code, reason = "an allocator that counts, and the clock of a thread")]
#![allow(clippy::print_stdout, reason = "that is what it is for")]
#![allow(clippy::disallowed_methods, reason = "measures time")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark stops when something is wrong")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bigpeer_crdt::{DocId, Document, Editor, Object, ObjectMode, TransactionBuilder, Value};
use bigpeer_types::{CollectionName, Hlc, HlcClock, ManualClock, SiteId};

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

const JOINS: u32 = 200_000;
const ROUNDS: usize = 7;
const DOCUMENTS: usize = 10_000;
/// 2026-11-23, so that times have the length that they have in life.
const NOW_MS: u64 = 1_795_392_000_000;

/// Ten fields, 300 bytes of JSON.
fn fields() -> Object {
    let fields = Object::from_iter([
        ("carrier", Value::from("UA")),
        ("flight", Value::from(1545)),
        ("tailnum", Value::from("N14228")),
        ("origin", Value::from("EWR")),
        ("dest", Value::from("IAH")),
        ("gate", Value::from("C-121")),
        ("dep_delay", Value::from(2)),
        ("distance", Value::from(1400.5)),
        ("time_hour", Value::from("2013-01-01T10:00:00Z")),
        ("remarks", Value::from("x".repeat(128))),
    ]);
    assert_eq!(fields.to_json().to_string().len(), 300);
    fields
}

fn clock(site: u64, wall: &Arc<ManualClock>) -> HlcClock {
    HlcClock::new(SiteId::new(site), Hlc::ZERO, Arc::<ManualClock>::clone(wall))
}

fn edit(current: &Document, clock: &mut HlcClock, change: impl FnOnce(&mut Editor<'_>)) -> Document {
    let mut editor = Editor::new(current, clock);
    change(&mut editor);
    editor.finish().expect("something changed")
}

fn main() {
    let wall = Arc::new(ManualClock::new(NOW_MS));
    // Sites as the authentication service gives them: any 64 bits.
    let mut server = clock(0x9a3c_51e0_77b2_04d8, &wall);
    let mut device = clock(0xd1f2_8c44_0b6e_95a7, &wall);
    let loaded = edit(&Document::new(), &mut server, |editor| editor.insert(&fields(), ObjectMode::Map).unwrap());
    let loaded_bytes = loaded.encode();
    println!("crdt.state_bytes {} bytes", loaded_bytes.len());
    println!("crdt.state_over_json {:.2} ratio", loaded_bytes.len() as f64 / 300.0);
    sizes(&loaded, &mut device);
    heap(&loaded_bytes);
    joins(&loaded_bytes, &wall, &mut device);
}

/// How long this thread has run on a processor.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec that lives through the call.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0, "the thread's clock");
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

/// What a one-field delta takes in a transaction, its id included, for three kinds of ids.
fn sizes(loaded: &Document, device: &mut HlcClock) {
    let delta = edit(loaded, device, |editor| editor.set(&["dep_delay"], 120.into(), ObjectMode::Map).unwrap());
    let delta_len = delta.encode().len();
    println!("crdt.delta_bytes {delta_len} bytes");
    let flights = CollectionName::new("flights").unwrap();
    let size = |ids: &[DocId]| {
        let mut builder = TransactionBuilder::new();
        ids.iter().for_each(|id| builder.change(&flights, id, &delta));
        builder.finish().unwrap().len()
    };
    for (name, value) in [
        ("uuid", Value::from("6f1c1f3e-9a54-4c0e-8f3b-2d1f0a9b7c55")),
        ("24_hex", Value::from("507f191e810c19729de860ea")),
        ("int", Value::from(336_776)),
    ] {
        let id = DocId::from_value(&value).unwrap();
        let with_id = size(std::slice::from_ref(&id)) - size(&[]) - 1 - "flights".len() - 1;
        println!("crdt.delta_with_{name}_id_bytes {with_id} bytes");
    }
}

fn heap(loaded: &[u8]) {
    let mut documents: Vec<Document> = Vec::with_capacity(DOCUMENTS);
    let before = LIVE.load(Ordering::Relaxed);
    for _ in 0..DOCUMENTS {
        documents.push(Document::decode(loaded).unwrap());
    }
    let heap = (LIVE.load(Ordering::Relaxed) - before) / DOCUMENTS;
    println!("crdt.document_heap_bytes {} bytes", heap + size_of::<Document>());
    black_box(documents);
}

fn joins(loaded: &[u8], wall: &Arc<ManualClock>, device: &mut HlcClock) {
    let mut current = Document::decode(loaded).unwrap();
    let (mut deltas, mut ends) = (Vec::new(), vec![0]);
    for number in 0..JOINS {
        wall.advance(3);
        let delta = edit(&current, device, |editor| {
            editor.set(&["dep_delay"], Value::from(i64::from(number) + 16), ObjectMode::Map).unwrap();
        });
        delta.encode_into(&mut deltas);
        ends.push(deltas.len());
        current.join(&delta);
    }
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        let mut document = Document::decode(loaded).unwrap();
        let start = cpu_time();
        for range in ends.windows(2) {
            document.join_encoded(black_box(&deltas[range[0]..range[1]])).unwrap();
        }
        let seconds = (cpu_time() - start).as_secs_f64();
        assert_eq!(document, current, "the result of all joins");
        rates.push(f64::from(JOINS) / seconds);
    }
    rates.sort_by(f64::total_cmp);
    println!("crdt.joins_per_second {:.0} joins/s", rates[ROUNDS / 2]);
    println!("crdt.joins_per_second_best {:.0} joins/s", rates[ROUNDS - 1]);
    let start = cpu_time();
    let mut encoded = Vec::new();
    for _ in 0..JOINS {
        encoded.clear();
        black_box(&current).encode_into(&mut encoded);
    }
    println!("crdt.state_encodes_per_second {:.0} states/s", f64::from(JOINS) / (cpu_time() - start).as_secs_f64());
    let start = cpu_time();
    for _ in 0..JOINS {
        black_box(Document::decode(black_box(loaded)).unwrap());
    }
    println!("crdt.state_decodes_per_second {:.0} states/s", f64::from(JOINS) / (cpu_time() - start).as_secs_f64());
}
