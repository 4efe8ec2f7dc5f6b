//! Measures flush and compaction over many documents on a local disk: speed, write and space amplification, memory, restart,
//! point reads, the cost of publishing, and what a bucket would be asked for. Prints `name value unit` lines for scripts, with
//! tabs between and the target beside.
//!
//! `BIGPEER_BENCH_DOCUMENTS` documents (1,000,000; the targets are for 10,000,000), then as many random updates of one field.
//!
//! Flush and compaction are told for one core: documents per second of processor time, of the whole process. `count` is what the
//! table answers; SQL's planning is in `make bench-large`. The full compaction is done by a process of its own, which nothing
//! else has made larger; its peak is all that is resident then. The restart has a log to replay, and the page cache as it is.
#![allow(clippy::print_stdout, reason = "that is what it is for")]
#![allow(clippy::disallowed_methods, reason = "measures time")]
#![allow(clippy::unwrap_used, clippy::cast_precision_loss, reason = "a benchmark stops when something is wrong")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bigpeer_compactor::due;
use bigpeer_crdt::{DocId, Document, Editor, Object, ObjectMode, TransactionBuilder, Value};
use bigpeer_log::{AppendEntry, MemoryLog, TransactionLog};
use bigpeer_tables::manifest::{CollectionSettings, Publication, PublicationMode};
use bigpeer_tables::{
    DocumentStore, Extent, LocalObjects, Objects, ObjectsSettings, Scan, TablesSettings, Usage, Writer,
};
use bigpeer_types::{AppId, CollectionName, Hlc, HlcClock, Lsn, ManualClock, SiteId};
use futures::TryStreamExt;

/// As in the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PER_TRANSACTION: u64 = 1000;
/// As the server's compactor.
const FLUSH_BYTES: usize = 48 << 20;
/// Documents in the log's tail at the restart.
const TAIL: u64 = 20_000;
/// Names the folder in which this process, started by another, is to do a full compaction.
const COMPACT: &str = "BIGPEER_BENCH_COMPACT";

/// The target of a figure: the most or the least that it should be.
#[derive(Clone, Copy)]
enum Target {
    AtLeast(f64),
    AtMost(f64),
    None,
}

fn show(name: &str, value: f64, unit: &str, target: Target) {
    let (sign, limit, met) = match target {
        Target::AtLeast(limit) => ("≥", limit, value >= limit),
        Target::AtMost(limit) => ("≤", limit, value <= limit),
        Target::None => return println!("levels_{name}\t{value:.2}\t{unit}\t"),
    };
    let met = if met { "met" } else { "MISSED" };
    println!("levels_{name}\t{value:.2}\t{unit}\ttarget {sign} {limit}: {met}");
}

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
    flushing: Spent,
    compacting: Spent,
}

/// Time that passed, and time of processors, of all threads together.
#[derive(Clone, Copy, Default)]
struct Spent {
    wall: Duration,
    processors: Duration,
}

struct Stopwatch(Instant, Duration);

impl Stopwatch {
    fn start() -> Self {
        Self(Instant::now(), processors())
    }

    fn add_to(self, spent: &mut Spent) {
        spent.wall += self.0.elapsed();
        spent.processors += processors() - self.1;
    }
}

