//! SELECT: every clause.

use serde_json::{Value as Json, json};

use crate::store::Store;

fn cars() -> Store {
    Store::with(json!([
        {"_id": "a", "make": "Ford", "year": 2001, "price": 10, "tags": ["x"], "spec": {"doors": 2}},
        {"_id": "b", "make": "Ford", "year": 2003, "price": 30.5, "spec": {"doors": 4}},
        {"_id": "c", "make": "Opel", "year": 2002, "price": 20, "sold": true},
        {"_id": "d", "make": "Opel", "year": 2001, "price": null, "sold": false},
        {"_id": "e", "year": 1999},
    ]))
}

fn column(rows: &[Json], name: &str) -> Vec<Json> {
    rows.iter().map(|row| row.get(name).cloned().unwrap_or(json!("MISSING"))).collect()
}

#[test]
fn projections() {
    let mut store = cars();
    assert_eq!(store.run("SELECT * FROM c WHERE _id = 'e'"), [json!({"_id": "e", "year": 1999})]);
    assert_eq!(
        store.run("SELECT make, spec.doors, price * 2 AS twice, year FROM c WHERE _id = 'a'"),
        [json!({"make": "Ford", "doors": 2, "twice": 20, "year": 2001})]
    );
    assert_eq!(store.run("SELECT make, year + 1, 'x' FROM c WHERE _id = 'e'"), [json!({"($2)": 2000, "($3)": "x"})]);
    assert_eq!(
        store.run("SELECT k.*, k.year AS y, MISSING k.year FROM c AS k WHERE k._id = 'e'"),
        [json!({"_id": "e", "y": 1999})]
    );
    assert_eq!(store.run("SELECT k FROM c k WHERE _id = 'e'"), [json!({"k": {"_id": "e", "year": 1999}})]);
    assert!(
        store.error("SELECT *, make FROM c").contains("unqualified * with other projection elements is not supported")
    );
    assert!(store.error("SELECT x.* FROM c").contains("Unknown alias"));
}

#[test]
fn order_limit_offset() {
    let mut store = cars();
    let ids =
        |rows: Vec<Json>| column(&rows, "_id").iter().map(|id| id.as_str().unwrap().to_owned()).collect::<String>();
    assert_eq!(ids(store.run("SELECT _id FROM c ORDER BY year, _id DESC")), "edacb");
    assert_eq!(ids(store.run("SELECT _id FROM c ORDER BY price")), "acbde");
    assert_eq!(ids(store.run("SELECT _id FROM c ORDER BY price DESC")), "edbca");
    assert_eq!(ids(store.run("SELECT _id FROM c ORDER BY year LIMIT 2 OFFSET 1")), "ad");
    assert_eq!(ids(store.run("SELECT _id FROM c LIMIT 2")), "ab");
    assert_eq!(ids(store.run("SELECT _id FROM c LIMIT 0")), "");
    assert_eq!(ids(store.run("SELECT _id, 0 - year AS y FROM c ORDER BY y LIMIT 1")), "b");
    let limited = store.run_with("SELECT _id FROM c LIMIT :n", json!({"n": 1})).unwrap();
    assert_eq!(ids(limited), "a");
    assert!(store.error("SELECT _id FROM c LIMIT -1").contains("LIMIT must be a non-negative integer"));
}

#[test]
fn order_by_type() {
    let mut store = Store::with(json!([
        {"_id": 0, "v": "s"}, {"_id": 1, "v": {}}, {"_id": 2, "v": [1]}, {"_id": 3, "v": null}, {"_id": 4},
        {"_id": 5, "v": true}, {"_id": 6, "v": false}, {"_id": 7, "v": 1.5}, {"_id": 8, "v": {"$binary": "AA=="}},
    ]));
    let expected = [6, 5, 7, 8, 0, 2, 1, 3, 4].map(|id| json!(id));
    assert_eq!(column(&store.run("SELECT _id FROM c ORDER BY v"), "_id"), expected);
    let reversed: Vec<Json> = expected.iter().rev().cloned().collect();
    assert_eq!(column(&store.run("SELECT _id FROM c ORDER BY v DESC"), "_id"), reversed);
}

