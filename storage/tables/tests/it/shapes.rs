//! Documents of odd shapes: what goes in comes out, whatever the typed columns make of it.

use bigpeer_crdt::{Object, Value};
use bigpeer_tables::Extent;
use proptest::prelude::*;

use crate::model::{World, check, collection, id};

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (i64::MAX as u64 + 1..=u64::MAX).prop_map(Value::UInt),
        prop_oneof![any::<f64>(), Just(-0.0), Just(f64::NAN)].prop_map(Value::Float),
        any::<String>().prop_map(|text| Value::String(text.into())),
        prop::collection::vec(any::<u8>(), 0..8).prop_map(|bytes| Value::Bytes(bytes.into())),
    ];
    leaf.prop_recursive(7, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((key(), inner), 0..5).prop_map(|fields| Value::Object(Object::from_iter(fields))),
        ]
    })
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-c]",
        1 => any::<String>(),
        1 => prop_oneof![
            Just(""), Just("_key"), Just("_CRDT"), Just("_rest"), Just("_version"), Just("a.b"), Just("A"),
            Just("q\"uo'te\n"), Just("element"), Just("_transaction"),
        ].prop_map(str::to_owned),
    ]
}

fn document_id() -> impl Strategy<Value = Value> {
    value().prop_filter("an id", |value| bigpeer_crdt::DocId::from_value(value).is_ok())
}

async fn run(documents: Vec<(Value, Object)>) {
    let mut world = World::new();
    let c = collection("c");
    let store = world.open().await;
    let writer = store.writer().await.unwrap();
    for (n, (key, fields)) in documents.into_iter().enumerate() {
        world.put(&c, key, fields).await;
        if n % 4 == 3 {
            store.wait_for(world.truth.last()).await.unwrap();
            writer.flush().await.unwrap();
        }
    }
    store.wait_for(world.truth.last()).await.unwrap();
    check(&store.snapshot(), &world.truth).await;
    writer.flush().await.unwrap();
    writer.compact(&c, Extent::Full).await.unwrap();
    check(&store.snapshot(), &world.truth).await;
    store.shutdown().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn what_goes_in_comes_out(
        documents in prop::collection::vec(
            (document_id(), prop::collection::vec((key(), value()), 0..6).prop_map(Object::from_iter)),
            1..10,
        ),
    ) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(documents));
    }
}

#[tokio::test]
async fn ten_thousand_distinct_keys_and_large_documents_fit() {
    let mut world = World::new();
    world.settings.row_group_bytes = 1 << 20;
    world.settings.segment_bytes = 8 << 20;
    let c = collection("c");
    for n in 0..10_i64 {
        let fields = (0..1000_i64).map(|k| (format!("key {}", n * 1000 + k), Value::Int(k)));
        world.put(&c, n, Object::from_iter(fields)).await;
    }
    let large = "x".repeat(4 << 20);
    world.put(&c, "large", Object::from_iter([("text", Value::String(large.into()))])).await;
    let store = world.caught_up().await;
    let writer = store.writer().await.unwrap();
    writer.flush().await.unwrap();
    let snapshot = store.snapshot();
    let table = snapshot.table(&c).await.unwrap();
    assert!(table.columns.rest);
    assert_eq!(table.columns.fields.len(), bigpeer_tables::columns::MAX_COLUMNS);
    for n in 0..10_i64 {
        let found = snapshot.get(&c, &id(n)).await.unwrap().unwrap();
        assert_eq!(found.document.to_object().len(), 1000);
    }
    check(&snapshot, &world.truth).await;
}
