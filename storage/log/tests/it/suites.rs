//! The suite on every engine.

use std::sync::{Arc, Mutex, Weak};

use async_trait::async_trait;
use bigpeer_log::conformance::Engine;
use bigpeer_log::{EmbeddedLog, EmbeddedSettings, MemoryLog, TransactionLog};
use bigpeer_types::{AppId, Lsn};
use tempfile::TempDir;

/// A log in memory lives as long as it is held: reopening is holding it again.
#[derive(Debug, Default)]
struct Memory(MemoryLog);

#[async_trait]
impl Engine for Memory {
    async fn open(&self) -> Arc<dyn TransactionLog> {
        Arc::new(self.0.clone())
    }
}

/// A log in a directory of its own. Small segments and a small memory, so that every case goes over their ends.
#[derive(Debug)]
struct Embedded {
    dir: TempDir,
    settings: EmbeddedSettings,
    last: Mutex<Weak<EmbeddedLog>>,
}

impl Embedded {
    fn new(settings: EmbeddedSettings) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), settings, last: Mutex::default() }
    }

    fn small() -> Self {
        Self::new(EmbeddedSettings { segment_bytes: 32 * 1024, tail_bytes: 8 * 1024, ..EmbeddedSettings::default() })
    }

    fn forgetful() -> Self {
        Self::new(EmbeddedSettings {
            segment_bytes: 8 * 1024,
            tail_bytes: 0,
            conflict_keys: 3,
            ..EmbeddedSettings::default()
        })
    }
}

#[async_trait]
impl Engine for Embedded {
    async fn open(&self) -> Arc<dyn TransactionLog> {
        let log = Arc::new(EmbeddedLog::open(self.dir.path(), self.settings.clone()).unwrap());
        *self.last.lock().unwrap() = Arc::downgrade(&log);
        log
    }

    async fn close(&self, log: Arc<dyn TransactionLog>) {
        let last = self.last.lock().unwrap().upgrade().unwrap();
        last.close().await;
        // A log that is closed refuses what would change it, and does not hang.
        assert!(log.trim(&AppId::new("a").unwrap(), Lsn::MAX).await.is_err());
        assert!(log.wait_past(&AppId::new("a").unwrap(), Lsn::MAX).await.is_err());
    }
}

bigpeer_log::suite!(memory, Memory::default());
bigpeer_log::suite!(embedded, Embedded::new(EmbeddedSettings::default()));
bigpeer_log::suite!(embedded_small, Embedded::small());
bigpeer_log::suite!(embedded_forgetful, Embedded::forgetful());
