//! Measures the store alone, over a log and object storage in memory: applying, flushing, compacting, scanning, point reads.
//! Prints `name value unit` lines for scripts.
#![allow(clippy::print_stdout, reason = "that is what it is for")]
#![allow(clippy::disallowed_methods, reason = "measures time")]
#![allow(clippy::unwrap_used, clippy::cast_precision_loss, reason = "a benchmark stops when something is wrong")]

use std::sync::Arc;
use std::time::Instant;

use bigpeer_crdt::{DocId, Document, Editor, Object, ObjectMode, TransactionBuilder, Value};
use bigpeer_log::{AppendEntry, MemoryLog, TransactionLog};
use bigpeer_tables::{DocumentStore, Extent, Scan, Snapshot, TablesSettings};
use bigpeer_types::{AppId, CollectionName, Hlc, HlcClock, Lsn, ManualClock, SiteId};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;

/// As in the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DOCUMENTS: u64 = 200_000;
const PER_TRANSACTION: u64 = 500;
const UPDATES: u64 = 200_000;

/// Nineteen fields, like a flight.
fn flight(n: u64) -> Object {
    let int = |value: u64| Value::Int(i64::try_from(value).unwrap());
    let mut fields = Object::new();
    for (name, value) in [
        ("year", 2013),
        ("month", n / 28_000 % 12 + 1),
        ("day", n / 950 % 28 + 1),
        ("dep_time", n * 7 % 2400),
        ("sched_dep_time", n * 7 % 2390),
        ("dep_delay", n % 97),
        ("arr_time", n * 11 % 2400),
        ("sched_arr_time", n * 11 % 2390),
        ("arr_delay", n % 89),
        ("flight", n % 5000),
        ("air_time", n % 300),
        ("distance", n % 2700),
        ("hour", n % 24),
        ("minute", n % 60),
    ] {
        fields.insert(name, int(value));
    }
    for (name, choices) in [
        ("carrier", ["UA", "AA", "B6", "DL"]),
        ("origin", ["EWR", "LGA", "JFK", "EWR"]),
        ("dest", ["IAH", "MIA", "BQN", "ATL"]),
    ] {
        fields.insert(name, choices[usize::try_from(n % 4).unwrap()]);
    }
    fields.insert("tailnum", format!("N{}", n % 4000));
    fields.insert("time_hour", format!("2013-{:02}-{:02}T05:00:00Z", n / 28_000 % 12 + 1, n / 950 % 28 + 1));
    fields
}

fn key(n: u64) -> DocId {
    DocId::from_value(&Value::from(format!("flight-{n:08}"))).unwrap()
}

struct Writer {
    log: MemoryLog,
    app: AppId,
    seq: u64,
}

impl Writer {
    async fn append(&mut self, payloads: Vec<Bytes>) -> Lsn {
        for payloads in payloads.chunks(512) {
            let mut entries = Vec::new();
            for payload in payloads {
                self.seq += 1;
                entries.push(AppendEntry {
                    site: SiteId::new(1),
                    seq: self.seq,
                    writes: Vec::new(),
                    unchanged: Vec::new(),
                    payload: payload.clone(),
                });
            }
            self.log.append(&self.app, entries).await.unwrap();
        }
        self.log.head(&self.app).await.unwrap()
    }
}

fn report(name: &str, amount: f64, since: Instant, unit: &str) {
    println!("{name} {:.0} {unit}", amount / since.elapsed().as_secs_f64());
}

/// Makes the delta that inserts a document, or that updates one field of it.
type Edit<'a> = dyn FnMut(u64, Option<&Object>) -> (DocId, Document) + 'a;

/// Transactions that insert all documents, transactions that update one field each, and the documents' bytes as JSON.
fn transactions(flights: &CollectionName, edit: &mut Edit<'_>) -> (Vec<Bytes>, Vec<Bytes>, usize) {
    let mut inserts = Vec::new();
    let mut json = 0;
    for first in (0..DOCUMENTS).step_by(usize::try_from(PER_TRANSACTION).unwrap()) {
        let mut builder = TransactionBuilder::new();
        for n in first..first + PER_TRANSACTION {
            let fields = flight(n);
            json += fields.to_json().to_string().len();
            let (id, delta) = edit(n, Some(&fields));
            builder.change(flights, &id, &delta);
        }
        inserts.push(builder.finish().unwrap());
    }
    let updates = (0..UPDATES).map(|n| {
        let mut builder = TransactionBuilder::new();
        let (id, delta) = edit(n * 7919 % DOCUMENTS, None);
        builder.change(flights, &id, &delta);
        builder.finish().unwrap()
    });
    let updates = updates.collect();
    (inserts, updates, json)
}