#[test]
fn aggregates() {
    let mut store = cars();
    assert_eq!(store.run("SELECT COUNT(*) FROM c"), [json!({"($1)": 5})]);
    assert_eq!(
        store.run("SELECT COUNT(*) AS n, COUNT(price) AS p, COUNT(sold) AS s, SUM(price) AS sum, AVG(price) AS avg, MIN(price) AS min, MAX(make) AS max, MEDIAN(year) AS med, MID(year) AS mid, COUNT(DISTINCT make) AS makes FROM c"),
        [json!({"n": 5, "p": 3, "s": 1, "sum": 60.5, "avg": 60.5 / 3.0, "min": 10, "max": "Opel", "med": 2001, "mid": 2001.0, "makes": 2})]
    );
    assert_eq!(store.run("SELECT COUNT(*) AS n, SUM(year) AS s FROM c WHERE year > 3000"), [json!({"n": 0})]);
    assert_eq!(store.run("SELECT SUM(year) AS s, SUM(DISTINCT year) AS d FROM c"), [json!({"s": 10006, "d": 8005})]);
    assert!(
        store
            .error("SELECT make, COUNT(*) FROM c")
            .contains("Projection \"make\" must depend only on group keys or aggregates")
    );
    assert!(store.error("SELECT * FROM c WHERE COUNT(*) > 1").contains("WHERE cannot use an aggregate"));
    assert!(store.error("SELECT SUM(COUNT(*)) FROM c").contains("COUNT is not allowed here"));
}

#[test]
fn groups() {
    let mut store = cars();
    assert_eq!(
        store.run("SELECT make, COUNT(*) AS n, SUM(price) + 1 AS s FROM c GROUP BY make ORDER BY n DESC, make"),
        [json!({"make": "Ford", "n": 2, "s": 41.5}), json!({"make": "Opel", "n": 2, "s": 21}), json!({"n": 1})]
    );
    assert_eq!(
        store.run("SELECT make FROM c GROUP BY make HAVING COUNT(*) > 1 AND make != 'Ford'"),
        [json!({"make": "Opel"})]
    );
    assert_eq!(
        store.run("SELECT spec.doors * 2 AS d, COUNT(*) AS n FROM c GROUP BY spec.doors HAVING spec.doors > 2"),
        [json!({"d": 8, "n": 1})]
    );
    assert_eq!(store.run("SELECT make FROM c WHERE false GROUP BY make"), Vec::<Json>::new());
    assert_eq!(
        store.run("SELECT DISTINCT make FROM c ORDER BY make DESC"),
        [json!({}), json!({"make": "Opel"}), json!({"make": "Ford"})]
    );
    assert_eq!(
        store.run("SELECT DISTINCT year FROM c ORDER BY year LIMIT 2"),
        [json!({"year": 1999}), json!({"year": 2001})]
    );
    assert!(
        store
            .error("SELECT make FROM c GROUP BY make HAVING year > 1")
            .contains("HAVING clause terms must depend only on group keys or aggregates")
    );
    assert!(store.error("SELECT * FROM c GROUP BY make").contains("Projection \"*\""));
}

#[test]
fn ids_are_looked_up() {
    let mut store = cars();
    assert_eq!(column(&store.run("SELECT _id FROM c USE IDS ('e', 'a', 'zz')"), "_id"), [json!("a"), json!("e")]);
    let rows =
        store.run_with("SELECT _id FROM c USE IDS LIST :ids WHERE year > 2000", json!({"ids": ["e", "b"]})).unwrap();
    assert_eq!(column(&rows, "_id"), [json!("b")]);
    for (filter, ids) in [
        ("_id = 'a'", Some(1)),
        ("'a' = _id AND year = 1", Some(1)),
        ("_id IN ('a', 'b', null)", Some(2)),
        ("_id IN ['a'] AND _id = 'b'", Some(0)),
        ("_id = 'a' OR _id = 'b'", Some(2)),
        ("_id = 'a' OR year = 1", None),
        ("_id > 'a'", None),
        ("_id.x = 'a'", None),
        ("_id != 'a'", None),
        ("NOT _id = 'a'", None),
        ("false", Some(0)),
    ] {
        let bigpeer_dql::Plan::Select(plan) =
            store.bind(&format!("SELECT * FROM c WHERE {filter}"), json!({})).unwrap()
        else {
            panic!()
        };
        assert_eq!(plan.ids().map(|ids| ids.len()), ids, "{filter}");
    }
    let mut store = Store::with(json!([{"_id": {"place": "x", "n": 1}, "v": 1}, {"_id": 5, "v": 2}]));
    assert_eq!(column(&store.run("SELECT v FROM c WHERE _id.place = 'x'"), "v"), [json!(1)]);
    assert_eq!(column(&store.run("SELECT v FROM c WHERE _id = {'n': 1.0, 'place': 'x'}"), "v"), [json!(1)]);
    assert_eq!(column(&store.run("SELECT v FROM c WHERE _id = 5.0"), "v"), [json!(2)]);
}

