//! Object storage that fails: nothing is lost, nothing half done is seen, and trying again works.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bigpeer_crdt::Value;
use bigpeer_tables::{Extent, Scan, TablesError};
use futures::stream::{BoxStream, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::oneshot;

use crate::model::{Edit, World, check, collection, id, object};

/// A store whose n-th operation fails.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: InMemory,
    /// Operations until the failure; below zero it has happened.
    countdown: AtomicI64,
    /// Whether everything after the first failure fails, too: a crash.
    for_ever: AtomicBool,
    /// Whether a failing write has happened all the same: its answer was lost.
    applied: AtomicBool,
    /// The next list of such a place waits.
    stop: Mutex<Option<Stop>>,
}

/// A place, who is told when it is to be listed, and who lets that happen.
type Stop = (Path, oneshot::Sender<()>, oneshot::Receiver<()>);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    Once,
    OnceApplied,
    ForEver,
}

impl Faulty {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: InMemory::new(),
            countdown: AtomicI64::new(i64::MAX),
            for_ever: AtomicBool::new(false),
            applied: AtomicBool::new(false),
            stop: Mutex::default(),
        })
    }

    /// The n-th operation from now on (0 is the next) fails.
    pub(crate) fn fail_at(&self, n: i64, mode: Mode) {
        self.for_ever.store(matches!(mode, Mode::ForEver), Ordering::SeqCst);
        self.applied.store(matches!(mode, Mode::OnceApplied), Ordering::SeqCst);
        self.countdown.store(n, Ordering::SeqCst);
    }

    /// Stops whoever lists this place next: tells when, and goes on when it is told to.
    pub(crate) fn stop_at_list(&self, place: Path) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
        let ((reached, is_reached), (go_on, goes_on)) = (oneshot::channel(), oneshot::channel());
        *self.stop.lock().unwrap() = Some((place, reached, goes_on));
        (is_reached, go_on)
    }

    pub(crate) fn heal(&self) {
        self.countdown.store(i64::MAX, Ordering::SeqCst);
    }

    /// Whether the failure has happened.
    pub(crate) fn failed(&self) -> bool {
        self.countdown.load(Ordering::SeqCst) < 0
    }

    fn fails(&self) -> bool {
        let before = self.countdown.fetch_sub(1, Ordering::SeqCst);
        before == 0 || (before < 0 && self.for_ever.load(Ordering::SeqCst))
    }

    fn step(&self) -> Result<()> {
        if self.fails() { Err(broken()) } else { Ok(()) }
    }
}

fn broken() -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: "injected".into() }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if self.fails() {
            if self.applied.load(Ordering::SeqCst) {
                self.inner.put_opts(location, payload, opts).await?;
            }
            return Err(broken());
        }
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.step()?;
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.step()?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        if self.fails() {
            return futures::stream::once(async { Err(broken()) }).boxed();
        }
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if self.fails() {
            return futures::stream::once(async { Err(broken()) }).boxed();
        }
        let stop = self.stop.lock().unwrap().take_if(|(place, ..)| prefix == Some(&*place));
        let listed = self.inner.list(prefix);
        let Some((_, reached, goes_on)) = stop else { return listed };
        let wait = async move {
            reached.send(()).unwrap();
            goes_on.await.unwrap();
        };
        futures::stream::once(wait).filter_map(async |()| None).chain(listed).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.step()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.step()?;
        self.inner.copy_opts(from, to, options).await
    }
}

/// Some documents in two flushes, then changes that are only in the overlay.
async fn story(world: &mut World) {
    let (a, b) = (collection("a"), collection("b"));
    let mut edits = Vec::new();
    for n in 0..30 {
        let fields = object([("n", Value::Int(n)), ("text", Value::String("x".repeat(40).into()))]);
        edits.push((&a, id(n), Edit::Insert(fields)));
        edits.push((&b, id(n), Edit::Insert(object([("n", Value::Int(n))]))));
    }
    for edits in edits.chunks(20) {
        world.write(edits).await;
    }
    let store = world.caught_up().await;
    let writer = store.writer().await.unwrap();
    writer.flush().await.unwrap();
    for n in (0..30).step_by(7) {
        world.write(&[(&a, id(n), Edit::Set("n", Value::Int(-n))), (&b, id(n), Edit::Delete)]).await;
    }
    store.wait_for(world.truth.last()).await.unwrap();
    writer.flush().await.unwrap();
    let late: Vec<_> = (20..40).map(|n| (&a, id(n), Edit::Insert(object([("m", Value::Int(n))])))).collect();
    for edits in late.chunks(10) {
        world.write(edits).await;
    }
    store.shutdown().await;
}

