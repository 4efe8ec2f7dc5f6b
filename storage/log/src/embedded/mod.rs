//! The embedded engine: one process, one directory, one device sync for all who wait.
//!
//! # Layout
//! A directory holds `LOCK`, two `checkpoint-N` files (see `checkpoint`) and `NNNNNNNN.segment` files (see `format`). All apps
//! and the metadata space share one sequence of records, so that one sync serves everybody. Each record has a version, a
//! counter over the whole log: an entry's LSN is its record's version and order 0, a metadata commit's revision is its
//! record's version. An index in memory knows where each app's entries are, to within 64 KiB.
//!
//! # Consistency
//! One writer thread decides, writes, syncs and then publishes: what is readable is durable. Appenders that come while a
//! batch is being synced make the next batch.
//!
//! # Crash safety
//! A batch is acknowledged after its sync, and is found whole or not at all (see `recovery`). Segments are written with
//! zeros and synced before they are used, so that a commit overwrites blocks that exist: it is fast, and it cannot run out
//! of space. It is assumed that a disk writes a sector of 512 bytes whole or not at all, and that bytes next to those
//! written survive. A sync that fails stops the engine: what was in flight is `Unknown`, later appends are
//! refused, reading goes on, and opening the log again finds out what is there. A full disk refuses appends until there is space.
//!
//! # Cancellation
//! A request that reached the writer's queue is done whether somebody waits for the answer or not.

mod batch;
mod checkpoint;
pub mod disk;
pub mod format;
mod index;
mod maintenance;
mod reader;
mod recent;
mod recovery;
mod scan;
mod segments;
mod settings;
mod shared;
#[cfg(feature = "conformance")]
pub mod sim_disk;
mod state;
mod writer;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc};
use std::thread::{Builder, JoinHandle};

use async_trait::async_trait;
use bigpeer_types::{AppId, Lsn, SiteId};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

pub use settings::{EmbeddedSettings, OpenError};

use crate::memory::range_of;
use crate::preconditions::check_entries;
use crate::{
    AppendEntry, AppendError, AppendOutcome, MetaError, MetaOp, MetaWatch, Metadata, ReadBatch, ReadError,
    TransactionLog, Versioned, check_ops,
};
use disk::{Disk, LocalDisk};
use index::Found;
use maintenance::{Job, Maintenance, Worker};
use recovery::Recovered;
use shared::Shared;
use writer::{BATCH_BYTES, Request, Writer};

/// Most requests that wait for the writer; more wait to be let into the queue.
const QUEUE: usize = 4096;

