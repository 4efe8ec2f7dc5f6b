//! Requests per second over HTTP at 1 and 64 connections, to a running server that holds flights: `BIGPEER_CREDENTIALS`
//! names its credentials file, `BIGPEER_BENCH_FLIGHTS` says how many flights there are (ids from 1). Beside writes stands
//! what the embedded log takes from as many writers in the same run. Prints `name<TAB>value<TAB>unit<TAB>beside` lines.
//!
//! The client writes requests and reads answers by hand, so that little of the machine goes into it.
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a benchmark measures time and prints it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a benchmark that cannot go on says so by panicking"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bigpeer_log::{AppendEntry, EmbeddedLog, EmbeddedSettings, TransactionLog};
use bigpeer_types::{AppId, SiteId};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const LASTING: Duration = Duration::from_secs(5);

/// Documents that are asked for again and again.
const HOT: u64 = 10_000;

struct Target {
    host: String,
    app: String,
    key: String,
    flights: u64,
}

impl Target {
    fn new() -> Self {
        let path = std::env::var("BIGPEER_CREDENTIALS").expect("BIGPEER_CREDENTIALS names a credentials file");
        let json: Value = serde_json::from_str(&std::fs::read_to_string(path).expect("credentials")).expect("JSON");
        let field = |name: &str| json[name].as_str().unwrap_or_else(|| panic!("no {name}")).to_owned();
        let flights =
            std::env::var("BIGPEER_BENCH_FLIGHTS").ok().map_or(336_776, |text| text.parse().expect("a number"));
        Self { host: field("url").replace("http://", ""), app: field("app"), key: field("api_key"), flights }
    }
}

/// A connection that is kept.
struct Connection {
    stream: TcpStream,
    head: String,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(target: &Target) -> Self {
        let stream = TcpStream::connect(&target.host).await.expect("the server listens");
        stream.set_nodelay(true).expect("nodelay");
        let (host, app, key) = (&target.host, &target.app, &target.key);
        let head = format!(
            "POST /{app}/api/v5/store/execute HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: application/json\r\nContent-Length: "
        );
        Self { stream, head, buffer: Vec::with_capacity(1 << 16) }
    }

    /// Sends a statement and reads the whole answer, which must be a success; its length.
    async fn ask(&mut self, body: &str) -> usize {
        let request = format!("{}{}\r\n\r\n{body}", self.head, body.len());
        self.stream.write_all(request.as_bytes()).await.expect("sent");
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await.expect("received");
            assert!(read > 0, "the server closed the connection");
            let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&self.buffer[..end]).expect("a head").to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.expect("a length").trim().parse().expect("a number");
            while self.buffer.len() < end + 4 + length {
                assert!(self.stream.read_buf(&mut self.buffer).await.expect("received") > 0, "a whole answer");
            }
            assert!(head.starts_with("http/1.1 200"), "{}", String::from_utf8_lossy(&self.buffer));
            return length;
        }
    }
}

