//! The app under test: its documents, its log, and what fills it as the server would, flushing and compacting when that is due.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bigpeer_compactor::{CompactorSettings, due};
use bigpeer_crdt::{DocId, Document, Editor, Object, ObjectMode, TransactionBuilder, Value};
use bigpeer_log::{AppendEntry, MemoryLog, TransactionLog};
use bigpeer_tables::{DocumentStore, Extent, LocalObjects, Objects, ObjectsSettings, TablesSettings, Writer};
use bigpeer_types::{AppId, CollectionName, Hlc, HlcClock, Lsn, ManualClock, SiteId};

use crate::baselines::Random;
use crate::figures::{Progress, Spent, Stopwatch, Target, bytes_of, rate, segment_files, show};

const PER_TRANSACTION: u64 = 1000;

pub(crate) struct World {
    pub(crate) app: AppId,
    pub(crate) name: CollectionName,
    pub(crate) documents: u64,
    log: MemoryLog,
    clock: HlcClock,
    seq: u64,
}

/// Where it is: the directory, the objects in it, a store over them and its writer.
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    pub(crate) objects: Objects,
    pub(crate) store: Arc<DocumentStore>,
    pub(crate) writer: Writer,
}

impl Place {
    pub(crate) async fn open(world: &World, dir: &Path) -> Self {
        let objects = Objects::new(Arc::new(LocalObjects::open(dir).unwrap()), false, &ObjectsSettings::default());
        let store = world.open(&objects).await;
        let writer = store.writer().await.unwrap();
        Self { dir: dir.to_owned(), objects, store, writer }
    }

    pub(crate) async fn close(self) {
        self.store.shutdown().await;
    }

    /// Bytes of all files that the newest manifest names.
    pub(crate) async fn table_bytes(&self, world: &World) -> u64 {
        self.store.snapshot().table(&world.name).await.unwrap().segments.iter().map(|part| part.size).sum()
    }
}

/// What was written, and how long it took.
#[derive(Default)]
pub(crate) struct Work {
    /// Documents that were written to the log.
    pub(crate) written: u64,
    log_bytes: u64,
    pub(crate) flushes: u64,
    pub(crate) flushed_documents: u64,
    flushed_bytes: u64,
    pub(crate) compacted_documents: u64,
    pub(crate) flushing: Spent,
    pub(crate) compacting: Spent,
    /// Compactions that merged what was new into the sorted run.
    majors: u64,
    /// Bytes flushed, and bytes of all objects written, when the last of these had ended.
    at_major: (u64, u64),
    /// Bytes of all objects, manifests too, that had been written before, and that were then.
    before: u64,
    object_bytes: u64,
    /// Most bytes of segment files that were there after a flush and what was due then.
    pub(crate) worst_bytes: u64,
}

