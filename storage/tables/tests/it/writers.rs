//! Two writers of one app: the later one wins, the earlier one learns it, nothing is lost.

use bigpeer_crdt::Value;
use bigpeer_tables::{Extent, TablesError, TablesSettings};
use object_store::memory::InMemory;

use crate::model::{World, check, collection, object};

async fn world(documents: i64) -> World {
    let mut world = World::new();
    for n in 0..documents {
        world.put(&collection("c"), n, object([("n", Value::Int(n))])).await;
    }
    world
}

#[tokio::test]
async fn a_later_writer_fences_an_earlier_one() {
    let mut world = world(10).await;
    let first = world.caught_up().await;
    let old = first.writer().await.unwrap();
    old.flush().await.unwrap();

    let second = world.caught_up().await;
    let new = second.writer().await.unwrap();
    assert!(new.epoch() > old.epoch());
    world.put(&collection("c"), 100, object([("n", Value::Int(100))])).await;
    for store in [&first, &second] {
        store.wait_for(world.truth.last()).await.unwrap();
    }
    new.flush().await.unwrap();

    world.put(&collection("c"), 101, object([("n", Value::Int(101))])).await;
    first.wait_for(world.truth.last()).await.unwrap();
    let error = old.flush().await.unwrap_err();
    assert!(matches!(error, TablesError::Fenced { .. }), "{error}");
    assert!(!error.is_retryable());
    check(&first.snapshot(), &world.truth).await;
    second.wait_for(world.truth.last()).await.unwrap();
    new.flush().await.unwrap();
    check(&second.snapshot(), &world.truth).await;
    check(&world.caught_up().await.snapshot(), &world.truth).await;
}

#[tokio::test]
async fn a_writer_that_overtakes_takes_up_what_the_other_committed_first() {
    let mut world = world(10).await;
    let first = world.caught_up().await;
    let second = world.caught_up().await;
    let old = first.writer().await.unwrap();
    old.flush().await.unwrap();
    let new = second.writer().await.unwrap();
    world.put(&collection("c"), 3, object([("n", Value::Int(33))])).await;
    for store in [&first, &second] {
        store.wait_for(world.truth.last()).await.unwrap();
    }
    // The old one does not know yet that it was replaced, and is not harmful.
    old.flush().await.unwrap();
    world.put(&collection("c"), 4, object([("n", Value::Int(44))])).await;
    second.wait_for(world.truth.last()).await.unwrap();
    let flushed = new.flush().await.unwrap().unwrap();
    assert_eq!(flushed.documents, 1, "what the other flushed is not flushed again");
    check(&second.snapshot(), &world.truth).await;
    assert!(matches!(old.flush().await, Ok(None) | Err(TablesError::Fenced { .. })));
    assert!(matches!(old.compact(&collection("c"), Extent::Full).await, Err(TablesError::Fenced { .. })));
    check(&world.caught_up().await.snapshot(), &world.truth).await;
}

#[tokio::test]
async fn of_two_writers_of_one_epoch_one_stops() {
    let mut world = world(10).await;
    world.settings.ids = std::sync::Arc::new(bigpeer_types::RandomIds);
    let (first, second) = (world.caught_up().await, world.caught_up().await);
    let (a, b) = (first.writer().await.unwrap(), second.writer().await.unwrap());
    assert_eq!(a.epoch(), b.epoch());
    let (a, b) = tokio::join!(a.flush(), b.flush());
    assert_eq!([a.is_ok(), b.is_ok()].iter().filter(|ok| **ok).count(), 1, "{a:?} {b:?}");
    check(&world.caught_up().await.snapshot(), &world.truth).await;
}

#[tokio::test]
async fn a_writer_that_slept_through_many_manifests_cannot_revive_a_deleted_number() {
    let mut world = world(5).await;
    world.settings.keep_manifests = 1;
    let first = world.caught_up().await;
    let sleeper = first.writer().await.unwrap();
    let second = world.caught_up().await;
    let writer = second.writer().await.unwrap();
    for n in 0..4 {
        world.put(&collection("c"), n, object([("n", Value::Int(n * 10))])).await;
        second.wait_for(world.truth.last()).await.unwrap();
        writer.flush().await.unwrap();
    }
    writer.collect_garbage().await.unwrap();
    let error = sleeper.flush().await.unwrap_err();
    assert!(matches!(error, TablesError::Fenced { .. }), "{error}");
    let reopened = world.caught_up().await;
    assert!(reopened.manifest_number() >= 4);
    check(&reopened.snapshot(), &world.truth).await;
}

#[tokio::test]
async fn a_reader_in_another_process_follows_manifests_when_the_log_is_trimmed() {
    use bigpeer_log::TransactionLog as _;
    let world = world(20).await;
    let reader = world.caught_up().await;
    let owner = world.caught_up().await;
    let writer = owner.writer().await.unwrap();
    writer.flush().await.unwrap();
    assert!(reader.refresh().await.unwrap());
    assert!(!reader.refresh().await.unwrap());
    assert_eq!((reader.overlay_bytes(), reader.flushed()), (0, owner.flushed()));
    check(&reader.snapshot(), &world.truth).await;

    // A reader that starts from an old manifest while the log is cut under it finds the new manifest by itself.
    world.log.trim(&crate::model::app(), owner.flushed()).await.unwrap();
    let late = world.caught_up().await;
    check(&late.snapshot(), &world.truth).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_a_quiet_app_takes_up_the_manifests_of_other_processes_before_theirs_are_gone() {
    let mut world = World::on(std::sync::Arc::new(InMemory::new()));
    world.settings.keep_for = TablesSettings::default().keep_for;
    for n in 0..20 {
        world.put(&collection("c"), n, object([("n", Value::Int(n))])).await;
    }
    let (reader, owner) = (world.caught_up().await, world.caught_up().await);
    let writer = owner.writer().await.unwrap();
    writer.flush().await.unwrap();
    assert_ne!(reader.flushed(), owner.flushed());
    // Nothing is written, and nothing is trimmed.
    tokio::time::sleep(world.settings.keep_for / 2).await;
    assert_eq!(reader.flushed(), owner.flushed());
}
