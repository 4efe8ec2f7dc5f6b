//! `Walker`: an app's transactions in order, each change with its document exactly as it was before and after it.
//!
//! # Consistency
//! A walker stands at a position of the log. It has a **base**, a snapshot at or before that position, and the documents
//! that changed since the base, as they are at the position ([`Images`]). A document that is not among them is in the base
//! as it is at the position. When the images grow too large, or the base is free to be had, the base is moved up.
//!
//! Near the tail, batches come from the store's own feed: decoded, and with a snapshot behind them that costs nothing. A
//! walker that has fallen behind that reads the log; the state where it stands comes from the manifest before it and the log
//! between. What the log or the manifests do not hold any more is a [`FeedError::Gap`], never left out silently.
//!
//! # Cancellation
//! Dropping a call of [`Walker::next`] loses nothing; the next call goes on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bigpeer_crdt::{DocId, Document, Transaction};
use bigpeer_log::{ReadError, TransactionLog};
use bigpeer_tables::{AppliedBatch, DocumentStore, Feed, FeedError as StoreFeedError, Snapshot};
use bigpeer_types::{CollectionName, Lsn, SiteId};
use futures::FutureExt;

use crate::error::FeedError;
use crate::images::Images;

/// Most changes in what one call answers.
const GROUP_CHANGES: usize = 512;

/// About how many bytes of documents are read for one call. A few of what calls answer wait for a sink, twice as large as events.
const GROUP_BYTES: usize = 4 << 20;

/// How much a walker may hold, and which collections it looks at.
#[derive(Clone, Debug)]
pub struct WalkerSettings {
    /// Most bytes of documents in memory, estimated, before the base is moved up.
    pub image_bytes: usize,
    /// Bytes of payload that one read of the log asks for.
    pub read_bytes: usize,
    /// The only collections whose documents are wanted; none: all that are not system collections.
    pub collections: Option<BTreeSet<CollectionName>>,
}

impl Default for WalkerSettings {
    fn default() -> Self {
        Self { image_bytes: 64 << 20, read_bytes: 1 << 20, collections: None }
    }
}

impl WalkerSettings {
    fn wants(&self, collection: &CollectionName) -> bool {
        match &self.collections {
            Some(collections) => collections.contains(collection),
            None => !collection.is_system(),
        }
    }
}

/// One document's change.
#[derive(Clone, Debug)]
pub struct WalkedChange {
    /// Its place among all changes of its transaction, from 0.
    pub index: u32,
    /// The collection.
    pub collection: CollectionName,
    /// The document.
    pub id: DocId,
    /// The document before it; none if nothing was ever written to it.
    pub before: Option<Arc<Document>>,
    /// The document after it.
    pub after: Arc<Document>,
}

/// A transaction, or the part of a large one that fits into one call.
#[derive(Clone, Debug)]
pub struct Walked {
    /// Where it stands.
    pub lsn: Lsn,
    /// Who wrote it.
    pub site: SiteId,
    /// The writer's number of it.
    pub seq: u64,
    /// When, by its newest stamp: milliseconds since the epoch, by the writer's clock.
    pub time_ms: u64,
    /// The changes of wanted collections in this part, in order.
    pub changes: Vec<WalkedChange>,
    /// How many of the transaction's changes, wanted or not, lie behind this part; none: it ends with it.
    pub seen: Option<u32>,
    /// Bytes of its payload.
    pub bytes: usize,
}

/// A transaction that was read and not yet walked, or not whole.
#[derive(Debug)]
struct Waiting {
    lsn: Lsn,
    site: SiteId,
    seq: u64,
    transaction: Transaction,
    /// How many of its changes were walked.
    done: usize,
}

/// Reads an app's transactions from some position on.
#[derive(Debug)]
pub struct Walker {
    store: Arc<DocumentStore>,
    log: Arc<dyn TransactionLog>,
    settings: WalkerSettings,
    /// Everything up to here was read and queued.
    at: Lsn,
    /// Everything up to here was walked.
    walked: Lsn,
    queue: VecDeque<Waiting>,
    base: Snapshot,
    images: Images,
    /// Whether the base lies before a transaction whose documents are not all among the images.
    stale: bool,
    /// The state behind the last transaction of the queue, if it was free to be had.
    next_base: Option<Snapshot>,
    feed: Option<Feed>,
    /// Of what was read of late: bytes per document.
    average_bytes: usize,
}