/// A log in one directory of a local disk.
///
/// Dropping it waits until the requests in its queue are done; [`EmbeddedLog::close`] does so without blocking.
#[derive(Debug)]
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    /// Taken by whoever waits for the thread to end.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl EmbeddedLog {
    /// Opens the log in `dir`, which is made if it does not exist. Blocks while it reads the log.
    ///
    /// # Errors
    /// [`OpenError`]; what is on disk is as it was.
    pub fn open(dir: &Path, settings: EmbeddedSettings) -> Result<Self, OpenError> {
        let disk = LocalDisk::new(dir).map_err(|source| OpenError::Io {
            dir: dir.to_owned(),
            action: "making its directory".to_owned(),
            source,
        })?;
        Self::start(&(Arc::new(disk) as Arc<dyn Disk>), settings, true)
    }

    /// As [`Self::open`], on a disk of one's own, with all work done by one thread: how tests make each operation fail.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_on(disk: &Arc<dyn Disk>, settings: EmbeddedSettings) -> Result<Self, OpenError> {
        Self::start(disk, settings, false)
    }

    /// As [`Self::open_on`], with the threads of [`Self::open`].
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_threaded_on(disk: &Arc<dyn Disk>, settings: EmbeddedSettings) -> Result<Self, OpenError> {
        Self::start(disk, settings, true)
    }

    fn start(disk: &Arc<dyn Disk>, settings: EmbeddedSettings, in_background: bool) -> Result<Self, OpenError> {
        let error =
            |action: &str, source| OpenError::Io { dir: disk.path().to_owned(), action: action.to_owned(), source };
        let lock = disk.lock().map_err(|source| {
            if source.kind() == std::io::ErrorKind::WouldBlock {
                OpenError::locked(disk.path(), &source.to_string())
            } else {
                error("locking it", source)
            }
        })?;
        let Recovered { state, segments, active, log_id, first_segment, sequence } =
            recovery::recover(disk, &settings, &*settings.ids)?;
        let apps: BTreeMap<_, _> = state.apps.iter().map(|app| (app.id.clone(), Arc::clone(&app.index))).collect();
        let shared = Arc::new(Shared::new(Arc::clone(disk), segments, apps, state.metadata.clone(), first_segment));
        let worker = Worker::new(Arc::clone(&shared), sequence);
        let (mut maintenance, thread) = if in_background {
            let (jobs, queue) = std_mpsc::channel();
            let thread = Builder::new()
                .name("log-maintenance".to_owned())
                .spawn(move || worker.run(&queue))
                .map_err(|source| error("starting its maintenance thread", source))?;
            (Maintenance::Thread(jobs), Some(thread))
        } else {
            (Maintenance::Inline(worker), None)
        };
        maintenance.give(Job::Prepare);
        let writer = Writer {
            shared: Arc::clone(&shared),
            state,
            active,
            log_id,
            maintenance,
            clock: settings.clock,
            ids: settings.ids,
            recent: recent::Recent::new(settings.tail_bytes),
            buffer: Vec::new(),
            last_batch: 0,
        };
        let (requests, mut queue) = mpsc::channel(QUEUE);
        let writer = Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || {
                writer.run(&mut queue);
                if thread.is_some_and(|thread| thread.join().is_err()) {
                    tracing::error!("the log's maintenance thread panicked");
                }
                // Only now may somebody else open the directory.
                drop(lock);
            })
            .map_err(|source| error("starting its writer thread", source))?;
        Ok(Self { shared, requests, thread: Mutex::new(Some(writer)) })
    }

    /// Stops taking appends, and returns when what was accepted is durable and the directory is unlocked. Everything
    /// asked after it is refused, except reading.
    pub async fn close(&self) {
        // An error says that the writer has ended already.
        let _ = self.requests.send(Request::Close).await;
        let thread = self.take_thread();
        if let Some(thread) = thread
            && let Ok(Err(_)) = tokio::task::spawn_blocking(move || thread.join()).await
        {
            tracing::error!("the log's writer thread panicked");
        }
    }

    fn take_thread(&self) -> Option<JoinHandle<()>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Puts a request into the writer's queue; gives it back when the log is closed.
    async fn ask(&self, request: Request) -> Result<(), Request> {
        self.requests.send(request).await.map_err(|refused| refused.0)
    }

    fn closed(&self) -> String {
        self.shared.ended().unwrap_or("the log is closed").to_owned()
    }

    async fn append_piece(&self, app: &AppId, entries: Vec<AppendEntry>) -> Result<Vec<AppendOutcome>, AppendError> {
        let (reply, answer) = oneshot::channel();
        if self.ask(Request::Append { app: app.clone(), entries, reply }).await.is_err() {
            return Err(AppendError::Unavailable { reason: self.closed() });
        }
        answer.await.unwrap_or_else(|_| Err(AppendError::Unknown { reason: self.closed() }))
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        let (none, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.requests, none));
        if let Some(thread) = self.take_thread() {
            // A panic was reported by the thread itself.
            let _ = thread.join();
        }
    }
}

/// How many of `entries`, from the first on, make one request to the writer.
fn piece(entries: &[AppendEntry]) -> usize {
    let mut bytes = 0;
    let fits = entries.iter().take_while(|entry| {
        let before = bytes;
        bytes += entry.payload.len() + 8 * entry.writes.len();
        before < BATCH_BYTES
    });
    fits.count()
}

