//! Folds the log's tail into segments and manifests, and trims the log behind them.
//!
//! [`Compactor`] decides when; `bigpeer_tables::Writer` does the work. One compactor at a time per app; a second one
//! fences the first, which then ends.
//!
//! # Crash safety
//! It holds no state. The log is trimmed only behind a committed manifest.
//!
//! # Cancellation
//! [`Compactor::run`] may be dropped at any time; what it was writing is garbage, and is collected by a later one.

#![warn(missing_docs)]

mod error;
mod policy;
mod publishing;
mod readers;
mod removal;
mod settings;
mod trim;

pub use error::CompactorError;
pub use policy::due;
pub use readers::{Needed, Readers};
pub use removal::{NewSite, Remover};
pub use settings::CompactorSettings;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bigpeer_log::TransactionLog;
use bigpeer_tables::paths::PinName;
use bigpeer_tables::{DocumentStore, Extent, Pin, Writer};
use bigpeer_types::Lsn;
use tokio::sync::Notify;
use trim::Tail;

/// How often conditions are looked at while there is something to flush.
const TICK: Duration = Duration::from_millis(200);

/// Longest pause after failures.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Flushes, compacts, collects garbage and trims the log for one app.
#[derive(Debug)]
pub struct Compactor {
    store: Arc<DocumentStore>,
    log: Arc<dyn TransactionLog>,
    settings: CompactorSettings,
    writer: Writer,
    /// Told after each flush.
    flushed: Notify,
    /// Told when there may be something to publish: after each manifest, and when settings change.
    changed: Notify,
}

impl Compactor {
    /// Takes over the compaction of the store's app.
    ///
    /// # Errors
    /// When the newest manifest cannot be read.
    pub async fn open(
        store: Arc<DocumentStore>,
        log: Arc<dyn TransactionLog>,
        settings: CompactorSettings,
    ) -> Result<Self, CompactorError> {
        let writer = store.writer().await?;
        Ok(Self { store, log, settings, writer, flushed: Notify::new(), changed: Notify::new() })
    }

    /// Works until `shutdown` completes, and flushes once more if the settings say so. Failures that may pass are tried
    /// again.
    ///
    /// # Errors
    /// When another compactor has taken over, or stored data is damaged. Nothing acknowledged is lost: it stays in the
    /// log.
    pub async fn run(&self, shutdown: impl Future<Output = ()> + Send) -> Result<(), CompactorError> {
        tokio::select! {
            () = shutdown => {
                if self.settings.flush_at_shutdown {
                    self.writer.flush().await?;
                }
                Ok(())
            }
            error = self.flush_for_ever() => Err(error),
            error = self.compact_for_ever() => Err(error),
            error = self.publish_for_ever() => Err(error),
            error = self.collect_seldom_for_ever() => Err(error),
        }
    }

    /// Flushes everything that was applied, merges every collection into one sorted run without superseded rows, and
    /// publishes what is to be published, and collects garbage: afterwards the Parquet files alone are the app.
    ///
    /// # Errors
    /// As [`Self::run`]; also failures that may pass.
    pub async fn tidy(&self) -> Result<(), CompactorError> {
        self.writer.flush().await?;
        for debt in self.writer.debts() {
            if debt.new_segments > 0 || debt.superseded > 0 {
                self.writer.compact(&debt.collection, Extent::Full).await?;
            }
        }
        for collection in self.store.collection_settings().into_keys() {
            self.writer.publish(&collection).await?;
        }
        self.writer.collect_garbage().await?;
        Ok(())
    }

    async fn flush_for_ever(&self) -> CompactorError {
        let mut tail = Tail::new(&self.settings, self.store.flushed());
        let mut pause = Pause::default();
        loop {
            match self.flush_when_due(&mut tail).await {
                Ok(()) => pause.reset(),
                Err(error) if error.is_retryable() => pause.after(&error, "flush", &self.store).await,
                Err(error) => return error,
            }
        }
    }