impl Walker {
    /// Starts behind the transaction at `after`. Waits until the store has applied that much.
    ///
    /// # Errors
    /// [`FeedError::Gap`] when what comes after it is no longer kept; others when log or tables fail.
    pub async fn open(
        store: Arc<DocumentStore>,
        log: Arc<dyn TransactionLog>,
        after: Lsn,
        settings: WalkerSettings,
    ) -> Result<Self, FeedError> {
        let head = log.head(store.app()).await.map_err(FeedError::Log)?;
        // What lies at the head or before it is applied sooner or later; beyond it nothing may ever be.
        if after > head {
            return Err(FeedError::Ahead { after, head });
        }
        let base = store.at(after).await.map_err(|error| FeedError::at(after, error))?;
        Ok(Self {
            feed: Some(store.feed(after)),
            store,
            log,
            settings,
            at: after,
            walked: after,
            queue: VecDeque::new(),
            base,
            images: Images::default(),
            stale: false,
            next_base: None,
            average_bytes: 1024,
        })
    }

    /// Everything up to here was walked, whole.
    #[must_use]
    pub const fn walked(&self) -> Lsn {
        self.walked
    }

    /// What comes next: at least one part of a transaction; waits for it.
    ///
    /// # Errors
    /// As [`Self::open`]. A failed walker must not be used again.
    pub async fn next(&mut self) -> Result<Vec<Walked>, FeedError> {
        while self.queue.is_empty() {
            self.read().await?;
        }
        let begun = self.is_within();
        if (self.stale && !begun) || self.images.bytes() > self.settings.image_bytes {
            self.rebase().await?;
            self.stale = begun;
        }
        let changes = self.load().await?;
        self.walk(changes)
    }

