//! Documents of odd shapes: what goes in comes out, whatever the typed columns make of it.

use bigpeer_crdt::{Object, Value};
use bigpeer_tables::Extent;
use proptest::prelude::*;

use crate::model::{World, cases, check, collection, id};

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
    #![proptest_config(ProptestConfig { cases: cases(48), ..ProptestConfig::default() })]
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

/// A map within a map within a map, so deep.
fn nested(depth: usize) -> Value {
    (0..depth).fold(Value::Int(1), |value, level| Value::Object(Object::from_iter([(format!("level {level}"), value)])))
}

/// Keys that something may take for something else.
const ODD_KEYS: &[&str] = &[
    "",
    ".",
    "a.b",
    "a..b",
    "\"",
    "'",
    "`",
    "\\",
    "\n",
    "\t\r",
    "\u{0}",
    "\u{1f600}",
    "a",
    "A",
    "á",
    "Á",
    "_id",
    "_ID",
    "_key",
    "_crdt",
    "_rest",
    "_version",
    "_order",
    "_deleted",
    "_transaction",
    "element",
    "list",
    "item",
    "key_value",
    "$binary",
    "__proto__",
];

/// Values that are lost or changed easily.
fn hard_values() -> Vec<Value> {
    vec![
        Value::Null,
        Value::Bool(true),
        Value::Int(i64::MIN),
        Value::Int(i64::MAX),
        Value::Int(-1),
        Value::UInt(u64::MAX),
        Value::Float(f64::NAN),
        Value::Float(-0.0),
        Value::Float(0.0),
        Value::Float(f64::INFINITY),
        Value::Float(f64::MIN_POSITIVE / 2.0),
        Value::Float(f64::MAX),
        Value::from(""),
        Value::from("\u{0}"),
        Value::from("NaN"),
        Value::from("{\"a\":1}"),
        Value::Bytes(Box::from(&b""[..])),
        Value::Bytes(Box::from(&b"\x00\xff\xfe"[..])),
        Value::Array(vec![]),
        Value::Array(vec![Value::Null, Value::Int(1), Value::from("x"), Value::Array(vec![Value::Float(f64::NAN)])]),
        Value::Object(Object::new()),
        nested(5),
        nested(6),
        nested(7),
        nested(40),
    ]
}

#[tokio::test]
async fn documents_from_hell_round_trip() {
    let mut world = World::new();
    world.settings.row_group_bytes = 1 << 20;
    world.settings.segment_bytes = 8 << 20;
    let c = collection("c");
    let hard = hard_values();
    // Every hard value under one key, so that its type changes from row to row; and every odd key with every value.
    for (n, value) in hard.iter().enumerate() {
        let shifted = |at: usize| hard[(at + n) % hard.len()].clone();
        let fields = ODD_KEYS.iter().enumerate().filter(|(_, key)| !key.starts_with("_id"));
        let mut fields: Vec<(String, Value)> = fields.map(|(at, key)| ((*key).to_owned(), shifted(at))).collect();
        fields.push(("changing".to_owned(), value.clone()));
        fields.push(("deep".to_owned(), Value::Object(Object::from_iter([("also", value.clone())]))));
        fields.push(("in a list".to_owned(), Value::Array(vec![value.clone(), Value::Int(2)])));
        world.put(&c, i64::try_from(n).unwrap(), Object::from_iter(fields)).await;
    }
    // Ids of every kind, near to each other.
    for key in
        hard.iter().chain([&Value::from("1"), &Value::Float(1.0), &Value::Int(1), &Value::Array(vec![Value::Int(1)])])
    {
        if bigpeer_crdt::DocId::from_value(key).is_ok() {
            world.put(&c, key.clone(), Object::from_iter([("with", key.clone())])).await;
        }
    }
    let large: String = (0..(5 << 20) / 8 - 1000).map(|n: u32| format!("{n:08x}")).collect();
    world.put(&c, "large", Object::from_iter([("changing", Value::String(large.into()))])).await;
    let store = world.caught_up().await;
    let writer = store.writer().await.unwrap();
    check(&store.snapshot(), &world.truth).await;
    writer.flush().await.unwrap();
    check(&store.snapshot(), &world.truth).await;
    writer.compact(&c, Extent::Full).await.unwrap();
    check(&store.snapshot(), &world.truth).await;
    check(&world.caught_up().await.snapshot(), &world.truth).await;
}
