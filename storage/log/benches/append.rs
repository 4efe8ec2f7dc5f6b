//! How fast the embedded log appends, reads and recovers, beside the disk itself: a raw loop in the same run that writes the
//! same bytes to a preallocated, initialized file, with one sync per batch of the same size.
//!
//! Prints lines `name value unit`. `BIGPEER_BENCH_DIR` says on which disk (default: the system's temporary directory);
//! `BIGPEER_BENCH_ONLY`, such as `200B_64`, which of the appending measurements alone is run.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "a benchmark"
)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bigpeer_log::embedded::format::{BATCH_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use bigpeer_log::{AppendEntry, AppendOutcome, ConflictKey, EmbeddedLog, EmbeddedSettings, TransactionLog};
use bigpeer_types::{AppId, Lsn, SiteId};
use bytes::Bytes;
use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// How long each measurement runs.
const RUN: Duration = Duration::from_secs(2);
/// The raw loop's file; it starts again from its beginning when it is full.
const RAW_BYTES: u64 = 128 * 1024 * 1024;

fn app() -> AppId {
    AppId::new("bench").unwrap()
}

fn main() {
    metrics::set_global_recorder(CommitCounter).unwrap();
    let root = std::env::var_os("BIGPEER_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(root).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let raw = RawFile::new(&dir.path().join("raw"));
    let only = std::env::var("BIGPEER_BENCH_ONLY").ok();
    for payload in [200, 4096] {
        for appenders in [1, 8, 64, 512] {
            if only.as_ref().is_some_and(|only| *only != format!("{payload}B_{appenders}")) {
                continue;
            }
            // The two alternate, so that what else the machine does meets both.
            let log = dir.path().join(format!("log-{payload}-{appenders}"));
            let (mut ours, mut theirs) = (Measured::default(), Measured::default());
            for _ in 0..3 {
                let measured = runtime.block_on(append(&log, appenders, payload));
                let bytes = measured.batch_entries() * (payload as f64 + 29.0);
                theirs.add(raw.run(bytes as usize, measured.batch_entries()));
                ours.add(measured);
            }
            report(&ours, &theirs, appenders, payload);
            std::fs::remove_dir_all(&log).unwrap();
        }
    }
    drop(raw);
    if only.is_some() {
        return;
    }
    let log = dir.path().join("large");
    let bytes = runtime.block_on(fill(&log));
    runtime.block_on(read_and_recover(&log, bytes));
    runtime.block_on(overhead(&dir.path().join("overhead")));
}

/// What a run did.
#[derive(Default)]
struct Measured {
    entries: f64,
    syncs: f64,
    took: Duration,
    latencies: Vec<Duration>,
}

impl Measured {
    fn add(&mut self, more: Self) {
        self.entries += more.entries;
        self.syncs += more.syncs;
        self.took += more.took;
        self.latencies.extend(more.latencies);
    }

    fn batch_entries(&self) -> f64 {
        (self.entries / self.syncs).max(1.0)
    }

    fn rate(&self) -> f64 {
        self.entries / self.took.as_secs_f64()
    }

    fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = (sorted.len() as f64 * part) as usize;
        sorted.get(at.min(sorted.len().saturating_sub(1))).map_or(0.0, |took| took.as_secs_f64() * 1e3)
    }
}

fn report(ours: &Measured, raw: &Measured, appenders: usize, payload: usize) {
    let name = format!("log_append_{payload}B_{appenders}");
    let megabytes = |rate: f64| rate * payload as f64 / 1e6;
    println!("{name}_entries {:.0} 1/s", ours.rate());
    println!("{name}_commits {:.0} 1/s", ours.syncs / ours.took.as_secs_f64());
    println!("{name}_batch {:.1} entries", ours.batch_entries());
    println!("{name}_throughput {:.1} MB/s", megabytes(ours.rate()));
    println!("{name}_raw_throughput {:.1} MB/s", megabytes(raw.rate()));
    println!("{name}_of_raw {:.2} ratio", ours.rate() / raw.rate());
    println!("{name}_p50 {:.3} ms", ours.quantile(0.5));
    println!("{name}_p99 {:.3} ms", ours.quantile(0.99));
    println!("{name}_raw_p50 {:.3} ms", raw.quantile(0.5));
    println!("{name}_raw_p99 {:.3} ms", raw.quantile(0.99));
}

/// The disk itself.
struct RawFile(File);

impl RawFile {
    fn new(path: &Path) -> Self {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
        let zeros = vec![0; 1024 * 1024];
        for offset in (0..RAW_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, offset).unwrap();
        }
        file.sync_all().unwrap();
        Self(file)
    }

    fn run(&self, batch_bytes: usize, batch_entries: f64) -> Measured {
        let batch = vec![0x5a; batch_bytes];
        let mut measured = Measured::default();
        let (started, mut offset) = (Instant::now(), 0);
        while started.elapsed() < RUN {
            if offset + batch.len() as u64 > RAW_BYTES {
                offset = 0;
            }
            let began = Instant::now();
            self.0.write_all_at(&batch, offset).unwrap();
            self.0.sync_data().unwrap();
            measured.latencies.push(began.elapsed());
            measured.syncs += 1.0;
            measured.entries += batch_entries;
            offset += batch.len() as u64;
        }
        measured.took = started.elapsed();
        measured
    }
}

