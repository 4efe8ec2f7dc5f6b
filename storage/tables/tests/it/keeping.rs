//! What is kept and what goes: deletions after their time, attachments that nothing refers to, and what an examination says
//! of it all.

use std::sync::Arc;
use std::time::Duration;

use bigpeer_crdt::{Attachment, Value};
use bigpeer_log::TransactionLog as _;
use bigpeer_tables::paths::{ObjectPath, PinName};
use bigpeer_tables::{DocumentStore, Extent, FindingKind, Scan, TablesError, Writer};
use bigpeer_types::{AppId, Lsn, ManualClock};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;

use crate::faults::Faulty;
use crate::model::{Edit, World, app, check, collection, id, object, scanned};

/// A world whose time is in the test's hands, a century after the machine's, as object stores have clocks of their own.
fn world() -> (World, Arc<ManualClock>) {
    let mut world = World::new();
    let clock = Arc::new(ManualClock::new(4_900_000_000_000));
    world.settings.clock = Arc::clone(&clock) as _;
    world.settings.keep_manifests = 1;
    (world, clock)
}

pub(crate) async fn flush(world: &World, store: &DocumentStore, writer: &Writer) {
    store.wait_for(world.truth.last()).await.unwrap();
    writer.flush().await.unwrap();
}

pub(crate) async fn put_ten(world: &mut World, from: i64) {
    for n in from..from + 10 {
        world.put(&collection("c"), n, object([("n", Value::Int(n)), ("text", Value::from("some text"))])).await;
    }
}

#[tokio::test]
async fn deletions_lie_apart_and_are_forgotten_after_their_time() {
    let (mut world, clock) = world();
    world.settings.keep_tombstones = Duration::from_secs(1000);
    let c = collection("c");
    let store = world.open().await;
    let writer = store.writer().await.unwrap();
    put_ten(&mut world, 0).await;
    world.write(&[(&c, id(1), Edit::Delete), (&c, id(2), Edit::Delete)]).await;
    flush(&world, &store, &writer).await;
    writer.compact(&c, Extent::Full).await.unwrap();
    let table = store.snapshot().table(&c).await.unwrap();
    let mut rows: Vec<(u64, u64)> = table.segments.iter().map(|part| (part.rows, part.excluded.len())).collect();
    rows.sort_unstable();
    assert_eq!(rows, [(2, 2), (8, 0)], "documents and deletions have files of their own");
    let early = world.truth.last();

    // A deleted document comes back, a later one goes: the first deletion is of no account any more.
    world.put(&c, 2, object([("n", Value::Int(22))])).await;
    world.write(&[(&c, id(3), Edit::Delete)]).await;
    clock.advance(800_000);
    flush(&world, &store, &writer).await;
    writer.compact(&c, Extent::Full).await.unwrap();
    let debt = writer.debts().remove(0);
    assert_eq!((debt.new_segments, debt.superseded), (0, 0), "{debt:?}");
    check(&store.snapshot(), &world.truth).await;
    assert_eq!(writer.forget_deletions().await.unwrap(), 0);
    assert_eq!(store.snapshot().forgotten(&c), Lsn::ZERO);

    // The first one's time is over, the second's is not: one goes when its file is written anew.
    clock.advance(300_000);
    world.write(&[(&c, id(4), Edit::Delete)]).await;
    flush(&world, &store, &writer).await;
    writer.compact(&c, Extent::Full).await.unwrap();
    let deleted = |documents: crate::model::Documents| {
        let gone = documents.into_iter().filter(|(_, (_, document))| !document.is_visible());
        gone.map(|(id, _)| id).collect::<Vec<_>>()
    };
    let all = Scan { deleted: true, ..Scan::default() };
    let snapshot = store.snapshot();
    assert_eq!(deleted(scanned(&snapshot, &c, all.clone()).await), [id(3), id(4)]);
    assert_eq!(snapshot.forgotten(&c), early);

    // And all go when there is nothing to write anew.
    clock.advance(2_000_000);
    assert_eq!(writer.forget_deletions().await.unwrap(), 1);
    let snapshot = store.snapshot();
    assert_eq!(snapshot.forgotten(&c), world.truth.last());
    let now = scanned(&snapshot, &c, all).await;
    assert_eq!((now.len(), deleted(now)), (7, vec![]));
    let reopened = world.caught_up().await;
    assert_eq!(reopened.snapshot().forgotten(&c), world.truth.last());
    assert_eq!(scanned(&reopened.snapshot(), &c, Scan::default()).await.len(), 7);
}

