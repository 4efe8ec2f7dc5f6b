//! Random histories: whatever is written, flushed, compacted, reopened and collected, every snapshot is the truth at its
//! LSN.

use bigpeer_crdt::{Object, Value};
use bigpeer_tables::{Extent, Snapshot};
use proptest::prelude::*;

use crate::model::{Edit, World, cases, check, collection, flush, id};

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(usize, u8, Edit)>),
    Flush,
    Compact(usize, Extent),
    Reopen,
    Keep,
    Garbage,
    Trim,
}

const COLLECTIONS: [&str; 3] = ["flights", "a/../b ü", "__x"];

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => (-3_i64..3).prop_map(Value::Int),
        1 => Just(Value::Null),
        1 => Just(Value::Float(0.5)),
        1 => "[a-c]{0,40}".prop_map(|text| Value::String(text.into())),
        1 => Just(Value::Object(Object::from_iter([("k", Value::Int(1))]))),
        1 => Just(Value::Array(vec![Value::Int(1)])),
    ]
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (any::<i8>(), value()).prop_map(|(n, x)| {
            Edit::Insert(Object::from_iter([("n", Value::Int(n.into())), ("x", x)]))
        }),
        3 => value().prop_map(|value| Edit::Set("x", value)),
        2 => any::<i8>().prop_map(|n| Edit::Set("n", Value::Int(n.into()))),
        1 => Just(Edit::Unset("x")),
        2 => (-2_i64..5).prop_map(|by| Edit::Increment("hits", by)),
        1 => Just(Edit::Delete),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let extent = prop_oneof![Just(Extent::Minor), Just(Extent::Major), Just(Extent::Full)];
    prop_oneof![
        6 => prop::collection::vec((0..COLLECTIONS.len(), 0..40_u8, edit()), 1..12).prop_map(Step::Write),
        3 => Just(Step::Flush),
        2 => (0..COLLECTIONS.len(), extent).prop_map(|(name, extent)| Step::Compact(name, extent)),
        1 => Just(Step::Reopen),
        1 => Just(Step::Keep),
        1 => Just(Step::Garbage),
        1 => Just(Step::Trim),
    ]
}

async fn run(steps: Vec<Step>) {
    use bigpeer_log::TransactionLog as _;
    let names = COLLECTIONS.map(collection);
    let mut world = World::new();
    let mut store = world.open().await;
    let mut writer = store.writer().await.unwrap();
    let mut kept: Vec<Snapshot> = Vec::new();
    for step in steps {
        match step {
            Step::Write(edits) => {
                let edits: Vec<_> =
                    edits.into_iter().map(|(name, key, edit)| (&names[name], id(i64::from(key)), edit)).collect();
                world.write(&edits).await;
            }
            Step::Flush => {
                store.wait_for(world.truth.last()).await.unwrap();
                flush(&writer).await;
                assert_eq!(store.flushed(), store.applied());
                assert_eq!(store.overlay_bytes(), 0);
            }
            Step::Compact(name, extent) => {
                writer.compact(&names[name], extent).await.unwrap();
                if extent == Extent::Full {
                    let debts = writer.debts();
                    let debt = debts.iter().find(|debt| debt.collection == names[name]);
                    assert!(debt.is_none_or(|debt| debt.new_segments == 0 && debt.superseded == 0), "{debt:?}");
                }
            }
            Step::Reopen => {
                store.shutdown().await;
                kept.clear();
                store = world.open().await;
                writer = store.writer().await.unwrap();
            }
            Step::Keep => kept.push(store.snapshot()),
            Step::Garbage => {
                writer.collect_garbage().await.unwrap();
            }
            Step::Trim => world.log.trim(&crate::model::app(), store.flushed()).await.unwrap(),
        }
    }
    store.wait_for(world.truth.last()).await.unwrap();
    check(&store.snapshot(), &world.truth).await;
    for snapshot in kept {
        check(&snapshot, &world.truth).await;
    }
    store.shutdown().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(48), ..ProptestConfig::default() })]
    #[test]
    fn every_snapshot_is_the_truth_at_its_lsn(steps in prop::collection::vec(step(), 1..24)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps));
    }
}
