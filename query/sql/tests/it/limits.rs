//! Limits: each is met, answered with its code, and leaves nothing behind.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use bigpeer_chassis::{ApiKeySpec, KeyLimits, Permissions};
use bigpeer_sql::{Spill, SqlSettings};
use object_store::memory::InMemory;
use serde_json::{Value, json};

use crate::world::{World, add_key_of, small_sql, small_tables};

async fn limited(settings: SqlSettings) -> World {
    World::with(Arc::new(InMemory::new()), small_tables(), settings).await
}

/// Tasks that a query had started end at their next wait: none of them keeps memory beyond it.
async fn all_memory_is_free(world: &World) {
    let free = async {
        while world.context.reserved_bytes() > 0 {
            tokio::task::yield_now().await;
        }
    };
    let freed = tokio::time::timeout(Duration::from_secs(60), free).await;
    assert!(freed.is_ok(), "{} bytes are still held", world.context.reserved_bytes());
}

fn code(body: &[u8]) -> String {
    serde_json::from_slice::<Value>(body).unwrap()["error"]["code"].as_str().unwrap().to_owned()
}

/// A hash join whose table is larger than any memory that these tests give.
const BIG: &str = "SELECT count(*) AS n FROM generate_series(1, 1000000) AS a(x) JOIN generate_series(1, 1000000) AS b(y) \
                   ON a.x = b.y";

#[tokio::test]
async fn a_query_over_its_memory_fails_and_the_next_one_works() {
    let world = limited(SqlSettings { query_memory_bytes: 1 << 20, ..small_sql() }).await;
    let (status, _, body) = world.post(json!({"query": BIG})).await;
    assert_eq!((status, code(&body)), (StatusCode::PAYLOAD_TOO_LARGE, "too_large".to_owned()));
    assert_eq!(world.context.running(), 0);
    all_memory_is_free(&world).await;
    assert_eq!(world.rows("SELECT 1 AS one").await, json!([{"one": 1}]));
}

#[tokio::test]
async fn a_query_that_finds_the_memory_of_all_used_is_told_to_come_back() {
    let world = limited(SqlSettings { memory_bytes: 1 << 20, ..small_sql() }).await;
    let (status, headers, body) = world.post(json!({"query": BIG})).await;
    assert_eq!((status, code(&body)), (StatusCode::TOO_MANY_REQUESTS, "too_many_requests".to_owned()));
    assert!(headers.contains_key("retry-after"));
    all_memory_is_free(&world).await;
}

#[tokio::test]
async fn sorts_larger_than_memory_go_to_disk_and_leave_nothing_there() {
    let dir = tempfile::tempdir().unwrap();
    let spill = dir.path().join("spill");
    std::fs::create_dir(&spill).unwrap();
    std::fs::write(spill.join("left behind"), "by a process that was killed").unwrap();
    let small = SqlSettings { query_memory_bytes: 96 << 20, ..small_sql() };
    let world =
        limited(SqlSettings { spill: Some(Spill { dir: spill.clone(), bytes: 1 << 30 }), ..small.clone() }).await;
    assert!(!spill.join("left behind").exists());
    // Some 64 MB, in no order.
    let rows = "SELECT repeat(reverse(lpad(CAST(value AS VARCHAR), 32, '0')), 5) AS t FROM generate_series(1, 400000)";
    let sorted = format!(
        "SELECT max(place) AS n, min(t) AS least FROM (SELECT t, row_number() OVER (ORDER BY t) AS place FROM ({rows}))"
    );
    let groups = format!("SELECT count(*) AS n FROM (SELECT t, count(*) FROM ({rows}) GROUP BY t)");
    let least = format!("{}1{}", "0".repeat(5), "0".repeat(26)).repeat(5);
    assert_eq!(world.rows(&sorted).await, json!([{"n": 400_000, "least": least}]));
    assert_eq!(world.rows(&groups).await, json!([{"n": 400_000}]));
    all_memory_is_free(&world).await;
    let left = walk(&spill);
    assert!(left.is_empty(), "{left:?}");
    let world = limited(small).await;
    for query in [sorted, groups] {
        assert_eq!(world.error(&query).await.0, 413, "without room on disk: {query}");
    }
}

