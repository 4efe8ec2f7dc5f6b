//! Clones: what they hold, what is kept for them and for how long, wherever their making breaks off.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bigpeer_log::TransactionLog as _;
use bigpeer_tables::paths::{self, ObjectPath};
use bigpeer_tables::{Apps, DocumentStore, Extent, FindingKind, TablesError, Writer};
use bigpeer_types::{AppId, Lsn, ManualClock};
use futures::TryStreamExt;

use crate::faults::{Faulty, Mode};
use crate::keeping::{flush, put_ten};
use crate::model::{Edit, World, app, check, collection, id};
use crate::stepped::Stepped;

const DAY_MS: u64 = 86_400_000;

/// What a catalogue says of apps.
#[derive(Debug, Default)]
struct Known {
    there: Mutex<BTreeSet<AppId>>,
    given_up: Mutex<BTreeSet<AppId>>,
}

impl Known {
    /// The last step of an app's making.
    fn add(&self, app: &AppId) {
        assert!(!self.given_up.lock().unwrap().contains(app), "{app} was given up");
        self.there.lock().unwrap().insert(app.clone());
    }

    fn remove(&self, app: &AppId) {
        self.there.lock().unwrap().remove(app);
    }
}

#[async_trait]
impl Apps for Known {
    async fn is_there(&self, app: &AppId) -> Result<bool, String> {
        Ok(self.there.lock().unwrap().contains(app))
    }

    async fn give_up(&self, app: &AppId) -> Result<bool, String> {
        if self.there.lock().unwrap().contains(app) {
            return Ok(false);
        }
        self.given_up.lock().unwrap().insert(app.clone());
        Ok(true)
    }
}

/// An app with some documents in a file, and some more in the overlay; its time is in the test's hands.
struct Scene {
    world: World,
    clock: Arc<ManualClock>,
    known: Arc<Known>,
    store: Arc<DocumentStore>,
    writer: Writer,
}

impl Scene {
    async fn of(mut world: World) -> Self {
        let clock = settle(&mut world);
        let known = Arc::new(Known::default());
        world.settings.apps = Some(Arc::clone(&known) as _);
        let store = world.open().await;
        let writer = store.writer().await.unwrap();
        put_ten(&mut world, 0).await;
        flush(&world, &store, &writer).await;
        put_ten(&mut world, 5).await;
        store.wait_for(world.truth.last()).await.unwrap();
        Self { world, clock, known, store, writer }
    }

    /// The origin writes all of it anew, and forgets everything of before.
    async fn move_on(&mut self) {
        let c = collection("c");
        put_ten(&mut self.world, 0).await;
        self.store.wait_for(self.world.truth.last()).await.unwrap();
        // The feed keeps what was applied a moment ago, and with it the files of then.
        self.clock.advance(DAY_MS);
        flush(&self.world, &self.store, &self.writer).await;
        self.writer.compact(&c, Extent::Full).await.unwrap();
        self.clock.advance(2 * DAY_MS);
        self.writer.collect_garbage().await.unwrap();
        self.writer.collect_garbage().await.unwrap();
    }

    /// Pins of the origin, and its segments beyond those that it needs itself.
    async fn kept(&self) -> (usize, usize) {
        let objects = &self.world.objects;
        let pins: Vec<_> = objects.list(Some(&paths::pins(&app()))).try_collect().await.unwrap();
        let tables: Vec<_> = objects.list(Some(&paths::tables(&app()))).try_collect().await.unwrap();
        let is_segment = |path| matches!(ObjectPath::parse(path), Some(ObjectPath::Segment(..)));
        let segments = tables.iter().filter(|object| is_segment(&object.location)).count();
        let own = self.store.snapshot().table(&collection("c")).await.unwrap().segments.len();
        (pins.len(), segments - own)
    }

