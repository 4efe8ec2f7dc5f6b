//! Random histories on object storage that throttles, fails, loses answers, breaks bodies off and lists what was: two
//! writers compete, processes crash, and at every step each snapshot is the fold of the log to its LSN.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bigpeer_crdt::Value;
use bigpeer_log::TransactionLog as _;
use bigpeer_tables::manifest::PublicationMode;
use bigpeer_tables::paths::PinName;
use bigpeer_tables::{DocumentStore, Extent, FindingKind, Objects, ObjectsSettings, Snapshot, TablesError, Writer};
use bigpeer_types::{AppId, Clock, IdGenerator, Lsn, ManualClock, SeededIds};
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::model::{Edit, World, app, check, collection, id, object};
use crate::published;

/// How many of the last created and deleted objects a stale list may not know of.
const STALE: usize = 3;

/// How long manifests are kept for other processes: longer than time passes between two looks of a process, and than a
/// snapshot is held, together.
const KEEP_FOR: Duration = Duration::from_secs(40);

/// How long backups are kept: for the whole story.
const BACKUP: Duration = Duration::from_secs(86_400);

/// Most time that passes at once, in milliseconds.
const LEAP: u64 = 20_000;

/// A store that misbehaves in every way that is allowed to it.
#[derive(Debug)]
struct Chaos {
    inner: Arc<InMemory>,
    ids: Arc<SeededIds>,
    on: AtomicBool,
    created: Mutex<VecDeque<Path>>,
    deleted: Arc<Mutex<VecDeque<ObjectMeta>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Refused before anything happened.
    Throttled,
    /// The server failed before anything happened.
    Before,
    /// It happened, and the answer was lost.
    After,
    /// It takes its time.
    Slow,
    /// The body ends too early.
    Short,
}

impl Chaos {
    fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::default(),
            ids: Arc::new(SeededIds::new(seed)),
            on: AtomicBool::new(false),
            created: Mutex::default(),
            deleted: Arc::default(),
        })
    }

    fn draw(&self, of: u64) -> u64 {
        self.ids.next_u64() % of
    }

    fn fault(&self) -> Fault {
        if !self.on.load(Ordering::SeqCst) {
            return Fault::None;
        }
        match self.draw(100) {
            0 => Fault::Throttled,
            1 => Fault::Before,
            2 => Fault::After,
            3 => Fault::Short,
            4..14 => Fault::Slow,
            _ => Fault::None,
        }
    }

    /// What happens before the operation.
    async fn before(&self) -> Result<Fault> {
        let fault = self.fault();
        match fault {
            Fault::Throttled => return Err(failure("503 SlowDown")),
            Fault::Before => return Err(failure("500 InternalError")),
            Fault::Slow => {
                for _ in 0..self.draw(20) {
                    tokio::task::yield_now().await;
                }
            }
            Fault::None | Fault::After | Fault::Short => {}
        }
        Ok(fault)
    }

    fn remember(&self, location: &Path) {
        let mut created = self.created.lock().unwrap();
        created.push_back(location.clone());
        while created.len() > STALE {
            created.pop_front();
        }
    }
}

/// Whether a failure may pass by itself, or is that of an app that went on meanwhile.
fn assert_passes(error: &TablesError) {
    assert!(error.is_retryable() || matches!(error, TablesError::Forgotten { .. }), "{error:?}");
}

fn failure(what: &'static str) -> Error {
    Error::Generic { store: "chaos", source: what.into() }
}

fn answer<T>(fault: Fault, value: T) -> Result<T> {
    if fault == Fault::After { Err(failure("timed out after it was done")) } else { Ok(value) }
}

impl fmt::Display for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("chaos")
    }
}