/// Lets every operation of a work fail in turn; each time a new process must find the truth.
async fn fail_everywhere(mode: Mode, garbage: bool) {
    let mut at = 0;
    loop {
        let faulty = Faulty::new();
        let mut world = World::on(faulty.clone());
        story(&mut world).await;
        let store = world.caught_up().await;
        let writer = store.writer().await.unwrap();
        faulty.fail_at(at, mode);
        let result = work(&writer, garbage).await;
        let reached = faulty.failed();
        if matches!(mode, Mode::Once | Mode::OnceApplied) && reached {
            // The same process tries again, and its readers never notice.
            if let Err(error) = &result {
                assert!(error.is_retryable(), "{error:?}");
            }
            work(&writer, garbage).await.unwrap();
        }
        faulty.heal();
        check(&store.snapshot(), &world.truth).await;
        store.shutdown().await;
        let store = world.caught_up().await;
        let writer = store.writer().await.unwrap();
        work(&writer, garbage).await.unwrap();
        check(&store.snapshot(), &world.truth).await;
        store.shutdown().await;
        if !reached {
            assert!(at > 5, "the work has more steps than that");
            return;
        }
        at += 1;
    }
}

async fn work(writer: &bigpeer_tables::Writer, garbage: bool) -> std::result::Result<(), TablesError> {
    writer.flush().await?;
    for name in ["a", "b"] {
        writer.compact(&collection(name), Extent::Full).await?;
    }
    if garbage {
        writer.collect_garbage().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_failure_at_any_step_is_survived_and_the_work_can_be_repeated() {
    fail_everywhere(Mode::Once, true).await;
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_not_done_twice() {
    fail_everywhere(Mode::OnceApplied, false).await;
}

#[tokio::test]
async fn a_crash_at_any_step_loses_nothing() {
    fail_everywhere(Mode::ForEver, true).await;
}

#[tokio::test]
async fn a_failing_read_is_an_error_and_not_an_answer() {
    let faulty = Faulty::new();
    let mut world = World::on(faulty.clone());
    story(&mut world).await;
    let mut at = 0;
    loop {
        let store = world.caught_up().await;
        let snapshot = store.snapshot();
        faulty.fail_at(at, Mode::Once);
        let found = snapshot.get_many(&collection("a"), &[id(1), id(3), id(50)]).await;
        let scanned: Vec<_> = snapshot.scan(&collection("a"), Default::default()).collect().await;
        let failed = faulty.failed();
        faulty.heal();
        let scan_failed = scanned.iter().any(std::result::Result::is_err);
        assert_eq!(failed, found.is_err() || scan_failed, "an injected failure at {at} went unnoticed");
        // What was cached while it failed is no obstacle.
        assert!(snapshot.get_many(&collection("a"), &[id(1), id(3), id(50)]).await.is_ok());
        store.shutdown().await;
        if !failed {
            check(&snapshot, &world.truth).await;
            return;
        }
        at += 1;
    }
}

#[tokio::test]
async fn damage_is_told_with_the_object_that_is_damaged() {
    let faulty = Faulty::new();
    let mut world = World::on(faulty.clone());
    story(&mut world).await;
    let objects: Vec<_> = faulty.inner.list(None).map(Result::unwrap).collect().await;
    for object in objects {
        let good = faulty.inner.get(&object.location).await.unwrap().bytes().await.unwrap();
        for damage in ["cut", "flip", "empty"] {
            let mut bad = good.to_vec();
            let last = bad.len() - 9;
            match damage {
                "cut" => bad.truncate(last),
                "flip" => bad[last] ^= 0xff,
                _ => bad.clear(),
            }
            faulty.inner.put(&object.location, bad.into()).await.unwrap();
            let result = read_everything(&world).await;
            // A damaged manifest that is not the newest does not matter.
            if let Err(error) = result {
                assert!(error.to_string().contains(object.location.as_ref()), "{error}");
            } else {
                assert!(object.location.as_ref().ends_with("manifests/00000000000000000001"), "{}", object.location);
            }
        }
        faulty.inner.put(&object.location, good.into()).await.unwrap();
    }
    read_everything(&world).await.unwrap();
}

async fn read_everything(world: &World) -> std::result::Result<(), TablesError> {
    let store = world.try_open().await?;
    store.wait_for(world.truth.last()).await?;
    for name in store.snapshot().collections() {
        let mut scan = store.snapshot().scan(&name, Scan { deleted: true, ..Scan::default() });
        while let Some(batch) = scan.next().await {
            batch?;
        }
    }
    store.shutdown().await;
    Ok(())
}