struct Measured {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// Asks over `connections`, for as long as it lasts.
async fn measure(target: &Arc<Target>, connections: usize, body: fn(u64, &Target) -> Value) -> Measured {
    let next = Arc::new(AtomicU64::new(0));
    let mut opened = Vec::new();
    for _ in 0..connections {
        opened.push(Connection::open(target).await);
    }
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for mut connection in opened {
        let (target, next) = (Arc::clone(target), Arc::clone(&next));
        tasks.spawn(async move {
            let mut times = Vec::new();
            while started.elapsed() < LASTING {
                let body = body(next.fetch_add(1, Ordering::Relaxed), &target).to_string();
                let asked = Instant::now();
                connection.ask(&body).await;
                times.push(asked.elapsed());
            }
            times
        });
    }
    let times: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    measured(times, started.elapsed())
}

fn measured(mut times: Vec<Duration>, took: Duration) -> Measured {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
    Measured { per_second: times.len() as f64 / took.as_secs_f64(), p50_ms: at(50), p99_ms: at(99) }
}

fn print(name: &str, connections: usize, of: &Measured, beside: &str) {
    let shown = format!("p50 {:.2} ms, p99 {:.2} ms{beside}", of.p50_ms, of.p99_ms);
    println!("{name}, {connections} connections\t{:.0}\trequests/s\t{shown}", of.per_second);
}

fn point(id: u64) -> Value {
    json!({"statement": "SELECT * FROM flights WHERE _id = :id", "args": {"id": id}})
}

fn hot(n: u64, target: &Target) -> Value {
    point(1 + n.wrapping_mul(7919) % HOT.min(target.flights))
}

fn anywhere(n: u64, target: &Target) -> Value {
    point(1 + n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % target.flights)
}

/// A handful of flights by fields that are no id.
fn find(n: u64, _: &Target) -> Value {
    json!({"statement": "SELECT * FROM flights WHERE carrier = :c AND origin = :o AND month = :m AND day = :d AND hour = 6 LIMIT 20",
        "args": {"c": (["UA", "AA", "DL", "B6"][(n % 4) as usize]), "o": (["EWR", "JFK", "LGA"][(n % 3) as usize]),
            "m": 1 + n % 12, "d": 1 + n % 28}})
}

fn insert(n: u64, _: &Target) -> Value {
    let id = format!("{}-{n}", std::process::id());
    json!({"statement": "INSERT INTO fresh DOCUMENTS (:d)",
        "args": {"d": {"_id": id, "name": "Ada Lovelace", "n": n, "on": true, "text": "x".repeat(60)}}})
}

fn update(n: u64, target: &Target) -> Value {
    let id = 1 + n.wrapping_mul(7919) % HOT.min(target.flights);
    json!({"statement": "UPDATE flights SET gate = :gate WHERE _id = :id", "args": {"id": id, "gate": format!("B{}", n % 90)}})
}

/// What the log by itself takes from as many writers, of entries as large as a small insert, on the same disk.
async fn log_rate(writers: u64) -> f64 {
    let dir = tempfile::tempdir_in(".").expect("a directory on this disk");
    let log = Arc::new(EmbeddedLog::open(dir.path(), EmbeddedSettings::default()).expect("a log"));
    let app = AppId::new("bench").expect("an id");
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 1..=writers {
        let (log, app) = (Arc::clone(&log), app.clone());
        tasks.spawn(async move {
            let mut seq = 0;
            while started.elapsed() < LASTING {
                seq += 1;
                let payload = bytes::Bytes::from(vec![0x5a; 200]);
                let entry =
                    AppendEntry { site: SiteId::new(writer), seq, writes: Vec::new(), unchanged: Vec::new(), payload };
                log.append(&app, vec![entry]).await.expect("appended");
            }
            seq
        });
    }
    let entries: u64 = tasks.join_all().await.into_iter().sum();
    let rate = entries as f64 / started.elapsed().as_secs_f64();
    log.close().await;
    rate
}

#[tokio::main]
async fn main() {
    let target = Arc::new(Target::new());
    for connections in [1, 64] {
        let cold = measure(&target, connections, anywhere).await;
        print("point reads by id, anywhere", connections, &cold, "; target cold p50 ≤ 15 ms");
        measure(&target, 64, hot).await;
        let beside = if connections == 1 { "; target p50 ≤ 1 ms" } else { "; target ≥ 15,000/s" };
        print("point reads by id, hot", connections, &measure(&target, connections, hot).await, beside);
        print("small finds by fields", connections, &measure(&target, connections, find).await, "");
    }
    let log = log_rate(64).await;
    println!("log appends, 64 writers\t{log:.0}\tentries/s\tsame run, 200 bytes each");
    for (name, body) in [("DQL inserts", insert as fn(u64, &Target) -> Value), ("DQL updates by id", update)] {
        let written = measure(&target, 64, body).await;
        let ratio = written.per_second / log;
        let target = format!("; {ratio:.2} of the log's rate, target ≥ 0.5");
        print(name, 64, &written, &target);
    }
}
