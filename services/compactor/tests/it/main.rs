//! The compactor with a real store and log: flush, trim, compaction, restart, and failures.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests: what is not as expected ends them")]

use std::sync::Arc;
use std::time::Duration;

use bigpeer_chassis::conflict_key;
use bigpeer_compactor::{Compactor, CompactorSettings, Remover};
use bigpeer_crdt::{DocId, Document, Editor, Object, ObjectMode, TransactionBuilder, Value};
use bigpeer_log::{AppendEntry, AppendOutcome, MemoryLog, TransactionLog};
use bigpeer_tables::manifest::{CollectionSettings, Expiry, Publication, PublicationMode};
use bigpeer_tables::paths::PinName;
use bigpeer_tables::{DocumentStore, Scan, TablesSettings};
use bigpeer_types::{AppId, CollectionName, Hlc, HlcClock, Lsn, ManualClock, SiteId};
use futures::{FutureExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::memory::InMemory;

struct World {
    app: AppId,
    flights: CollectionName,
    log: MemoryLog,
    objects: Arc<dyn ObjectStore>,
    clock: HlcClock,
    /// The machines' time, if it is in the test's hands.
    time: Option<Arc<ManualClock>>,
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
            time: None,
            seq: 0,
        }
    }

    async fn open(&self) -> Arc<DocumentStore> {
        let mut settings = TablesSettings::default();
        if let Some(time) = &self.time {
            settings.clock = Arc::clone(time) as _;
        }
        DocumentStore::open(self.app.clone(), Arc::clone(&self.objects), self.log(), settings).await.unwrap()
    }

    fn log(&self) -> Arc<dyn TransactionLog> {
        Arc::new(self.log.clone())
    }

    async fn write(&mut self, key: i64) -> Lsn {
        let mut editor = Editor::new(&Document::new(), &mut self.clock);
        editor.insert(&Object::from_iter([("n", Value::Int(key))]), ObjectMode::Map).unwrap();
        let mut builder = TransactionBuilder::new();
        let id = id(key);
        builder.change(&self.flights, &id, &editor.finish().unwrap());
        self.seq += 1;
        let entry = AppendEntry {
            site: SiteId::new(1),
            seq: self.seq,
            writes: vec![conflict_key(&self.flights, id.as_key())],
            unchanged: Vec::new(),
            payload: builder.finish().unwrap(),
        };
        match self.log.append(&self.app, vec![entry]).await.unwrap().as_slice() {
            [AppendOutcome::Applied(lsn)] => *lsn,
            other => panic!("{other:?}"),
        }
    }

    fn remover(&self, store: &Arc<DocumentStore>) -> Remover {
        let time = Arc::clone(self.time.as_ref().unwrap());
        let new_site = Box::new(|| async { Ok(SiteId::new(7)) }.boxed());
        Remover::new(Arc::clone(store), self.log(), time, new_site)
    }

    async fn count(&self, store: &DocumentStore) -> usize {
        let stream = store.snapshot().scan(&self.flights, Scan::default());
        stream.try_fold(0, |sum, batch| async move { Ok(sum + batch.len()) }).await.unwrap()
    }
}