#[async_trait]
impl ObjectStore for Chaos {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let fault = self.before().await?;
        let done = self.inner.put_opts(location, payload, opts).await?;
        self.remember(location);
        answer(fault, done)
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.before().await?;
        self.remember(location);
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let fault = self.before().await?;
        let head = options.head;
        let mut got = self.inner.get_opts(location, options).await?;
        if fault == Fault::Short
            && !head
            && let GetResultPayload::Stream(body) = got.payload
        {
            got.payload = GetResultPayload::Stream(body.map_ok(|bytes| bytes.slice(..bytes.len() / 2)).boxed());
        }
        answer(fault, got)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let mut read = Vec::new();
        for range in ranges {
            let options = GetOptions { range: Some(range.clone().into()), ..GetOptions::default() };
            read.push(self.get_opts(location, options).await?.bytes().await?);
        }
        Ok(read)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, deleted) = (Arc::clone(&self.inner), Arc::clone(&self.deleted));
        let faults: Vec<Fault> = (0..32).map(|_| self.fault()).collect();
        locations
            .zip(futures::stream::iter(faults).chain(futures::stream::repeat(Fault::None)))
            .then(move |(location, fault)| {
                let (inner, deleted) = (Arc::clone(&inner), Arc::clone(&deleted));
                async move {
                    let location = location?;
                    if matches!(fault, Fault::Throttled | Fault::Before) {
                        return Err(failure("503 SlowDown"));
                    }
                    let meta = inner.head(&location).await?;
                    inner.delete(&location).await?;
                    let mut deleted = deleted.lock().unwrap();
                    deleted.push_back(meta);
                    while deleted.len() > STALE {
                        deleted.pop_front();
                    }
                    answer(fault, location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let fault = self.fault();
        if matches!(fault, Fault::Throttled | Fault::Before | Fault::After) {
            return futures::stream::once(async { Err(failure("503 SlowDown")) }).boxed();
        }
        if fault == Fault::None {
            return self.inner.list(prefix);
        }
        // Behind: some of what was just created is not there yet, some of what was deleted still is.
        let skip = usize::try_from(self.draw(STALE as u64 + 1)).unwrap();
        let unseen: Vec<Path> = self.created.lock().unwrap().iter().rev().take(skip).cloned().collect();
        let within = |path: &Path| prefix.is_none_or(|prefix| path.as_ref().starts_with(prefix.as_ref()));
        let ghosts: Vec<ObjectMeta> =
            self.deleted.lock().unwrap().iter().filter(|meta| within(&meta.location)).cloned().collect();
        let seen = self.inner.list(prefix).try_filter(move |meta| {
            let seen = !unseen.contains(&meta.location);
            async move { seen }
        });
        seen.chain(futures::stream::iter(ghosts.into_iter().map(Ok))).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.before().await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.before().await?;
        self.inner.copy_opts(from, to, options).await
    }
}

/// One process: a store, and its writer if it has one.
struct Process {
    store: Arc<DocumentStore>,
    writer: Option<Writer>,
}

/// Random work of two processes on one app.
struct Story {
    chaos: Arc<Chaos>,
    world: World,
    clock: Arc<ManualClock>,
    processes: Vec<Process>,
    /// Snapshots that are held for a while, and since when.
    kept: Vec<(u64, Snapshot)>,
    /// Backups that were made, and clones, and of what.
    backups: Vec<(PinName, Lsn)>,
    clones: Vec<(AppId, Lsn)>,
    /// Time since lists were last complete.
    behind_ms: u64,
    /// What became of the work: that it happened at all.
    done: Seen,
}

#[derive(Debug, Default)]
struct Seen {
    flushes: usize,
    compactions: usize,
    collections: usize,
    fenced: usize,
    failed: usize,
    crashes: usize,
    past: usize,
    published: usize,
    backups: usize,
    clones: usize,
}

impl Story {
    async fn new(seed: u64) -> Self {
        let chaos = Chaos::new(seed);
        let objects = Objects::new(Arc::clone(&chaos) as _, false, &ObjectsSettings::default());
        let mut world = World::on(Arc::new(objects));
        let clock = Arc::new(ManualClock::new(1_700_000_000_000));
        world.settings.clock = Arc::clone(&clock) as _;
        world.settings.ids = Arc::new(SeededIds::new(seed ^ 1));
        world.settings.keep_for = KEEP_FOR;
        let first = world.open().await.writer().await.unwrap();
        first.configure(&collection("a"), published::settings(PublicationMode::Compatible)).await.unwrap();
        first.configure(&collection("b"), published::settings(PublicationMode::DeletionVectors)).await.unwrap();
        let mut processes = Vec::new();
        for _ in 0..2 {
            processes.push(Process { store: world.open().await, writer: None });
        }
        chaos.on.store(true, Ordering::SeqCst);
        Self {
            chaos,
            world,
            clock,
            processes,
            kept: Vec::new(),
            backups: Vec::new(),
            clones: Vec::new(),
            behind_ms: 0,
            done: Seen::default(),
        }
    }

    fn draw(&self, of: u64) -> u64 {
        self.chaos.draw(of)
    }

    async fn write(&mut self) {
        let names = [collection("a"), collection("b")];
        let mut edits = Vec::new();
        for _ in 0..=self.draw(12) {
            let name = &names[usize::try_from(self.draw(2)).unwrap()];
            let key = id(i64::try_from(self.draw(50)).unwrap());
            let number = Value::Int(i64::try_from(self.draw(1000)).unwrap());
            let edit = match self.draw(8) {
                0 => Edit::Delete,
                1 => Edit::Increment("hits", 1),
                2..5 => Edit::Set("x", number),
                _ => Edit::Insert(object([("n", number), ("text", Value::from("some text that takes room"))])),
            };
            edits.push((name, key, edit));
        }
        self.world.write(&edits).await;
    }

    async fn work(&mut self, at: usize, kind: u64) {
        let process = &mut self.processes[at];
        if process.writer.is_none() {
            process.writer = process.store.writer().await.ok();
        }
        let Some(writer) = &process.writer else { return };
        let extent = [Extent::Minor, Extent::Major, Extent::Full][usize::try_from(self.chaos.draw(3)).unwrap()];
        let name = collection(if self.chaos.draw(2) == 0 { "a" } else { "b" });
        let result = match kind {
            0 => writer.flush().await.map(|done| self.done.flushes += usize::from(done.is_some())),
            1 => writer.compact(&name, extent).await.map(|done| self.done.compactions += usize::from(done.is_some())),
            2 => writer.collect_garbage().await.map(|deleted| self.done.collections += usize::from(deleted > 0)),
            4 => writer.publish(&name).await.map(|done| self.done.published += usize::from(done.is_some())),
            5 => {
                // As an operator may, at any time.
                let mode = [None, Some(PublicationMode::Compatible), Some(PublicationMode::DeletionVectors)];
                let mode = mode[usize::try_from(self.chaos.draw(3)).unwrap()];
                let settings = mode.map(published::settings).unwrap_or_default();
                writer.configure(&name, settings).await
            }
            // Both at once, and the compaction is dropped in the middle as often as not.
            _ => {
                let steps = self.chaos.draw(60);
                let patience = async {
                    for _ in 0..steps {
                        tokio::task::yield_now().await;
                    }
                };
                let compaction = async {
                    tokio::select! {
                        biased;
                        result = writer.compact(&name, extent) => result.map(|_| ()),
                        () = patience => Ok(()),
                    }
                };
                let (flushed, compacted) = tokio::join!(writer.flush(), compaction);
                flushed.map(|_| ()).and(compacted)
            }
        };
        match result {
            Ok(()) => {}
            Err(TablesError::Fenced { .. }) => {
                self.done.fenced += 1;
                process.writer = None;
            }
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                self.done.failed += 1;
            }
        }
    }

    /// Makes a backup, or ends the oldest of three.
    async fn back_up(&mut self, at: usize) {
        let store = &self.processes[at].store;
        if self.backups.len() < 3 {
            let name = PinName::new(&format!("backup-{}", self.done.backups)).unwrap();
            match store.pin(name.clone(), BACKUP).await {
                Ok((_, lsn)) => self.backups.push((name, lsn)),
                Err(error) => assert_passes(&error),
            }
            self.done.backups += 1;
        } else {
            let (name, _) = self.backups.remove(0);
            // What it kept may stay; nobody asks for it any more.
            if let Err(error) = store.unpin(&name).await {
                assert_passes(&error);
            }
        }
    }

    /// Makes another app of a backup, or of what there is now.
    async fn clone(&mut self, at: usize) {
        let store = &self.processes[at].store;
        let snapshot = match self.backups.first() {
            Some((name, _)) if self.chaos.draw(2) == 0 => store.at_pin(name).await,
            Some(_) | None => Ok(store.snapshot()),
        };
        let target = AppId::new(&format!("clone-{}", self.done.clones)).unwrap();
        self.done.clones += 1;
        let cloned = match snapshot {
            Ok(snapshot) => store.clone_as(&target, &snapshot).await.map(|cloned| (cloned.lsn, snapshot.lsn())),
            // A list that does not know it yet.
            Err(TablesError::NoPin { .. }) => return,
            Err(error) => return assert_passes(&error),
        };
        match cloned {
            Ok((lsn, of)) => {
                assert_eq!(lsn, of);
                self.clones.push((target, lsn));
            }
            Err(error) => assert_passes(&error),
        }
    }

    /// Kills a process and starts another in its place.
    async fn crash(&mut self, at: usize) {
        self.done.crashes += 1;
        self.kept.clear();
        self.processes[at].writer = None;
        self.processes[at].store.shutdown().await;
        // It comes up when the store answers.
        let store = loop {
            match self.world.try_open().await {
                Ok(store) => break store,
                Err(error) => assert!(error.is_retryable(), "{error:?}"),
            }
        };
        self.processes[at] = Process { store, writer: None };
    }

    async fn step(&mut self) {
        let at = usize::try_from(self.draw(2)).unwrap();
        match self.draw(27) {
            0..7 => self.write().await,
            7..10 => self.work(at, 0).await,
            10..13 => self.work(at, 1).await,
            13..15 => self.work(at, 2).await,
            15..17 => self.work(at, 3).await,
            17..20 => self.work(at, 4).await,
            20 => self.work(at, 5).await,
            21 => self.crash(at).await,
            22 if self.kept.len() < 2 => {
                self.kept.push((self.clock.now_ms(), self.processes[at].store.snapshot()));
            }
            23 => self.back_up(at).await,
            24 => self.clone(at).await,
            _ => {
                // The log is trimmed behind a manifest that is committed, and time goes by.
                let flushed = self.processes[at].store.flushed();
                self.world.log.trim(&app(), flushed).await.unwrap();
                self.time_goes_by().await;
            }
        }
    }

    /// Every process looks for manifests before much time has passed, as often as it takes.
    async fn time_goes_by(&mut self) {
        for process in &self.processes {
            while let Err(error) = process.store.refresh().await {
                assert!(error.is_retryable(), "{error:?}");
            }
        }
        let leap = self.chaos.draw(LEAP);
        self.clock.advance(leap);
        // A list is not behind for ever, but nearly as long as manifests are kept.
        self.behind_ms += leap;
        if self.behind_ms >= LEAP {
            self.chaos.created.lock().unwrap().clear();
            self.behind_ms = 0;
        }
        let now = self.clock.now_ms();
        self.kept.retain(|(since, _)| now - since < LEAP);
    }

    /// The checkers; the store behaves while they look.
    async fn check(&mut self) {
        self.chaos.on.store(false, Ordering::SeqCst);
        for process in &self.processes {
            if let Some(error) = process.store.failed() {
                panic!("a store gave up: {error:?}");
            }
            process.store.wait_for(self.world.truth.last()).await.unwrap();
            check(&process.store.snapshot(), &self.world.truth).await;
        }
        for (_, snapshot) in &self.kept {
            check(snapshot, &self.world.truth).await;
        }
        // Nothing that was acknowledged is missing for a process that starts now.
        let fresh = self.world.caught_up().await;
        check(&fresh.snapshot(), &self.world.truth).await;
        // Every published table is the documents at its LSN, and all that must be there is.
        for (name, settings) in fresh.collection_settings() {
            if settings.publication.is_some() {
                published::check_published(&fresh, &self.world.objects, &name, &self.world.truth).await;
            }
        }
        let seen = fresh.examine(false).await.unwrap();
        let lost: Vec<_> = seen.findings.iter().filter(|found| found.kind != FindingKind::Extra).collect();
        assert!(lost.is_empty(), "{lost:?}");
        self.check_past(&fresh).await;
        self.check_kept(&fresh).await;
        fresh.shutdown().await;
        self.chaos.on.store(true, Ordering::SeqCst);
    }

    /// Backups and clones are what they were made of, whatever became of that.
    async fn check_kept(&self, store: &DocumentStore) {
        for (name, lsn) in &self.backups {
            let snapshot = store.at_pin(name).await.unwrap();
            assert_eq!(snapshot.lsn(), *lsn);
            check(&snapshot, &self.world.truth).await;
        }
        // Of the clones the first and the last: they do not change.
        let two = self.clones.first().into_iter().chain(self.clones.last());
        for (target, lsn) in two {
            let (objects, log) = (Arc::clone(&self.world.objects), Arc::new(self.world.log.clone()));
            let clone = DocumentStore::open(target.clone(), objects, log, self.world.settings.clone()).await.unwrap();
            assert_eq!(clone.snapshot().lsn(), *lsn);
            check(&clone.snapshot(), &self.world.truth).await;
            clone.shutdown().await;
        }
    }

    /// What was, where it is still known.
    async fn check_past(&mut self, store: &DocumentStore) {
        let count = self.world.truth.history.len() as u64;
        if count == 0 {
            return;
        }
        let at = usize::try_from(self.draw(count)).unwrap();
        let lsn: Lsn = self.world.truth.history[at].0;
        match store.at(lsn).await {
            Ok(snapshot) => {
                assert_eq!(snapshot.lsn(), lsn);
                check(&snapshot, &self.world.truth).await;
                self.done.past += 1;
            }
            Err(error) => assert!(matches!(error, TablesError::Forgotten { .. }), "{error:?}"),
        }
    }
}

async fn tell(seed: u64, steps: usize) -> Seen {
    let mut story = Story::new(seed).await;
    for step in 0..steps {
        story.step().await;
        if step % 8 == 7 {
            story.check().await;
        }
    }
    story.check().await;
    story.done
}

/// `BIGPEER_SEED` replays one history; `BIGPEER_SEEDS` tries that many.
#[tokio::test]
async fn at_every_step_every_snapshot_is_the_fold_of_the_log() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("BIGPEER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("BIGPEER_SEEDS").unwrap_or(8),
    };
    let mut all = Seen::default();
    let many = seeds.end - seeds.start >= 8;
    for seed in seeds {
        println!("seed {seed}");
        let seen = tell(seed, 72).await;
        all.flushes += seen.flushes;
        all.compactions += seen.compactions;
        all.collections += seen.collections;
        all.fenced += seen.fenced;
        all.failed += seen.failed;
        all.crashes += seen.crashes;
        all.past += seen.past;
        all.published += seen.published;
        all.backups += seen.backups;
        all.clones += seen.clones;
    }
    println!("{all:?}");
    if many {
        let counts = [all.flushes, all.compactions, all.collections, all.fenced, all.failed, all.crashes, all.past];
        assert!([all.published, all.backups, all.clones].iter().all(|count| *count > 2), "{all:?}");
        assert!(counts.iter().all(|count| *count > 2), "not everything happened: {all:?}");
    }
}
