//! The suite on the engine for FoundationDB, over a cluster in memory: calm, faulty, and with a short memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bigpeer_log::conformance::Engine;
use bigpeer_log::fdb::sim::{Faults, SimCluster};
use bigpeer_log::{FdbLog, FdbSettings, TransactionLog};
use bigpeer_types::{AppId, Lsn};

/// A log in a cluster of its own.
#[derive(Debug)]
pub(crate) struct Fdb {
    cluster: SimCluster,
    settings: FdbSettings,
    last: Mutex<Weak<FdbLog>>,
}

/// `BIGPEER_SEED` chooses the faults, else every engine has its own.
pub(crate) fn seed() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(20_261_125);
    let seed = std::env::var("BIGPEER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| NEXT.fetch_add(1, Ordering::SeqCst));
    eprintln!("the cluster's seed: BIGPEER_SEED={seed}");
    seed
}

impl Fdb {
    fn new(faults: Faults, settings: FdbSettings) -> Self {
        Self { cluster: SimCluster::new(faults, seed()), settings, last: Mutex::default() }
    }

    fn calm() -> Self {
        Self::new(Faults::default(), FdbSettings::default())
    }

    fn faulty() -> Self {
        // Tried for as long as it takes: the suite wants to hear that it was done.
        Self::new(Faults::many(), FdbSettings { patience: Duration::from_secs(600), ..FdbSettings::default() })
    }

    fn unknown() -> Self {
        Self::new(
            Faults::unknown_commits(),
            FdbSettings { patience: Duration::from_secs(600), ..FdbSettings::default() },
        )
    }

    fn forgetful() -> Self {
        Self::new(Faults::default(), FdbSettings { conflict_memory: Duration::ZERO, ..FdbSettings::default() })
    }
}

#[async_trait]
impl Engine for Fdb {
    async fn open(&self) -> Arc<dyn TransactionLog> {
        let cluster = Arc::new(self.cluster.clone());
        let log = Arc::new(FdbLog::open_on(cluster, self.settings.clone()).await.unwrap());
        *self.last.lock().unwrap() = Arc::downgrade(&log);
        log
    }

    async fn close(&self, log: Arc<dyn TransactionLog>) {
        let last = self.last.lock().unwrap().upgrade().unwrap();
        last.close().await;
        // A log that is closed refuses everything, and does not hang.
        assert!(log.trim(&AppId::new("a").unwrap(), Lsn::MAX).await.is_err());
        assert!(log.wait_past(&AppId::new("a").unwrap(), Lsn::MAX).await.is_err());
    }
}

bigpeer_log::suite!(fdb_calm, Fdb::calm());
bigpeer_log::suite!(fdb_faulty, Fdb::faulty());
bigpeer_log::suite!(fdb_unknown, Fdb::unknown());
bigpeer_log::suite!(fdb_forgetful, Fdb::forgetful());
