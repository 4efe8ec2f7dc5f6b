//! The older query language.

use bigpeer_dql::{parse_legacy, parse_legacy_path};
use proptest::prelude::*;
use serde_json::json;

use crate::store::Store;

fn kept(query: &str, args: serde_json::Value) -> Vec<i64> {
    let mut store = Store::with(json!([
        {"_id": 1, "name": "Ada", "age": 36, "tags": ["x", "y"], "address": {"street-line": ["Main", 5]}},
        {"_id": 2, "name": "Bob", "age": 20, "gone": null},
        {"_id": 3, "name": "it's", "on": "2024-01-05", "ok": true},
    ]));
    let condition = parse_legacy(query).unwrap_or_else(|error| panic!("{query}: {error}"));
    let rows = store.run_with(&format!("SELECT _id FROM c WHERE {condition} ORDER BY _id"), args);
    rows.unwrap_or_else(|error| panic!("{query}: {error}")).iter().map(|row| row["_id"].as_i64().unwrap()).collect()
}

#[test]
fn queries() {
    for (query, expected) in [
        ("true", vec![1, 2, 3]),
        ("false", vec![]),
        ("name == 'Ada'", vec![1]),
        ("name == \"it's\"", vec![3]),
        ("name == 'it\\'s'", vec![3]),
        ("'Ada' == name", vec![1]),
        ("name != 'Ada'", vec![2, 3]),
        ("age >= 20 && age < 36", vec![2]),
        ("age > 30 || name == 'Bob'", vec![1, 2]),
        ("!(age > 30)", vec![2]),
        ("!ok || !(name == 'it\\'s')", vec![1, 2]),
        ("contains(['Ada', 'Bob'], name)", vec![1, 2]),
        ("contains(tags, 'y')", vec![1]),
        ("contains([], name)", vec![]),
        ("starts_with(name, 'A') || ends_with(name, 'b')", vec![1, 2]),
        ("regex(name, '^[AB]')", vec![1, 2]),
        ("regex(name, '\\\\w{3}')", vec![1, 2]),
        ("gone == null", vec![1, 2, 3]),
        ("gone != null", vec![]),
        ("age != null", vec![1, 2]),
        ("null == age", vec![3]),
        ("address['street-line'][0] == 'Main'", vec![1]),
        ("address[\"street-line\"][1] == 5.0", vec![1]),
        ("on > '2024-01-01'", vec![3]),
        ("age == -1e3", vec![]),
        ("_id == 2", vec![2]),
    ] {
        assert_eq!(kept(query, json!({})), expected, "{query}");
    }
    assert_eq!(kept("age > $args.least && contains($args.names, name)", json!({"least": 5, "names": ["Bob"]})), [2]);
    assert_eq!(
        kept("name == $args.who.name || age == $args['the age']", json!({"who": {"name": "Bob"}, "the age": 36})),
        [1, 2]
    );
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (query, column) in [
        ("", 1),
        ("a ==", 5),
        ("a = 1", 3),
        ("(a == 1", 8),
        ("a == 'x", 6),
        ("foo(a, b)", 1),
        ("contains(a)", 1),
        ("a == 1 b", 8),
        ("$other.x", 1),
        ("a.[0]", 3),
        ("a & b", 3),
    ] {
        let error = parse_legacy(query).unwrap_err();
        assert_eq!(error.position.map(|at| at.column), Some(column), "{query}: {error}");
    }
    assert!(parse_legacy(&"(".repeat(100_000)).is_err());
    assert!(parse_legacy(&"!".repeat(100_000)).is_err());
    assert!(parse_legacy(&format!("a{}", ".b".repeat(100_000))).is_err());
    assert_eq!(parse_legacy_path("a.b['c d']").unwrap(), ["a", "b", "c d"]);
    assert!(parse_legacy_path("a[0]").is_err());
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in "[ a-z0-9.'\"()!&|=<>$\\[\\]\\\\,ü-]{0,40}") {
        if let Ok(expr) = parse_legacy(&text) {
            // And is printed as DQL that means the same.
            prop_assert_eq!(bigpeer_dql::parse_expr(&expr.to_string()).map_err(|error| TestCaseError::fail(format!("{text}: {expr}: {error}")))?, expr);
        }
    }
}