#[test]
fn subscriptions() {
    let store = cars();
    let plan = |text: &str, args: Json| store.bind(text, args).unwrap().into_subscription();
    for (statement, what) in [
        ("SELECT make FROM c", "A projection other than wildcard (*)"),
        ("SELECT COUNT(*) FROM c", "A projection other than wildcard (*)"),
        ("SELECT DISTINCT * FROM c", "DISTINCT"),
        ("SELECT * FROM c USE IDS ('a')", "USE IDS"),
        ("SELECT * FROM c LIMIT 1", "Limit or Order by"),
        ("SELECT * FROM c ORDER BY a", "Limit or Order by"),
        ("DELETE FROM c", "non-SELECT statement in sync subscription"),
    ] {
        assert_eq!(
            plan(statement, json!({})).unwrap_err().message,
            format!("Unsupported feature: {what}"),
            "{statement}"
        );
    }
    let a = plan("select * from c as k where k.carrier = :x and 1 < k.delay", json!({"x": "AA"})).unwrap();
    let b = plan("SELECT * FROM c WHERE (carrier == 'AA') AND (1 < delay)", json!({})).unwrap();
    assert_eq!(a.canonical(), b.canonical());
    assert_ne!(
        a.canonical(),
        plan("SELECT * FROM c WHERE carrier = 'UA' AND 1 < delay", json!({})).unwrap().canonical()
    );
    let equalities = a.equalities();
    assert_eq!(equalities.len(), 1);
    assert_eq!((&*equalities[0].path[0], &equalities[0].values), ("carrier", &vec!["AA".into()]));
    assert_eq!(plan("SELECT * FROM c", json!({})).unwrap().equalities(), []);
}

#[test]
fn explain_says_how_documents_are_found() {
    let mut store = cars();
    let by_id = store.run("EXPLAIN SELECT * FROM c WHERE _id = 'a'");
    assert_eq!(by_id[0]["plan"]["children"][0]["#operator"], "idScan");
    let scan = store.run("EXPLAIN SELECT make FROM c WHERE year BETWEEN 1 AND 2 ORDER BY make LIMIT 3");
    let operators: Vec<&str> = scan[0]["plan"]["children"]
        .as_array()
        .unwrap()
        .iter()
        .map(|child| child["#operator"].as_str().unwrap())
        .collect();
    assert_eq!(operators, ["scan", "filter", "sort", "limit", "projection"]);
    assert_eq!(scan[0]["plan"]["children"][0]["prune"].as_array().unwrap().len(), 2);
    assert_eq!(store.run("EXPLAIN DELETE FROM c").len(), 1);
    assert_eq!(store.run("SELECT COUNT(*) AS n FROM c"), [json!({"n": 5})]);
}

#[test]
fn parameters_are_values() {
    let mut store = cars();
    let rows = store
        .run_with(
            "SELECT _id FROM c WHERE make IN :makes AND year = :year",
            json!({"makes": ["Ford", null], "year": 2001}),
        )
        .unwrap();
    assert_eq!(column(&rows, "_id"), [json!("a")]);
    assert!(store.error("SELECT * FROM c WHERE a = :missing").contains("The parameter :missing has no value"));
    let tricky = store.run_with("SELECT _id FROM c WHERE make = :x", json!({"x": "Ford' OR true --"})).unwrap();
    assert!(tricky.is_empty());
}
