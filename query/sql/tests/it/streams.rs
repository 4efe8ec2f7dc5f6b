//! Answers as streams: every format whole, pulled not pushed, stopped by the client, broken off by errors.

use std::io::Cursor;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http_body_util::BodyExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::world::{World, small_sql, small_tables};

#[tokio::test]
async fn every_format_is_whole() {
    let mut world = World::new().await;
    let documents: Vec<_> = (0..500).map(|n| ("c", json!(n), Some(json!({"n": n, "t": format!("t{n}")})))).collect();
    world.write(&documents).await;
    world.flush().await;
    let query = "SELECT _id, n, t FROM c ORDER BY _id";
    let sum = 499 * 500 / 2;
    let get = async |format: &str| {
        let (status, headers, body) = world.post(json!({"query": query, "format": format})).await;
        assert_eq!(status, 200);
        (headers["content-type"].to_str().unwrap().to_owned(), Bytes::from(body))
    };
    let total = |rows: &[Value]| rows.iter().map(|row| row["n"].as_i64().unwrap()).sum::<i64>();

    let (kind, body) = get("json").await;
    let rows: Vec<Value> = serde_json::from_slice(&body).unwrap();
    assert_eq!((kind.as_str(), rows.len(), total(&rows)), ("application/json", 500, sum));

    let (kind, body) = get("ndjson").await;
    let rows: Vec<Value> = body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!((kind.as_str(), rows.len(), total(&rows)), ("application/x-ndjson", 500, sum));

    let (_, body) = get("csv").await;
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert_eq!((text.lines().count(), text.lines().nth(3)), (501, Some("2,2,t2")));

    let (kind, body) = get("arrow").await;
    let batches =
        arrow::ipc::reader::StreamReader::try_new(Cursor::new(body), None).unwrap().map(|batch| batch.unwrap());
    let read: i64 = batches.map(|batch| batch.column(1).as_primitive::<Int64Type>().values().iter().sum::<i64>()).sum();
    assert_eq!((kind.as_str(), read), ("application/vnd.apache.arrow.stream", sum));

    let (kind, body) = get("parquet").await;
    let batches = ParquetRecordBatchReaderBuilder::try_new(body).unwrap().build().unwrap().map(|batch| batch.unwrap());
    let read: i64 = batches.map(|batch| batch.column(1).as_primitive::<Int64Type>().values().iter().sum::<i64>()).sum();
    assert_eq!((kind.as_str(), read), ("application/vnd.apache.parquet", sum));
}

#[tokio::test]
async fn an_answer_is_made_as_fast_as_it_is_read() {
    let world = World::new().await;
    // A trillion rows: whoever made them all first would never answer.
    let query = json!({"query": "SELECT value FROM generate_series(1, 1000000000000)", "format": "ndjson"});
    let mut body = world.send(world.request(&query)).await.into_body();
    for _ in 0..3 {
        let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(piece.len() < 10_000_000);
    }
    assert_eq!(world.context.running(), 1);
    drop(body);
    assert_eq!(world.context.running(), 0);
}

#[tokio::test]
async fn an_error_after_the_first_rows_breaks_the_answer_off() {
    let world = World::new().await;
    let query = "SELECT 10 / (value - 100000) AS x FROM generate_series(1, 200000)";
    for format in ["json", "ndjson", "csv", "arrow"] {
        let answer = world.send(world.request(&json!({"query": query, "format": format}))).await;
        assert_eq!(answer.status(), 200, "{format}: the first rows are good");
        let mut pieces = answer.into_body().into_data_stream();
        let mut failed = false;
        while let Some(piece) = pieces.next().await {
            failed |= piece.is_err();
        }
        assert!(failed, "{format} must not end as if it were whole");
    }
    assert_eq!(world.context.running(), 0);
}

/// Objects whose reads can be made to hang; tells when one hangs, and when a hanging one is given up.
#[derive(Debug, Default)]
struct Gate {
    objects: InMemory,
    closed: AtomicBool,
    waiting: AtomicUsize,
    arrived: Notify,
    left: Notify,
}

/// Counts a read that hangs, for as long as somebody waits for it.
struct Waiting<'a>(&'a Gate);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        self.0.left.notify_one();
    }
}

impl Gate {
    async fn pass(&self) {
        if self.closed.load(Ordering::SeqCst) {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            let _waiting = Waiting(self);
            self.arrived.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

impl std::fmt::Display for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gate")
    }
}

#[async_trait]
impl ObjectStore for Gate {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.objects.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.pass().await;
        self.objects.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.pass().await;
        self.objects.get_ranges(path, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn a_client_that_goes_away_stops_the_query() {
    let gate = Arc::new(Gate::default());
    let mut world = World::with(Arc::clone(&gate) as _, small_tables(), small_sql()).await;
    let documents: Vec<_> = (0..200).map(|n| ("c", json!(n), Some(json!({"n": n})))).collect();
    world.write(&documents).await;
    world.flush().await;
    // Footers are known from here on.
    assert_eq!(world.rows("SELECT count(n) AS n FROM c").await, json!([{"n": 200}]));
    gate.closed.store(true, Ordering::SeqCst);
    let request = world.request(&json!({"query": "SELECT n % 7 AS m, count(*) FROM c GROUP BY n % 7"}));
    let asking = tokio::spawn(tower::ServiceExt::oneshot(world.router(), request));
    gate.arrived.notified().await;
    assert_eq!(world.context.running(), 1);
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    // Every read that hung is given up, also those of tasks that the query had started.
    while gate.waiting.load(Ordering::SeqCst) > 0 {
        gate.left.notified().await;
    }
    assert_eq!(world.context.running(), 0);
    gate.closed.store(false, Ordering::SeqCst);
    assert_eq!(world.rows("SELECT count(n) AS n FROM c").await, json!([{"n": 200}]));
}
