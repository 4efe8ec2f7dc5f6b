//! How fast the log appends to a FoundationDB cluster, beside a bare loop over the same client in the same run: one
//! versionstamped key per commit, nothing checked, nothing retried. Prints lines `name value unit`.
//!
//! `FDB_CLUSTER_FILE` names the cluster. Uses keys that start with `bpbench`, and removes them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "a benchmark"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bigpeer_log::fdb::RealCluster;
use bigpeer_log::fdb::cluster::Cluster;
use bigpeer_log::{AppendEntry, AppendOutcome, FdbLog, FdbSettings, TransactionLog};
use bigpeer_types::{AppId, SiteId};
use bytes::Bytes;

/// How long each measurement runs; there are three of each.
const RUN: Duration = Duration::from_secs(3);

fn main() {
    let Some(file) = std::env::var_os("FDB_CLUSTER_FILE") else {
        println!("log_fdb_skipped 1 FDB_CLUSTER_FILE names no cluster");
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure(Path::new(&file)));
}

async fn measure(file: &Path) {
    let cluster: Arc<dyn Cluster> = Arc::new(RealCluster::open(file).unwrap());
    clear(&*cluster).await;
    let settings = FdbSettings { prefix: b"bpbench/log".to_vec(), ..FdbSettings::default() };
    let log = Arc::new(FdbLog::open_on(Arc::clone(&cluster), settings).await.unwrap());
    let mut next_seq = 1;
    for payload in [200, 4096] {
        for committers in [1, 64] {
            let (mut ours, mut bare) = (Measured::default(), Measured::default());
            for _ in 0..3 {
                bare.add(bare_loop(&cluster, committers, payload).await);
                let (measured, seq) = append(&log, committers, payload, next_seq).await;
                next_seq = seq;
                ours.add(measured);
            }
            report(&ours, &bare, committers, payload);
        }
    }
    log.close().await;
    clear(&*cluster).await;
}

async fn clear(cluster: &dyn Cluster) {
    let transaction = cluster.begin().unwrap();
    transaction.clear_range(b"bpbench", b"bpbenci");
    transaction.commit().await.unwrap();
}

#[derive(Default)]
struct Measured {
    took: Duration,
    latencies: Vec<Duration>,
}

impl Measured {
    fn add(&mut self, more: Self) {
        self.took += more.took;
        self.latencies.extend(more.latencies);
    }

    fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = (sorted.len() as f64 * part) as usize;
        sorted.get(at.min(sorted.len().saturating_sub(1))).map_or(0.0, |took| took.as_secs_f64() * 1e3)
    }
}

fn report(ours: &Measured, bare: &Measured, committers: usize, payload: usize) {
    let name = format!("log_fdb_{payload}B_{committers}");
    println!("{name}_entries {:.0} 1/s", ours.rate());
    println!("{name}_bare_entries {:.0} 1/s", bare.rate());
    println!("{name}_of_bare {:.2} ratio", ours.rate() / bare.rate());
    println!("{name}_p50 {:.3} ms", ours.quantile(0.5));
    println!("{name}_p99 {:.3} ms", ours.quantile(0.99));
    println!("{name}_bare_p50 {:.3} ms", bare.quantile(0.5));
    println!("{name}_bare_p99 {:.3} ms", bare.quantile(0.99));
    println!("{name}_p50_of_bare {:.2} ratio", ours.quantile(0.5) / bare.quantile(0.5));
}

async fn gather(tasks: Vec<tokio::task::JoinHandle<Vec<Duration>>>, started: Instant) -> Measured {
    let mut measured = Measured::default();
    for task in tasks {
        measured.latencies.extend(task.await.unwrap());
    }
    measured.took = started.elapsed();
    measured
}

/// The client alone.
async fn bare_loop(cluster: &Arc<dyn Cluster>, committers: usize, payload: usize) -> Measured {
    let started = Instant::now();
    let tasks = (0..committers).map(|committer| {
        let (cluster, payload) = (Arc::clone(cluster), vec![0x5a; payload]);
        tokio::spawn(async move {
            let prefix = format!("bpbench/bare/{committer:04}/");
            let key = [prefix.as_bytes(), &[0; 10]].concat();
            let mut latencies = Vec::new();
            while started.elapsed() < RUN {
                let began = Instant::now();
                let transaction = cluster.begin().unwrap();
                transaction.set_stamped_key(&key, prefix.len(), &payload);
                transaction.commit().await.unwrap();
                latencies.push(began.elapsed());
            }
            latencies
        })
    });
    gather(tasks.collect(), started).await
}

/// Appenders that each wait for their own entry.
async fn append(log: &Arc<FdbLog>, committers: usize, payload: usize, first_seq: u64) -> (Measured, u64) {
    let payload = Bytes::from(vec![0x5a; payload]);
    let started = Instant::now();
    let tasks = (0..committers as u64).map(|committer| {
        let (log, payload) = (Arc::clone(log), payload.clone());
        tokio::spawn(async move {
            let app = AppId::new("bench").unwrap();
            // Sites of this run alone.
            let site = SiteId::new(first_seq << 16 | committer);
            let (mut seq, mut latencies) = (0, Vec::new());
            while started.elapsed() < RUN {
                seq += 1;
                let entry =
                    AppendEntry { site, seq, writes: Vec::new(), unchanged: Vec::new(), payload: payload.clone() };
                let began = Instant::now();
                let outcomes = log.append(&app, vec![entry]).await.unwrap();
                latencies.push(began.elapsed());
                assert!(matches!(outcomes[..], [AppendOutcome::Applied(_)]), "{outcomes:?}");
            }
            latencies
        })
    });
    (gather(tasks.collect(), started).await, first_seq + 1)
}