/// What all threads of this process have used; in steps of 10 ms.
fn processors() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(')').unwrap().1;
    let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum::<u64>();
    Duration::from_millis(ticks * 10)
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
    fn new(documents: u64) -> Self {
        Self {
            app: AppId::new("bench").unwrap(),
            name: CollectionName::new("articles").unwrap(),
            log: MemoryLog::default(),
            clock: HlcClock::new(SiteId::new(1), Hlc::ZERO, Arc::new(ManualClock::new(1_795_392_000_000))),
            seq: 0,
            documents,
        }
    }

    async fn open(&self, objects: &Objects) -> Arc<DocumentStore> {
        let settings = TablesSettings { keep_for: Duration::ZERO, keep_manifests: 1, ..TablesSettings::default() };
        let log: Arc<dyn TransactionLog> = Arc::new(self.log.clone());
        DocumentStore::open(self.app.clone(), Arc::new(objects.clone()), log, settings).await.unwrap()
    }

    /// Updates that are in the log alone.
    async fn tail(&mut self) -> Lsn {
        let mut lsn = Lsn::ZERO;
        for n in 0..self.documents.min(TAIL) / PER_TRANSACTION {
            let (first, documents) = (n * PER_TRANSACTION, self.documents);
            let mut keys = (first..first + PER_TRANSACTION).map(|n| n * 7919 % documents);
            lsn = self.write(&mut keys, false).await;
        }
        lsn
    }

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
        let watch = Stopwatch::start();
        if let Some(done) = writer.flush().await.unwrap() {
            work.flushed_documents += done.documents;
            work.flushed_bytes += done.bytes;
        }
        watch.add_to(&mut work.flushing);
        self.log.trim(&self.app, store.flushed()).await.unwrap();
        for debt in writer.debts() {
            if let Some(extent) = due(&debt, false) {
                self.compact(writer, extent, work).await;
            }
        }
        writer.collect_garbage().await.unwrap();
    }

    async fn compact(&self, writer: &Writer, extent: Extent, work: &mut Work) {
        let watch = Stopwatch::start();
        if let Some(done) = writer.compact(&self.name, extent).await.unwrap() {
            work.compacted_documents += done.documents;
            work.compacted_bytes += done.bytes;
        }
        watch.add_to(&mut work.compacting);
    }
}

