//! How many documents per second a scan evaluates: `cargo bench -p bigpeer-dql`. Prints `name value unit`.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "a benchmark"
)]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bigpeer_crdt::{DocId, Document, Editor, Object, ObjectMode, Value};
use bigpeer_dql::{Flow, Mode, Params, Plan, SelectPlan, parse};
use bigpeer_types::{CollectionName, Hlc, HlcClock, ManualClock, SeededIds, SiteId};

const DOCUMENTS: i64 = 100_000;

/// Documents like the flights of the demo: 19 fields.
fn flights() -> Vec<(DocId, Document)> {
    let mut clock = HlcClock::new(SiteId::new(1), Hlc::ZERO, Arc::new(ManualClock::new(1_000)));
    let empty = Document::new();
    let carriers = ["AA", "UA", "DL", "B6"];
    (0..DOCUMENTS)
        .map(|number| {
            let text = |key: &'static str, value: &str| (key, Value::from(value));
            let whole = |key: &'static str, value: i64| (key, Value::from(value));
            let carrier = carriers[usize::try_from(number % 4).unwrap()];
            let fields: Object = [
                whole("year", 2013),
                whole("month", number % 12 + 1),
                whole("day", number % 28 + 1),
                whole("dep_time", number % 2400),
                whole("sched_dep_time", 515),
                whole("dep_delay", number % 120 - 10),
                whole("arr_time", 830),
                whole("sched_arr_time", 819),
                whole("arr_delay", number % 90),
                text("carrier", carrier),
                whole("flight", number % 8000),
                text("tailnum", "N14228"),
                text("origin", "EWR"),
                text("dest", "IAH"),
                whole("air_time", 227),
                whole("distance", number % 5000),
                whole("hour", 5),
                whole("minute", 15),
                text("time_hour", "2013-01-01T10:00:00Z"),
            ]
            .into_iter()
            .collect();
            let mut editor = Editor::new(&empty, &mut clock);
            editor.insert(&fields, ObjectMode::Map).unwrap();
            (DocId::from_value(&Value::from(number)).unwrap(), editor.finish().unwrap())
        })
        .collect()
}

fn measure(name: &str, statement: &str, documents: &[(DocId, Document)]) {
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let plan = parse(statement).unwrap().bind(&Params::new(), Mode::default(), &SeededIds::new(1)).unwrap();
        let Plan::Select(plan) = plan else { panic!("{statement}") };
        let start = Instant::now();
        let mut run = plan.run();
        for (id, document) in documents {
            if run.push(id, document).unwrap() == Flow::Enough {
                break;
            }
        }
        black_box(run.finish().unwrap());
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!("{name} {:.0} documents/s", documents.len() as f64 / best);
}

/// What it costs to ask a compiled rule of permissions about a document, of so many in turn: the median of eleven rounds. A few are
/// where a document is that has just been read or changed; of many each is fetched from memory.
fn measure_rule(name: &str, condition: &str, documents: &[(DocId, Document)]) {
    let rule = SelectPlan::of_condition(&CollectionName::new("flights").unwrap(), condition).unwrap();
    let round = |documents: &[(DocId, Document)]| {
        let start = Instant::now();
        let mut allowed = 0;
        for _ in 0..DOCUMENTS as usize / documents.len() {
            allowed += documents.iter().filter(|(id, document)| rule.matches(id, black_box(document))).count();
        }
        assert!((1..DOCUMENTS as usize).contains(&allowed), "{condition}: {allowed}");
        start.elapsed().as_secs_f64() * 1e9 / DOCUMENTS as f64
    };
    for (beside, some) in [("of_100", &documents[..100]), ("of_100000", documents)] {
        let mut rounds: Vec<f64> = (0..11).map(|_| round(some)).collect();
        rounds.sort_by(f64::total_cmp);
        println!("{name}_{beside} {:.0} ns", rounds[rounds.len() / 2]);
    }
}

fn main() {
    let documents = flights();
    measure_rule("rule_equality", "carrier = 'AA'", &documents);
    measure_rule("rule_id", "_id < 50", &documents);
    measure_rule("rule_in_and_comparison", "origin IN ('EWR', 'JFK') AND month > 6", &documents);
    measure(
        "dql_where_two_conditions",
        "SELECT COUNT(*) FROM flights WHERE carrier = 'AA' AND dep_delay > 60",
        &documents,
    );
    measure(
        "dql_where_in_and_like",
        "SELECT COUNT(*) FROM flights WHERE origin IN ('EWR', 'JFK') AND tailnum LIKE 'N14%'",
        &documents,
    );
    measure(
        "dql_group_by_three_aggregates",
        "SELECT carrier, COUNT(*), AVG(dep_delay), SUM(distance) FROM flights GROUP BY carrier",
        &documents,
    );
    measure("dql_order_by_limit", "SELECT flight, dep_delay FROM flights ORDER BY dep_delay DESC LIMIT 10", &documents);
    measure("dql_select_all_fields", "SELECT * FROM flights WHERE carrier = 'AA'", &documents);
}
