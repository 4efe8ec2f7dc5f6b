//! The local store: one SQLite file, one writer thread, readers as needed.
//!
//! # Layout
//! `peer.db` (with SQLite's `-wal` and `-shm` beside it; tables in `schema.rs`), and `peer.lock`, which whoever has the
//! store open holds an exclusive lock on. Directory 0700, files 0600.
//!
//! # Consistency
//! Every change of the store is a closure that runs on the writer thread, inside one SQLite transaction: whole or not
//! at all. A reader sees one committed state for as long as it reads.
//!
//! # Crash safety
//! Local writes commit with an fsync ([`Durability::Power`]). What the server sent commits without one
//! ([`Durability::Process`]): after a power loss the newest of it may be gone, together with the cursor that stands in
//! the same SQLite transaction, and is asked for again. A killed process loses nothing.

mod attachments;
mod documents;
mod first_sync;
mod lock;
mod meta;
mod pending;
mod reached;
mod rejections;
mod schema;
mod subscriptions;
mod work;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

pub(crate) use attachments::PendingAttachment;
pub(crate) use meta::Token;
pub(crate) use pending::Unpushed;
pub(crate) use subscriptions::StoredSubscription;
pub(crate) use work::{Tables, Work};
pub(crate) use writer::Durability;

use crate::PeerError;
use crate::signals::Signals;
use lock::StoreLock;
use writer::Writer;

/// A handle on the open store; the last one dropped closes it.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// Idle read connections. Legal at any time: empty, or connections without an open transaction.
    readers: Mutex<Vec<Connection>>,
    /// Dropped (and its thread joined) before the lock is let go.
    writer: Writer,
    _lock: StoreLock,
}

impl Store {
    /// Opens or makes the store in `dir`. Blocks.
    pub(crate) fn open(dir: &Path, signals: Arc<Signals>) -> Result<Self, PeerError> {
        let lock = StoreLock::take(dir)?;
        let path = dir.join("peer.db");
        lock::make_private_file(&path)?;
        let connection = schema::open_writer(&path).map_err(|error| not_a_store(dir, error))?;
        let writer = Writer::start(connection, signals)?;
        Ok(Self { inner: Arc::new(Inner { path, readers: Mutex::new(Vec::new()), writer, _lock: lock }) })
    }

    /// Runs `change` in one transaction on the writer thread. An error of it undoes everything. Cancelling the wait does
    /// not cancel the change.
    pub(crate) async fn write<T, F>(&self, durability: Durability, change: F) -> Result<T, PeerError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Work<'_>) -> Result<T, PeerError> + Send + 'static,
    {
        self.inner.writer.run(durability, change).await
    }

    /// Runs `read` on a blocking thread, over one consistent state.
    pub(crate) async fn read<T, F>(&self, read: F) -> Result<T, PeerError>
    where
        T: Send + 'static,
        F: FnOnce(&Tables<'_>) -> Result<T, PeerError> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.read(read)).await?
    }

    /// Ends the writer thread after what is queued. Later writes answer [`PeerError::Closed`].
    pub(crate) async fn close(&self) {
        let inner = Arc::clone(&self.inner);
        // Joining a thread blocks; a failure to join means that the thread is gone, which is what was wanted.
        let _joined = blocking(move || inner.writer.stop()).await;
    }
}

impl Inner {
    fn read<T>(&self, read: impl FnOnce(&Tables<'_>) -> Result<T, PeerError>) -> Result<T, PeerError> {
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => schema::open_reader(&self.path)?,
        };
        let transaction = connection.transaction()?;
        let result = read(&Tables::new(&transaction));
        transaction.rollback()?;
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        result
    }
}

/// Runs what waits for the disk off the async threads; in the simulation at once, as it has no other thread.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, PeerError> {
    if cfg!(bigpeer_sim) {
        let done = work();
        tokio::task::yield_now().await;
        return Ok(done);
    }
    tokio::task::spawn_blocking(work).await.map_err(|_| PeerError::Closed)
}

/// SQLite's "file is not a database" as an answer that says what to do.
fn not_a_store(dir: &Path, error: PeerError) -> PeerError {
    if let PeerError::Store(inner) = &error
        && inner.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase)
    {
        return PeerError::NotAStore { path: dir.to_owned(), reason: "peer.db is not a database".to_owned() };
    }
    if let PeerError::NotAStore { reason, .. } = error {
        return PeerError::NotAStore { path: dir.to_owned(), reason };
    }
    error
}
