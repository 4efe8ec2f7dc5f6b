//! DQL statements: what is accepted prints as itself, and binding and running it ends in rows or an error.
#![no_main]

use std::sync::Arc;

use bigpeer_crdt::{DocId, Document, Object, Value};
use bigpeer_dql::{Mode, Plan, parse};
use bigpeer_types::{Hlc, HlcClock, ManualClock, SeededIds, SiteId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(statement) = parse(text) else { return };
    let printed = statement.to_string();
    assert_eq!(parse(&printed).as_ref(), Ok(&statement), "{printed}");
    let params: Object = [("p", Value::from(1)), ("d", Value::Object(Object::new()))].into_iter().collect();
    let mut clock = HlcClock::new(SiteId::new(1), Hlc::ZERO, Arc::new(ManualClock::new(1)));
    let id = DocId::from_value(&Value::from(1)).unwrap();
    let document = Arc::new(document(&mut clock));
    match statement.bind(&params, Mode { strict: data.len() % 2 == 0 }, &SeededIds::new(1)) {
        Ok(Plan::Select(plan)) => {
            let mut run = plan.run();
            let _ = run.push(&id, &document).and_then(|_| run.finish());
        }
        Ok(Plan::Insert(plan)) => _ = plan.apply(&|_| Some(Arc::clone(&document)), &mut clock),
        Ok(Plan::Update(plan)) => {
            let mut run = plan.run();
            let _ = run.push(&id, document).and_then(|_| run.finish(&mut clock));
        }
        Ok(Plan::Delete(plan) | Plan::Evict(plan)) => {
            let mut run = plan.run();
            let _ = run.push(&id, document).and_then(|_| run.finish(&mut clock));
        }
        Ok(Plan::Explain(_)) | Err(_) => {}
    }
});

fn document(clock: &mut HlcClock) -> Document {
    let inner: Object = [("b", Value::from(vec![Value::from(1), Value::Null]))].into_iter().collect();
    let fields: Object = [("a", Value::from(1)), ("o", Value::from(inner)), ("s", Value::from("text"))].into_iter().collect();
    let empty = Document::new();
    let mut editor = bigpeer_crdt::Editor::new(&empty, clock);
    editor.insert(&fields, bigpeer_crdt::ObjectMode::Map).unwrap();
    editor.finish().unwrap()
}