fn entry(site: u64, seq: u64, payload: &Bytes) -> AppendEntry {
    let key = ConflictKey((site << 40) ^ seq.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    AppendEntry { site: SiteId::new(site), seq, writes: vec![key], unchanged: Vec::new(), payload: payload.clone() }
}

/// Appenders that each wait for their own entry, for a while; the old part of the log is trimmed meanwhile, as in production.
async fn append(dir: &Path, appenders: usize, payload: usize) -> Measured {
    let log = Arc::new(EmbeddedLog::open(dir, EmbeddedSettings::default()).unwrap());
    let payload = Bytes::from(vec![0x5a; payload]);
    let first = log.head(&app()).await.unwrap();
    let before = COMMITS.load(Ordering::SeqCst);
    let started = Instant::now();
    let tasks = (1..=appenders as u64).map(|site| {
        let (log, payload) = (Arc::clone(&log), payload.clone());
        tokio::spawn(async move {
            let app = app();
            let mut seq = log.last_seq(&app, SiteId::new(site)).await.unwrap();
            let mut latencies = Vec::new();
            while started.elapsed() < RUN {
                seq += 1;
                let began = Instant::now();
                let outcomes = log.append(&app, vec![entry(site, seq, &payload)]).await.unwrap();
                latencies.push(began.elapsed());
                let Some(AppendOutcome::Applied(lsn)) = outcomes.first() else { panic!("{outcomes:?}") };
                if lsn.version % 8192 == 0 {
                    log.trim(&app, Lsn::new(lsn.version.saturating_sub(8192), 0)).await.unwrap();
                }
            }
            latencies
        })
    });
    let mut measured = Measured::default();
    for task in tasks.collect::<Vec<_>>() {
        measured.latencies.extend(task.await.unwrap());
    }
    measured.took = started.elapsed();
    measured.entries = measured.latencies.len() as f64;
    measured.syncs = (COMMITS.load(Ordering::SeqCst) - before) as f64;
    assert!(log.head(&app()).await.unwrap() > first);
    log.close().await;
    measured
}

/// Makes a log of a gigabyte of payload in entries of two sizes.
async fn fill(dir: &Path) -> f64 {
    let log = EmbeddedLog::open(dir, EmbeddedSettings::default()).unwrap();
    let small = Bytes::from(vec![0x5a; 200]);
    let large = Bytes::from(vec![0xa5; 4096]);
    let (mut bytes, mut seq) = (0, 0);
    while bytes < 1_000_000_000 {
        let entries: Vec<_> =
            (1..=1024).map(|at| entry(1, seq + at, if at % 4 == 0 { &large } else { &small })).collect();
        seq += 1024;
        bytes += entries.iter().map(|entry| entry.payload.len()).sum::<usize>();
        log.append(&app(), entries).await.unwrap();
    }
    log.close().await;
    bytes as f64
}

async fn read_and_recover(dir: &Path, bytes: f64) {
    let started = Instant::now();
    let log = EmbeddedLog::open(dir, EmbeddedSettings::default()).unwrap();
    println!("log_recovery {:.2} s", started.elapsed().as_secs_f64());
    println!("log_recovery_log {:.2} GB", bytes / 1e9);
    let started = Instant::now();
    let (mut after, mut read) = (Lsn::ZERO, 0);
    loop {
        let batch = log.read(&app(), after, 1024 * 1024).await.unwrap();
        if batch.entries.is_empty() {
            break;
        }
        read += batch.entries.iter().map(|entry| entry.payload.len()).sum::<usize>();
        after = batch.through;
    }
    assert!((read as f64 - bytes).abs() < 1.0);
    println!("log_tail_read {:.0} MB/s", bytes / 1e6 / started.elapsed().as_secs_f64());
    log.close().await;
}

/// Bytes in the log per byte of payload, in batches of 64 entries of 200 bytes with one conflict key each.
async fn overhead(dir: &Path) {
    let log = EmbeddedLog::open(dir, EmbeddedSettings::default()).unwrap();
    let payload = Bytes::from(vec![0x5a; 200]);
    for batch in 0..100 {
        log.append(&app(), (1..=64).map(|at| entry(1, batch * 64 + at, &payload)).collect()).await.unwrap();
    }
    log.close().await;
    let used =
        std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).filter(|path| path.extension().is_some());
    let used: usize =
        used.map(|path| std::fs::read(path).unwrap().iter().rposition(|byte| *byte != 0).unwrap_or(0)).sum();
    let used = used - SEGMENT_HEADER_BYTES - BATCH_HEADER_BYTES;
    println!("log_bytes_per_payload_byte_64 {:.3} ratio", used as f64 / (100.0 * 64.0 * 200.0));
}

/// Commits of the log, as its metrics tell them.
static COMMITS: AtomicU64 = AtomicU64::new(0);

struct CommitCounter;

impl Recorder for CommitCounter {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        if key.name() == "bigpeer_log_commit_seconds" { Histogram::from_arc(Arc::new(Self)) } else { Histogram::noop() }
    }
}

impl HistogramFn for CommitCounter {
    fn record(&self, _: f64) {
        COMMITS.fetch_add(1, Ordering::SeqCst);
    }
}
