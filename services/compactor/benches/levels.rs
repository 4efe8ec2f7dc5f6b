//! Measures flush and compaction over many documents on a local disk: speed, write and space amplification, memory, restart,
//! point reads, and what a bucket would be asked for. Prints `name value unit` lines for scripts.
//!
//! `BIGPEER_BENCH_DOCUMENTS` documents (1,000,000), then as many random updates of one field.
#![allow(clippy::print_stdout, reason = "that is what it is for")]
#![allow(clippy::disallowed_methods, reason = "measures time")]
#![allow(clippy::unwrap_used, clippy::cast_precision_loss, reason = "a benchmark stops when something is wrong")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bigpeer_compactor::due;
use bigpeer_crdt::{DocId, Document, Editor, Object, ObjectMode, TransactionBuilder, Value};
use bigpeer_log::{AppendEntry, MemoryLog, TransactionLog};
use bigpeer_tables::{DocumentStore, Extent, LocalObjects, Objects, ObjectsSettings, Scan, TablesSettings, Writer};
use bigpeer_types::{AppId, CollectionName, Hlc, HlcClock, Lsn, ManualClock, SiteId};
use futures::TryStreamExt;

/// As in the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PER_TRANSACTION: u64 = 1000;
/// As the server's compactor.
const FLUSH_BYTES: usize = 48 << 20;

struct World {
    app: AppId,
    name: CollectionName,
    log: MemoryLog,
    clock: HlcClock,
    seq: u64,
    documents: u64,
}

/// What was written, and how long it took.
#[derive(Default)]
struct Work {
    flushed_documents: u64,
    flushed_bytes: u64,
    compacted_documents: u64,
    compacted_bytes: u64,
    flushing: Duration,
    compacting: Duration,
}

fn key(n: u64) -> DocId {
    DocId::from_value(&Value::from(format!("doc-{n:010}"))).unwrap()
}

fn fields(n: u64) -> Object {
    let int = |value: u64| Value::Int(i64::try_from(value).unwrap());
    Object::from_iter([
        ("n", int(n)),
        ("kind", Value::from(["a", "b", "c", "d"][usize::try_from(n % 4).unwrap()])),
        ("price", Value::Float((n % 1000) as f64 / 100.0)),
        ("stock", int(n * 7 % 1000)),
        ("name", Value::from(format!("article {}", n * 2_654_435_761 % 1_000_003))),
    ])
}

impl World {
    async fn write(&mut self, keys: &mut (dyn Iterator<Item = u64> + Send), insert: bool) -> Lsn {
        let mut builder = TransactionBuilder::new();
        let current = Document::new();
        for n in keys {
            let mut editor = Editor::new(&current, &mut self.clock);
            if insert {
                editor.insert(&fields(n), ObjectMode::Map).unwrap();
            } else {
                editor.set(&["stock"], Value::Int(i64::try_from(n % 77).unwrap()), ObjectMode::Map).unwrap();
            }
            builder.change(&self.name, &key(n), &editor.finish().unwrap());
        }
        self.seq += 1;
        let payload = builder.finish().unwrap();
        let entry =
            AppendEntry { site: SiteId::new(1), seq: self.seq, writes: Vec::new(), unchanged: Vec::new(), payload };
        self.log.append(&self.app, vec![entry]).await.unwrap();
        self.log.head(&self.app).await.unwrap()
    }

    /// Writes in order or at random, flushing and compacting as the server does.
    async fn fill(&mut self, store: &DocumentStore, writer: &Writer, insert: bool) -> Work {
        let mut work = Work::default();
        let mut random = 88_172_645_463_325_252_u64;
        let documents = self.documents;
        for first in (0..documents).step_by(usize::try_from(PER_TRANSACTION).unwrap()) {
            let mut keys = (first..documents.min(first + PER_TRANSACTION)).map(|n| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                if insert { n } else { random % documents }
            });
            let lsn = self.write(&mut keys, insert).await;
            store.wait_for(lsn).await.unwrap();
            let last = first + PER_TRANSACTION >= documents;
            if store.overlay_bytes() >= FLUSH_BYTES || last {
                self.flush(store, writer, &mut work).await;
            }
        }
        work
    }

    async fn flush(&self, store: &DocumentStore, writer: &Writer, work: &mut Work) {
        let started = Instant::now();
        if let Some(done) = writer.flush().await.unwrap() {
            work.flushed_documents += done.documents;
            work.flushed_bytes += done.bytes;
        }
        work.flushing += started.elapsed();
        self.log.trim(&self.app, store.flushed()).await.unwrap();
        for debt in writer.debts() {
            if let Some(extent) = due(&debt, false) {
                self.compact(writer, extent, work).await;
            }
        }
        writer.collect_garbage().await.unwrap();
    }

    async fn compact(&self, writer: &Writer, extent: Extent, work: &mut Work) {
        let started = Instant::now();
        if let Some(done) = writer.compact(&self.name, extent).await.unwrap() {
            work.compacted_documents += done.documents;
            work.compacted_bytes += done.bytes;
        }
        work.compacting += started.elapsed();
    }
}

