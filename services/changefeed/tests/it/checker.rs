//! Whoever replays a feed has exactly the documents of the app, at every transaction, whatever is flushed, compacted,
//! collected and trimmed meanwhile, and wherever it is interrupted.

use bigpeer_changefeed::{Cursor, Reader, Start};
use bigpeer_log::TransactionLog;
use bigpeer_tables::Extent;
use proptest::prelude::*;
use serde_json::json;

use crate::world::{Consumer, Edit, World, app, collection, id, tiny};

#[derive(Clone, Debug)]
enum Step {
    Write(usize, Vec<(usize, i64, Edit)>),
    /// A transaction larger than a reader takes at once.
    Large,
    Flush,
    Compact,
    /// Gives up the log behind the last manifest.
    Trim,
    /// A reader goes on by so many batches, and is interrupted in the last after so many events.
    Read(usize, usize),
    /// A collection is read anew.
    Again(usize),
}

fn edits() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (0..9_i64).prop_map(|n| Edit::Insert(json!({"n": n, "map": {"a": n, "b": [n]}}))),
        4 => (0..9_i64).prop_map(|n| Edit::Set("n", json!(n))),
        1 => Just(Edit::Set("map", json!({"a": 5}))),
        1 => Just(Edit::Unset("n")),
        1 => (1..4_i64).prop_map(|by| Edit::Increment("count", by)),
        3 => Just(Edit::Delete),
        3 => (0..4_usize, 0..9_i64).prop_map(|(back, n)| Edit::StaleSet(back, "late", json!(n))),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let write = (0..2_usize, prop::collection::vec((0..2_usize, 0..6_i64, edits()), 1..5));
    prop_oneof![
        12 => write.prop_map(|(site, edits)| Step::Write(site, edits)),
        1 => Just(Step::Large),
        2 => Just(Step::Flush),
        1 => Just(Step::Compact),
        1 => Just(Step::Trim),
        6 => (1..6_usize, 0..9_usize).prop_map(|(batches, events)| Step::Read(batches, events)),
        1 => (0..2_usize).prop_map(Step::Again),
    ]
}

/// Somebody who is told everything, with interruptions.
struct Following {
    reader: Reader,
    consumer: Consumer,
}

impl Following {
    fn new(world: &World, start: Start) -> Self {
        Self { reader: world.reader(&[], start).with_settings(tiny()), consumer: Consumer::default() }
    }

    /// Takes a batch, or its first events only; then goes on from where the last of them says.
    async fn batch(&mut self, world: &World, events: Option<usize>) {
        let before = self.reader.cursor().clone();
        let batch = self.reader.next().await.unwrap();
        let taken = events.unwrap_or(usize::MAX).min(batch.events.len());
        for event in &batch.events[..taken] {
            self.consumer.take(event);
            self.consumer.check(world, &event.cursor);
        }
        if taken == batch.events.len() {
            self.consumer.check(world, &batch.cursor.to_string());
        }
        if events.is_some() {
            let cursor = match taken.checked_sub(1) {
                Some(last) => batch.events[last].cursor.parse().unwrap(),
                None if batch.events.is_empty() => batch.cursor,
                None => before,
            };
            self.reader = world.reader(&[], Start::At(cursor)).with_settings(tiny());
        }
    }

    async fn read_to_the_end(&mut self, world: &World) {
        while self.reader.cursor() != &Cursor::after(world.last()) {
            self.batch(world, None).await;
        }
        assert_eq!(self.consumer.documents, world.at(world.last()));
    }
}

async fn run(steps: Vec<Step>) {
    let mut world = World::new().await;
    let names = [collection("a"), collection("b")];
    world.put(&names[0], 0, json!({"n": 1})).await;
    let mut slow = Following::new(&world, Start::Snapshot);
    let first = slow.reader.cursor().clone();
    let mut trimmed = false;
    for step in steps {
        match step {
            Step::Write(site, edits) => {
                let edits: Vec<_> = edits.into_iter().map(|(at, n, edit)| (&names[at], id(n), edit)).collect();
                world.write(site, &edits).await;
            }
            Step::Large => {
                let edits: Vec<_> =
                    (0..700).map(|n| (&names[1], id(n), Edit::Set("n", json!(world.lsns.len())))).collect();
                world.write(0, &edits).await;
            }
            Step::Flush => _ = world.writer.flush().await.unwrap(),
            Step::Compact => {
                for name in &names {
                    world.writer.compact(name, Extent::Full).await.unwrap();
                }
                world.writer.collect_garbage().await.unwrap();
            }
            Step::Trim => {
                let flushed = world.store.flushed();
                trimmed |= flushed > bigpeer_types::Lsn::ZERO;
                world.log.trim(&app(), flushed).await.unwrap();
            }
            Step::Read(batches, events) => {
                for n in 1..=batches {
                    if slow.reader.cursor() == &Cursor::after(world.last()) {
                        break;
                    }
                    slow.batch(&world, (n == batches).then_some(events)).await;
                }
            }
            Step::Again(at) => slow.reader.snapshot_again(vec![names[at].clone()]),
        }
    }
    slow.read_to_the_end(&world).await;
    assert!(trimmed || slow.consumer.gaps == 0, "a gap where nothing was trimmed");
    // One that was away all the time, and one that starts now.
    Following::new(&world, Start::At(first)).read_to_the_end(&world).await;
    Following::new(&world, Start::Snapshot).read_to_the_end(&world).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_feed_rebuilds_the_app_at_every_transaction(steps in prop::collection::vec(steps(), 1..60)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps));
    }
}

