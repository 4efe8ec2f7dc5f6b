//! Attachments that are stored while others are collected: at every point of the one, all of the other happens.

use std::sync::Arc;

use bigpeer_crdt::Attachment;
use bigpeer_tables::paths::{self, ObjectPath};
use bigpeer_tables::{Attachments, DocumentStore, Writer};
use bigpeer_types::ManualClock;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore as _, ObjectStoreExt};

use crate::model::{Edit, World, app, collection, id};
use crate::stepped::Stepped;

/// More operations than there are.
const MOST: usize = 100;

/// An app with one attachment that nobody holds, and that was marked as garbage long ago.
struct Scene {
    world: World,
    clock: Arc<ManualClock>,
    objects: Arc<Stepped>,
    attachments: Attachments,
    store: Arc<DocumentStore>,
    writer: Writer,
}

fn blob() -> Attachment {
    Attachment { sha256: [7; 32], length: 4, metadata: bigpeer_crdt::Object::new() }
}

/// What a client does: the blob first, then the document that holds it.
async fn attach(attachments: &Attachments, world: &mut World) {
    attachments.put(blob().sha256, Bytes::from_static(b"blob")).await.unwrap();
    world.write(&[(&collection("c"), id(1), Edit::Attach("photo", blob()))]).await;
}

impl Scene {
    async fn new() -> Self {
        let objects = Stepped::new();
        let mut world = World::on(Arc::clone(&objects) as _);
        // A century after the objects.
        let clock = Arc::new(ManualClock::new(4_900_000_000_000));
        world.settings.clock = Arc::clone(&clock) as _;
        let attachments = Attachments::new(app(), Arc::clone(&objects) as _);
        attachments.put(blob().sha256, Bytes::from_static(b"blob")).await.unwrap();
        world.write(&[(&collection("c"), id(1), Edit::Insert(bigpeer_crdt::Object::new()))]).await;
        let store = world.caught_up().await;
        let writer = store.writer().await.unwrap();
        assert_eq!(writer.collect_attachments().await.unwrap(), 0, "marked");
        clock.advance(3_601_000);
        Self { world, clock, objects, attachments, store, writer }
    }

    async fn check(&self, when: &str) {
        // However often it is looked for garbage from now on.
        for round in 0..4 {
            let found = self.attachments.find(blob().sha256).await.unwrap();
            let found = found.unwrap_or_else(|| panic!("{when}: the blob is gone in round {round}"));
            let bytes = self.objects.get(&found.location).await.unwrap().bytes().await.unwrap();
            assert_eq!(bytes, "blob", "{when}");
            self.writer.collect_attachments().await.unwrap();
            self.clock.advance(3_601_000);
        }
    }
}

#[tokio::test]
async fn a_blob_that_is_stored_again_at_any_point_of_a_collection_stays() {
    for n in 0..MOST {
        let mut scene = Scene::new().await;
        let Scene { world, objects, attachments, writer, .. } = &mut scene;
        let (reached, go_on) = objects.stop_before(n);
        let collect = async {
            writer.collect_attachments().await.unwrap();
            objects.pass_all();
        };
        let attach = async {
            let stopped = reached.await.is_ok();
            attach(attachments, world).await;
            // Nobody waits for it when all was collected already.
            let _ = go_on.send(());
            stopped
        };
        let ((), stopped) = tokio::join!(collect, attach);
        scene.check(&format!("stored before operation {n} of the collection")).await;
        if !stopped {
            assert!(n > 5, "a collection has more operations than {n}");
            return;
        }
    }
    panic!("a collection does not end");
}

#[tokio::test]
async fn a_blob_that_is_stored_around_a_whole_collection_stays() {
    for n in 0..MOST {
        let mut scene = Scene::new().await;
        let Scene { world, objects, attachments, writer, .. } = &mut scene;
        let (reached, go_on) = objects.stop_before(n);
        let attach = async {
            attach(attachments, world).await;
            objects.pass_all();
        };
        let collect = async {
            let stopped = reached.await.is_ok();
            writer.collect_attachments().await.unwrap();
            let _ = go_on.send(());
            stopped
        };
        let ((), stopped) = tokio::join!(attach, collect);
        scene.check(&format!("collected before operation {n} of storing")).await;
        if !stopped {
            assert!(n > 2, "storing has more operations than {n}");
            return;
        }
    }
    panic!("storing does not end");
}

#[tokio::test]
async fn a_collector_that_sleeps_at_any_point_does_no_harm_when_it_wakes_up() {
    for n in 0..MOST {
        let mut scene = Scene::new().await;
        let other = scene.store.writer().await.unwrap();
        let Scene { world, objects, attachments, writer, .. } = &mut scene;
        let (reached, go_on) = objects.stop_before(n);
        let sleeper = async {
            writer.collect_attachments().await.unwrap();
            objects.pass_all();
        };
        let meanwhile = async {
            let stopped = reached.await.is_ok();
            // Another one does all of it, and what was deleted is stored anew.
            other.collect_attachments().await.unwrap();
            attach(attachments, world).await;
            let _ = go_on.send(());
            stopped
        };
        let ((), stopped) = tokio::join!(sleeper, meanwhile);
        scene.check(&format!("asleep before operation {n}")).await;
        if !stopped {
            assert!(n > 5, "a collection has more operations than {n}");
            return;
        }
    }
    panic!("a collection does not end");
}

#[tokio::test]
async fn blobs_that_were_deleted_and_come_back_are_collected_again() {
    let mut scene = Scene::new().await;
    for generation in 1..4 {
        assert_eq!(scene.writer.collect_attachments().await.unwrap(), 1);
        assert_eq!(scene.attachments.find(blob().sha256).await.unwrap(), None);
        attach(&scene.attachments, &mut scene.world).await;
        let found = scene.attachments.find(blob().sha256).await.unwrap().unwrap();
        assert_eq!(found.location, ObjectPath::Attachment(app(), blob().sha256, generation).to_path());
        // Every time somebody stores it, it is one object.
        scene.attachments.put(blob().sha256, Bytes::from_static(b"blob")).await.unwrap();
        let listed: Vec<_> = scene.objects.list(Some(&paths::attachments(&app()))).try_collect().await.unwrap();
        assert_eq!(listed.len(), 1);
        scene.world.write(&[(&collection("c"), id(1), Edit::Purge)]).await;
        scene.store.wait_for(scene.world.truth.last()).await.unwrap();
        assert_eq!(scene.writer.collect_attachments().await.unwrap(), 0, "marked");
        scene.clock.advance(3_601_000);
    }
}

#[tokio::test]
async fn what_is_found_below_a_prefix_can_be_read() {
    // As in a bucket that is shared with others.
    let inner = object_store::memory::InMemory::new();
    let objects: Arc<dyn object_store::ObjectStore> =
        Arc::new(object_store::prefix::PrefixStore::new(inner, "somebody/here"));
    let attachments = Attachments::new(app(), Arc::clone(&objects));
    attachments.put(blob().sha256, Bytes::from_static(b"blob")).await.unwrap();
    let found = attachments.find(blob().sha256).await.unwrap().unwrap();
    assert_eq!(objects.get(&found.location).await.unwrap().bytes().await.unwrap(), "blob");
}