#[tokio::test]
async fn documents_that_have_not_changed_for_long_are_found() {
    let (mut world, _) = world();
    let c = collection("c");
    let store = world.open().await;
    let writer = store.writer().await.unwrap();
    put_ten(&mut world, 0).await;
    flush(&world, &store, &writer).await;
    let then = world.truth.last();
    put_ten(&mut world, 10).await;
    flush(&world, &store, &writer).await;
    world.write(&[(&c, id(3), Edit::Set("n", Value::Int(33))), (&c, id(4), Edit::Delete)]).await;
    store.wait_for(world.truth.last()).await.unwrap();
    let scan = Scan { unchanged_since: Some(then), ..Scan::default() };
    let found: Vec<_> = scanned(&store.snapshot(), &c, scan).await.into_keys().collect();
    let expected: Vec<_> = [0, 1, 2, 5, 6, 7, 8, 9].map(id).into();
    assert_eq!(found, expected);
}

fn blob(n: u8) -> Attachment {
    Attachment { sha256: [n; 32], length: 4, metadata: bigpeer_crdt::Object::new() }
}

async fn attachments(world: &World) -> Vec<u8> {
    let listed: Vec<_> =
        world.objects.list(Some(&bigpeer_tables::paths::attachments(&app()))).try_collect().await.unwrap();
    let mut out: Vec<u8> = listed
        .iter()
        .filter_map(|object| match ObjectPath::parse(&object.location) {
            Some(ObjectPath::Attachment(_, sha256, _)) => Some(sha256[0]),
            _ => None,
        })
        .collect();
    out.sort_unstable();
    out
}

async fn upload(world: &World, n: u8) {
    world.objects.put(&ObjectPath::Attachment(app(), [n; 32], 0).to_path(), "blob".into()).await.unwrap();
}

#[tokio::test]
async fn attachments_go_when_nothing_refers_to_them_and_not_before() {
    let (mut world, clock) = world();
    let c = collection("c");
    for n in 1..=6 {
        upload(&world, n).await;
    }
    let store = world.open().await;
    let writer = store.writer().await.unwrap();
    let attach = |n| Edit::Attach("photo", blob(n));
    world.write(&[(&c, id(1), attach(1)), (&c, id(2), attach(2)), (&c, id(3), attach(3))]).await;
    world.write(&[(&c, id(2), Edit::Delete)]).await;
    flush(&world, &store, &writer).await;
    store.pin(PinName::new("backup").unwrap(), Duration::from_secs(1_000_000)).await.unwrap();
    // Only the pin knows of the third now.
    world.write(&[(&c, id(3), attach(4))]).await;
    store.wait_for(world.truth.last()).await.unwrap();
    assert_eq!(writer.collect_attachments().await.unwrap(), 0, "marked");
    assert_eq!(writer.collect_attachments().await.unwrap(), 0, "and not deleted at once");
    // One that was marked gets a document, another is uploaded again.
    world.write(&[(&c, id(5), attach(5))]).await;
    clock.advance(3_601_000);
    assert_eq!(writer.collect_attachments().await.unwrap(), 1);
    assert_eq!(attachments(&world).await, [1, 2, 3, 4, 5], "the sixth had nobody");
    store.unpin(&PinName::new("backup").unwrap()).await.unwrap();
    for _ in 0..2 {
        writer.collect_attachments().await.unwrap();
        clock.advance(3_601_000);
    }
    assert_eq!(attachments(&world).await, [1, 2, 4, 5]);
    // A purge takes the content of what was deleted, too.
    world.write(&[(&c, id(2), Edit::Purge), (&c, id(1), Edit::Purge)]).await;
    store.wait_for(world.truth.last()).await.unwrap();
    writer.collect_attachments().await.unwrap();
    clock.advance(3_601_000);
    assert_eq!(writer.collect_attachments().await.unwrap(), 2);
    assert_eq!(attachments(&world).await, [4, 5]);
    check(&store.snapshot(), &world.truth).await;
}

#[tokio::test]
async fn an_attachment_that_gets_a_document_while_it_is_looked_for_elsewhere_stays() {
    let (mut world, clock) = world();
    let faulty = Faulty::new();
    world.objects = Arc::clone(&faulty) as _;
    let c = collection("c");
    for n in 1..=2 {
        upload(&world, n).await;
    }
    put_ten(&mut world, 0).await;
    let store = world.caught_up().await;
    let writer = store.writer().await.unwrap();
    assert_eq!(writer.collect_attachments().await.unwrap(), 0, "marked");
    clock.advance(3_601_000);
    // The documents were looked at when the pins are.
    let (reached, go_on) = faulty.stop_at_list(bigpeer_tables::paths::pins(&app()));
    let write = async {
        reached.await.unwrap();
        world.write(&[(&c, id(1), Edit::Attach("photo", blob(1)))]).await;
        go_on.send(()).unwrap();
    };
    let (deleted, ()) = tokio::join!(writer.collect_attachments(), write);
    assert_eq!((deleted.unwrap(), attachments(&world).await), (1, vec![1]));
}

#[tokio::test]
async fn a_young_attachment_waits_for_its_document() {
    let (mut world, clock) = world();
    // Younger than the machine's time by this clock.
    world.settings.attachment_age = Duration::from_secs(400 * 365 * 86_400);
    put_ten(&mut world, 0).await;
    upload(&world, 1).await;
    let store = world.caught_up().await;
    let writer = store.writer().await.unwrap();
    for _ in 0..3 {
        assert_eq!(writer.collect_attachments().await.unwrap(), 0);
        clock.advance(86_400_000);
    }
    assert_eq!(attachments(&world).await, [1]);
}

