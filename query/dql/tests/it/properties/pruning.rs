//! Pruning conditions and pinned ids never exclude a document that matches. The oracle compares small numbers as floats.

use bigpeer_crdt::{ConditionOp, DocId, FieldCondition, Object, Value};
use bigpeer_dql::ast::{BinaryOp, Expr, Order, Projection, Select, Source, Statement};
use bigpeer_dql::{Mode, Plan};
use bigpeer_types::{CollectionName, SeededIds};
use proptest::collection::vec;
use proptest::prelude::*;

use super::hostile::document;

fn small() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2_i64..3).prop_map(Value::from),
        (-4_i32..5).prop_map(|half| Value::from(f64::from(half) / 2.0)),
        prop::sample::select(vec!["", "a", "b"]).prop_map(Value::from),
        vec((-1_i64..2).prop_map(Value::from), 0..2).prop_map(Value::from),
    ]
}

fn key() -> impl Strategy<Value = Vec<String>> {
    prop::sample::select(vec![vec!["a"], vec!["b"], vec!["_id"], vec!["o", "a"], vec!["o", "b"]])
        .prop_map(|path| path.into_iter().map(str::to_owned).collect())
}

fn filter() -> impl Strategy<Value = Expr> {
    use BinaryOp::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    let path = || key().prop_map(|path| Box::new(Expr::Path(path)));
    let literal = || small().prop_map(|value| Box::new(Expr::Literal(value)));
    let op = || prop::sample::select(vec![Eq, NotEq, Lt, LtEq, Gt, GtEq]);
    let leaf = prop_oneof![
        (op(), path(), literal()).prop_map(|(op, left, right)| Expr::Binary(op, left, right)),
        (op(), literal(), path()).prop_map(|(op, left, right)| Expr::Binary(op, left, right)),
        (path(), literal(), literal(), any::<bool>()).prop_map(|(expr, low, high, negated)| Expr::Between {
            expr,
            low,
            high,
            negated
        }),
        (path(), vec(small().prop_map(Expr::Literal), 0..6), any::<bool>())
            .prop_map(|(expr, list, negated)| Expr::In { expr, list, negated }),
        (path(), vec(small(), 0..6), any::<bool>()).prop_map(|(expr, list, negated)| Expr::InArray {
            expr,
            array: Box::new(Expr::Literal(list.into())),
            negated
        }),
        (path(), any::<bool>(), any::<bool>()).prop_map(|(expr, missing, negated)| Expr::Is { expr, missing, negated }),
        path().prop_map(|path| *path),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            3 => vec(inner.clone(), 2..4).prop_map(Expr::And),
            1 => vec(inner.clone(), 2..4).prop_map(Expr::Or),
            1 => inner.prop_map(|inner| Expr::Not(Box::new(inner))),
        ]
    })
}

/// Written anew, on floats and bytes, so that it does not share mistakes with the evaluator.
fn holds(condition: &FieldCondition, row: &Object) -> bool {
    let Some(value) = row.get_path(&condition.path) else { return false };
    let compare = |other: &Value| match (value, other) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (a, b) => match (a.to_json().as_f64(), b.to_json().as_f64()) {
            (Some(a), Some(b)) => a.partial_cmp(&b),
            _ => None,
        },
    };
    match condition.op {
        ConditionOp::Exists => true,
        ConditionOp::Eq | ConditionOp::In => {
            condition.values.iter().any(|other| compare(other).is_some_and(|order| order.is_eq()))
        }
        ConditionOp::Lt => compare(&condition.values[0]).is_some_and(|order| order.is_lt()),
        ConditionOp::LtEq => compare(&condition.values[0]).is_some_and(|order| order.is_le()),
        ConditionOp::Gt => compare(&condition.values[0]).is_some_and(|order| order.is_gt()),
        ConditionOp::GtEq => compare(&condition.values[0]).is_some_and(|order| order.is_ge()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn pruning_never_excludes_a_match(filter in filter(), id in small(), a in small(), b in small(), oa in small(), ob in small(), leave_out in 0_usize..5) {
        let source = Source { collection: CollectionName::new("c").unwrap(), types: vec![], alias: None, ids: None };
        let select = Select { distinct: false, projections: vec![Projection::All], source, joins: vec![], filter: Some(filter), group_by: vec![], having: None, order: Order::default() };
        let text = select.to_string();
        let Plan::Select(plan) = Statement::Select(select).bind(&Object::new(), Mode::default(), &SeededIds::new(1)).unwrap() else { panic!() };
        let inner: Object = [("a", oa), ("b", ob)].into_iter().collect();
        let mut fields: Object = [("a", a), ("b", b), ("o", Value::from(inner))].into_iter().collect();
        fields.remove(["a", "b", "o", "none", "none"][leave_out]);
        let document = document(&fields);
        let id = DocId::from_value(&id).unwrap();
        if plan.matches(&id, &document) {
            let mut row = document.to_object();
            row.insert("_id", id.to_value());
            for condition in plan.conditions() {
                prop_assert!(holds(&condition, &row), "{} excludes {:?} by {:?}", text, row, condition);
            }
            if let Some(ids) = plan.ids() {
                prop_assert!(ids.contains(&id), "{} excludes {:?}", text, row);
            }
        }
    }
}