    async fn open(&self, app: &AppId) -> Arc<DocumentStore> {
        let (objects, log) = (Arc::clone(&self.world.objects), Arc::new(self.world.log.clone()));
        DocumentStore::open(app.clone(), objects, log, self.world.settings.clone()).await.unwrap()
    }
}

/// Nothing is kept for longer than it is needed; by a clock in the test's hands.
fn settle(world: &mut World) -> Arc<ManualClock> {
    let clock = Arc::new(ManualClock::new(4_900_000_000_000));
    world.settings.clock = Arc::clone(&clock) as _;
    world.settings.keep_manifests = 1;
    world.settings.orphan_age = Duration::ZERO;
    clock
}

fn named(name: impl std::fmt::Display) -> AppId {
    AppId::new(&format!("copy-{name}")).unwrap()
}

#[tokio::test]
async fn a_clone_is_the_app_at_its_lsn_and_goes_its_own_way() {
    let mut world = World::new();
    let clock = settle(&mut world);
    let c = collection("c");
    let store = world.open().await;
    let writer = store.writer().await.unwrap();
    put_ten(&mut world, 0).await;
    flush(&world, &store, &writer).await;
    put_ten(&mut world, 5).await;
    world.write(&[(&c, id(7), Edit::Delete)]).await;
    store.wait_for(world.truth.last()).await.unwrap();
    let lsn = world.truth.history[14].0;
    let target = AppId::new("copy").unwrap();
    let snapshot = store.at(lsn).await.unwrap();
    let cloned = store.clone_as(&target, &snapshot).await.unwrap();
    assert_eq!((cloned.lsn, cloned.shared_files), (lsn, 1));
    let again = store.clone_as(&target, &snapshot).await.unwrap_err();
    assert!(matches!(&again, TablesError::NotEmpty { app } if *app == target), "{again}");
    drop(snapshot);

    // The origin forgets everything of before.
    put_ten(&mut world, 20).await;
    flush(&world, &store, &writer).await;
    writer.compact(&c, Extent::Full).await.unwrap();
    clock.advance(10_000_000);
    writer.collect_garbage().await.unwrap();
    world.log.trim(&app(), Lsn::MAX).await.unwrap();

    let open = async || {
        let (objects, log) = (Arc::clone(&world.objects), Arc::new(world.log.clone()));
        DocumentStore::open(target.clone(), objects, log, world.settings.clone()).await.unwrap()
    };
    let clone = open().await;
    assert_eq!(clone.snapshot().lsn(), lsn);
    check(&clone.snapshot(), &world.truth).await;
    assert_eq!(clone.attachment_homes(), [target.clone(), app()]);
    let seen = clone.examine(true).await.unwrap();
    assert_eq!(seen.findings, []);

    // It writes everything anew, and the origin is as it was.
    let clones = clone.writer().await.unwrap();
    clones.compact(&c, Extent::Full).await.unwrap();
    clock.advance(10_000_000);
    clones.collect_garbage().await.unwrap();
    check(&clone.snapshot(), &world.truth).await;
    check(&open().await.snapshot(), &world.truth).await;
    check(&store.snapshot(), &world.truth).await;
    let clone_of_clone = AppId::new("copy-2").unwrap();
    clone.clone_as(&clone_of_clone, &clone.snapshot()).await.unwrap();
    let (objects, log) = (Arc::clone(&world.objects), Arc::new(world.log.clone()));
    let second = DocumentStore::open(clone_of_clone, objects, log, world.settings.clone()).await.unwrap();
    check(&second.snapshot(), &world.truth).await;
}

#[tokio::test]
async fn a_clone_whose_making_fails_anywhere_is_given_up() {
    let faulty = Faulty::new();
    let mut scene = Scene::of(World::on(Arc::clone(&faulty) as _)).await;
    let (mut n, mut broken) = (0, 0);
    loop {
        faulty.fail_at(n, Mode::ForEver);
        let cloned = scene.store.clone_as(&named(n), &scene.store.snapshot()).await;
        faulty.heal();
        // Nobody tells the catalogue: the process has died, then at the latest.
        scene.move_on().await;
        assert_eq!(scene.kept().await, (0, 0), "after operation {n}");
        if cloned.is_ok() {
            break;
        }
        (n, broken) = (n + 1, broken + 1);
    }
    assert!(broken > 5, "{broken}");
}