#[async_trait]
impl TransactionLog for EmbeddedLog {
    async fn append(&self, app: &AppId, mut entries: Vec<AppendEntry>) -> Result<Vec<AppendOutcome>, AppendError> {
        check_entries(&entries)?;
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let mut outcomes = Vec::new();
        while !entries.is_empty() {
            let rest = entries.split_off(piece(&entries));
            match self.append_piece(app, entries).await {
                Ok(more) if outcomes.is_empty() => outcomes = more,
                Ok(more) => outcomes.extend(more),
                Err(error) if outcomes.is_empty() => return Err(error),
                Err(error) => return Err(AppendError::Unknown { reason: error.to_string() }),
            }
            entries = rest;
        }
        Ok(outcomes)
    }

    async fn read(&self, app: &AppId, after: Lsn, max_bytes: usize) -> Result<ReadBatch, ReadError> {
        let index = self.shared.app(app);
        loop {
            let spans = match index.find(after, max_bytes)? {
                Found::Batch(batch) => return Ok(batch),
                Found::Spans(spans) => spans,
            };
            let number = index.number.get().copied().unwrap_or(u32::MAX);
            let shared = Arc::clone(&self.shared);
            let read =
                tokio::task::spawn_blocking(move || reader::read_spans(&shared, number, after, &spans, max_bytes));
            match read.await {
                Ok(Ok(batch)) => return Ok(batch),
                // A trim came between: the index knows by now, and says so.
                Ok(Err(_)) if index.trimmed() > after => {}
                Ok(Err(failure)) => return Err(failure.into_error(&self.shared)),
                Err(_) => return Err(ReadError::Unavailable { reason: "the process is shutting down".to_owned() }),
            }
        }
    }

    async fn wait_past(&self, app: &AppId, after: Lsn) -> Result<(), ReadError> {
        let mut progress = self.shared.app(app).progress.subscribe();
        match progress.wait_for(|progress| progress.head > after || progress.ended).await {
            Ok(progress) if progress.head > after => Ok(()),
            Ok(_) | Err(_) => Err(ReadError::Unavailable { reason: self.closed() }),
        }
    }

    async fn head(&self, app: &AppId) -> Result<Lsn, ReadError> {
        Ok(self.shared.app(app).progress.borrow().head)
    }

    async fn trimmed(&self, app: &AppId) -> Result<Lsn, ReadError> {
        Ok(self.shared.app(app).trimmed())
    }

    async fn last_seq(&self, app: &AppId, site: SiteId) -> Result<u64, ReadError> {
        let (reply, answer) = oneshot::channel();
        if self.ask(Request::LastSeq { app: app.clone(), site, reply }).await.is_err() {
            return Err(ReadError::Unavailable { reason: self.closed() });
        }
        answer.await.unwrap_or_else(|_| Err(ReadError::Unavailable { reason: self.closed() }))
    }

    async fn trim(&self, app: &AppId, through: Lsn) -> Result<(), ReadError> {
        let (reply, answer) = oneshot::channel();
        if self.ask(Request::Trim { app: app.clone(), through, reply }).await.is_err() {
            return Err(ReadError::Unavailable { reason: self.closed() });
        }
        answer.await.unwrap_or_else(|_| Err(ReadError::Unavailable { reason: self.closed() }))
    }

    async fn close(&self) {
        // The one of the type itself.
        Self::close(self).await;
    }

    fn metadata(&self) -> &dyn Metadata {
        self
    }
}

#[async_trait]
impl Metadata for EmbeddedLog {
    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, MetaError> {
        Ok(self.shared.metadata.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    async fn range(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Versioned)>, MetaError> {
        let map = self.shared.metadata.read().unwrap_or_else(PoisonError::into_inner);
        Ok(range_of(&map, prefix, after, limit))
    }

    async fn commit(&self, ops: Vec<MetaOp>) -> Result<u64, MetaError> {
        check_ops(&ops)?;
        let (reply, answer) = oneshot::channel();
        if self.ask(Request::Commit { ops, reply }).await.is_err() {
            return Err(MetaError::Unavailable { reason: self.closed() });
        }
        answer.await.unwrap_or_else(|_| Err(MetaError::Unknown { reason: self.closed() }))
    }

    fn watch(&self, prefix: &[u8]) -> MetaWatch {
        self.shared.watchers.watch(prefix)
    }
}
