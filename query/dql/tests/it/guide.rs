//! The examples of docs/dql.md, run from top to bottom.

use serde_json::{Value as Json, json};

use crate::store::Store;

const GUIDE: &str = include_str!("../../../../docs/dql.md");

/// Statements and the comment lines after each.
fn examples() -> Vec<(String, Vec<String>)> {
    let mut examples: Vec<(String, Vec<String>)> = Vec::new();
    for block in GUIDE.split("```sql\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            match line.strip_prefix("-- ") {
                Some(expected) => examples.last_mut().unwrap().1.push(expected.to_owned()),
                None => examples.push((line.to_owned(), Vec::new())),
            }
        }
    }
    examples
}

#[test]
fn every_example_answers_what_it_says() {
    let mut store = Store::new();
    let examples = examples();
    assert!(examples.len() > 25, "{}", examples.len());
    for (statement, expected) in examples {
        let answer = store.run_with(&statement, json!({}));
        match expected.first().map(|text| (text.as_str(), text.strip_prefix("error: "))) {
            None => assert!(answer.is_ok(), "{statement}: {answer:?}"),
            Some((_, Some(error))) => {
                assert!(answer.as_ref().is_err_and(|found| found.message.contains(error)), "{statement}: {answer:?}")
            }
            Some((rows, None)) => {
                let rows: Vec<Json> = serde_json::from_str(rows).unwrap_or_else(|error| panic!("{rows}: {error}"));
                assert_eq!(answer.unwrap_or_else(|error| panic!("{statement}: {error}")), rows, "{statement}");
            }
        }
    }
}

#[test]
fn every_function_is_in_the_guide() {
    for function in bigpeer_dql::Function::ALL {
        assert!(GUIDE.contains(function.name()), "{}", function.name());
    }
    for aggregate in bigpeer_dql::ast::AggregateKind::ALL {
        assert!(GUIDE.contains(aggregate.name()), "{}", aggregate.name());
    }
}
