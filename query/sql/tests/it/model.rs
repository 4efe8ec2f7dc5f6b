//! Whatever is written, deleted, flushed and compacted, SQL answers what a model in memory does, at every transaction.

use std::collections::BTreeMap;

use bigpeer_tables::Extent;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::world::{World, collection};

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<(i64, Field)>),
    Delete(Vec<i64>),
    Flush,
    Compact(bool),
}

/// What a document has in `x`; `tag` tells which of the kinds it is.
#[derive(Clone, Debug)]
enum Field {
    Int(i64),
    Float(f64),
    Text(String),
    Missing,
}

impl Field {
    fn fields(&self) -> Value {
        match self {
            Self::Int(x) => json!({"x": x, "y": x % 3, "tag": "int"}),
            Self::Float(x) => json!({"x": x, "tag": "float", "late": true}),
            Self::Text(x) => json!({"x": x, "y": 9, "tag": "text", "map": {"of": x}}),
            Self::Missing => json!({"tag": "missing"}),
        }
    }
}

fn field() -> impl Strategy<Value = Field> {
    // Texts are rare: they make the column JSON for good.
    prop_oneof![
        12 => (-50_i64..50).prop_map(Field::Int),
        6 => (-50_i64..50).prop_map(|x| Field::Float(x as f64 + 0.5)),
        1 => "[a-c]{1,3}".prop_map(Field::Text),
        4 => Just(Field::Missing),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec((0_i64..60, field()), 1..20).prop_map(Step::Put),
        2 => prop::collection::vec(0_i64..60, 1..8).prop_map(Step::Delete),
        2 => Just(Step::Flush),
        1 => any::<bool>().prop_map(Step::Compact),
    ]
}

type Model = BTreeMap<i64, Value>;

async fn check(world: &World, model: &Model) {
    let y: Vec<i64> = model.values().filter_map(|fields| fields["y"].as_i64()).collect();
    let rows = world.rows("SELECT count(*) AS n, count(y) AS ys, sum(y) AS sum, min(y) AS low, max(y) AS high FROM c");
    let sum = (!y.is_empty()).then(|| y.iter().sum::<i64>());
    let expected =
        json!([{"n": model.len(), "ys": y.len(), "sum": sum, "low": y.iter().min(), "high": y.iter().max()}]);
    assert_eq!(rows.await, expected);

    let ids: Vec<Value> = model.keys().map(|id| json!({"_id": id})).collect();
    assert_eq!(world.rows("SELECT _id FROM c ORDER BY _id").await, Value::Array(ids));

    let matches = |keep: &dyn Fn(&i64, &Value) -> bool| {
        let ids = model.iter().filter(|(id, fields)| keep(id, fields)).map(|(id, _)| json!({"_id": id}));
        Value::Array(ids.collect())
    };
    for (condition, expected) in [
        ("tag = 'int' AND y >= 1", matches(&|_, f| f["tag"] == "int" && f["y"].as_i64() >= Some(1))),
        (
            "_id BETWEEN 10 AND 30 AND tag <> 'missing'",
            matches(&|id, f| (10..=30).contains(id) && f["tag"] != "missing"),
        ),
        ("y IS NULL", matches(&|_, f| f["y"].is_null())),
        ("y IS NOT NULL OR tag = 'float'", matches(&|_, f| !f["y"].is_null() || f["tag"] == "float")),
    ] {
        let rows = world.rows(&format!("SELECT _id FROM c WHERE {condition} ORDER BY _id")).await;
        assert_eq!(rows, expected, "{condition}");
    }

    let values = world.rows("SELECT _id, x FROM c ORDER BY _id").await;
    for row in values.as_array().unwrap() {
        let expected = &model[&row["_id"].as_i64().unwrap()]["x"];
        let same = match (row["x"].as_f64(), expected.as_f64()) {
            (Some(got), Some(wanted)) => (got - wanted).abs() < f64::EPSILON,
            _ => row["x"] == *expected,
        };
        assert!(same, "{row} should have {expected}");
    }
}

async fn run(steps: Vec<Step>) {
    let mut world = World::new().await;
    let mut model = Model::new();
    // So that every column exists, whatever comes.
    world.put("c", 1000, json!({"x": 0, "y": 0, "tag": "int", "late": true})).await;
    model.insert(1000, json!({"x": 0, "y": 0, "tag": "int"}));
    for step in steps {
        match step {
            Step::Put(documents) => {
                let unique: BTreeMap<_, _> = documents.into_iter().collect();
                let changes: Vec<_> = unique.iter().map(|(id, field)| ("c", json!(id), Some(field.fields()))).collect();
                world.write(&changes).await;
                model.extend(unique.into_iter().map(|(id, field)| (id, field.fields())));
            }
            Step::Delete(ids) => {
                let gone: Vec<_> = ids.into_iter().filter(|id| model.remove(id).is_some()).collect();
                if !gone.is_empty() {
                    let changes: Vec<_> = gone.iter().map(|id| ("c", json!(id), None)).collect();
                    world.write(&changes).await;
                }
            }
            Step::Flush => world.flush().await,
            Step::Compact(full) => {
                let extent = if full { Extent::Full } else { Extent::Minor };
                world.store.writer().await.unwrap().compact(&collection("c"), extent).await.unwrap();
            }
        }
        check(&world, &model).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..ProptestConfig::with_cases(8) })]
    #[test]
    fn sql_answers_what_the_model_does(steps in prop::collection::vec(step(), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
