//! JOIN: its forms, its rules, and that it answers as looking at every pair of documents would.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use crate::store::Store;

fn shop() -> Store {
    let mut store = Store::new();
    store.run(
        "INSERT INTO customers DOCUMENTS ({'_id': 1, 'name': 'Ada'}), ({'_id': 2, 'name': 'Bob'}), ({'_id': 3, 'name': 'Cyd'})",
    );
    store.run(
        "INSERT INTO orders DOCUMENTS ({'_id': 'a', 'customer': 1, 'total': 5}), ({'_id': 'b', 'customer': 1, 'total': 7}), ({'_id': 'c', 'customer': 3, 'total': 9}), ({'_id': 'd', 'customer': 9, 'total': 1}), ({'_id': 'e', 'customer': null, 'total': 2})",
    );
    store
}

#[test]
fn inner_left_and_right() {
    let mut store = shop();
    assert_eq!(
        store.run("SELECT o._id, c.name FROM orders o JOIN customers c ON o.customer = c._id ORDER BY o._id"),
        [json!({"_id": "a", "name": "Ada"}), json!({"_id": "b", "name": "Ada"}), json!({"_id": "c", "name": "Cyd"})]
    );
    assert_eq!(
        store.run("SELECT o._id, c.name FROM orders AS o LEFT OUTER JOIN customers AS c ON c._id = o.customer WHERE o.total < 8 ORDER BY o._id DESC"),
        [json!({"_id": "e"}), json!({"_id": "d"}), json!({"_id": "b", "name": "Ada"}), json!({"_id": "a", "name": "Ada"})]
    );
    assert_eq!(
        store.run(
            "SELECT o._id, c.name FROM orders o RIGHT JOIN customers c ON o.customer = c._id ORDER BY c.name, o._id"
        ),
        [
            json!({"_id": "a", "name": "Ada"}),
            json!({"_id": "b", "name": "Ada"}),
            json!({"name": "Bob"}),
            json!({"_id": "c", "name": "Cyd"})
        ]
    );
    // WHERE comes after the join: it can leave rows without a partner out, or keep only them.
    assert_eq!(
        store.run("SELECT c.name FROM customers c LEFT JOIN orders o ON o.customer = c._id WHERE o._id IS MISSING"),
        [json!({"name": "Bob"})]
    );
    assert_eq!(
        store.run("SELECT c.name, o._id FROM customers c LEFT JOIN orders o ON o.customer = c._id AND o.total > 6 ORDER BY c._id"),
        [json!({"name": "Ada", "_id": "b"}), json!({"name": "Bob"}), json!({"name": "Cyd", "_id": "c"})]
    );
}

#[test]
fn what_rows_of_joins_look_like() {
    let mut store = shop();
    assert_eq!(
        store.run("SELECT * FROM orders JOIN customers ON orders.customer = customers._id WHERE orders.total = 9"),
        [json!({"orders": {"_id": "c", "customer": 3, "total": 9}, "customers": {"_id": 3, "name": "Cyd"}})]
    );
    assert_eq!(
        store.run("SELECT _id FROM orders o JOIN customers c ON o.customer = c._id WHERE o.total = 9"),
        [json!({"_id": {"o": "c", "c": 3}})]
    );
    assert_eq!(
        store.run("SELECT c.*, o.total FROM orders o JOIN customers c ON o.customer = c._id WHERE o.total = 9"),
        [json!({"_id": 3, "name": "Cyd", "total": 9})]
    );
    assert_eq!(
        store.run("SELECT c FROM orders o LEFT JOIN customers c ON o.customer = c._id WHERE o._id IN ['c', 'd'] ORDER BY o._id"),
        [json!({"c": {"_id": 3, "name": "Cyd"}}), json!({})]
    );
    assert_eq!(
        store.run("SELECT c.name, COUNT(*) AS n, SUM(o.total) AS sum FROM customers c JOIN orders o ON o.customer = c._id GROUP BY c.name HAVING COUNT(*) > 1"),
        [json!({"name": "Ada", "n": 2, "sum": 12})]
    );
    assert_eq!(
        store.run(
            "SELECT DISTINCT c.name FROM customers c JOIN orders o ON o.customer = c._id ORDER BY c.name DESC LIMIT 1"
        ),
        [json!({"name": "Cyd"})]
    );
    assert_eq!(
        store.run("SELECT a.name, b.name AS other FROM customers a JOIN customers b ON a._id < b._id ORDER BY a._id, b._id LIMIT 2"),
        [json!({"name": "Ada", "other": "Bob"}), json!({"name": "Ada", "other": "Cyd"})]
    );
}

