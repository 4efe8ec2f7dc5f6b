//! Pruning leaves out much, and never a match.

use bigpeer_crdt::{ConditionOp, DocId, FieldCondition, Object, Value};
use bigpeer_tables::{Extent, Scan};
use proptest::prelude::*;

use crate::model::{Documents, Edit, World, cases, collection, id, object, scanned};

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => (-20_i64..20).prop_map(Value::Int),
        1 => prop_oneof![Just(i64::MAX), Just(i64::MIN), Just((1 << 53) + 1)].prop_map(Value::Int),
        1 => Just(Value::UInt(u64::MAX)),
        2 => (-20..20_i32).prop_map(|n| Value::Float(f64::from(n) / 2.0)),
        1 => prop_oneof![Just(-0.0), Just(f64::NAN), Just(f64::INFINITY)].prop_map(Value::Float),
        3 => "[a-c]{0,3}".prop_map(|text| Value::String(text.into())),
        1 => "z{60,70}[a-c]".prop_map(|text| Value::String(text.into())),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => Just(Value::Null),
    ]
}

fn document() -> impl Strategy<Value = Object> {
    // Most documents of one history have one type per field, so that there is something to prune with.
    (prop::option::of((-20_i64..20).prop_map(Value::Int)), prop::option::of(scalar()), prop::option::of("[a-d]{1,2}"))
        .prop_map(|(n, any, text)| {
            let mut fields = Object::new();
            for (name, value) in [("n", n), ("any", any)] {
                if let Some(value) = value {
                    fields.insert(name, value);
                }
            }
            if let Some(text) = text {
                fields.insert("deep", Value::Object(Object::from_iter([("text", Value::String(text.into()))])));
            }
            fields
        })
}

fn condition() -> impl Strategy<Value = FieldCondition> {
    let path = prop_oneof![
        Just(vec!["n"]),
        Just(vec!["any"]),
        Just(vec!["deep", "text"]),
        Just(vec!["deep"]),
        Just(vec!["missing"]),
        Just(vec!["_id"]),
    ];
    let op = prop_oneof![
        Just(ConditionOp::Eq),
        Just(ConditionOp::Lt),
        Just(ConditionOp::LtEq),
        Just(ConditionOp::Gt),
        Just(ConditionOp::GtEq),
        Just(ConditionOp::In),
        Just(ConditionOp::Exists),
    ];
    (path, op, prop::collection::vec(scalar(), 1..3)).prop_map(|(path, op, mut values)| {
        match op {
            ConditionOp::Exists => values.clear(),
            ConditionOp::In => {}
            _ => values.truncate(1),
        }
        FieldCondition { path: path.into_iter().map(Into::into).collect(), op, values }
    })
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::UInt(value) => Some(*value as f64),
        Value::Float(value) => Some(*value),
        _ => None,
    }
}

fn compare(a: &Value, b: &Value) -> Option<std::cmp::Ordering> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (a, b) => number(a)?.partial_cmp(&number(b)?),
    }
}

fn matches(id: &DocId, document: &Object, condition: &FieldCondition) -> bool {
    let own = id.to_value();
    let found = match condition.path.first().map(|first| &**first) {
        Some("_id") => Some(&own),
        _ => document.get_path(&condition.path),
    };
    let Some(found) = found else { return false };
    let any = |accept: &dyn Fn(std::cmp::Ordering) -> bool| {
        condition.values.iter().any(|value| compare(found, value).is_some_and(accept))
    };
    match condition.op {
        ConditionOp::Exists => true,
        ConditionOp::Eq | ConditionOp::In => any(&std::cmp::Ordering::is_eq),
        ConditionOp::Lt => any(&std::cmp::Ordering::is_lt),
        ConditionOp::LtEq => any(&std::cmp::Ordering::is_le),
        ConditionOp::Gt => any(&std::cmp::Ordering::is_gt),
        ConditionOp::GtEq => any(&std::cmp::Ordering::is_ge),
    }
}