async fn point_reads(snapshot: &Snapshot, flights: &CollectionName) {
    let ids: Vec<DocId> = (0..10_000).map(|n| key(n * 104_729 % DOCUMENTS)).collect();
    let started = Instant::now();
    for id in ids.iter().take(200) {
        assert!(snapshot.get(flights, id).await.unwrap().is_some());
    }
    println!("tables_get {:.1} µs", started.elapsed().as_secs_f64() * 1e6 / 200.0);
    for size in [100, 10_000] {
        let started = Instant::now();
        for ids in ids.chunks(size) {
            assert!(snapshot.get_many(flights, ids).await.unwrap().iter().all(Option::is_some));
        }
        let each = started.elapsed().as_secs_f64() * 1e6 / ids.len() as f64;
        println!("tables_get_many_{size} {each:.1} µs/document");
    }
}

#[tokio::main]
async fn main() {
    let app = AppId::new("bench").unwrap();
    let flights = CollectionName::new("flights").unwrap();
    let mut clock = HlcClock::new(SiteId::new(1), Hlc::ZERO, Arc::new(ManualClock::new(1_795_392_000_000)));
    let mut edit = |id: u64, fields: Option<&Object>| {
        let current = Document::new();
        let mut editor = Editor::new(&current, &mut clock);
        match fields {
            Some(fields) => editor.insert(fields, ObjectMode::Map).unwrap(),
            None => editor.set(&["gate"], Value::from("C-121"), ObjectMode::Map).unwrap(),
        }
        (key(id), editor.finish().unwrap())
    };
    let (inserts, updates, json) = transactions(&flights, &mut edit);

    let mut writer = Writer { log: MemoryLog::default(), app: app.clone(), seq: 0 };
    let log: Arc<dyn TransactionLog> = Arc::new(writer.log.clone());
    let settings = TablesSettings { max_overlay_bytes: 1 << 30, ..TablesSettings::default() };
    let head = writer.append(inserts).await;
    let started = Instant::now();
    let store = DocumentStore::open(app.clone(), Arc::new(InMemory::new()), log, settings).await.unwrap();
    store.wait_for(head).await.unwrap();
    report("tables_apply_inserts", DOCUMENTS as f64, started, "documents/s");
    println!("tables_overlay_bytes_per_document {} bytes", store.overlay_bytes() as u64 / DOCUMENTS);

    let tables = store.writer().await.unwrap();
    let started = Instant::now();
    let flushed = tables.flush().await.unwrap().unwrap();
    report("tables_flush", DOCUMENTS as f64, started, "documents/s");
    println!("tables_segment_bytes_per_document {} bytes", flushed.bytes / DOCUMENTS);
    println!("tables_json_bytes_per_document {} bytes", json as u64 / DOCUMENTS);

    let scan = |name: &'static str| {
        let (snapshot, flights) = (store.snapshot(), flights.clone());
        async move {
            let started = Instant::now();
            let mut stream = snapshot.scan(&flights, Scan::default());
            let mut documents = 0;
            while let Some(batch) = stream.try_next().await.unwrap() {
                documents += batch.len();
            }
            assert_eq!(documents as u64, DOCUMENTS);
            report(name, DOCUMENTS as f64, started, "documents/s");
        }
    };
    scan("tables_scan_segments").await;

    point_reads(&store.snapshot(), &flights).await;

    let started = Instant::now();
    let head = writer.append(updates).await;
    store.wait_for(head).await.unwrap();
    report("tables_apply_updates", UPDATES as f64, started, "transactions/s");
    scan("tables_scan_overlay_over_segments").await;
    let started = Instant::now();
    store.snapshot().table(&flights).await.unwrap();
    println!("tables_table_of_full_overlay {:.0} ms", started.elapsed().as_secs_f64() * 1e3);

    let started = Instant::now();
    tables.flush().await.unwrap();
    report("tables_flush_updates", UPDATES as f64, started, "documents/s");
    let started = Instant::now();
    tables.compact(&flights, Extent::Full).await.unwrap();
    report("tables_compact", DOCUMENTS as f64, started, "documents/s");
    scan("tables_scan_run").await;
    store.shutdown().await;
}