#[test]
fn several_joins_and_strict_mode() {
    let mut store = shop();
    store.run("INSERT INTO cities DOCUMENTS ({'_id': 'x', 'of': ['Ada', 'Cyd']}), ({'_id': 'y', 'of': ['Bob']})");
    assert_eq!(
        store.run("SELECT o._id, t._id AS city FROM orders o JOIN customers c ON o.customer = c._id JOIN cities t ON array_contains(t.of, c.name) ORDER BY o._id"),
        [json!({"_id": "a", "city": "x"}), json!({"_id": "b", "city": "x"}), json!({"_id": "c", "city": "x"})]
    );
    store.run("UPDATE customers SET address.city = 'Graz' WHERE _id = 3");
    store.mode.strict = true;
    let typed = "SELECT c.address.city FROM orders o JOIN COLLECTION customers (address MAP) c ON o.customer = c._id WHERE o.total = 9";
    assert_eq!(store.run(typed), [json!({"city": "Graz"})]);
    assert_eq!(store.run(&typed.replace("COLLECTION customers (address MAP)", "customers")), [json!({})]);
}

#[test]
fn partners_are_looked_up_by_id() {
    let store = shop();
    let plan = store.bind(
        "SELECT * FROM orders o JOIN customers c ON o.customer = c._id WHERE o._id = 'a' AND c.name != 'x'",
        json!({}),
    );
    let bigpeer_dql::Plan::Select(plan) = plan.unwrap() else { panic!() };
    assert_eq!(plan.ids().map(|ids| ids.len()), Some(1));
    let mut run = plan.run();
    for ((collection, id), document) in &store.documents {
        if collection.as_str() == "orders" {
            run.push(id, document).unwrap();
        }
    }
    let wanted = run.next_wanted().unwrap().unwrap();
    assert_eq!((wanted.collection.as_str(), wanted.ids.map(|ids| ids.len())), ("customers", Some(1)));
    assert!(run.next_wanted().unwrap().is_none());
    let explained =
        store.bind("EXPLAIN SELECT * FROM orders o JOIN customers c ON o.customer = c._id", json!({})).unwrap();
    let bigpeer_dql::Plan::Explain(rows) = explained else { panic!() };
    assert!(rows[0].to_json().to_string().contains("hashJoin"), "{rows:?}");
}

#[test]
fn what_joins_refuse() {
    let mut store = shop();
    for (text, expected) in [
        (
            "SELECT * FROM orders o JOIN customers c ON o.customer = c._id WHERE name = 'Ada'",
            "Ambiguous reference to field: name",
        ),
        ("SELECT * FROM orders, customers", "Unsupported feature: joins other than"),
        ("SELECT * FROM orders CROSS JOIN customers", "Unsupported feature: joins other than"),
        (
            "SELECT * FROM orders o FULL OUTER JOIN customers c ON o.customer = c._id",
            "Unsupported feature: joins other than",
        ),
        ("SELECT * FROM a JOIN b ON a.x = b.x RIGHT JOIN c ON b.x = c.x", "RIGHT JOIN that is not the first"),
        ("SELECT * FROM a JOIN a ON a.x = a.y", "Two of the joined collections are called `a`"),
        ("SELECT * FROM a JOIN b ON a.x = c.x JOIN c ON c.x = b.x", "ON refers to `c`, which is joined later"),
        ("SELECT * FROM a JOIN b", "Expected ON"),
        ("SELECT a.*, MISSING a.x FROM a JOIN b ON a.x = b.x", "MISSING with a JOIN"),
        ("UPDATE a JOIN b ON a.x = b.x SET x = 1", "Missing SET"),
        ("DELETE FROM a JOIN b ON a.x = b.x", "Unexpected 'JOIN'"),
    ] {
        assert!(store.error(text).contains(expected), "{text}: {}", store.error(text));
    }
    let many = (0..11).map(|n| format!(" JOIN c AS c{n} ON c{n}.x = a.x")).collect::<String>();
    assert!(store.error(&format!("SELECT * FROM a{many}")).contains("Too many joins"));
    let subscription = store.bind("SELECT * FROM orders o JOIN customers c ON o.customer = c._id", json!({})).unwrap();
    assert!(subscription.into_subscription().unwrap_err().message.contains("JOIN"));
}

