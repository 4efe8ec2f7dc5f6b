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

/// The text of every Rust file below `folder`.
fn sources(folder: &std::path::Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_test_that_the_guide_names_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    for folder in ["src", "tests", "../../services/api/src/tests"] {
        sources(&root.join(folder), &mut code);
    }
    let table = GUIDE.split("## The reference, line by line").nth(1).unwrap();
    let mut found = 0;
    for row in table.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        for name in cells.last().unwrap().split('`').skip(1).step_by(2) {
            let (module, function) = name.rsplit_once("::").unwrap_or(("", name));
            let there = if function == "*" || module == "properties" {
                code.contains(&format!("mod {}", name.trim_end_matches("::*").rsplit("::").next().unwrap()))
            } else {
                code.contains(&format!("fn {function}("))
            };
            assert!(there, "{name}");
            found += 1;
        }
    }
    assert!(found > 40, "{found}");
}
