//! Reads of the past, and pins: what is kept, for how long, and what is said when it is not.

use std::sync::Arc;
use std::time::Duration;

use bigpeer_crdt::Value;
use bigpeer_log::TransactionLog as _;
use bigpeer_tables::paths::PinName;
use bigpeer_tables::{Extent, TablesError};
use bigpeer_types::{Lsn, ManualClock};

use crate::model::{Edit, World, app, check, collection, id, object};

fn name(text: &str) -> PinName {
    PinName::new(text).unwrap()
}

/// A world whose clock is in the test's hands, with a manifest after each ten documents and some more in the overlay.
async fn world() -> (World, Arc<ManualClock>) {
    let mut world = World::new();
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    world.settings.clock = Arc::clone(&clock) as _;
    world.settings.keep_manifests = 1;
    world.settings.keep_for = Duration::from_secs(60);
    world.settings.orphan_age = Duration::ZERO;
    (world, clock)
}

async fn ten(world: &mut World, from: i64) {
    for n in from..from + 10 {
        world.put(&collection("c"), n % 15, object([("n", Value::Int(n))])).await;
    }
}

#[tokio::test]
async fn every_moment_that_the_log_reaches_from_a_manifest_can_be_read() {
    let (mut world, clock) = world().await;
    let store = world.open().await;
    let writer = store.writer().await.unwrap();
    for round in 0..3 {
        ten(&mut world, round * 10).await;
        store.wait_for(world.truth.last()).await.unwrap();
        if round < 2 {
            writer.flush().await.unwrap();
            clock.advance(1_000);
        }
    }
    for (lsn, _) in world.truth.history.clone() {
        let past = store.at(lsn).await.unwrap();
        assert_eq!(past.lsn(), lsn);
        check(&past, &world.truth).await;
    }
    // What is kept of the log begins at the second manifest: between manifests nothing before it is known.
    let flushed = store.flushed();
    world.log.trim(&app(), flushed).await.unwrap();
    let mut known = Vec::new();
    for (lsn, _) in world.truth.history.clone() {
        match store.at(lsn).await {
            Ok(past) => {
                check(&past, &world.truth).await;
                known.push(lsn);
            }
            Err(error) => assert!(matches!(error, TablesError::Forgotten { lsn: asked } if asked == lsn), "{error}"),
        }
    }
    let at = |n: usize| world.truth.history[n].0;
    let expected: Vec<Lsn> = [9].into_iter().chain(19..30).map(at).collect();
    assert_eq!(known, expected, "both manifests, and everything from the second on");
}

#[tokio::test]
async fn manifests_are_kept_for_a_time_after_they_were_replaced() {
    let (mut world, clock) = world().await;
    let store = world.open().await;
    let writer = store.writer().await.unwrap();
    ten(&mut world, 0).await;
    store.wait_for(world.truth.last()).await.unwrap();
    writer.flush().await.unwrap();
    let first = world.truth.last();
    clock.advance(3_600_000);
    ten(&mut world, 10).await;
    store.wait_for(world.truth.last()).await.unwrap();
    writer.flush().await.unwrap();
    writer.compact(&collection("c"), Extent::Full).await.unwrap();
    world.log.trim(&app(), store.flushed()).await.unwrap();
    // It was the newest one until a moment ago, however old it is.
    clock.advance(59_000);
    writer.collect_garbage().await.unwrap();
    check(&store.at(first).await.unwrap(), &world.truth).await;
    clock.advance(2_000);
    assert!(writer.collect_garbage().await.unwrap() >= 1);
    assert!(matches!(store.at(first).await, Err(TablesError::Forgotten { .. })));
    check(&store.snapshot(), &world.truth).await;
}

#[tokio::test]
async fn a_pin_keeps_its_state_from_every_collector_until_its_time_is_over() {
    let (mut world, clock) = world().await;
    let c = collection("c");
    let store = world.open().await;
    let none = store.pin(name("early"), Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(none, TablesError::Forgotten { .. }), "nothing was flushed: {none}");
    let writer = store.writer().await.unwrap();
    ten(&mut world, 0).await;
    store.wait_for(world.truth.last()).await.unwrap();
    writer.flush().await.unwrap();
    let (pin, lsn) = store.pin(name("backup-1"), Duration::from_secs(86_400)).await.unwrap();
    assert_eq!((lsn, store.pins().await.unwrap()), (world.truth.last(), vec![pin.clone()]));

    for n in 0..15 {
        world.write(&[(&c, id(n), Edit::Set("n", Value::Int(-n)))]).await;
    }
    store.wait_for(world.truth.last()).await.unwrap();
    writer.flush().await.unwrap();
    writer.compact(&c, Extent::Full).await.unwrap();
    clock.advance(3_600_000);
    // The collector is another process than the one that pinned, and knows of the pin from object storage alone.
    store.shutdown().await;
    drop((store, writer));
    world.log.trim(&app(), Lsn::MAX).await.unwrap();
    let other = world.open().await;
    let writer = other.writer().await.unwrap();
    ten(&mut world, 100).await;
    other.wait_for(world.truth.last()).await.unwrap();
    writer.flush().await.unwrap();
    writer.compact(&c, Extent::Full).await.unwrap();
    clock.advance(3_600_000);
    assert!(writer.collect_garbage().await.unwrap() > 0);
    let past = other.at_pin(&name("backup-1")).await.unwrap();
    assert_eq!(past.lsn(), lsn);
    check(&past, &world.truth).await;
    let error = other.at_pin(&name("backup-2")).await.unwrap_err();
    assert!(matches!(&error, TablesError::NoPin { name } if name == "backup-2"), "{error}");
    drop(past);

    clock.advance(86_400_000);
    assert!(other.pins().await.unwrap().is_empty());
    assert!(writer.collect_garbage().await.unwrap() >= 2, "the pin and its file");
    assert!(other.at_pin(&name("backup-1")).await.is_err());
    let (_, lsn) = other.pin(name("short"), Duration::from_secs(60)).await.unwrap();
    assert_eq!(lsn, other.flushed());
    other.unpin(&name("short")).await.unwrap();
    other.unpin(&name("short")).await.unwrap();
    assert!(other.pins().await.unwrap().is_empty());
    check(&other.snapshot(), &world.truth).await;
}

#[tokio::test]
async fn what_a_reader_of_the_past_needs_is_kept_and_no_more() {
    let (mut world, clock) = world().await;
    let store = world.open().await;
    let writer = store.writer().await.unwrap();
    let mut flushed = Vec::new();
    for round in 0..4 {
        ten(&mut world, round * 10).await;
        store.wait_for(world.truth.last()).await.unwrap();
        writer.flush().await.unwrap();
        flushed.push(store.flushed());
        clock.advance(1_000);
    }
    // Somewhere between the second and the third manifest; the log reaches back to the second.
    let needed = world.truth.history[24].0;
    assert!(flushed[1] < needed && needed < flushed[2]);
    world.log.trim(&app(), flushed[1]).await.unwrap();
    clock.advance(3_600_000);
    store.keep_from(Some(needed));
    assert!(writer.collect_garbage().await.unwrap() > 0, "the first manifest is not needed");
    for (lsn, _) in world.truth.history.clone().into_iter().filter(|(lsn, _)| *lsn >= needed) {
        check(&store.at(lsn).await.unwrap(), &world.truth).await;
    }
    store.keep_from(None);
    writer.collect_garbage().await.unwrap();
    assert!(matches!(store.at(needed).await, Err(TablesError::Forgotten { .. })));
}