async fn run(stored: Vec<Object>, overlaid: Vec<(usize, Edit)>, conditions: Vec<FieldCondition>, compact: bool) {
    let mut world = World::new();
    let c = collection("c");
    for (n, fields) in stored.iter().enumerate() {
        world.put(&c, i64::try_from(n).unwrap(), fields.clone()).await;
    }
    let store = world.caught_up().await;
    let writer = store.writer().await.unwrap();
    writer.flush().await.unwrap();
    if compact {
        writer.compact(&c, Extent::Major).await.unwrap();
    }
    for (n, edit) in overlaid {
        world.write(&[(&c, id(i64::try_from(n).unwrap()), edit)]).await;
    }
    store.wait_for(world.truth.last()).await.unwrap();
    let all = world.truth.at(&c, store.applied());
    let expected = all.iter().filter(|(id, (_, document))| {
        let fields = document.to_object();
        document.is_visible() && conditions.iter().all(|condition| matches(id, &fields, condition))
    });
    let scan = Scan { conditions: conditions.clone(), ..Scan::default() };
    let found: Documents = scanned(&store.snapshot(), &c, scan).await;
    for (id, document) in expected {
        assert_eq!(found.get(id), Some(document), "{conditions:?} dropped {:?}", document.1.to_object());
    }
    for (id, document) in &found {
        assert_eq!(all.get(id), Some(document));
    }
    store.shutdown().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(64), ..ProptestConfig::default() })]
    #[test]
    fn pruning_never_drops_a_match(
        stored in prop::collection::vec(document(), 1..60),
        overlaid in prop::collection::vec(
            (0..70_usize, prop_oneof![
                document().prop_map(Edit::Insert),
                scalar().prop_map(|value| Edit::Set("any", value)),
                (-20_i64..20).prop_map(|n| Edit::Set("n", Value::Int(n))),
                Just(Edit::Delete),
            ]),
            0..8,
        ),
        conditions in prop::collection::vec(condition(), 1..3),
        compact: bool,
    ) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
            .block_on(run(stored, overlaid, conditions, compact));
    }
}

#[tokio::test]
async fn pruning_reads_little() {
    let mut world = World::new();
    world.settings.row_group_rows = 4096;
    world.settings.row_group_bytes = 1 << 20;
    world.settings.segment_bytes = 100 << 20;
    let c = collection("c");
    let edits: Vec<_> = (0..40_000_i64)
        .map(|n| (&c, id(n), Edit::Insert(object([("n", Value::Int(n)), ("half", Value::Float(n as f64 / 2.0))]))))
        .collect();
    for chunk in edits.chunks(10_000) {
        world.write(chunk).await;
    }
    let store = world.caught_up().await;
    let writer = store.writer().await.unwrap();
    writer.flush().await.unwrap();
    let before = store.applied();
    world.write(&[(&c, id(7), Edit::Set("n", Value::Int(30_000)))]).await;
    store.wait_for(world.truth.last()).await.unwrap();
    let condition = |name: &str, op, value| FieldCondition { path: vec![name.into()], op, values: vec![value] };
    let count = |scan| {
        let snapshot = store.snapshot();
        let c = c.clone();
        async move { scanned(&snapshot, &c, scan).await }
    };
    let found =
        count(Scan { conditions: vec![condition("n", ConditionOp::Eq, Value::Int(30_000))], ..Scan::default() }).await;
    assert!(found.len() < 15_000, "{}", found.len());
    assert!(found.contains_key(&id(7)) && found.contains_key(&id(30_000)));
    let found = count(Scan {
        conditions: vec![
            condition("half", ConditionOp::Gt, Value::Int(10_000)),
            condition("n", ConditionOp::Lt, Value::Float(21_000.5)),
        ],
        ..Scan::default()
    })
    .await;
    assert!((1_000..20_000).contains(&found.len()), "{}", found.len());
    let found = count(Scan { changed_since: Some(before), ..Scan::default() }).await;
    assert_eq!(found.keys().collect::<Vec<_>>(), [&id(7)]);
    let found = count(Scan { after: Some(id(39_990)), ..Scan::default() }).await;
    assert_eq!(found.len(), 9);
}