pub(crate) fn key(n: u64) -> DocId {
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
    pub(crate) fn new(documents: u64) -> Self {
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
        // Nothing is kept for anybody: what is there is what there has to be.
        let (keep_for, orphan_age) = (Duration::ZERO, Duration::ZERO);
        let settings = TablesSettings { keep_for, orphan_age, keep_manifests: 1, ..TablesSettings::default() };
        let log: Arc<dyn TransactionLog> = Arc::new(self.log.clone());
        DocumentStore::open(self.app.clone(), Arc::new(objects.clone()), log, settings).await.unwrap()
    }

    /// Updates of so many documents that are in the log alone.
    pub(crate) async fn tail(&mut self, updates: u64) -> Lsn {
        let (mut lsn, documents) = (Lsn::ZERO, self.documents);
        for first in (0..updates.min(documents)).step_by(usize::try_from(PER_TRANSACTION).unwrap()) {
            let mut keys = (first..first + PER_TRANSACTION).map(|n| n * 7919 % documents);
            lsn = self.write(&mut keys, false).await.0;
        }
        lsn
    }

    /// One transaction: where it stands, and its bytes.
    pub(crate) async fn write(&mut self, keys: &mut (dyn Iterator<Item = u64> + Send), insert: bool) -> (Lsn, u64) {
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
        let bytes = payload.len() as u64;
        let entry =
            AppendEntry { site: SiteId::new(1), seq: self.seq, writes: Vec::new(), unchanged: Vec::new(), payload };
        self.log.append(&self.app, vec![entry]).await.unwrap();
        (self.log.head(&self.app).await.unwrap(), bytes)
    }

    /// Inserts all documents in order.
    pub(crate) async fn insert(&mut self, place: &Place, progress: &mut Progress) -> Work {
        let mut work = Work::begin(place);
        for first in (0..self.documents).step_by(usize::try_from(PER_TRANSACTION).unwrap()) {
            let end = self.documents.min(first + PER_TRANSACTION);
            self.step(place, &mut (first..end), true, &mut work).await;
            progress.say_seldom(|| format!("{} documents inserted", work.written));
        }
        self.flush(place, &mut work).await;
        // The server does as much when nothing is written for some time.
        for debt in place.writer.debts() {
            if let Some(extent) = due(&debt, true) {
                self.compact(place, extent, &mut work).await;
            }
        }
        place.writer.collect_garbage().await.unwrap();
        work.object_bytes = place.objects.usage().bytes_written - work.before;
        work
    }

    /// Updates a field of random documents, as many as there are, or as fit into the time.
    pub(crate) async fn update(&mut self, place: &Place, at_most: Duration, progress: &mut Progress) -> Work {
        let (mut work, mut random) = (Work::begin(place), Random(88_172_645_463_325_252));
        let (documents, started) = (self.documents, Instant::now());
        while work.written < documents && started.elapsed() < at_most {
            let mut keys = (0..PER_TRANSACTION.min(documents)).map(|_| random.next() % documents);
            self.step(place, &mut keys, false, &mut work).await;
            progress.say_seldom(|| format!("{} updates, {} merges into the run", work.written, work.majors));
        }
        self.flush(place, &mut work).await;
        work.object_bytes = place.objects.usage().bytes_written - work.before;
        work
    }

    async fn step(
        &mut self,
        place: &Place,
        keys: &mut (dyn Iterator<Item = u64> + Send),
        insert: bool,
        work: &mut Work,
    ) {
        let mut count = 0;
        let (lsn, bytes) = self.write(&mut keys.inspect(|_| count += 1), insert).await;
        work.written += count;
        work.log_bytes += bytes;
        place.store.wait_for(lsn).await.unwrap();
        if place.store.overlay_bytes() >= CompactorSettings::default().flush_bytes {
            self.flush(place, work).await;
        }
    }

    /// Flushes, and compacts what is due.
    pub(crate) async fn flush(&self, place: &Place, work: &mut Work) {
        let watch = Stopwatch::start();
        if let Some(done) = place.writer.flush().await.unwrap() {
            work.flushes += 1;
            work.flushed_documents += done.documents;
            work.flushed_bytes += done.bytes;
        }
        work.flushing = work.flushing.and(watch.stop());
        self.log.trim(&self.app, place.store.flushed()).await.unwrap();
        for debt in place.writer.debts() {
            if let Some(extent) = due(&debt, false) {
                self.compact(place, extent, work).await;
            }
        }
        place.writer.collect_garbage().await.unwrap();
        work.worst_bytes = work.worst_bytes.max(bytes_of(&segment_files(&place.dir)));
    }

    pub(crate) async fn compact(&self, place: &Place, extent: Extent, work: &mut Work) {
        let watch = Stopwatch::start();
        if let Some(done) = place.writer.compact(&self.name, extent).await.unwrap() {
            work.compacted_documents += done.documents;
        }
        work.compacting = work.compacting.and(watch.stop());
        if extent == Extent::Major {
            work.majors += 1;
            work.at_major = (work.flushed_bytes, place.objects.usage().bytes_written - work.before);
        }
    }
}

impl Work {
    fn begin(place: &Place) -> Self {
        Self { before: place.objects.usage().bytes_written, ..Self::default() }
    }

    /// `sorted`: keys that one core sorts in a second.
    pub(crate) fn report(&self, name: &str, sorted: f64, disk: f64) {
        let fast = Target::AtLeast(200_000.0);
        show(&format!("{name}_documents"), self.written as f64, "documents", Target::None);
        let both = [
            ("flush", self.flushed_documents, self.flushing),
            ("compaction", self.compacted_documents, self.compacting),
        ];
        for (what, documents, spent) in both {
            let of_core = rate(documents, spent.processors);
            show(&format!("{name}_{what}"), of_core, "documents/s", fast);
            show(&format!("{name}_{what}_wall"), rate(documents, spent.wall), "documents/s", Target::None);
            show(&format!("{name}_{what}_over_sort"), of_core / sorted, "ratio", Target::None);
        }
        // What a core does in all for a document that was written, however often it is rewritten.
        let together = self.flushing.and(self.compacting);
        let through = rate(self.flushed_documents, together.processors);
        show(&format!("{name}_flush_and_compaction"), through, "documents/s", fast);
        let bytes = rate(self.object_bytes, together.wall) / 1e6;
        show(&format!("{name}_bytes_over_disk_writes"), bytes / disk, "ratio", Target::None);

        let ratio = |written: u64, of: u64| written as f64 / of.max(1) as f64;
        let all = ratio(self.object_bytes, self.flushed_bytes);
        show(&format!("{name}_write_amplification_so_far"), all, "ratio", Target::None);
        show(
            &format!("{name}_bytes_for_each_of_the_log"),
            ratio(self.object_bytes, self.log_bytes),
            "ratio",
            Target::None,
        );
        show(&format!("{name}_merges_into_the_run"), self.majors as f64, "merges", Target::None);
        // Of whole cycles: what is new waits for its merge otherwise, and costs nothing yet.
        if self.majors > 0 {
            let (flushed, written) = self.at_major;
            show(&format!("{name}_write_amplification"), ratio(written, flushed), "ratio", Target::AtMost(6.0));
        }
    }
}
