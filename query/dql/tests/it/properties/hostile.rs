//! Hostile text and senseless statements: an error or a result, never a panic, never an overflow of the stack.

use std::sync::Arc;

use bigpeer_crdt::{DocId, Document, Editor, Object, ObjectMode, Value};
use bigpeer_dql::{Mode, Plan, Statement, parse};
use bigpeer_types::{Hlc, HlcClock, ManualClock, SeededIds, SiteId};
use proptest::prelude::*;

use super::strategies::{fields, select, statement, value};
use crate::store::Store;

pub(crate) fn document(fields: &Object) -> Document {
    let mut clock = HlcClock::new(SiteId::new(1), Hlc::ZERO, Arc::new(ManualClock::new(1_000)));
    let empty = Document::new();
    let mut editor = Editor::new(&empty, &mut clock);
    editor.insert(fields, ObjectMode::Map).unwrap();
    editor.finish().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_text_is_parsed_or_refused(text in "\\PC{0,60}") {
        let _ = parse(&text);
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_mutated_statement_is_parsed_or_refused(statement in statement(), cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..4), put in "[ -~]{0,3}") {
        let mut chars: Vec<char> = statement.to_string().chars().collect();
        for (from, to) in cuts {
            let (from, to) = (from.index(chars.len() + 1), to.index(chars.len() + 1));
            chars.splice(from.min(to)..from.max(to).min(from.min(to) + 4), put.chars());
        }
        let text: String = chars.into_iter().collect();
        if let Err(error) = parse(&text) {
            prop_assert!(error.position.is_none_or(|position| position.offset <= text.len()));
        }
    }

    #[test]
    fn anything_can_be_evaluated_on_anything(select in select(), fields in fields(), id in value(), p in value(), strict: bool) {
        let params = [("p", p.clone()), ("limit", Value::from(3)), ("list", Value::from(vec![p]))].into_iter().collect();
        if let (Ok(Plan::Select(plan)), Ok(id)) = (Statement::Select(select).bind(&params, Mode { strict }, &SeededIds::new(1)), DocId::from_value(&id)) {
            let document = document(&fields);
            let (_, _, _) = (plan.conditions(), plan.ids(), plan.canonical());
            let mut run = plan.run();
            if run.push(&id, &document).is_ok() {
                let _ = run.finish();
            }
        }
    }

    #[test]
    fn any_statement_can_be_run(statement in statement(), fields in fields(), p in value(), strict: bool) {
        let mut store = Store::with(serde_json::json!([]));
        store.mode = Mode { strict };
        let mut fields = fields;
        fields.insert("_id", "x");
        store.run_with("INSERT INTO flights DOCUMENTS (:d)", serde_json::json!({"d": fields.to_json()})).unwrap();
        let _ = store.run_with(&statement.to_string(), serde_json::json!({"p": p.to_json(), "limit": 2, "list": [p.to_json()]}));
    }
}

#[test]
fn nesting_ends_in_an_error() {
    let wrap =
        |open: &str, close: &str| format!("SELECT * FROM c WHERE {}a{}", open.repeat(20_000), close.repeat(20_000));
    for text in [
        wrap("(", ")"),
        wrap("NOT ", ""),
        wrap("-", ""),
        wrap("- ", ""),
        wrap("+", ""),
        wrap("[", "]"),
        wrap("{'a':", "}"),
        wrap("abs(", ")"),
        wrap("a + ", ""),
        wrap("a || ", ""),
        wrap("a = ", ""),
        wrap("", " IS NULL"),
        wrap("", "[0]"),
        wrap("", ".b"),
        wrap("CASE WHEN ", ""),
        wrap("ANY v IN ", ""),
        wrap("", " IN (a)"),
        wrap("a LIKE ", ""),
        wrap("CAST(", " AS STRING)"),
        format!("UPDATE COLLECTION c (a MAP {}", "(a MAP ".repeat(20_000)),
        format!("UPDATE c SET a{} = 1", ".a".repeat(20_000)),
        "EXPLAIN ".repeat(20_000),
    ] {
        let error = parse(&text).unwrap_err();
        assert!(error.to_string().len() < 500, "{error}");
    }
}

#[test]
fn long_lists_are_fine() {
    let mut store = Store::with(serde_json::json!([{"_id": 1, "a": 5}]));
    for text in [
        format!("SELECT * FROM c WHERE {}", vec!["a = 5"; 20_000].join(" AND ")),
        format!("SELECT * FROM c WHERE {}", vec!["a != 5"; 20_000].join(" OR ") + " OR true"),
        format!("SELECT * FROM c WHERE a IN ({})", vec!["5"; 50_000].join(",")),
    ] {
        assert_eq!(store.run(&text).len(), 1);
    }
    let long = format!("SELECT '{}' FROM c", "x".repeat(bigpeer_types::limits::MAX_STATEMENT_BYTES));
    assert!(store.error(&long).contains("more than"));
}

#[test]
fn evaluation_is_bounded() {
    let mut store = Store::with(serde_json::json!([{"_id": 1, "a": (0..200).collect::<Vec<i32>>()}]));
    let nested = "ANY v IN a SATISFIES ".repeat(6) + "v < 0" + &" END".repeat(6);
    assert!(store.error(&format!("SELECT * FROM c WHERE {nested}")).contains("too long to evaluate"));
    let folded = "ANY v IN [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20] SATISFIES ".repeat(8)
        + "v < 0"
        + &" END".repeat(8);
    assert!(store.error(&format!("SELECT * FROM c WHERE {folded}")).contains("too long to evaluate"));
    let doubled = format!("SELECT length({}) AS n FROM c", "x || x".replace('x', "repeat('abcdefgh', 600000)"));
    assert_eq!(store.run(&doubled), [serde_json::json!({})]);
}