    /// Whether [`Self::next`] would have something at once, as far as that is known.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        !self.queue.is_empty() || self.at < self.store.applied()
    }

    /// Whether the last part that was given out did not end its transaction.
    #[must_use]
    pub fn is_within(&self) -> bool {
        self.queue.front().is_some_and(|front| front.done > 0)
    }

    /// The state exactly at [`Self::walked`].
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn state(&mut self) -> Result<Snapshot, FeedError> {
        if self.is_within() {
            return self.state_at_walked().await;
        }
        if self.stale || self.base.lsn() < self.walked {
            self.rebase().await?;
            self.stale = false;
        }
        Ok(self.base.clone())
    }

    async fn state_at_walked(&self) -> Result<Snapshot, FeedError> {
        self.store.at(self.walked).await.map_err(|error| FeedError::at(self.walked, error))
    }

    /// Moves the base up to the last whole transaction. Within one, what of it is done is in no image any more, so the base
    /// must move behind it as soon as it is whole.
    async fn rebase(&mut self) -> Result<(), FeedError> {
        self.base = self.state_at_walked().await?;
        self.images.clear();
        Ok(())
    }

    /// Reads more, or waits for more.
    async fn read(&mut self) -> Result<(), FeedError> {
        if let Some(base) = self.next_base.take() {
            // Everything that was queued is walked: the images are the base's.
            self.base = base;
            if self.stale || self.images.bytes() > self.settings.image_bytes {
                self.images.clear();
                self.stale = false;
            }
        }
        if let Some(feed) = &mut self.feed {
            match feed.next().await {
                Ok(batch) => {
                    self.take_applied(&batch);
                    return Ok(());
                }
                Err(StoreFeedError::Lagged { .. }) => self.feed = None,
                Err(StoreFeedError::Failed(error)) => return Err(FeedError::Tables(error)),
            }
        }
        let batch = match self.log.read(self.store.app(), self.at, self.settings.read_bytes).await {
            Ok(batch) => batch,
            Err(ReadError::Trimmed { .. }) => return Err(FeedError::Gap { after: self.at }),
            Err(error) => return Err(FeedError::Log(error)),
        };
        for entry in batch.entries {
            let transaction = Transaction::decode(entry.payload)
                .map_err(|error| FeedError::Corrupt { lsn: entry.lsn, reason: error.to_string() })?;
            let (lsn, site, seq) = (entry.lsn, entry.site, entry.seq);
            self.queue.push_back(Waiting { lsn, site, seq, transaction, done: 0 });
        }
        self.at = self.at.max(batch.through);
        self.rejoin();
        if self.queue.is_empty() && self.feed.is_none() {
            self.log.wait_past(self.store.app(), self.at).await.map_err(FeedError::Log)?;
        }
        Ok(())
    }

    /// Goes over to the store's feed, once it has what comes next at hand.
    fn rejoin(&mut self) {
        let mut feed = self.store.feed(self.at);
        match feed.next().now_or_never() {
            // It is asked again later, and answers the same.
            None | Some(Ok(_)) => self.feed = Some(self.store.feed(self.at)),
            Some(Err(_)) => {}
        }
    }

    fn take_applied(&mut self, batch: &AppliedBatch) {
        for applied in &batch.transactions {
            // The first batch of a feed may begin before where it started from.
            if applied.lsn <= self.at {
                continue;
            }
            self.queue.push_back(Waiting {
                lsn: applied.lsn,
                site: applied.site,
                seq: applied.seq,
                transaction: applied.transaction.clone(),
                done: 0,
            });
        }
        self.at = self.at.max(batch.through);
        if self.queue.is_empty() {
            self.walked = self.at;
        }
        self.next_base = Some(batch.after.clone());
    }

    /// Makes sure that the documents of the next changes are among the images. Answers how many changes that is.
    async fn load(&mut self) -> Result<usize, FeedError> {
        let most = (GROUP_BYTES / self.average_bytes.max(1)).clamp(1, GROUP_CHANGES);
        let mut missing: BTreeMap<CollectionName, BTreeSet<DocId>> = BTreeMap::new();
        let mut taken = 0;
        // As long as the base lies before what is done of the front, it says nothing of what comes behind the front.
        let reach = if self.stale { 1 } else { usize::MAX };
        for waiting in self.queue.iter().take(reach) {
            for change in waiting.transaction.changes().iter().skip(waiting.done).take(most - taken) {
                taken += 1;
                if self.settings.wants(&change.collection) && !self.images.has(&change.collection, &change.id) {
                    missing.entry(change.collection.clone()).or_default().insert(change.id.clone());
                }
            }
            if taken >= most {
                break;
            }
        }
        for (collection, ids) in missing {
            let ids: Vec<DocId> = ids.into_iter().collect();
            let found = self.base.get_many(&collection, &ids).await;
            let found = found.map_err(|error| FeedError::at(self.base.lsn(), error))?;
            let before = self.images.bytes();
            let count = ids.len();
            for (id, found) in ids.into_iter().zip(found) {
                self.images.insert(&collection, id, found.map(|found| found.document));
            }
            let each = self.images.bytes().saturating_sub(before) / count.max(1);
            self.average_bytes = usize::midpoint(self.average_bytes, each);
        }
        Ok(taken)
    }

    /// Walks so many changes.
    fn walk(&mut self, mut changes: usize) -> Result<Vec<Walked>, FeedError> {
        let mut out = Vec::new();
        while let Some(front) = self.queue.front_mut() {
            let all = front.transaction.changes();
            let rest = all.len().saturating_sub(front.done);
            if changes == 0 && rest > 0 {
                break;
            }
            let part = rest.min(changes);
            changes -= part;
            let mut walked = Vec::with_capacity(part);
            for (index, change) in all.iter().enumerate().skip(front.done).take(part) {
                let applied = self.images.apply(&change.collection, &change.id, &change.delta);
                let applied =
                    applied.map_err(|error| FeedError::Corrupt { lsn: front.lsn, reason: error.to_string() })?;
                // Not wanted.
                let Some((before, after)) = applied else { continue };
                walked.push(WalkedChange {
                    index: u32::try_from(index).unwrap_or(u32::MAX),
                    collection: change.collection.clone(),
                    id: change.id.clone(),
                    before,
                    after,
                });
            }
            front.done += part;
            let is_whole = front.done >= all.len();
            out.push(Walked {
                lsn: front.lsn,
                site: front.site,
                seq: front.seq,
                time_ms: front.transaction.max_hlc().millis(),
                changes: walked,
                seen: (!is_whole).then(|| u32::try_from(front.done).unwrap_or(u32::MAX)),
                bytes: if is_whole { front.transaction.encoded().len() } else { 0 },
            });
            if !is_whole {
                break;
            }
            self.walked = front.lsn;
            self.queue.pop_front();
        }
        if self.queue.is_empty() {
            self.walked = self.at;
        }
        Ok(out)
    }
}
