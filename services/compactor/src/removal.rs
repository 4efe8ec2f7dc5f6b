//! Removing documents: those whose time is over, and those that are to be purged. Through the log, as any other write, so that
//! devices and readers hear of it as of a deletion.
//!
//! # Consistency
//! A document is removed as it was looked at: if somebody changes it meanwhile, it stays, and is looked at again.
//!
//! # Crash safety
//! Sequence numbers live here only. A process that starts anew takes a new site. What it had removed is removed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bigpeer_chassis::{collection_key, conflict_key};
use bigpeer_crdt::{DocId, Document, Editor, TransactionBuilder};
use bigpeer_log::{AppendEntry, AppendError, AppendOutcome, TransactionLog};
use bigpeer_tables::{DocumentStore, Scan, Snapshot};
use bigpeer_types::{Clock, CollectionName, Hlc, HlcClock, Lsn, SiteId};
use futures::TryStreamExt;
use futures::future::BoxFuture;
use tokio::sync::Mutex;

use crate::{CompactorError, Pause};

/// Documents of one transaction.
const PER_TRANSACTION: usize = 256;

/// How often documents are looked for whose time is over.
const EVERY: Duration = Duration::from_secs(60);

/// How often a purge is tried again when documents change under it.
const ATTEMPTS: usize = 16;

/// How often an append of unknown outcome is repeated, and the pause between.
const REPETITIONS: usize = 40;
const REPETITION_PAUSE: Duration = Duration::from_millis(250);

/// Gives a site that nobody has written as, or says why it cannot.
pub type NewSite = Box<dyn Fn() -> BoxFuture<'static, Result<SiteId, String>> + Send + Sync>;

/// What is done to a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removal {
    /// It is deleted.
    Expired,
    /// Nothing is left of it.
    Purged,
}

/// Removes documents of one app.
pub struct Remover {
    store: Arc<DocumentStore>,
    log: Arc<dyn TransactionLog>,
    clock: Arc<dyn Clock>,
    new_site: NewSite,
    /// Held for an append: sequence numbers follow each other.
    site: Mutex<Option<Site>>,
}

struct Site {
    id: SiteId,
    clock: HlcClock,
    last_seq: u64,
}

impl fmt::Debug for Remover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remover").field("app", self.store.app()).finish_non_exhaustive()
    }
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removed {
    Yes(Lsn),
    /// One of the documents has changed, or it is too long ago that they were looked at.
    Changed,
}

impl Remover {
    /// Removes documents of the store's app, as a site that is asked for when there is something to remove.
    #[must_use]
    pub fn new(
        store: Arc<DocumentStore>,
        log: Arc<dyn TransactionLog>,
        clock: Arc<dyn Clock>,
        new_site: NewSite,
    ) -> Self {
        Self { store, log, clock, new_site, site: Mutex::default() }
    }

