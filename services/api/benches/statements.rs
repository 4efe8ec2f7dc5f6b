//! Statements per second through the router, over a log in memory: `cargo bench -p bigpeer-api`. Prints `name value unit`.
//! What it costs beside the log and the network.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, clippy::cast_precision_loss, reason = "a benchmark")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

mod memory;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use memory::Memory;
use serde_json::{Value, json};
use tower::ServiceExt;

const DOCUMENTS: u64 = 10_000;
const LASTING: Duration = Duration::from_secs(4);

async fn ask(memory: &Memory, path: &str, body: Value) -> Value {
    let request = Request::post(format!("/{}/api/{path}", memory.app))
        .header(header::AUTHORIZATION, format!("Bearer {}", memory.key))
        .body(Body::from(body.to_string()));
    let response = memory.router.clone().oneshot(request.unwrap()).await.unwrap();
    let status = response.status();
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    assert!(status.is_success(), "{}", String::from_utf8_lossy(&bytes));
    serde_json::from_slice(&bytes).unwrap()
}

/// Asks from `tasks` at once, for as long as it lasts.
async fn measure(name: &str, memory: &Arc<Memory>, tasks: u64, make: fn(u64) -> (&'static str, Value)) {
    let (next, started) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..tasks {
        let (memory, next) = (Arc::clone(memory), Arc::clone(&next));
        running.spawn(async move {
            let mut slowest: Vec<Duration> = Vec::new();
            while started.elapsed() < LASTING {
                let (path, body) = make(next.fetch_add(1, Ordering::Relaxed));
                let asked = Instant::now();
                ask(&memory, path, body).await;
                slowest.push(asked.elapsed());
            }
            slowest
        });
    }
    let mut times: Vec<Duration> = running.join_all().await.into_iter().flatten().collect();
    let per_second = times.len() as f64 / started.elapsed().as_secs_f64();
    times.sort_unstable();
    let p50 = times[times.len() / 2].as_secs_f64() * 1e6;
    println!("{name}, {tasks} at once {per_second:.0} 1/s");
    println!("{name}, {tasks} at once, p50 {p50:.0} us");
}

fn point_read(n: u64) -> (&'static str, Value) {
    let args = json!({"id": n.wrapping_mul(7919) % DOCUMENTS});
    ("v5/store/execute", json!({"statement": "SELECT * FROM c WHERE _id = :id", "args": args}))
}

fn insert(n: u64) -> (&'static str, Value) {
    let document = json!({"_id": format!("new-{n}"), "name": "Ada", "n": n, "on": true});
    (
        "v5/store/execute",
        json!({"statement": "INSERT INTO fresh DOCUMENTS (:d) ON ID CONFLICT DO UPDATE", "args": {"d": document}}),
    )
}

fn update(n: u64) -> (&'static str, Value) {
    let args = json!({"id": n.wrapping_mul(7919) % DOCUMENTS, "n": n});
    ("v5/store/execute", json!({"statement": "UPDATE c SET n = :n WHERE _id = :id", "args": args}))
}

fn read_modify_write(n: u64) -> (&'static str, Value) {
    let args = json!({"id": n.wrapping_mul(7919) % DOCUMENTS});
    ("v5/store/execute", json!({"statement": "UPDATE c SET n = n + 1 WHERE _id = :id", "args": args}))
}

fn transfer(n: u64) -> (&'static str, Value) {
    let (from, to) = (n.wrapping_mul(7919) % DOCUMENTS, n.wrapping_mul(104_729) % DOCUMENTS);
    let statements = json!([
        {"statement": "UPDATE c SET n = n - 1 WHERE _id = :id", "args": {"id": from}},
        {"statement": "UPDATE c SET n = n + 1 WHERE _id = :id", "args": {"id": to}}
    ]);
    ("v1/transaction", json!({ "statements": statements }))
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let memory = Arc::new(Memory::new().await);
        let documents: Vec<Value> =
            (0..DOCUMENTS).map(|id| json!({"_id": id, "name": "Ada Lovelace", "n": 0, "tags": ["x", "y"]})).collect();
        ask(
            &memory,
            "v5/store/execute",
            json!({"statement": "INSERT INTO c DOCUMENTS (:d)", "args": {"d": documents}}),
        )
        .await;
        for tasks in [1, 64] {
            measure("DQL point read", &memory, tasks, point_read).await;
            measure("DQL insert", &memory, tasks, insert).await;
            measure("DQL update of a field", &memory, tasks, update).await;
            measure("DQL read, modify and write", &memory, tasks, read_modify_write).await;
            measure("DQL transaction of two", &memory, tasks, transfer).await;
        }
    });
}
