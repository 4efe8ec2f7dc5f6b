//! Compactions: slice by slice, where it matters most first, bounded, cancelled and gone on with.

use bigpeer_crdt::Value;
use bigpeer_tables::{DocumentStore, Extent, Writer};
use std::sync::Arc;

use crate::model::{Edit, World, cases, check, collection, id, object};

/// A sorted run of many files under documents 0, 10, 20, …
async fn run_of(documents: i64) -> (World, Arc<DocumentStore>, Writer) {
    let mut world = World::new();
    let c = collection("c");
    for n in 0..documents {
        world.put(&c, n * 10, object([("text", Value::from("some text that takes a little room in a file"))])).await;
    }
    let store = world.caught_up().await;
    let writer = store.writer().await.unwrap();
    writer.flush().await.unwrap();
    let done = writer.compact(&c, Extent::Full).await.unwrap().unwrap();
    assert!(done.outputs >= 3, "{done:?}");
    (world, store, writer)
}

async fn change(world: &mut World, store: &DocumentStore, writer: &Writer, keys: impl Iterator<Item = i64>) {
    let c = collection("c");
    let edits: Vec<_> = keys.map(|key| (&c, id(key), Edit::Set("x", Value::Int(key)))).collect();
    world.write(&edits).await;
    store.wait_for(world.truth.last()).await.unwrap();
    writer.flush().await.unwrap();
}

#[tokio::test]
async fn only_the_part_of_the_run_that_much_is_new_in_is_written_anew() {
    let (mut world, store, writer) = run_of(200).await;
    let c = collection("c");
    // Much in the first tenth of the keys, and one document at the end.
    change(&mut world, &store, &writer, (0..20).map(|n| n * 10).chain([1990])).await;
    let done = writer.compact(&c, Extent::Major).await.unwrap().unwrap();
    assert!(done.documents < 100, "{done:?}");
    let debt = writer.debts().remove(0);
    assert_eq!((debt.new_segments, debt.rows - debt.superseded), (1, 200), "the last document waits: {debt:?}");
    check(&store.snapshot(), &world.truth).await;
    assert!(writer.compact(&c, Extent::Major).await.unwrap().is_none(), "there is nothing worth it");
    writer.compact(&c, Extent::Full).await.unwrap().unwrap();
    let debt = writer.debts().remove(0);
    assert_eq!((debt.new_segments, debt.superseded), (0, 0));
    check(&store.snapshot(), &world.truth).await;
    check(&world.caught_up().await.snapshot(), &world.truth).await;
}

#[tokio::test]
async fn keys_that_only_grow_are_written_once() {
    let (mut world, store, writer) = run_of(100).await;
    let c = collection("c");
    let mut written = 0;
    for round in 0..5 {
        let from = 1000 + round * 100;
        let edits: Vec<_> = (from..from + 100)
            .map(|n| (&c, id(n * 10), Edit::Insert(object([("text", Value::from("more text that takes room"))]))))
            .collect();
        world.write(&edits).await;
        store.wait_for(world.truth.last()).await.unwrap();
        writer.flush().await.unwrap();
        written += writer.compact(&c, Extent::Full).await.unwrap().unwrap().documents;
    }
    assert!(written < 800, "500 documents were added, and {written} written");
    check(&store.snapshot(), &world.truth).await;
}

#[tokio::test]
async fn a_compaction_that_is_dropped_anywhere_goes_on_later() {
    // On S3 the rounds are fewer, and each is given up while it waits for the server.
    for patience in (0..cases(400)).step_by(7) {
        let (mut world, store, writer) = run_of(100).await;
        let c = collection("c");
        change(&mut world, &store, &writer, (0..100).map(|n| n * 10)).await;
        change(&mut world, &store, &writer, (0..100).map(|n| n * 10 + 1)).await;
        let given_up = {
            let compaction = writer.compact(&c, Extent::Full);
            let mut compaction = std::pin::pin!(compaction);
            let mut polls = 0;
            loop {
                if let std::task::Poll::Ready(done) = futures::poll!(&mut compaction) {
                    done.unwrap();
                    break false;
                }
                polls += 1;
                if polls > patience {
                    break true;
                }
                tokio::task::yield_now().await;
            }
        };
        check(&store.snapshot(), &world.truth).await;
        writer.compact(&c, Extent::Full).await.unwrap();
        let debt = writer.debts().remove(0);
        assert_eq!((debt.new_segments, debt.superseded), (0, 0), "{debt:?}");
        check(&store.snapshot(), &world.truth).await;
        store.shutdown().await;
        if !given_up {
            return;
        }
    }
}

#[tokio::test]
async fn little_memory_makes_more_steps_and_the_same_result() {
    let mut world = World::new();
    world.settings.compaction_bytes = 4_000;
    let c = collection("c");
    for n in 0..300 {
        world.put(&c, n * 7 % 300, object([("text", Value::from("x".repeat(50))), ("n", Value::Int(n))])).await;
        if n % 25 == 24 {
            let store = world.caught_up().await;
            store.writer().await.unwrap().flush().await.unwrap();
            store.shutdown().await;
        }
    }
    let store = world.caught_up().await;
    let writer = store.writer().await.unwrap();
    assert!(writer.debts()[0].new_segments >= 12);
    writer.compact(&c, Extent::Full).await.unwrap().unwrap();
    let debt = writer.debts().remove(0);
    assert_eq!((debt.new_segments, debt.superseded, debt.rows), (0, 0, 300));
    check(&store.snapshot(), &world.truth).await;
}