    /// Waits until a flush is due, flushes, and trims the log.
    async fn flush_when_due(&self, tail: &mut Tail) -> Result<(), CompactorError> {
        let flushed = self.store.flushed();
        let next = Lsn::new(flushed.version, flushed.order.saturating_add(1));
        self.store.wait_for(next.max(Lsn::new(1, 0))).await?;
        let since = self.settings.clock.monotonic();
        while self.store.overlay_bytes() < self.settings.flush_bytes
            && self.settings.clock.monotonic().saturating_sub(since) < self.settings.flush_after
        {
            tokio::time::sleep(TICK).await;
        }
        let bytes = self.store.overlay_bytes();
        if let Some(done) = self.writer.flush().await? {
            tail.flushed(self.settings.clock.monotonic(), done.lsn, bytes);
            self.flushed.notify_one();
            self.changed.notify_one();
        }
        let needed = self.hold().await?;
        if let Some(through) = tail.take_due(self.settings.clock.monotonic(), needed) {
            self.log.trim(self.store.app(), through).await?;
        }
        Ok(())
    }

    /// Asks what readers need, and keeps the manifests for it. What was trimmed already is needed no more.
    async fn hold(&self) -> Result<Option<Needed>, CompactorError> {
        let Some(readers) = &self.settings.readers else { return Ok(None) };
        let needed = readers.needed(self.store.app()).await.map_err(CompactorError::Readers)?;
        let trimmed = self.log.trimmed(self.store.app()).await?;
        self.store.keep_from(needed.map(|needed| needed.after.max(trimmed)));
        Ok(needed)
    }

    async fn compact_for_ever(&self) -> CompactorError {
        let mut pause = Pause::default();
        loop {
            let quiet = tokio::select! {
                () = self.flushed.notified() => false,
                () = tokio::time::sleep(self.settings.tidy_after) => true,
            };
            match self.compact_what_is_due(quiet).await {
                Ok(()) => pause.reset(),
                Err(error) if error.is_retryable() => pause.after(&error, "compaction", &self.store).await,
                Err(error) => return error,
            }
        }
    }

    async fn compact_what_is_due(&self, quiet: bool) -> Result<(), CompactorError> {
        self.hold().await?;
        let mut worked = false;
        for debt in self.writer.debts() {
            if let Some(extent) = due(&debt, quiet) {
                worked |= self.writer.compact(&debt.collection, extent).await?.is_some();
            }
        }
        let forgotten = self.writer.forget_deletions().await?;
        if worked || forgotten > 0 {
            self.changed.notify_one();
            self.writer.collect_garbage().await?;
        }
        Ok(())
    }

    async fn collect_seldom_for_ever(&self) -> CompactorError {
        let mut pause = Pause::default();
        loop {
            tokio::time::sleep(self.settings.attachments_every).await;
            match self.collect_seldom().await {
                Ok(()) => pause.reset(),
                Err(error) if error.is_retryable() => pause.after(&error, "collection", &self.store).await,
                Err(error) => return error,
            }
        }
    }

    /// Garbage also where nothing is written any more: manifests and pins whose time has come since.
    async fn collect_seldom(&self) -> Result<(), CompactorError> {
        self.hold().await?;
        self.writer.collect_garbage().await?;
        self.writer.collect_attachments().await?;
        Ok(())
    }

    /// Puts everything that was written into segments, and keeps that state under a name for some time.
    ///
    /// # Errors
    /// As [`Self::run`]; also failures that may pass.
    pub async fn back_up(&self, name: PinName, keep: Duration) -> Result<(Pin, Lsn), CompactorError> {
        let head = self.log.head(self.store.app()).await?;
        self.store.wait_for(head).await?;
        self.writer.flush().await?;
        Ok(self.store.pin(name, keep).await?)
    }
}

/// How long to wait after failures: longer each time.
#[derive(Debug, Default)]
struct Pause(Duration);

impl Pause {
    fn reset(&mut self) {
        self.0 = Duration::ZERO;
    }

    async fn after(&mut self, error: &CompactorError, what: &str, store: &DocumentStore) {
        self.0 = (self.0 * 2).clamp(TICK, MAX_PAUSE);
        metrics::counter!("bigpeer_compactor_failures_total", "app" => store.app().to_string()).increment(1);
        tracing::warn!(app = %store.app(), %error, what, "failed, will try again in {:?}", self.0);
        tokio::time::sleep(self.0).await;
    }
}