#[tokio::test]
async fn a_backup_is_verified_and_becomes_an_app_after_its_manifest_has_gone() {
    let (mut world, clock) = world();
    let c = collection("c");
    let store = world.open().await;
    let writer = store.writer().await.unwrap();
    put_ten(&mut world, 0).await;
    flush(&world, &store, &writer).await;
    let name = PinName::new("monday").unwrap();
    let (_, lsn) = store.pin(name.clone(), Duration::from_secs(86_400)).await.unwrap();
    put_ten(&mut world, 3).await;
    flush(&world, &store, &writer).await;
    writer.compact(&c, Extent::Full).await.unwrap();
    clock.advance(20_000_000);
    writer.collect_garbage().await.unwrap();
    assert!(matches!(store.at(lsn).await, Err(TablesError::Forgotten { .. }) | Ok(_)));
    let seen = store.examine_pin(&name).await.unwrap();
    assert_eq!((seen.lsn, seen.documents, seen.findings), (lsn, 10, vec![]));
    let target = AppId::new("restored").unwrap();
    let snapshot = store.at_pin(&name).await.unwrap();
    store.clone_as(&target, &snapshot).await.unwrap();
    store.unpin(&name).await.unwrap();
    drop(snapshot);
    clock.advance(20_000_000);
    writer.collect_garbage().await.unwrap();
    let (objects, log) = (Arc::clone(&world.objects), Arc::new(world.log.clone()));
    let restored = DocumentStore::open(target, objects, log, world.settings.clone()).await.unwrap();
    assert_eq!(restored.snapshot().lsn(), lsn);
    check(&restored.snapshot(), &world.truth).await;
}

#[tokio::test]
async fn an_examination_finds_what_is_missing_extra_or_damaged() {
    let (mut world, clock) = world();
    let c = collection("c");
    let store = world.open().await;
    let writer = store.writer().await.unwrap();
    upload(&world, 1).await;
    put_ten(&mut world, 0).await;
    flush(&world, &store, &writer).await;
    put_ten(&mut world, 10).await;
    flush(&world, &store, &writer).await;
    put_ten(&mut world, 20).await;
    store.wait_for(world.truth.last()).await.unwrap();
    let seen = store.examine(true).await.unwrap();
    assert_eq!((seen.findings, seen.documents, seen.attachments), (vec![], 30, 0));

    let paths: Vec<_> = store.snapshot().table(&c).await.unwrap().segments.into_iter().map(|part| part.path).collect();
    let whole = world.objects.get(&paths[0]).await.unwrap().bytes().await.unwrap();
    let mut bad = whole.to_vec();
    let middle = bad.len() / 3;
    bad[middle] ^= 1;
    world.objects.put(&paths[0], bad.into()).await.unwrap();
    let stranger = object_store::path::Path::from("apps/app/what-is-this");
    world.objects.put(&stranger, "?".into()).await.unwrap();
    // In a collection that can be read to its end.
    let d = collection("d");
    world.write(&[(&d, id(1), Edit::Attach("photo", blob(1))), (&d, id(2), Edit::Attach("photo", blob(2)))]).await;
    store.wait_for(world.truth.last()).await.unwrap();
    let seen = store.examine(true).await.unwrap();
    let mut found: Vec<_> = seen.findings.iter().map(|found| (found.kind, found.what.clone())).collect();
    let attachment = |n: u8| ObjectPath::Attachment(app(), [n; 32], 0).to_path().to_string();
    for expected in [
        (FindingKind::Damaged, paths[0].to_string()),
        (FindingKind::Extra, stranger.to_string()),
        (FindingKind::Damaged, attachment(1)),
        (FindingKind::Missing, attachment(2)),
    ] {
        assert!(found.contains(&expected), "{expected:?} is not among {found:?}");
        found.retain(|found| *found != expected);
    }
    // The row that cannot be decoded any more, or the page, if the damage met one.
    assert!(found.iter().all(|(kind, _)| *kind == FindingKind::Damaged), "{found:?}");

    world.objects.put(&paths[0], whole.into()).await.unwrap();
    world.objects.delete(&stranger).await.unwrap();
    world.objects.delete(&paths[1]).await.unwrap();
    let seen = store.examine(false).await.unwrap();
    let found: Vec<_> = seen.findings.iter().map(|found| (found.kind, found.what.clone())).collect();
    assert_eq!(found, [(FindingKind::Missing, paths[1].to_string())]);

    // A log that was cut in front of its end.
    world.log.trim(&app(), Lsn::MAX).await.unwrap();
    let seen = store.examine(false).await.unwrap();
    assert!(seen.findings.iter().any(|found| found.what == "the transaction log"), "{seen:?}");
    clock.advance(1);
}