    /// Deletes documents whose time is over, now and then, for ever.
    ///
    /// # Errors
    /// What does not pass by itself.
    pub async fn run(&self) -> CompactorError {
        let mut pause = Pause::default();
        loop {
            match self.expire().await {
                Ok(_) => pause.reset(),
                Err(error) if error.is_retryable() => pause.after(&error, "expiry", &self.store).await,
                Err(error) => return error,
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Deletes the documents whose time is over by their collections' settings. Returns how many.
    ///
    /// # Errors
    /// When log or storage fail; what was deleted is deleted.
    pub async fn expire(&self) -> Result<u64, CompactorError> {
        let mut removed = 0;
        for (collection, settings) in self.store.collection_settings() {
            let Some(expiry) = settings.expiry else { continue };
            let until = self.store.written_before(Duration::from_secs(expiry.after_secs));
            if until == Lsn::ZERO {
                continue;
            }
            let snapshot = self.store.snapshot();
            let scan = Scan { unchanged_since: Some(until), ..Scan::default() };
            let mut batches = snapshot.scan(&collection, scan);
            while let Some(batch) = batches.try_next().await? {
                for chunk in batch.chunks(PER_TRANSACTION) {
                    let ids: Vec<DocId> = chunk.iter().map(|document| document.id.clone()).collect();
                    if let Some(Removed::Yes(_)) = self.remove(&snapshot, &collection, &ids, Removal::Expired).await? {
                        removed += ids.len() as u64;
                    }
                }
            }
        }
        if removed > 0 {
            tracing::info!(app = %self.store.app(), documents = removed, "documents have expired");
        }
        Ok(removed)
    }

    /// Purges documents: they go as if deleted, and nothing of their content stays in their states, nor in files once these
    /// have been compacted and what is kept of the past has gone. Documents that do not exist are fine. Returns where the
    /// last change stands; none if there was nothing to purge.
    ///
    /// # Errors
    /// When log or storage fail; what was purged is purged. When documents keep changing.
    pub async fn purge(&self, collection: &CollectionName, ids: &[DocId]) -> Result<Option<Lsn>, CompactorError> {
        // What was acknowledged before is purged, too, whether it was applied here or not.
        self.catch_up().await?;
        let mut last = None;
        for chunk in ids.chunks(PER_TRANSACTION) {
            let mut attempts = 0;
            loop {
                let snapshot = self.store.snapshot();
                match self.remove(&snapshot, collection, chunk, Removal::Purged).await? {
                    None => break,
                    Some(Removed::Yes(lsn)) => {
                        last = Some(lsn);
                        break;
                    }
                    Some(Removed::Changed) if attempts < ATTEMPTS => {
                        attempts += 1;
                        self.catch_up().await?;
                    }
                    Some(Removed::Changed) => {
                        return Err(CompactorError::Removal("the documents keep changing; try again".to_owned()));
                    }
                }
            }
        }
        Ok(last)
    }

    /// Waits until what the log holds now is applied.
    async fn catch_up(&self) -> Result<(), CompactorError> {
        let head = self.log.head(self.store.app()).await?;
        Ok(self.store.wait_for(head).await?)
    }

    /// Removes documents as they are in the snapshot; none if there was nothing to remove.
    async fn remove(
        &self,
        snapshot: &Snapshot,
        collection: &CollectionName,
        ids: &[DocId],
        removal: Removal,
    ) -> Result<Option<Removed>, CompactorError> {
        let found = snapshot.get_many(collection, ids).await?;
        let mut site = self.site.lock().await;
        let mut mine = match site.take() {
            Some(site) => site,
            None => {
                let id = (self.new_site)().await.map_err(CompactorError::Removal)?;
                Site { id, clock: HlcClock::new(id, Hlc::ZERO, Arc::clone(&self.clock)), last_seq: 0 }
            }
        };
        let mut builder = TransactionBuilder::new();
        let (mut writes, mut unchanged) = (Vec::new(), Vec::new());
        for (id, stored) in ids.iter().zip(found) {
            let Some(stored) = stored else { continue };
            let Some(delta) = delta(&stored.document, &mut mine.clock, removal) else { continue };
            let key = conflict_key(collection, id.as_key());
            writes.push(key);
            unchanged.push((key, snapshot.lsn()));
            builder.change(collection, id, &delta);
        }
        if unchanged.is_empty() {
            *site = Some(mine);
            return Ok(None);
        }
        writes.push(collection_key(collection));
        let documents = unchanged.len() as u64;
        let payload = builder.finish().map_err(|error| CompactorError::Removal(error.to_string()))?;
        let entry = AppendEntry { site: mine.id, seq: mine.last_seq + 1, writes, unchanged, payload };
        // A site whose outcome is not known in the end is not used again.
        let outcome = self.append(entry).await?;
        if let Removed::Yes(_) = outcome {
            mine.last_seq += 1;
            let kind = if removal == Removal::Expired { "expired" } else { "purged" };
            let app = self.store.app().to_string();
            metrics::counter!("bigpeer_compactor_documents_removed_total", "app" => app, "kind" => kind)
                .increment(documents);
        }
        *site = Some(mine);
        Ok(Some(outcome))
    }

    /// Appends until the log says what became of it.
    async fn append(&self, entry: AppendEntry) -> Result<Removed, CompactorError> {
        for _ in 0..REPETITIONS {
            match self.log.append(self.store.app(), vec![entry.clone()]).await {
                Ok(outcomes) => {
                    return match outcomes.first() {
                        Some(AppendOutcome::Applied(lsn) | AppendOutcome::Duplicate { lsn, .. }) => {
                            Ok(Removed::Yes(*lsn))
                        }
                        Some(AppendOutcome::Conflict { .. } | AppendOutcome::SnapshotTooOld) => Ok(Removed::Changed),
                        Some(AppendOutcome::SeqGap { .. }) | None => {
                            Err(CompactorError::Removal("the log does not know this site's last write".to_owned()))
                        }
                    };
                }
                Err(AppendError::Unknown { reason } | AppendError::Unavailable { reason }) => {
                    tracing::debug!(app = %self.store.app(), reason, "removing again");
                    tokio::time::sleep(REPETITION_PAUSE).await;
                }
                Err(error @ AppendError::Rejected { .. }) => return Err(CompactorError::Removal(error.to_string())),
            }
        }
        Err(CompactorError::Removal("the log does not answer".to_owned()))
    }
}

/// What removes the document; nothing if there is nothing to remove.
fn delta(document: &Document, clock: &mut HlcClock, removal: Removal) -> Option<Document> {
    let mut editor = Editor::new(document, clock);
    match removal {
        Removal::Expired => editor.delete(),
        Removal::Purged => editor.purge(),
    }
    editor.finish()
}