#[tokio::test]
async fn a_clone_whose_making_is_dropped_anywhere_is_given_up() {
    let objects = Stepped::new();
    let mut scene = Scene::of(World::on(Arc::clone(&objects) as _)).await;
    let mut n = 0;
    loop {
        let (reached, _go_on) = objects.stop_before(n);
        let (target, snapshot) = (named(n), scene.store.snapshot());
        let done = tokio::select! {
            biased;
            cloned = scene.store.clone_as(&target, &snapshot) => {
                cloned.unwrap();
                true
            }
            stopped = reached => {
                stopped.unwrap();
                false
            }
        };
        objects.pass_all();
        drop(snapshot);
        scene.move_on().await;
        assert_eq!(scene.kept().await, (0, 0), "dropped before operation {n}");
        if done {
            assert!(n > 5, "{n}");
            return;
        }
        n += 1;
    }
}

#[tokio::test]
async fn files_are_kept_for_a_clone_for_as_long_as_it_is_there() {
    let mut scene = Scene::of(World::new()).await;
    let (first, second) = (named(1), named(2));
    let lsn = scene.store.clone_as(&first, &scene.store.snapshot()).await.unwrap().lsn;
    // While it is being made nobody asks for it.
    scene.clock.advance(DAY_MS / 2);
    scene.writer.collect_garbage().await.unwrap();
    scene.known.add(&first);
    let clone = scene.open(&first).await;
    clone.clone_as(&second, &clone.snapshot()).await.unwrap();
    scene.known.add(&second);
    scene.move_on().await;
    assert!(matches!(scene.kept().await, (1, 1..)));
    assert_eq!(scene.store.examine(true).await.unwrap().findings, []);
    for copy in [&first, &second] {
        let store = scene.open(copy).await;
        assert_eq!(store.snapshot().lsn(), lsn);
        check(&store.snapshot(), &scene.world.truth).await;
    }

    // The one in the middle is deleted: its own clone still reads what was the origin's.
    scene.known.remove(&first);
    scene.move_on().await;
    assert!(matches!(scene.kept().await, (1, 1..)));
    check(&scene.open(&second).await.snapshot(), &scene.world.truth).await;
    let found = scene.store.examine(false).await.unwrap().findings;
    let told = matches!(found.as_slice(), [one] if one.kind == FindingKind::Extra && one.what.contains("clone-copy-1"));
    assert!(told, "{found:?}");

    scene.known.remove(&second);
    scene.move_on().await;
    assert_eq!(scene.kept().await, (0, 0));
    assert_eq!(scene.store.examine(false).await.unwrap().findings, []);
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_kept() {
    /// Does not answer.
    #[derive(Debug)]
    struct Silent;
    #[async_trait]
    impl Apps for Silent {
        async fn is_there(&self, _: &AppId) -> Result<bool, String> {
            Err("no answer".to_owned())
        }
        async fn give_up(&self, _: &AppId) -> Result<bool, String> {
            Err("no answer".to_owned())
        }
    }
    let mut world = World::new();
    let clock = settle(&mut world);
    world.settings.apps = Some(Arc::new(Silent));
    let store = world.open().await;
    let writer = store.writer().await.unwrap();
    put_ten(&mut world, 0).await;
    flush(&world, &store, &writer).await;
    store.clone_as(&named(1), &store.snapshot()).await.unwrap();
    clock.advance(10 * DAY_MS);
    writer.collect_garbage().await.unwrap();
    let pins: Vec<_> = world.objects.list(Some(&paths::pins(&app()))).try_collect().await.unwrap();
    assert_eq!(pins.len(), 1);
}