#[tokio::test]
async fn a_revived_document_comes_whole() {
    let (mut world, c) = (World::new().await, collection("a"));
    let mut feed = Following::new(&world, Start::Snapshot);
    world.write(0, &[(&c, id(1), Edit::Insert(json!({"n": 1, "color": "blue"})))]).await;
    world.write(0, &[(&c, id(1), Edit::Delete)]).await;
    world.write(1, &[(&c, id(1), Edit::StaleSet(1, "late", json!(true)))]).await;
    feed.read_to_the_end(&world).await;
    let key = ("a".to_owned(), "1".to_owned());
    assert_eq!(feed.consumer.documents[&key], json!({"_id": 1, "n": 1, "color": "blue", "late": true}));
}

#[tokio::test]
async fn a_cursor_that_is_no_longer_kept_gets_the_collections_and_a_snapshot_of_them() {
    let (mut world, a, b) = (World::new().await, collection("a"), collection("b"));
    for n in 0..20 {
        world.put(&a, n, json!({"n": n})).await;
        world.put(&b, n, json!({"n": n})).await;
    }
    let mut feed = Following::new(&world, Start::Snapshot);
    feed.read_to_the_end(&world).await;
    world.put(&a, 3, json!({"n": 300})).await;
    world.write(0, &[(&a, id(4), Edit::Delete)]).await;
    world.writer.flush().await.unwrap();
    world.log.trim(&app(), world.store.flushed()).await.unwrap();
    world.put(&a, 5, json!({"n": 500})).await;
    // Another process, without anything in memory.
    let cursor = feed.reader.cursor().clone();
    feed.reader = world.reader(&[], Start::At(cursor)).with_settings(tiny());
    let before = feed.consumer.documents.len();
    feed.batch(&world, None).await;
    assert_eq!(feed.consumer.gaps, 1);
    assert_eq!(before - feed.consumer.documents.len(), 20, "only what changed is read anew");
    feed.read_to_the_end(&world).await;
}

#[tokio::test]
async fn a_cursor_of_another_app_is_refused() {
    let mut world = World::new().await;
    world.put(&collection("a"), 1, json!({})).await;
    let ahead = Cursor::after(bigpeer_types::Lsn::new(world.last().version + 1000, 0));
    let error = world.reader(&[], Start::At(ahead)).next().await.unwrap_err();
    assert!(matches!(error, bigpeer_changefeed::FeedError::Ahead { .. }), "{error}");
}

#[tokio::test]
async fn of_a_thousand_collections_a_cursor_names_one() {
    let mut world = World::new().await;
    let names: Vec<_> = (0..1000).map(|n| collection(&format!("{n:04}-{}", "x".repeat(90)))).collect();
    for chunk in names.chunks(250) {
        let edits: Vec<_> = chunk.iter().map(|name| (name, id(1), Edit::Insert(json!({"n": 1})))).collect();
        world.write(0, &edits).await;
    }
    let mut feed = Following::new(&world, Start::Snapshot);
    let mut longest = 0;
    // Cut off after the first event of every other batch.
    for number in 0.. {
        if feed.reader.cursor() == &Cursor::after(world.last()) {
            break;
        }
        if number == 500 {
            // One that was read and one that was not, and one of them again.
            feed.reader.snapshot_again(vec![names[0].clone(), names[999].clone(), names[0].clone()]);
        }
        feed.batch(&world, (number % 2 == 0).then_some(1)).await;
        longest = longest.max(feed.reader.cursor().to_string().len());
    }
    assert_eq!(feed.consumer.documents, world.at(world.last()));
    assert!(longest < 1000, "{longest} bytes");
    // Those that come after a gap are read without being named, too.
    let edits: Vec<_> = names.iter().take(600).map(|name| (name, id(1), Edit::Set("n", json!(2)))).collect();
    world.write(0, &edits).await;
    world.writer.flush().await.unwrap();
    world.log.trim(&app(), world.store.flushed()).await.unwrap();
    let cursor = feed.reader.cursor().clone();
    feed.reader = world.reader(&[], Start::At(cursor)).with_settings(tiny());
    feed.batch(&world, None).await;
    assert_eq!(feed.consumer.gaps, 1);
    assert!(feed.reader.cursor().to_string().len() < 1000);
    feed.read_to_the_end(&world).await;
}