impl Work {
    fn report(&self, name: &str) {
        let rate = |documents: u64, time: Duration| documents as f64 / time.as_secs_f64().max(1e-9);
        println!("levels_{name}_flush {:.0} documents/s", rate(self.flushed_documents, self.flushing));
        println!("levels_{name}_compaction {:.0} documents/s", rate(self.compacted_documents, self.compacting));
        let amplification = (self.flushed_bytes + self.compacted_bytes) as f64 / self.flushed_bytes.max(1) as f64;
        println!("levels_{name}_write_amplification {amplification:.2} ratio");
    }
}

/// Bytes of all files that the newest manifest names.
async fn table_bytes(store: &DocumentStore, name: &CollectionName) -> u64 {
    store.snapshot().table(name).await.unwrap().segments.iter().map(|part| part.size).sum()
}

fn resident(what: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

async fn reads(store: &DocumentStore, world: &World) {
    let ids: Vec<DocId> = (0..10_000).map(|n| key(n * 104_729 % world.documents)).collect();
    for name in ["first", "again"] {
        let started = Instant::now();
        let found = store.snapshot().get_many(&world.name, &ids).await.unwrap();
        println!("levels_10000_point_reads_{name} {:.0} ms", started.elapsed().as_secs_f64() * 1e3);
        assert!(found.iter().all(Option::is_some));
    }
    let started = Instant::now();
    let rows = store.snapshot().table(&world.name).await.unwrap().rows();
    println!("levels_count {:.2} ms", started.elapsed().as_secs_f64() * 1e3);
    assert_eq!(rows, world.documents);
}

#[tokio::main]
async fn main() {
    let documents = std::env::var("BIGPEER_BENCH_DOCUMENTS").ok().and_then(|text| text.parse().ok());
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(LocalObjects::open(dir.path()).unwrap());
    let objects = Objects::new(disk, false, &ObjectsSettings::default());
    let mut world = World {
        app: AppId::new("bench").unwrap(),
        name: CollectionName::new("articles").unwrap(),
        log: MemoryLog::default(),
        clock: HlcClock::new(SiteId::new(1), Hlc::ZERO, Arc::new(ManualClock::new(1_795_392_000_000))),
        seq: 0,
        documents: documents.unwrap_or(1_000_000),
    };
    let settings = TablesSettings { keep_for: Duration::ZERO, keep_manifests: 1, ..TablesSettings::default() };
    let open = |world: &World| {
        let log: Arc<dyn TransactionLog> = Arc::new(world.log.clone());
        DocumentStore::open(world.app.clone(), Arc::new(objects.clone()), log, settings.clone())
    };
    let millions = world.documents as f64 / 1e6;
    println!("levels_documents {} documents", world.documents);

    let store = open(&world).await.unwrap();
    let writer = store.writer().await.unwrap();
    world.fill(&store, &writer, true).await.report("insert");
    let bill = objects.usage();
    println!("levels_bill_write_requests {:.0} requests/million", (bill.writes + bill.lists) as f64 / millions);
    println!("levels_bill_read_requests {:.0} requests/million", bill.reads as f64 / millions);
    println!("levels_bill_bytes_written {:.0} MB/million", bill.bytes_written as f64 / 1e6 / millions);
    println!("levels_bill_bytes_read {:.0} MB/million", bill.bytes_read as f64 / 1e6 / millions);

    let mut work = world.fill(&store, &writer, false).await;
    work.report("update");
    println!("levels_peak_resident {:.0} MiB", resident("VmHWM"));
    let before = table_bytes(&store, &world.name).await;
    reads(&store, &world).await;
    let started = Instant::now();
    world.compact(&writer, Extent::Full, &mut work).await;
    println!("levels_full_compaction {:.1} s", started.elapsed().as_secs_f64());
    let after = table_bytes(&store, &world.name).await;
    println!("levels_space_amplification {:.2} ratio", before as f64 / after as f64);
    println!("levels_bytes_per_document {} bytes", after / world.documents);
    println!("levels_segments {} files", store.snapshot().table(&world.name).await.unwrap().segments.len());
    store.shutdown().await;
    drop((writer, store));

    let started = Instant::now();
    let store = open(&world).await.unwrap();
    store.wait_for(world.log.head(&world.app).await.unwrap()).await.unwrap();
    println!("levels_restart {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
    reads(&store, &world).await;
    first_sync(&store, &world, &objects, millions).await;
    store.shutdown().await;
}

/// What a peer's first sync asks of object storage: a scan of everything.
async fn first_sync(store: &DocumentStore, world: &World, objects: &Objects, millions: f64) {
    let before = objects.usage();
    let started = Instant::now();
    let mut scan = store.snapshot().scan(&world.name, Scan::default());
    let mut seen = 0;
    while let Some(batch) = scan.try_next().await.unwrap() {
        seen += batch.len() as u64;
    }
    assert_eq!(seen, world.documents);
    println!("levels_scan {:.0} documents/s", seen as f64 / started.elapsed().as_secs_f64());
    let after = objects.usage();
    let bytes = (after.bytes_read - before.bytes_read) as f64 / 1e6;
    println!("levels_bill_first_sync_requests {:.0} requests/million", (after.reads - before.reads) as f64 / millions);
    println!("levels_bill_first_sync_bytes {:.0} MB/million", bytes / millions);
}
