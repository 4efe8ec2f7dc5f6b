//! DQL from columns answers as the evaluator does from documents: the same rows, the same NULL and MISSING.
//!
//! The random cases are as many as the environment's `BIGPEER_DQL_CASES` says, 400 without it; `make differential` runs
//! 20,000. A failing case is made as small as it can be, and printed with its documents.

mod statements;
mod strategies;

use std::sync::atomic::{AtomicUsize, Ordering};

use bigpeer_crdt::{DocId, Editor, Value};
use bigpeer_dql::{DqlError, Flow, Found, Mode, Moment, Plan, SelectPlan, parse};
use bigpeer_sql::DqlColumns;
use bigpeer_tables::Extent;
use bigpeer_types::SeededIds;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};

use crate::world::{World, collection};
use strategies::{Case, case};

/// Statements on the documents of one case.
const STATEMENTS: usize = 20;

/// A SELECT on the collection `c`.
fn plan(statement: &str, strict: bool) -> Result<SelectPlan, DqlError> {
    let moment = Moment::default();
    let bound = parse(statement)?.bind_at(&Default::default(), Mode { strict }, &SeededIds::new(1), &moment)?;
    let Plan::Select(plan) = bound else { panic!("{statement} is no SELECT") };
    Ok(plan)
}

/// What the evaluator says, of all documents or of some.
fn evaluated(world: &World, plan: SelectPlan, only: Option<&[DocId]>) -> Result<Vec<Value>, DqlError> {
    let mut run = plan.run();
    for ((name, id), document) in world.documents() {
        if *name != collection("c") || only.is_some_and(|ids| ids.binary_search(id).is_err()) {
            continue;
        }
        if run.push(id, document)? == Flow::Enough {
            break;
        }
    }
    run.finish()
}

/// What columns say; nothing when they do not.
async fn from_columns(world: &World, columns: &DqlColumns, plan: SelectPlan) -> Option<(&'static str, Vec<Value>)> {
    let found = columns.find(&world.store.snapshot(), &plan).await;
    let found = found.unwrap_or_else(|error| panic!("{}: {error:?}", plan.canonical()))?;
    Some(match found {
        Found::Documents(ids) => ("documents", evaluated(world, plan, Some(&ids)).unwrap()),
        Found::Groups(_) => ("groups", plan.rows_of(found).unwrap()),
        Found::Values(_) => ("values", plan.rows_of(found).unwrap()),
    })
}

/// Equal, except for how floats were added up.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => {
            a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|((k, a), (l, b))| k == l && same(a, b))
        }
        (a, b) => a == b,
    }
}

/// The same rows; of distinct values, which of them comes first is not said.
fn same_rows(how: &str, rows: &[Value], expected: &[Value]) -> bool {
    if rows.len() != expected.len() {
        return false;
    }
    if how != "values" {
        return rows.iter().zip(expected).all(|(a, b)| same(a, b));
    }
    let mut left: Vec<&Value> = expected.iter().collect();
    rows.iter().all(|row| match left.iter().position(|other| same(row, other)) {
        Some(at) => {
            left.swap_remove(at);
            true
        }
        None => false,
    })
}

/// How many statements columns answered, by how.
#[derive(Debug, Default)]
struct Answered {
    groups: AtomicUsize,
    values: AtomicUsize,
    documents: AtomicUsize,
    nothing: AtomicUsize,
}

async fn check(case: &Case, answered: &Answered) -> Result<(), TestCaseError> {
    let mut world = World::new().await;
    write(&mut world, case).await;
    let columns = world.context.dql();
    for statement in &case.statements {
        let Ok(plan) = plan(statement, case.strict) else { continue };
        let Ok(expected) = evaluated(&world, plan.clone(), None) else { continue };
        let Some((how, rows)) = from_columns(&world, &columns, plan).await else {
            answered.nothing.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        match how {
            "groups" => &answered.groups,
            "values" => &answered.values,
            _ => &answered.documents,
        }
        .fetch_add(1, Ordering::Relaxed);
        if !same_rows(how, &rows, &expected) {
            let documents: Vec<(&DocId, Value)> =
                world.documents().iter().map(|((_, id), document)| (id, document.to_object().into())).collect();
            return Err(TestCaseError::fail(format!(
                "{statement} (strict: {})\nby columns ({how}): {rows:?}\nby documents: {expected:?}\nof {documents:?}",
                case.strict
            )));
        }
    }
    Ok(())
}

async fn write(world: &mut World, case: &Case) {
    for (number, documents) in case.documents.chunks(7).enumerate() {
        let edits = documents.iter().map(|document| (document.id(), |editor: &mut Editor<'_>| document.apply(editor)));
        world.edit("c", edits).await;
        match case.upkeep.get(number).copied().unwrap_or(0) {
            1 | 2 => world.flush().await,
            3 => {
                world.flush().await;
                let writer = world.store.writer().await.unwrap();
                writer.compact(&collection("c"), Extent::Full).await.unwrap();
            }
            _ => {}
        }
    }
}

#[test]
fn columns_answer_as_documents_do() {
    let cases = std::env::var("BIGPEER_DQL_CASES").ok().map_or(400, |text| text.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let config = ProptestConfig {
        cases: u32::try_from(cases / STATEMENTS).unwrap().max(1),
        failure_persistence: None,
        max_shrink_iters: 3000,
        ..ProptestConfig::default()
    };
    let answered = Answered::default();
    let result = TestRunner::new(config).run(&case(STATEMENTS), |case| runtime.block_on(check(&case, &answered)));
    if let Err(error) = result {
        panic!("{error}");
    }
    println!("{answered:?}");
    // A comparison that compares nothing proves nothing. In few cases chance may bring only one of a kind.
    let least = if cases < 5_000 { 1 } else { cases / 100 };
    for by in [&answered.groups, &answered.values, &answered.documents] {
        assert!(by.load(Ordering::Relaxed) >= least, "{answered:?}");
    }
}
