//! The compactor with a real store and log: flush, trim, compaction, restart, and failures.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests: what is not as expected ends them")]

use std::sync::Arc;
use std::time::Duration;

use bigpeer_compactor::{Compactor, CompactorSettings};
use bigpeer_crdt::{DocId, Document, Editor, Object, ObjectMode, TransactionBuilder, Value};
use bigpeer_log::{AppendEntry, AppendOutcome, MemoryLog, TransactionLog};
use bigpeer_tables::{DocumentStore, Scan, TablesSettings};
use bigpeer_types::{AppId, CollectionName, Hlc, HlcClock, Lsn, ManualClock, SiteId};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;

struct World {
    app: AppId,
    flights: CollectionName,
    log: MemoryLog,
    objects: Arc<dyn ObjectStore>,
    clock: HlcClock,
    seq: u64,
}

impl World {
    fn new() -> Self {
        Self {
            app: AppId::new("app").unwrap(),
            flights: CollectionName::new("flights").unwrap(),
            log: MemoryLog::default(),
            objects: Arc::new(InMemory::new()),
            clock: HlcClock::new(SiteId::new(1), Hlc::ZERO, Arc::new(ManualClock::new(1_000))),
            seq: 0,
        }
    }

    async fn open(&self) -> Arc<DocumentStore> {
        let settings = TablesSettings::default();
        DocumentStore::open(self.app.clone(), Arc::clone(&self.objects), self.log(), settings).await.unwrap()
    }

    fn log(&self) -> Arc<dyn TransactionLog> {
        Arc::new(self.log.clone())
    }

    async fn write(&mut self, key: i64) -> Lsn {
        let mut editor = Editor::new(&Document::new(), &mut self.clock);
        editor.insert(&Object::from_iter([("n", Value::Int(key))]), ObjectMode::Map).unwrap();
        let mut builder = TransactionBuilder::new();
        builder.change(&self.flights, &DocId::from_value(&Value::Int(key)).unwrap(), &editor.finish().unwrap());
        self.seq += 1;
        let entry = AppendEntry {
            site: SiteId::new(1),
            seq: self.seq,
            writes: Vec::new(),
            unchanged: Vec::new(),
            payload: builder.finish().unwrap(),
        };
        match self.log.append(&self.app, vec![entry]).await.unwrap().as_slice() {
            [AppendOutcome::Applied(lsn)] => *lsn,
            other => panic!("{other:?}"),
        }
    }

    async fn count(&self, store: &DocumentStore) -> usize {
        let stream = store.snapshot().scan(&self.flights, Scan::default());
        stream.try_fold(0, |sum, batch| async move { Ok(sum + batch.len()) }).await.unwrap()
    }
}

/// Flushes whatever there is, at once; keeps the log of one flush.
fn eager() -> CompactorSettings {
    CompactorSettings {
        flush_after: Duration::ZERO,
        tidy_after: Duration::from_millis(1),
        keep_tail: Duration::from_secs(3600),
        keep_tail_flushes: 1,
        ..CompactorSettings::default()
    }
}

/// Waits, without a limit of its own, until something holds.
async fn until(mut holds: impl AsyncFnMut() -> bool) {
    while !holds().await {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_written_is_flushed_trimmed_from_the_log_compacted_and_there_after_a_restart() {
    let mut world = World::new();
    let store = world.open().await;
    let compactor = Compactor::open(Arc::clone(&store), world.log(), eager()).await.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(async move {
        compactor.run(async move { drop(stopped.await) }).await.unwrap();
        compactor
    });
    for round in 0..12 {
        let mut last = Lsn::ZERO;
        for key in 0..10 {
            last = world.write(round * 7 + key).await;
        }
        until(async || store.flushed() >= last).await;
    }
    // All but the last flush leaves the log.
    until(async || world.log.trimmed(&world.app).await.unwrap() > Lsn::ZERO).await;
    assert!(world.log.trimmed(&world.app).await.unwrap() <= store.flushed());
    // And what is left becomes one run without superseded rows.
    until(async || {
        let table = store.snapshot().table(&world.flights).await.unwrap();
        table.segments.len() == 1 && table.segments.iter().all(|part| part.excluded.is_empty())
    })
    .await;
    assert_eq!(world.count(&store).await, 87);
    stop.send(()).unwrap();
    running.await.unwrap();
    store.shutdown().await;

    world.log.trim(&world.app, Lsn::MAX).await.unwrap();
    let store = world.open().await;
    assert_eq!(world.count(&store).await, 87);
}

#[tokio::test]
async fn a_last_flush_at_shutdown_leaves_nothing_to_replay() {
    let mut world = World::new();
    let store = world.open().await;
    let last = world.write(1).await;
    store.wait_for(last).await.unwrap();
    for (flush_at_shutdown, flushed) in [(false, Lsn::ZERO), (true, last)] {
        let settings = CompactorSettings { flush_at_shutdown, ..CompactorSettings::default() };
        let compactor = Compactor::open(Arc::clone(&store), world.log(), settings).await.unwrap();
        compactor.run(async {}).await.unwrap();
        assert_eq!(store.flushed(), flushed);
    }
}

#[tokio::test]
async fn tidying_leaves_files_that_are_the_app() {
    let mut world = World::new();
    let store = world.open().await;
    let compactor = Compactor::open(Arc::clone(&store), world.log(), CompactorSettings::default()).await.unwrap();
    for round in 0..3 {
        for key in 0..5 {
            let lsn = world.write(round * 3 + key).await;
            store.wait_for(lsn).await.unwrap();
        }
        compactor.tidy().await.unwrap();
        let table = store.snapshot().table(&world.flights).await.unwrap();
        assert_eq!(table.segments.len(), 1);
        assert_eq!(table.segments.iter().map(|part| part.rows).sum::<u64>(), table.rows());
    }
    assert_eq!(world.count(&store).await, 11);
}

#[tokio::test]
async fn a_compactor_that_was_replaced_ends() {
    let mut world = World::new();
    let store = world.open().await;
    let old = Compactor::open(Arc::clone(&store), world.log(), eager()).await.unwrap();
    let other = world.open().await;
    let first = world.write(1).await;
    other.wait_for(first).await.unwrap();
    let new = Compactor::open(Arc::clone(&other), world.log(), eager()).await.unwrap();
    new.tidy().await.unwrap();
    // One epoch, two writers: the later commit loses.
    world.write(2).await;
    let error = old.run(std::future::pending()).await.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
}