#[test]
fn pairs_are_bounded() {
    let mut store = Store::with((0..5000).map(|n| json!({"_id": n, "x": 1})).collect());
    assert!(store.error("SELECT COUNT(*) FROM c a JOIN c b ON a.x < b.x").contains("pairs of documents"));
    assert_eq!(store.run("SELECT COUNT(*) AS n FROM c a JOIN c b ON a._id = b._id + 1"), [json!({"n": 4999})]);
}

/// Looks at every pair, by statements without joins.
fn by_hand(store: &mut Store, kind: &str, on: &str) -> Vec<Json> {
    let (left, right) = (store.run("SELECT * FROM l ORDER BY _id"), store.run("SELECT * FROM r ORDER BY _id"));
    let holds = |store: &mut Store, a: &Json, b: &Json| {
        let args = json!({"a": a, "b": b});
        let on = on.replace("a.", "(:a).").replace("b.", "(:b).");
        let row = store.run_with(&format!("SELECT ({on}) = true AS yes FROM one"), args).unwrap();
        row[0]["yes"] == json!(true)
    };
    let (mut rows, mut matched) = (Vec::new(), vec![false; right.len()]);
    for a in &left {
        let before = rows.len();
        for (at, b) in right.iter().enumerate() {
            if holds(store, a, b) {
                matched[at] = true;
                rows.push(json!({"a": a, "b": b}));
            }
        }
        if kind == "LEFT" && rows.len() == before {
            rows.push(json!({"a": a}));
        }
    }
    if kind == "RIGHT" {
        rows.extend(right.iter().zip(matched).filter(|(_, matched)| !matched).map(|(b, _)| json!({"b": b})));
    }
    rows.sort_by_key(ToString::to_string);
    rows
}

fn field() -> impl Strategy<Value = Json> {
    prop::sample::select(vec![
        json!(null),
        json!(0),
        json!(1),
        json!(1.0),
        json!(2),
        json!("1"),
        json!(true),
        json!([1]),
        json!({"z": 1}),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_join_answers_as_every_pair_would(
        left in prop::collection::vec((field(), field()), 0..5),
        right in prop::collection::vec((field(), field()), 0..5),
        kind in prop::sample::select(vec!["INNER", "LEFT", "RIGHT"]),
        on in prop::sample::select(vec![
            "a.x = b.x", "b.x = a.y", "a.x = b.x AND a.y = b.y", "a.x < b.y", "a.x = b.x AND b.y = 1", "a.x = b.x OR a.y = b.y",
            "a.x = b._id", "b._id = a.x AND a.y != 2", "a.x = 1", "a.x = b.x AND a.x = 1", "true", "a._id = b._id", "a.x IN [1, 2] AND a.x + 1 = b.y + 1",
        ]),
    ) {
        let mut store = Store::new();
        store.run("INSERT INTO one DOCUMENTS ({'_id': 1})");
        for (collection, rows) in [("l", left), ("r", right)] {
            let rows: Vec<Json> = rows.iter().enumerate().map(|(id, (x, y))| json!({"_id": id, "x": x, "y": y})).collect();
            store.run_with(&format!("INSERT INTO {collection} DOCUMENTS (:d)"), json!({"d": rows})).unwrap();
        }
        let mut found = store.run(&format!("SELECT * FROM l AS a {kind} JOIN r AS b ON {on}"));
        found.sort_by_key(ToString::to_string);
        prop_assert_eq!(found, by_hand(&mut store, kind, on));
    }
}