fn id(key: i64) -> DocId {
    DocId::from_value(&Value::Int(key)).unwrap()
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

#[tokio::test]
async fn what_is_to_be_published_is_as_it_comes() {
    for mode in [PublicationMode::Compatible, PublicationMode::DeletionVectors] {
        let mut world = World::new();
        let store = world.open().await;
        let compactor = Arc::new(Compactor::open(Arc::clone(&store), world.log(), eager()).await.unwrap());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let work = Arc::clone(&compactor);
        let running = tokio::spawn(async move { work.run(async move { drop(stopped.await) }).await });
        // Of the compatible one the first version comes at once.
        let last = world.write(1).await;
        until(async || store.flushed() >= last).await;
        let publication = Some(Publication { mode, interval_secs: 3600 });
        let settings = CollectionSettings { publication, ..CollectionSettings::default() };
        compactor.configure(&world.flights, settings).await.unwrap();
        until(async || store.published(&world.flights).await.unwrap().is_some()).await;
        if mode == PublicationMode::DeletionVectors {
            for key in 0..5 {
                let last = world.write(key).await;
                until(async || store.published(&world.flights).await.unwrap().is_some_and(|table| table.lsn >= last))
                    .await;
            }
        } else {
            let last = world.write(2).await;
            store.wait_for(last).await.unwrap();
            // What was asked for by name does not wait.
            compactor.tidy().await.unwrap();
            assert_eq!(store.published(&world.flights).await.unwrap().unwrap().lsn, last);
        }
        stop.send(()).unwrap();
        running.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_collection_that_was_empty_is_published_with_its_first_documents() {
    let mut world = World::new();
    let store = world.open().await;
    let compactor = Arc::new(Compactor::open(Arc::clone(&store), world.log(), eager()).await.unwrap());
    let publication = Some(Publication { mode: PublicationMode::Compatible, interval_secs: 3600 });
    let settings = CollectionSettings { publication, ..CollectionSettings::default() };
    compactor.configure(&world.flights, settings).await.unwrap();
    compactor.tidy().await.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let work = Arc::clone(&compactor);
    let running = tokio::spawn(async move { work.run(async move { drop(stopped.await) }).await });
    let last = world.write(1).await;
    until(async || store.published(&world.flights).await.unwrap().is_some()).await;
    let table = store.published(&world.flights).await.unwrap().unwrap();
    assert_eq!((table.version, table.lsn), (0, last));
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
}

/// Ten documents whose time is over an hour after they were written.
async fn expiring() -> (World, Arc<ManualClock>, Arc<DocumentStore>, Compactor) {
    let time = Arc::new(ManualClock::new(1_700_000_000_000));
    let clock = HlcClock::new(SiteId::new(1), Hlc::ZERO, Arc::clone(&time) as _);
    let mut world = World { clock, time: Some(Arc::clone(&time)), ..World::new() };
    let store = world.open().await;
    let settings = CompactorSettings { clock: Arc::clone(&time) as _, ..CompactorSettings::default() };
    let compactor = Compactor::open(Arc::clone(&store), world.log(), settings).await.unwrap();
    let settings = CollectionSettings { expiry: Some(Expiry { after_secs: 3600 }), ..CollectionSettings::default() };
    compactor.configure(&world.flights, settings).await.unwrap();
    let mut last = Lsn::ZERO;
    for key in 0..10 {
        last = world.write(key).await;
    }
    store.wait_for(last).await.unwrap();
    compactor.tidy().await.unwrap();
    (world, time, store, compactor)
}

#[tokio::test]
async fn documents_are_deleted_some_time_after_their_last_change() {
    let (mut world, time, store, compactor) = expiring().await;
    let remover = world.remover(&store);
    time.advance(3_500_000);
    assert_eq!(remover.expire().await.unwrap(), 0);
    let last = world.write(3).await;
    store.wait_for(last).await.unwrap();
    compactor.tidy().await.unwrap();
    time.advance(200_000);
    assert_eq!(remover.expire().await.unwrap(), 9, "one has changed since");
    store.wait_for(world.log.head(&world.app).await.unwrap()).await.unwrap();
    assert_eq!(world.count(&store).await, 1);
    assert_eq!(remover.expire().await.unwrap(), 0);
    compactor.tidy().await.unwrap();
    time.advance(4_000_000);
    assert_eq!(remover.expire().await.unwrap(), 1);
    store.wait_for(world.log.head(&world.app).await.unwrap()).await.unwrap();
    assert_eq!(world.count(&store).await, 0);
}

#[tokio::test]
async fn a_document_that_changes_meanwhile_does_not_expire() {
    let (mut world, time, store, _) = expiring().await;
    time.advance(4_000_000);
    // This store does not hear of the change.
    store.shutdown().await;
    world.write(3).await;
    assert_eq!(world.remover(&store).expire().await.unwrap(), 0);
    let fresh = world.open().await;
    fresh.wait_for(world.log.head(&world.app).await.unwrap()).await.unwrap();
    assert_eq!(world.count(&fresh).await, 10);
    assert_eq!(world.remover(&fresh).expire().await.unwrap(), 9);
}

#[tokio::test]
async fn of_what_was_purged_nothing_is_left() {
    let (mut world, time, store, compactor) = expiring().await;
    let remover = world.remover(&store);
    let ids: Vec<DocId> = [3, 4, 99].map(id).into();
    let last = remover.purge(&world.flights, &ids).await.unwrap().unwrap();
    store.wait_for(last).await.unwrap();
    assert_eq!(world.count(&store).await, 8);
    assert_eq!(remover.purge(&world.flights, &ids).await.unwrap(), None, "there is nothing left to purge");
    compactor.tidy().await.unwrap();
    let all = Scan { deleted: true, ..Scan::default() };
    let batches: Vec<_> = store.snapshot().scan(&world.flights, all).try_collect().await.unwrap();
    let purged: Vec<_> = batches.into_iter().flatten().filter(|row| ids.contains(&row.id)).collect();
    assert_eq!(purged.len(), 2);
    for row in purged {
        assert!(row.state.len() < 32, "{} bytes", row.state.len());
        assert!(Document::decode(&row.state).unwrap().held_attachments().is_empty());
    }
    // The same id is a new document.
    time.advance(1);
    let last = world.write(3).await;
    store.wait_for(last).await.unwrap();
    assert_eq!(world.count(&store).await, 9);
}

#[tokio::test]
async fn what_was_acknowledged_and_not_applied_here_yet_is_purged_too() {
    let (mut world, _, store, _) = expiring().await;
    let remover = world.remover(&store);
    let written = world.write(50).await;
    let last = remover.purge(&world.flights, &[id(50)]).await.unwrap();
    assert!(last > Some(written), "{last:?}");
    store.wait_for(world.log.head(&world.app).await.unwrap()).await.unwrap();
    assert_eq!(world.count(&store).await, 10);
}

#[tokio::test]
async fn a_backup_holds_what_was_written_before_it() {
    let (mut world, _, store, compactor) = expiring().await;
    let last = world.write(50).await;
    let name = PinName::new("monday").unwrap();
    let (pin, lsn) = compactor.back_up(name.clone(), Duration::from_secs(86_400)).await.unwrap();
    assert_eq!((&pin.name, lsn), (&name, last));
    let last = world.write(51).await;
    store.wait_for(last).await.unwrap();
    assert_eq!(world.count(&store).await, 12);
    let kept = store.at_pin(&name).await.unwrap();
    let count =
        kept.scan(&world.flights, Scan::default()).try_fold(0, |sum, batch| async move { Ok(sum + batch.len()) });
    assert_eq!(count.await.unwrap(), 11);
}

#[tokio::test]
async fn what_is_kept_for_a_time_goes_where_nothing_is_written_any_more() {
    let mut world = World::new();
    let time = Arc::new(ManualClock::new(1_700_000_000_000));
    world.time = Some(Arc::clone(&time));
    world.write(1).await;
    let store = world.open().await;
    let often = Duration::from_millis(1);
    let never = Duration::from_secs(1 << 30);
    let settings = CompactorSettings { attachments_every: often, tidy_after: never, ..CompactorSettings::default() };
    let compactor = Compactor::open(Arc::clone(&store), world.log(), settings).await.unwrap();
    compactor.back_up(PinName::new("monday").unwrap(), Duration::from_secs(60)).await.unwrap();
    time.advance(61_000);
    let pins = bigpeer_tables::paths::pins(&world.app);
    let gone = until(async || world.objects.list(Some(&pins)).try_next().await.unwrap().is_none());
    tokio::select! {
        ended = compactor.run(std::future::pending()) => panic!("{ended:?}"),
        () = gone => {}
    }
}
