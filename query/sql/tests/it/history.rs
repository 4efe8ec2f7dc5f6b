//! Concurrent writers, flushes and compactions under a stream of queries: every answer is the state at one LSN, and a session
//! that passes its transaction id never goes back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::to_bytes;
use bigpeer_crdt::{DocId, Document, Editor, Object, ObjectMode, TransactionBuilder, Value as DocValue};
use bigpeer_log::TransactionLog;
use bigpeer_tables::Extent;
use bigpeer_types::{AppId, Hlc, HlcClock, Lsn, ManualClock, SiteId};
use serde_json::{Value, json};

use crate::world::{World, append, collection};

const WRITERS: u64 = 4;
const TRANSACTIONS: u64 = 60;
const SESSIONS: usize = 2;

/// What the transactions up to each LSN add up to: documents, and the sum of their `x`.
type History = BTreeMap<Lsn, (i64, i64)>;

/// One site: inserts, updates and deletes documents of its own, several in each transaction. Returns what each changed.
async fn write(log: Arc<dyn TransactionLog>, app: AppId, site: u64) -> Vec<(Lsn, (i64, i64))> {
    let mut clock = HlcClock::new(SiteId::new(site), Hlc::ZERO, Arc::new(ManualClock::new(1_700_000_000_000)));
    let mut documents: BTreeMap<u64, (Document, Option<i64>)> = BTreeMap::new();
    let mut out = Vec::new();
    for seq in 1..=TRANSACTIONS {
        let mut builder = TransactionBuilder::new();
        let mut change = (0, 0);
        for step in 0..5 {
            // A fixed walk: new documents, old ones again, every seventh deleted.
            let number = site * 1_000_000 + (seq * 7 + step * 3) % (seq + 20);
            let (document, x) = documents.entry(number).or_default();
            let next = (seq + step) % 7 != 0;
            let mut editor = Editor::new(document, &mut clock);
            editor.delete();
            let value = i64::try_from(seq * 10 + step).unwrap();
            if next {
                let fields = [("x", DocValue::Int(value)), ("site", DocValue::Int(i64::try_from(site).unwrap()))];
                editor.insert(&Object::from_iter(fields), ObjectMode::Map).unwrap();
            }
            // None when what is not there was to be deleted.
            let Some(delta) = editor.finish() else { continue };
            document.join(&delta);
            let id = DocId::from_value(&DocValue::Int(i64::try_from(number).unwrap())).unwrap();
            builder.change(&collection("c"), &id, &delta);
            let new = next.then_some(value);
            change.0 += i64::from(new.is_some()) - i64::from(x.is_some());
            change.1 += new.unwrap_or(0) - x.unwrap_or(0);
            *x = new;
        }
        out.push((append(&log, &app, SiteId::new(site), seq, builder).await, change));
        tokio::task::yield_now().await;
    }
    out
}

/// Asks again and again, each time after the transaction of the answer before. Returns the answers.
async fn ask(world: &World, done: &AtomicBool) -> Vec<(u64, i64, i64)> {
    let mut answers = Vec::new();
    let mut last = 0;
    loop {
        let ending = done.load(Ordering::SeqCst);
        let mut request = world.request(&json!({"query": "SELECT count(*) AS n, sum(x) AS s FROM c"}));
        request.headers_mut().insert("x-ditto-txn-id", last.into());
        let answer = world.send(request).await;
        let status = answer.status();
        let version: Option<u64> =
            answer.headers().get("x-ditto-txn-id").map(|value| value.to_str().unwrap().parse().unwrap());
        let body = to_bytes(answer.into_body(), 10_000).await.unwrap();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let rows: Value = serde_json::from_slice(&body).unwrap();
        let version = version.unwrap();
        assert!(version >= last, "a session went back from {last} to {version}");
        last = version;
        answers.push((version, rows[0]["n"].as_i64().unwrap(), rows[0]["s"].as_i64().unwrap_or(0)));
        if ending {
            return answers;
        }
    }
}

fn history(changes: impl Iterator<Item = (Lsn, (i64, i64))>) -> History {
    let changes: BTreeMap<Lsn, (i64, i64)> = changes.collect();
    let mut sum = (0, 0);
    let states = changes.into_iter().map(|(lsn, change)| {
        sum = (sum.0 + change.0, sum.1 + change.1);
        (lsn, sum)
    });
    states.collect()
}

/// The state after the transaction with this id.
fn state(history: &History, version: u64) -> (i64, i64) {
    history.range(..=Lsn::new(version, u32::MAX)).next_back().map_or((0, 0), |(_, state)| *state)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn every_answer_is_the_state_at_one_transaction() {
    let mut world = World::new().await;
    // The collection exists before it is asked about.
    let begin = world.put("c", -1, json!({"x": 0, "site": 0})).await;
    let done = AtomicBool::new(false);
    let writers: Vec<_> =
        (2..2 + WRITERS).map(|site| tokio::spawn(write(Arc::clone(&world.log), world.app.clone(), site))).collect();
    let written = async {
        let mut changes = vec![(begin, (1, 0))];
        for writer in writers {
            changes.extend(writer.await.unwrap());
        }
        let last = changes.iter().map(|(lsn, _)| *lsn).max().unwrap();
        world.store.wait_for(last).await.unwrap();
        changes
    };
    let compacted = async {
        let writer = world.store.writer().await.unwrap();
        let mut rounds = 0;
        while !done.load(Ordering::SeqCst) {
            writer.flush().await.unwrap();
            let extent = [Extent::Minor, Extent::Major, Extent::Full][rounds % 3];
            writer.compact(&collection("c"), extent).await.unwrap();
            rounds += 1;
            tokio::task::yield_now().await;
        }
        rounds
    };
    let asked = futures::future::join_all((0..SESSIONS).map(|_| ask(&world, &done)));
    let finished = async {
        let changes = written.await;
        done.store(true, Ordering::SeqCst);
        changes
    };
    let (changes, rounds, asked) = tokio::join!(finished, compacted, asked);
    let history = history(changes.into_iter());
    let answers: Vec<_> = asked.into_iter().flatten().collect();
    for (version, n, sum) in &answers {
        assert_eq!((*n, *sum), state(&history, *version), "at transaction {version}");
    }
    let distinct: std::collections::BTreeSet<u64> = answers.iter().map(|(version, ..)| *version).collect();
    // What was true then is answered again, from whatever files there are now.
    for version in distinct.iter().step_by(distinct.len().div_ceil(5).max(1)) {
        let query = json!({"query": "SELECT count(*) AS n, sum(x) AS s FROM c", "as_of": version});
        let (status, _, body) = world.post(query).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let rows: Value = serde_json::from_slice(&body).unwrap();
        let state = state(&history, *version);
        assert_eq!((rows[0]["n"].as_i64().unwrap(), rows[0]["s"].as_i64().unwrap_or(0)), state, "as of {version}");
    }
    assert!(answers.len() > SESSIONS && rounds > 0, "{} answers, {rounds} rounds", answers.len());
}