/// The files below `dir`.
fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { out.extend(walk(&path)) } else { out.push(path) }
    }
    out
}

#[tokio::test]
async fn a_query_that_reads_too_much_fails_and_the_next_one_works() {
    let mut world = limited(SqlSettings { scan_bytes: 6_000, ..small_sql() }).await;
    let documents: Vec<_> = (0..2_000)
        .map(|n| ("c", json!(n), Some(json!({"n": n, "text": format!("{n} of many words {}", n * 7919)}))))
        .collect();
    world.write(&documents).await;
    world.flush().await;
    let (status, _, body) = world.post(json!({"query": "SELECT max(reverse(text)) FROM c"})).await;
    assert_eq!((status, code(&body)), (StatusCode::PAYLOAD_TOO_LARGE, "too_large".to_owned()));
    assert!(String::from_utf8_lossy(&body).contains("reads more than 6000 bytes"));
    assert_eq!(world.context.running(), 0);
    assert_eq!(world.rows("SELECT n FROM c WHERE _id = 7").await, json!([{"n": 7}]));
    assert_eq!(world.rows("SELECT count(*) AS n FROM c").await, json!([{"n": 2_000}]), "from metadata");
}

#[tokio::test]
async fn a_key_may_have_less_than_others() {
    let mut world = limited(small_sql()).await;
    let documents: Vec<_> =
        (0..2_000).map(|n| ("c", json!(n), Some(json!({"text": format!("{n} of many words {}", n * 7919)})))).collect();
    world.write(&documents).await;
    world.flush().await;
    let everything = "SELECT max(reverse(text)) AS m FROM c";
    assert_eq!(world.rows(everything).await.as_array().unwrap().len(), 1);
    let limits = KeyLimits { sql_scan_bytes: Some(6_000), sql_memory_bytes: Some(1 << 20), ..KeyLimits::default() };
    let spec = ApiKeySpec { permissions: Permissions::all(), limits, ..ApiKeySpec::default() };
    let less = add_key_of(&world.catalogue, &world.app, "less", spec).await;
    let all = std::mem::replace(&mut world.key, less);
    for (query, part) in [(everything, "reads more than 6000 bytes"), (BIG, "more memory")] {
        let (status, error) = world.error(query).await;
        assert_eq!((status, error["error"]["code"].as_str()), (413, Some("too_large")), "{query}");
        assert!(error["error"]["message"].as_str().unwrap().contains(part), "{query}: {error}");
    }
    world.key = all;
    assert_eq!(world.rows(everything).await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_query_that_is_cancelled_frees_its_memory() {
    let world = limited(small_sql()).await;
    // Groups grow for as long as it runs, and none is whole before the end.
    let endless = "SELECT value % 1000000007, count(*) FROM generate_series(1, 1000000000000) GROUP BY 1";
    let asking = tokio::spawn(tower::ServiceExt::oneshot(world.router(), world.request(&json!({"query": endless}))));
    while world.context.reserved_bytes() < 1 << 20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.context.running(), 1);
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    assert_eq!(world.context.running(), 0);
    all_memory_is_free(&world).await;
    assert_eq!(world.rows("SELECT 1 AS one").await, json!([{"one": 1}]));
}

#[tokio::test]
async fn a_client_that_stalls_holds_its_turn_until_time_is_up() {
    let world = limited(SqlSettings { time_limit: Duration::from_millis(200), ..small_sql() }).await;
    let open = world.send(world.request(&json!({"query": "SELECT * FROM generate_series(1, 1000000000000)"}))).await;
    assert_eq!((open.status(), world.context.running()), (StatusCode::OK, 1));
    // Nobody reads.
    while world.context.running() > 0 {
        tokio::task::yield_now().await;
    }
    let body = axum::body::to_bytes(open.into_body(), usize::MAX).await;
    assert!(body.is_err(), "an answer that was stopped must not look whole");
}

#[tokio::test]
async fn a_query_over_its_time_is_stopped() {
    let world = limited(SqlSettings { time_limit: Duration::from_millis(50), ..small_sql() }).await;
    let endless = "SELECT count(*) FROM generate_series(1, 1000000000000) WHERE value % 7 = 8";
    let (status, _, body) = world.post(json!({"query": endless})).await;
    assert_eq!((status, code(&body)), (StatusCode::REQUEST_TIMEOUT, "timeout".to_owned()));
    assert_eq!(world.context.running(), 0);
}

#[tokio::test]
async fn queries_beyond_the_most_at_once_are_told_to_come_back() {
    let settings = SqlSettings { max_concurrent: 1, queue_wait: Duration::ZERO, ..small_sql() };
    let world = limited(settings).await;
    let open = world.send(world.request(&json!({"query": "SELECT * FROM generate_series(1, 1000000000000)"}))).await;
    assert_eq!((open.status(), world.context.running()), (StatusCode::OK, 1));
    let (status, headers, body) = world.post(json!({"query": "SELECT 1"})).await;
    assert_eq!((status, code(&body)), (StatusCode::TOO_MANY_REQUESTS, "too_many_requests".to_owned()));
    assert!(headers.contains_key("retry-after"));
    drop(open);
    assert_eq!(world.context.running(), 0);
    assert_eq!(world.rows("SELECT 1 AS one").await, json!([{"one": 1}]));
}

#[tokio::test]
async fn a_transaction_that_does_not_come_is_not_found() {
    let mut world = limited(SqlSettings { transaction_wait: Duration::ZERO, ..small_sql() }).await;
    let lsn = world.put("c", 1, json!({"x": 1})).await;
    for (version, status) in [(lsn.version, 200), (lsn.version + 1, 404)] {
        let mut request = world.request(&json!({"query": "SELECT x FROM c"}));
        request.headers_mut().insert("x-ditto-txn-id", version.into());
        assert_eq!(world.send(request).await.status(), status, "{version}");
    }
}

#[tokio::test]
async fn a_query_waits_for_the_transaction_that_it_names() {
    let mut world = World::new().await;
    let lsn = world.put("c", 1, json!({"x": 1})).await;
    let mut request = world.request(&json!({"query": "SELECT count(*) AS n FROM c"}));
    request.headers_mut().insert("x-ditto-txn-id", (lsn.version + 1).into());
    let waiting = tokio::spawn({
        let router = world.router();
        async move { tower::ServiceExt::oneshot(router, request).await.unwrap() }
    });
    world.put("c", 2, json!({"x": 2})).await;
    let answer = waiting.await.unwrap();
    let body = axum::body::to_bytes(answer.into_body(), 1000).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), json!([{"n": 2}]));
}

#[tokio::test]
async fn the_deepest_query_that_is_let_in_does_not_end_the_stack() {
    let mut world = World::new().await;
    world.put("c", 1, json!({"x": 1})).await;
    let chain = format!("SELECT x{} AS n FROM c", " + x".repeat(190));
    assert_eq!(world.rows(&chain).await, json!([{"n": 191}]));
    let unions = format!("SELECT count(*) AS n FROM (SELECT x FROM c{})", " UNION ALL SELECT x FROM c".repeat(100));
    assert_eq!(world.rows(&unions).await, json!([{"n": 101}]));
    let nested = format!("SELECT {}x{} AS n FROM c", "abs(".repeat(40), ")".repeat(40));
    assert_eq!(world.rows(&nested).await, json!([{"n": 1}]));
}
