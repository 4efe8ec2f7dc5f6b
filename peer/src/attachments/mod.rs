//! Attachments: blobs beside the store, sent to the server after the documents that name them, fetched when somebody asks.
//!
//! # Layout
//! The directory `attachments` of the store: a whole blob is named by its SHA-256 in hexadecimal digits, `….part` is one
//! that is being fetched, `….new` one that is being attached. The table `attachments` says which are whole, and which the
//! server still has to get.
//!
//! # Crash safety
//! A blob is synced before its row, and its row is committed before the token is handed out. What a crash leaves of a
//! fetch is gone on with; what it leaves of attaching is removed when the store is opened.
//!
//! # Cancellation
//! An upload that is broken off goes on where the server has it; a fetch that is dropped goes on where the file ends.

mod blobs;
mod fetch;
mod http;
mod upload;

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bigpeer_crdt::{Attachment, DocId, Object};
use bigpeer_types::{Clock, IdGenerator};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::signals::Signals;
use crate::store::{Durability, Store, blocking};
use crate::{ConnectSettings, PeerError, PeerSettings};

use blobs::Blobs;
pub use fetch::{Fetch, FetchProgress};

/// The attachments of one open store.
#[derive(Clone, Debug)]
pub(crate) struct Attachments {
    core: Arc<Core>,
    /// How to reach the server, while the peer is to be connected.
    session: Arc<Mutex<Option<Uploads>>>,
    /// One fetch of a blob at a time.
    fetching: Arc<Mutex<Turns>>,
}

/// Who fetches a blob holds its lock.
type Turns = BTreeMap<[u8; 32], Weak<tokio::sync::Mutex<()>>>;

/// What tasks may hold: nothing that keeps the peer from ending when it is dropped.
#[derive(Debug)]
struct Core {
    store: Store,
    signals: Arc<Signals>,
    blobs: Arc<Blobs>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdGenerator>,
    cache_bytes: u64,
}

/// The task that sends blobs. It ends when this is dropped.
#[derive(Debug)]
struct Uploads {
    settings: ConnectSettings,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Attachments {
    /// Makes the directory, and removes what a crash left there.
    pub(crate) async fn open(store: Store, signals: Arc<Signals>, settings: &PeerSettings) -> Result<Self, PeerError> {
        let dir = settings.store_dir.join("attachments");
        let known = store.read(|tables| tables.attachments()).await?;
        let known = known.into_iter().map(|(id, ..)| id).collect();
        let blobs = blocking(move || Blobs::open(dir, &known)).await??;
        let core = Core {
            store,
            signals,
            blobs: Arc::new(blobs),
            clock: Arc::clone(&settings.clock),
            ids: Arc::clone(&settings.ids),
            cache_bytes: settings.attachment_cache_bytes,
        };
        Ok(Self { core: Arc::new(core), session: Arc::default(), fetching: Arc::default() })
    }

    /// Begins to send what waits, whenever there is a session.
    pub(crate) fn start(&self, settings: &ConnectSettings) {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(upload::run(Arc::clone(&self.core), settings.clone(), stopped));
        let uploads = Uploads { settings: settings.clone(), stop, task };
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(uploads);
    }

    /// Breaks off what is being sent.
    pub(crate) async fn stop(&self) {
        let uploads = self.session.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Uploads { stop, task, .. }) = uploads {
            let _gone = stop.send(true);
            if task.await.is_err() {
                tracing::error!("the task that sends attachments panicked");
            }
        }
    }

    fn connect_settings(&self) -> Option<ConnectSettings> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        session.as_ref().map(|uploads| uploads.settings.clone())
    }

    /// Copies a file into the store.
    pub(crate) async fn attach_file(&self, path: &Path, metadata: Object) -> Result<Attachment, PeerError> {
        let path = path.to_owned();
        let open = move || {
            let file = std::fs::File::open(&path).map_err(|error| blobs::failed(&path, error))?;
            Ok(Box::new(file) as Box<dyn Read + Send>)
        };
        self.attach(open, metadata).await
    }

    /// Puts bytes into the store.
    pub(crate) async fn attach_bytes(&self, bytes: Bytes, metadata: Object) -> Result<Attachment, PeerError> {
        self.attach(move || Ok(Box::new(Cursor::new(bytes)) as Box<dyn Read + Send>), metadata).await
    }

    async fn attach(
        &self,
        content: impl FnOnce() -> Result<Box<dyn Read + Send>, PeerError> + Send + 'static,
        metadata: Object,
    ) -> Result<Attachment, PeerError> {
        let (blobs, number) = (Arc::clone(&self.core.blobs), self.core.ids.next_u64());
        let (sha256, length) = blocking(move || blobs.take(&mut *content()?, number)).await??;
        let now_ms = self.core.clock.now_ms();
        let change = move |work: &mut crate::store::Work<'_>| work.put_attachment(sha256, length, true, now_ms);
        self.core.store.write(Durability::Power, change).await?;
        Ok(Attachment { sha256, length, metadata })
    }

    /// The blob's file, if it is here.
    pub(crate) async fn local(&self, sha256: [u8; 32]) -> Result<Option<PathBuf>, PeerError> {
        if !self.core.store.read(move |tables| tables.has_attachment(sha256)).await? {
            return Ok(None);
        }
        let path = self.core.blobs.whole(sha256);
        let now_ms = self.core.clock.now_ms();
        let change = move |work: &mut crate::store::Work<'_>| work.use_attachment(sha256, now_ms);
        self.core.store.write(Durability::Process, change).await?;
        let there = path.clone();
        Ok(blocking(move || there.is_file()).await?.then_some(path))
    }

    /// Begins to fetch a blob that a document holds.
    pub(crate) fn fetch(&self, collection: &str, id: &DocId, attachment: &Attachment) -> Fetch {
        Fetch::start(self.clone(), collection.to_owned(), id.clone(), attachment.clone())
    }

    /// Whoever holds this is the only one that fetches the blob.
    fn turn(&self, sha256: [u8; 32]) -> Arc<tokio::sync::Mutex<()>> {
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        fetching.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = fetching.get(&sha256).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        fetching.insert(sha256, Arc::downgrade(&turn));
        turn
    }

    /// Removes blobs that the server has, least recently used first, until the others have `keep_bytes` at most. `spared`
    /// stays. Answers how many bytes went.
    pub(crate) async fn evict(&self, keep_bytes: u64, spared: Option<[u8; 32]>) -> Result<u64, PeerError> {
        let all = self.core.store.read(|tables| tables.attachments()).await?;
        let mut total: u64 = all.iter().map(|(_, length, _)| *length).sum();
        let mut gone = 0;
        for (id, length, pending) in all {
            if total <= keep_bytes {
                break;
            }
            if pending || spared == Some(id) {
                continue;
            }
            // The row first: a file without a row is removed at the next start, a row without a file would be a lie.
            let change = move |work: &mut crate::store::Work<'_>| work.remove_attachment(id);
            self.core.store.write(Durability::Process, change).await?;
            let blobs = Arc::clone(&self.core.blobs);
            blocking(move || blobs.remove(id)).await?;
            total -= length;
            gone += length;
        }
        Ok(gone)
    }
}
