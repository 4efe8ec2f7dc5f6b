//! How fast a peer writes, beside bare SQLite in the same run: one row, one commit with an fsync, of the same bytes. Then
//! the cost of a write without the disk, of a live query, and of an attachment.
//!
//! Prints `name<TAB>value<TAB>unit<TAB>beside` lines. `BIGPEER_BENCH_DIR` says on which disk (default: the system's
//! temporary directory).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a benchmark measures time and prints it"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use bigpeer_peer::{ConnectSettings, Credentials, Object, Params, Peer, PeerSettings, Secret, Value};
use bigpeer_types::{AppId, SiteId};

const WRITES: usize = 500;
const WRITERS: usize = 32;
const BATCH: usize = 1000;

fn line(name: &str, value: f64, unit: &str, beside: &str) {
    println!("{name}\t{value:.1}\t{unit}\t{beside}");
}

fn document(number: usize) -> Params {
    let note = "a note of about a hundred bytes that somebody has typed on a small keyboard while waiting for a train"
        .to_owned();
    let document = Object::from_iter([
        ("_id", Value::Int(i64::try_from(number).expect("small"))),
        ("title", Value::from(format!("note {number}"))),
        ("text", Value::from(note)),
        ("stars", Value::Int(3)),
    ]);
    Params::from_iter([("d", Value::Object(document))])
}

async fn open(dir: &Path) -> Peer {
    let peer = Peer::open(PeerSettings::new(dir)).await.expect("opens");
    let app = AppId::new("bench").expect("valid");
    let mut settings = ConnectSettings::new("http://localhost:1", app, "unused");
    settings.credentials = Credentials::Token { site: SiteId::new(7), token: Secret::new("a-token") };
    peer.login(&settings).await.expect("no server is asked");
    peer
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn bare_sqlite(dir: &Path) -> Vec<Duration> {
    let database = rusqlite::Connection::open(dir.join("bare.db")).expect("opens");
    database.pragma_update(None, "journal_mode", "wal").expect("set");
    database.pragma_update(None, "synchronous", "full").expect("set");
    database.execute_batch("CREATE TABLE notes (id INTEGER PRIMARY KEY, state BLOB NOT NULL)").expect("made");
    let mut insert = database.prepare("INSERT INTO notes (id, state) VALUES (?1, ?2)").expect("prepared");
    let state = vec![7_u8; 200];
    (0..WRITES)
        .map(|number| {
            let begun = Instant::now();
            insert.execute(rusqlite::params![i64::try_from(number).expect("small"), state]).expect("inserted");
            begun.elapsed()
        })
        .collect()
}

const INSERT: &str = "INSERT INTO notes DOCUMENTS (:d)";

async fn single_writes(peer: &Peer, bare: Duration) {
    let mut times = Vec::new();
    for number in 0..WRITES {
        let begun = Instant::now();
        peer.execute(INSERT, document(number)).await.expect("inserted");
        times.push(begun.elapsed());
    }
    let ours = median(&mut times);
    let ratio = ours.as_secs_f64() / bare.as_secs_f64();
    line("peer.write_ms", ours.as_secs_f64() * 1e3, "ms p50", &format!("{ratio:.2} of bare SQLite's"));
}

async fn concurrent_writes(peer: &Peer, bare: Duration) {
    let begun = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let peer = peer.clone();
        writers.spawn(async move {
            for number in 0..WRITES / 10 {
                peer.execute(INSERT, document(1_000_000 + writer * WRITES + number)).await.expect("inserted");
            }
        });
    }
    writers.join_all().await;
    let rate = (WRITERS * WRITES / 10) as f64 / begun.elapsed().as_secs_f64();
    let ratio = rate * bare.as_secs_f64();
    line(
        "peer.concurrent_writes",
        rate,
        "writes/s",
        &format!("{WRITERS} at once; {ratio:.2} of bare SQLite's, one by one"),
    );
}

async fn batches(peer: &Peer) {
    let mut times = Vec::new();
    for batch in 0..10 {
        let begun = Instant::now();
        let write = move |transaction: &mut bigpeer_peer::WriteTransaction<'_, '_>| {
            for number in 0..BATCH {
                transaction.execute(INSERT, &document(2_000_000 + batch * BATCH + number))?;
            }
            Ok(())
        };
        peer.transaction(write).await.expect("committed");
        times.push(begun.elapsed());
    }
    let rate = BATCH as f64 / median(&mut times).as_secs_f64();
    line("peer.batched_writes", rate, "documents/s", &format!("{BATCH} in a transaction"));
}

async fn live(peer: &Peer) {
    let mut live = peer.observe("SELECT * FROM notes WHERE _id = 1", Params::new()).expect("a SELECT");
    live.next().await.expect("the first result");
    let mut times = Vec::new();
    for number in 0..WRITES / 5 {
        let begun = Instant::now();
        peer.execute(&format!("UPDATE notes SET stars = {} WHERE _id = 1", number + 10), Params::new())
            .await
            .expect("set");
        live.next().await.expect("the next result");
        times.push(begun.elapsed());
    }
    line("peer.write_to_observer_ms", median(&mut times).as_secs_f64() * 1e3, "ms p50", "durable, then observed");
}

async fn attachments(peer: &Peer) {
    let bytes = vec![7_u8; 64 << 20];
    let begun = Instant::now();
    peer.attach_bytes(bytes, Object::new()).await.expect("attached");
    line("peer.attach", 64.0 / begun.elapsed().as_secs_f64(), "MiB/s", "hashed and synced");
}

fn main() {
    let root = std::env::var_os("BIGPEER_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(root).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let bare = median(&mut bare_sqlite(dir.path()));
    line("peer.bare_sqlite_ms", bare.as_secs_f64() * 1e3, "ms p50", "one row, one fsync");
    runtime.block_on(async {
        let peer = open(&dir.path().join("store")).await;
        single_writes(&peer, bare).await;
        concurrent_writes(&peer, bare).await;
        batches(&peer).await;
        live(&peer).await;
        attachments(&peer).await;
        peer.close().await;
    });
}
