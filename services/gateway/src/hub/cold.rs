//! `Cold`: batches that some sessions have to wait for, because a document that they may concern has to be read from a
//! segment first. Everybody else goes on. Batches are delivered to those who wait in the order of the log, whichever is
//! read first: a session never sees a later change before an earlier one, nor a part of a transaction.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bigpeer_crdt::DocId;
use bigpeer_tables::{AppliedBatch, Snapshot, TablesError};
use bigpeer_types::{CollectionName, Lsn};
use futures::future::{BoxFuture, try_join_all};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};

use super::matching::Documents;
use super::{Loaded, Touched};

/// Most batches that wait; then the hub waits, too.
const MAX_WAITING: usize = 64;

/// A batch that not all sessions have got.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) number: u64,
    pub(super) batch: Arc<AppliedBatch>,
    /// Those who wait have got everything up to here and the batches that wait before.
    pub(super) from: Lsn,
    /// As they were before the batch.
    pub(super) documents: Documents,
    /// What had to be read.
    pub(super) cold: Touched,
    pub(super) ready: bool,
    /// Who waits.
    pub(super) sessions: BTreeSet<u64>,
}

/// Batches that wait, in the order of the log. Who waits for one waits for all after it.
#[derive(Debug, Default)]
pub(super) struct Cold {
    waiting: VecDeque<Waiting>,
    next: u64,
}

impl Cold {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_WAITING
    }

    /// The number of the next batch that waits.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn push(&mut self, waiting: Waiting) {
        self.next = waiting.number + 1;
        self.waiting.push_back(waiting);
    }

    /// Who waits.
    pub(super) fn sessions(&self) -> BTreeSet<u64> {
        self.waiting.back().map(|last| last.sessions.clone()).unwrap_or_default()
    }

    /// A session waits no more; it catches up from a snapshot instead, or is gone.
    pub(super) fn forget(&mut self, session: u64) {
        for waiting in &mut self.waiting {
            waiting.sessions.remove(&session);
        }
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// What a batch waited for has been read.
    pub(super) fn loaded(&mut self, number: u64, loaded: Loaded) {
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.number == number) {
            waiting.documents.loaded(loaded);
            waiting.ready = true;
        }
    }

    /// The first batch, if everything is there.
    pub(super) fn pop_ready(&mut self) -> Option<Waiting> {
        if self.waiting.front()?.ready { self.waiting.pop_front() } else { None }
    }

    /// Who still waits after the first batch was taken out.
    pub(super) fn still_waits(&self, session: u64) -> bool {
        self.waiting.front().is_some_and(|next| next.sessions.contains(&session))
    }

    /// Leaves out what a batch that waits will change, too: what an earlier one made of it is not where the hub stands.
    pub(super) fn without_later(&self, mut touched: Touched) -> Touched {
        for waiting in &self.waiting {
            for change in waiting.batch.transactions.iter().flat_map(|applied| applied.transaction.changes()) {
                if let Some(ids) = touched.get_mut(&change.collection) {
                    ids.remove(&change.id);
                }
            }
        }
        touched
    }
}

/// Reads that are under way.
pub(super) type Loads = FuturesUnordered<BoxFuture<'static, (u64, Result<Loaded, TablesError>)>>;

/// A read of documents that was begun.
pub(super) type Load = BoxFuture<'static, Result<Loaded, TablesError>>;

/// Reads documents of one collection as they are in a snapshot.
pub(super) fn load(snapshot: &Snapshot, collection: CollectionName, ids: BTreeSet<DocId>) -> Load {
    let snapshot = snapshot.clone();
    async move {
        let ids: Vec<_> = ids.into_iter().collect();
        let found = snapshot.get_many(&collection, &ids).await?;
        let found = ids.into_iter().zip(found);
        Ok(found.map(|(id, found)| (collection.clone(), id, found.map(|stored| stored.document))).collect())
    }
    .boxed()
}

/// All of these, as what the batch `number` waits for.
pub(super) fn numbered(number: u64, loads: Vec<Load>) -> BoxFuture<'static, (u64, Result<Loaded, TablesError>)> {
    async move { (number, try_join_all(loads).await.map(|all| all.into_iter().flatten().collect())) }.boxed()
}

/// The next read that ends; never, if there is none. Cancel safe.
pub(super) async fn next(loads: &mut Loads) -> (u64, Result<Loaded, TablesError>) {
    match loads.next().await {
        Some(done) => done,
        None => std::future::pending().await,
    }
}
