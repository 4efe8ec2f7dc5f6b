//! The examples of docs/dql.md, run from top to bottom.

use std::collections::BTreeSet;

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

/// The rows of tables with an example each, of the section `title`: example and answer.
fn tabled(title: &str) -> Vec<(String, String)> {
    let section = GUIDE.split(title).nth(1).unwrap().split("\n## ").next().unwrap();
    let tables = section.split("| | example | answer |\n").skip(1).map(|table| table.split("\n\n").next().unwrap());
    tables
        .flat_map(str::lines)
        .skip_while(|line| line.starts_with("| ---"))
        .filter(|line| !line.starts_with("| ---"))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
            let code = |at: usize| cells[at].trim().trim_matches('`').trim().replace("\\|", "|").replace("\\\\", "\\");
            assert_eq!(cells.len(), 3, "{line}");
            (code(1), code(2))
        })
        .collect()
}

#[test]
fn every_row_of_the_tables_answers_what_it_says() {
    let document =
        "{'_id': 'x', 'i': 7, 'f': 2.5, 's': 'text', 'b': true, 'n': null, 'a': [1, 2, 3], 'o': {'k': {'l': 1}}}";
    assert!(GUIDE.contains(document));
    let mut store = Store::new();
    store.run(&format!("INSERT INTO c DOCUMENTS ({document})"));
    let expressions = tabled("## Operators and functions");
    for (expression, answer) in &expressions {
        let rows = store.run(&format!("SELECT {expression} AS r FROM c"));
        match answer.as_str() {
            "MISSING" => assert_eq!(rows, [json!({})], "{expression}"),
            json => {
                let expected: Json = serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"));
                assert_eq!(rows[0].get("r"), Some(&expected), "{expression}");
            }
        }
    }
    let called: String = expressions.iter().map(|(expression, _)| expression.to_ascii_lowercase() + "\n").collect();
    for function in bigpeer_dql::Function::ALL {
        assert!(
            called.contains(&format!("{}(", function.name())) || called.contains(&format!("`{}`(", function.name())),
            "{} has no row",
            function.name()
        );
    }
}

#[test]
fn every_clause_answers_what_its_row_says() {
    let clauses = tabled("## Every clause, with an example each");
    assert!(clauses.len() > 60, "{}", clauses.len());
    let mut wrong = Vec::new();
    for (statements, answer) in &clauses {
        let mut store = Store::new();
        for (collection, documents) in [
            ("cars", ["_id': 'a'", "_id': 'b'", "_id': 'c'"]),
            ("makers", ["_id': 'Ford'", "_id': 'Opel'", "_id': 'Fiat'"]),
        ] {
            for id in documents {
                let about = GUIDE.split("## Every clause").nth(1).unwrap();
                let document = about.split('`').find(|text| text.starts_with('{') && text.contains(id)).unwrap();
                store.run(&format!("INSERT INTO {collection} DOCUMENTS ({document})"));
            }
        }
        let mut last = Ok(Vec::new());
        for statement in statements.split("; ") {
            last = store.run_with(statement, json!({}));
        }
        let right = match (answer.as_str(), answer.strip_prefix("error: ")) {
            ("…", _) => last.as_ref().is_ok_and(|rows| !rows.is_empty()),
            (_, Some(error)) => last.as_ref().is_err_and(|found| found.message.contains(error)),
            (rows, None) => {
                let rows: Vec<Json> = serde_json::from_str(rows).unwrap_or_else(|error| panic!("{rows}: {error}"));
                last.as_ref().is_ok_and(|found| *found == rows)
            }
        };
        if !right {
            wrong.push(format!("{statements}\n  says {answer}\n  is   {last:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for aggregate in bigpeer_dql::ast::AggregateKind::ALL {
        assert!(
            clauses.iter().any(|(text, _)| text.contains(&format!("{}(", aggregate.name()))),
            "{}",
            aggregate.name()
        );
    }
}

/// The modules below `folder`, by the names of their files, and `module::function` and `function` for every test in them.
fn tests_of(folder: &std::path::Path, into: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_of(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let named = if path.ends_with("mod.rs") { path.parent().unwrap() } else { path.as_path() };
            let module = named.file_stem().unwrap().to_str().unwrap();
            into.insert(module.to_owned());
            let code = std::fs::read_to_string(&path).unwrap();
            for test in code.split("#[test]").skip(1).chain(code.split("#[tokio::test").skip(1)) {
                let name = test.split("fn ").nth(1).and_then(|rest| rest.split('(').next()).unwrap_or_default();
                into.insert(name.to_owned());
                into.insert(format!("{module}::{name}"));
            }
        }
    }
}

#[test]
fn every_test_that_the_guide_names_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = BTreeSet::new();
    for folder in ["src", "tests", "../../services/api/src/tests"] {
        tests_of(&root.join(folder), &mut tests);
    }
    let table = GUIDE.split("## The reference, line by line").nth(1).unwrap();
    let mut found = 0;
    for row in table.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        for name in cells.last().unwrap().split('`').skip(1).step_by(2) {
            let name = name.trim_end_matches("::*");
            let last = name.rsplit("::").next().unwrap();
            assert!(tests.contains(name) || (name.starts_with("properties::") && tests.contains(last)), "{name}");
            found += 1;
        }
    }
    assert!(found > 40, "{found}");
}