impl Work {
    fn report(&self, name: &str) {
        let rate = |documents: u64, time: Duration| documents as f64 / time.as_secs_f64().max(1e-9);
        let fast = Target::AtLeast(200_000.0);
        let both = [
            ("flush", self.flushed_documents, self.flushing),
            ("compaction", self.compacted_documents, self.compacting),
        ];
        for (what, documents, spent) in both {
            show(&format!("{name}_{what}"), rate(documents, spent.processors), "documents/s", fast);
            show(&format!("{name}_{what}_wall"), rate(documents, spent.wall), "documents/s", Target::None);
        }
        let amplification = (self.flushed_bytes + self.compacted_bytes) as f64 / self.flushed_bytes.max(1) as f64;
        show(&format!("{name}_write_amplification"), amplification, "ratio", Target::AtMost(6.0));
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

async fn reads(store: &DocumentStore, world: &World, cold: bool) {
    let ids: Vec<DocId> = (0..10_000).map(|n| key(n * 104_729 % world.documents)).collect();
    for name in ["first", "again"] {
        let started = Instant::now();
        let found = store.snapshot().get_many(&world.name, &ids).await.unwrap();
        // Cold is what a new process reads first; the page cache of the machine is as it is.
        let target = if cold && name == "first" { Target::AtMost(1000.0) } else { Target::None };
        let name = format!("10000_point_reads_{}{name}", if cold { "after_restart_" } else { "" });
        show(&name, started.elapsed().as_secs_f64() * 1e3, "ms", target);
        assert!(found.iter().all(Option::is_some));
    }
    let _warm = store.snapshot().table(&world.name).await.unwrap().rows();
    let started = Instant::now();
    let rows = store.snapshot().table(&world.name).await.unwrap().rows();
    show("count", started.elapsed().as_secs_f64() * 1e3, "ms", Target::AtMost(5.0));
    assert_eq!(rows, world.documents);
}

#[tokio::main]
async fn main() {
    if let Some(dir) = std::env::var_os(COMPACT) {
        return full_compaction(Path::new(&dir)).await;
    }
    let documents = std::env::var("BIGPEER_BENCH_DOCUMENTS").ok().and_then(|text| text.parse().ok());
    let dir = tempfile::tempdir().unwrap();
    let objects = objects(dir.path());
    let mut world = World::new(documents.unwrap_or(1_000_000));
    let millions = world.documents as f64 / 1e6;
    show("documents", world.documents as f64, "documents", Target::None);

    let store = world.open(&objects).await;
    let writer = store.writer().await.unwrap();
    world.fill(&store, &writer, true).await.report("insert");
    bill("insert", Usage::default(), objects.usage(), millions);
    let before = objects.usage();
    world.fill(&store, &writer, false).await.report("update");
    bill("update", before, objects.usage(), millions);
    show("peak_resident", resident("VmHWM"), "MiB", Target::None);
    let before = table_bytes(&store, &world.name).await;
    reads(&store, &world, false).await;
    store.shutdown().await;
    drop((writer, store));

    // Another process does it: see there. It prints its own figures.
    let itself = std::env::current_exe().unwrap();
    assert!(std::process::Command::new(itself).env(COMPACT, dir.path()).status().unwrap().success());
    let store = world.open(&objects).await;
    let table = store.snapshot().table(&world.name).await.unwrap();
    let after = table_bytes(&store, &world.name).await;
    show("space_amplification", before as f64 / after as f64, "ratio", Target::AtMost(1.5));
    show("bytes_per_document", (after / world.documents) as f64, "bytes", Target::None);
    show("segments", table.segments.len() as f64, "files", Target::None);
    store.shutdown().await;
    drop((table, store));

    let end = world.tail().await;
    let started = Instant::now();
    let store = world.open(&objects).await;
    store.wait_for(end).await.unwrap();
    show("restart", started.elapsed().as_secs_f64() * 1e3, "ms", Target::AtMost(1000.0));
    reads(&store, &world, true).await;
    first_sync(&store, &world, &objects, millions).await;
    let writer = store.writer().await.unwrap();
    publish(&store, &writer, &world).await;
    store.shutdown().await;
}

fn objects(dir: &Path) -> Objects {
    Objects::new(Arc::new(LocalObjects::open(dir).unwrap()), false, &ObjectsSettings::default())
}

/// Merges everything into one run, and tells how much memory the process had at most. Everything is in files: the log is
/// not needed.
async fn full_compaction(dir: &Path) {
    let world = World::new(0);
    let store = world.open(&objects(dir)).await;
    let writer = store.writer().await.unwrap();
    let mut work = Work::default();
    world.compact(&writer, Extent::Full, &mut work).await;
    let spent = work.compacting;
    let rate = work.compacted_documents as f64 / spent.processors.as_secs_f64().max(1e-9);
    show("full_compaction", rate, "documents/s", Target::AtLeast(200_000.0));
    show("full_compaction_took", spent.wall.as_secs_f64(), "s", Target::None);
    show("full_compaction_peak_resident", resident("VmHWM"), "MiB", Target::AtMost(256.0));
    store.shutdown().await;
}

/// What a bucket is asked for per million documents written.
fn bill(name: &str, before: Usage, after: Usage, millions: f64) {
    let per = |now: u64, then: u64| (now - then) as f64 / millions;
    let lists_and_writes = per(after.writes + after.lists, before.writes + before.lists);
    show(&format!("bill_{name}_write_requests"), lists_and_writes, "requests/million", Target::None);
    show(&format!("bill_{name}_read_requests"), per(after.reads, before.reads), "requests/million", Target::None);
    show(&format!("bill_{name}_deletes"), per(after.deletes, before.deletes), "requests/million", Target::None);
    let written = per(after.bytes_written, before.bytes_written) / 1e6;
    show(&format!("bill_{name}_bytes_written"), written, "MB/million", Target::None);
    show(
        &format!("bill_{name}_bytes_read"),
        per(after.bytes_read, before.bytes_read) / 1e6,
        "MB/million",
        Target::None,
    );
}

/// The first version for all readers, after some random updates: what has to be written anew for it.
async fn publish(store: &DocumentStore, writer: &Writer, world: &World) {
    let publication = Some(Publication { mode: PublicationMode::Compatible, interval_secs: 60 });
    writer.configure(&world.name, CollectionSettings { publication, ..CollectionSettings::default() }).await.unwrap();
    let mut work = Work::default();
    world.flush(store, writer, &mut work).await;
    let before: u64 = table_bytes(store, &world.name).await;
    let started = Instant::now();
    let version = writer.publish(&world.name).await.unwrap().unwrap();
    show("publish_first_version", started.elapsed().as_secs_f64(), "s", Target::None);
    show("publish_files", version.files.len() as f64, "files", Target::None);
    show("publish_table_bytes_before", before as f64 / 1e6, "MB", Target::None);
    writer.configure(&world.name, CollectionSettings::default()).await.unwrap();
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
    show("scan", seen as f64 / started.elapsed().as_secs_f64(), "documents/s", Target::None);
    let after = objects.usage();
    let bytes = (after.bytes_read - before.bytes_read) as f64 / 1e6;
    let requests = (after.reads - before.reads) as f64 / millions;
    show("bill_first_sync_requests", requests, "requests/million", Target::None);
    show("bill_first_sync_bytes", bytes / millions, "MB/million", Target::None);
}
