//! The suite, and two processes' worth of logs, on the real cluster that `FDB_CLUSTER_FILE` names: see `make test-fdb`. Uses keys
//! that start with `bptest`, and removes what earlier runs left there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bigpeer_log::conformance::Engine;
use bigpeer_log::fdb::RealCluster;
use bigpeer_log::fdb::cluster::Cluster;
use bigpeer_log::{AppendEntry, AppendOutcome, FdbLog, FdbSettings, TransactionLog};
use bigpeer_types::{AppId, IdGenerator, Lsn, RandomIds, SiteId};
use tokio::sync::OnceCell;

/// A space of its own in the cluster.
#[derive(Debug)]
struct Real {
    settings: FdbSettings,
    last: Mutex<Weak<FdbLog>>,
}

fn cluster_file() -> PathBuf {
    let file = std::env::var_os("FDB_CLUSTER_FILE").map(PathBuf::from);
    file.expect("FDB_CLUSTER_FILE names no cluster; run `make test-fdb`, which says so and goes on")
}

fn cluster() -> Arc<dyn Cluster> {
    Arc::new(RealCluster::open(&cluster_file()).unwrap())
}

/// Removes what earlier runs left.
async fn clean() {
    static CLEAN: OnceCell<()> = OnceCell::const_new();
    let clean = async || {
        let transaction = cluster().begin().unwrap();
        transaction.clear_range(b"bptest", b"bptesu");
        transaction.commit().await.unwrap();
    };
    CLEAN.get_or_init(clean).await;
}

impl Real {
    fn new(conflict_memory: Duration) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let run = RandomIds.next_u64().to_be_bytes();
        let number = NEXT.fetch_add(1, Ordering::SeqCst).to_be_bytes();
        let prefix = [&b"bptest"[..], &run, &number].concat();
        let settings = FdbSettings { prefix, conflict_memory, ..FdbSettings::default() };
        Self { settings, last: Mutex::default() }
    }

    async fn open_log(&self) -> Arc<FdbLog> {
        clean().await;
        Arc::new(FdbLog::open(&cluster_file(), self.settings.clone()).await.unwrap())
    }
}

#[async_trait]
impl Engine for Real {
    async fn open(&self) -> Arc<dyn TransactionLog> {
        let log = self.open_log().await;
        *self.last.lock().unwrap() = Arc::downgrade(&log);
        log
    }

    async fn close(&self, log: Arc<dyn TransactionLog>) {
        let last = self.last.lock().unwrap().upgrade().unwrap();
        last.close().await;
        assert!(log.trim(&AppId::new("a").unwrap(), Lsn::MAX).await.is_err());
    }
}

bigpeer_log::suite!(fdb, Real::new(Duration::from_secs(600)));
bigpeer_log::suite!(fdb_forgetful, Real::new(Duration::ZERO));

/// Two logs on one space, as in two processes: raced pushes are applied once, and a tail in one is woken by the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_share_a_log() {
    let space = Real::new(Duration::from_secs(600));
    let logs = [space.open_log().await, space.open_log().await];
    let app = AppId::new("a").unwrap();
    let follower = {
        let (log, app) = (Arc::clone(&logs[1]), app.clone());
        tokio::spawn(async move {
            let (mut at, mut seen) = (Lsn::ZERO, Vec::new());
            while seen.len() < 200 {
                let batch = log.read(&app, at, 100_000).await.unwrap();
                if batch.entries.is_empty() {
                    log.wait_past(&app, at).await.unwrap();
                }
                at = batch.through;
                seen.extend(batch.entries.into_iter().map(|entry| (entry.site.get(), entry.seq)));
            }
            seen
        })
    };
    let pushers = (0..8_u64).map(|at| {
        let (log, app) = (Arc::clone(&logs[usize::from(at % 2 == 1)]), app.clone());
        tokio::spawn(async move {
            let (site, mut seq, mut applied) = (SiteId::new(at / 2), 1, 0);
            while seq <= 50 {
                let entry =
                    AppendEntry { site, seq, writes: Vec::new(), unchanged: Vec::new(), payload: vec![1; 100].into() };
                match log.append(&app, vec![entry]).await.unwrap()[..] {
                    [AppendOutcome::Applied(_)] => {
                        seq += 1;
                        applied += 1;
                    }
                    [AppendOutcome::Duplicate { through_seq, .. }] => seq = through_seq + 1,
                    ref other => panic!("{other:?}"),
                }
            }
            applied
        })
    });
    let mut applied = 0;
    for pusher in pushers.collect::<Vec<_>>() {
        applied += pusher.await.unwrap();
    }
    assert!(applied <= 200, "{applied} entries were said to be applied");
    let seen = follower.await.unwrap();
    for site in 0..4 {
        let seqs: Vec<_> = seen.iter().filter(|(of, _)| *of == site).map(|(_, seq)| *seq).collect();
        assert_eq!(seqs, (1..=50).collect::<Vec<_>>());
    }
}
