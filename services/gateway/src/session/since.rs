//! `Since`: how far a subscription has got, and the passes over its collection that bring it further. A catch-up that was
//! broken off got further with some documents than with others: it goes by keys, so one key and one LSN tell.

use std::collections::{BTreeSet, VecDeque};

use bigpeer_crdt::DocId;
use bigpeer_protocol::pb;
use bigpeer_tables::{DocumentStore, FeedError, ScannedDocument, Snapshot, StoredDocument, TablesError};
use bigpeer_types::{CollectionName, Lsn};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};

/// Most documents that a resume takes from the tail; with more, reading what has changed from segments is cheaper.
const MAX_RECENT: usize = 10_000;

/// Documents that are read at once.
const READ_AT_ONCE: usize = 256;

/// How far a subscription has got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Since {
    /// Of the documents up to a key, and after the key before it, everything up to the LSN was sent. Keys ascend.
    pub(super) reached: Vec<(DocId, Lsn)>,
    /// Of the documents after these keys everything up to here was sent; none: nothing.
    pub(super) rest: Option<Lsn>,
}

/// One pass over the collection.
#[derive(Debug)]
pub(super) enum Stage {
    /// What changed after the LSN, of the documents after one key and up to the other.
    Changed { since: Lsn, after: Option<DocId>, until: Option<DocId> },
    /// These, which are all that changed, in key order; up to the key.
    Recent { ids: Vec<DocId>, until: Option<DocId> },
    /// Everything after the key.
    Full { after: Option<DocId> },
}

impl Since {
    /// Everything up to `lsn` was sent, of all documents.
    pub(super) const fn at(lsn: Lsn) -> Self {
        Self { reached: Vec::new(), rest: Some(lsn) }
    }

    /// What a peer says of how far it has got.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(resume: &pb::Resume, reached: &[pb::Reached]) -> Result<Self, String> {
        let lsn = resume.lsn.map_or(Lsn::ZERO, Lsn::from);
        if lsn == Lsn::ZERO {
            return Ok(Self::default());
        }
        let key = |bytes: &[u8], what: &str| {
            DocId::from_key(bytes).map_err(|error| format!("{what} is no document's key: {error}"))
        };
        let mut keys: Vec<(DocId, Lsn)> = Vec::with_capacity(reached.len() + 1);
        for one in reached {
            let id = key(&one.position, "Reached.position")?;
            if keys.last().is_some_and(|(last, _)| *last >= id) {
                return Err("Subscribe.reached is not in the order of its keys".to_owned());
            }
            keys.push((id, one.lsn.map_or(Lsn::ZERO, Lsn::from)));
        }
        if resume.position.is_empty() {
            return Ok(Self { reached: keys, rest: Some(lsn) });
        }
        // A first sync: nothing of what comes after its last page is there.
        let position = key(&resume.position, "Resume.position")?;
        if keys.last().is_none_or(|(last, _)| *last < position) {
            keys.push((position, lsn));
        }
        Ok(Self { reached: keys, rest: None })
    }

    /// Whether there are documents of which nothing was sent.
    pub(super) const fn is_first_sync(&self) -> bool {
        self.rest.is_none()
    }

    fn lsns(&self) -> impl Iterator<Item = Lsn> {
        self.reached.iter().map(|(_, lsn)| *lsn).chain(self.rest)
    }

    /// Everything up to here was sent of every document of which anything was.
    pub(super) fn oldest(&self) -> Option<Lsn> {
        self.lsns().min()
    }

    /// Nothing after this was sent.
    pub(super) fn newest(&self) -> Option<Lsn> {
        self.lsns().max()
    }

    /// What brings the collection up to the snapshot, in key order. What changed lately is taken from the store's feed.
    pub(super) fn stages(
        &self,
        collection: &CollectionName,
        snapshot: &Snapshot,
        store: &DocumentStore,
    ) -> VecDeque<Stage> {
        let mut stages = VecDeque::new();
        let mut after: Option<DocId> = None;
        for (key, lsn) in &self.reached {
            stages.push_back(changed(store, collection, snapshot, *lsn, after, Some(key.clone())));
            after = Some(key.clone());
        }
        match self.rest {
            None => stages.push_back(Stage::Full { after }),
            Some(lsn) if lsn < snapshot.lsn() => {
                stages.push_back(changed(store, collection, snapshot, lsn, after, None));
            }
            Some(_) => {}
        }
        stages
    }
}

fn changed(
    store: &DocumentStore,
    collection: &CollectionName,
    snapshot: &Snapshot,
    since: Lsn,
    after: Option<DocId>,
    until: Option<DocId>,
) -> Stage {
    match recent(store, collection, since, snapshot.lsn()) {
        Some(mut ids) => {
            ids.retain(|id| after.as_ref().is_none_or(|after| id > after));
            ids.retain(|id| until.as_ref().is_none_or(|until| id <= until));
            Stage::Recent { ids, until }
        }
        None => Stage::Changed { since, after, until },
    }
}

/// The documents of a collection that changed after `since`, up to `through`, if the store's feed still has all of that and
/// they are few.
fn recent(store: &DocumentStore, collection: &CollectionName, since: Lsn, through: Lsn) -> Option<Vec<DocId>> {
    let mut feed = store.feed(since);
    let mut ids = BTreeSet::new();
    while feed.position() < through {
        let batch = match feed.next().now_or_never() {
            Some(Ok(batch)) => batch,
            // Neither is waited for, nor is an error met here.
            Some(Err(FeedError::Lagged { .. } | FeedError::Failed(_))) | None => return None,
        };
        for applied in &batch.transactions {
            if applied.lsn > since && applied.lsn <= through {
                let of_collection =
                    applied.transaction.changes().iter().filter(|change| change.collection == *collection);
                ids.extend(of_collection.map(|change| change.id.clone()));
            }
        }
        if ids.len() > MAX_RECENT {
            return None;
        }
    }
    Some(ids.into_iter().collect())
}

/// These documents as they are in the snapshot, some at a time.
pub(super) fn read(
    snapshot: Snapshot,
    collection: CollectionName,
    ids: Vec<DocId>,
) -> BoxStream<'static, Result<Vec<ScannedDocument>, TablesError>> {
    let chunks: Vec<Vec<DocId>> = ids.chunks(READ_AT_ONCE).map(<[DocId]>::to_vec).collect();
    futures::stream::iter(chunks)
        .then(move |ids| {
            let (snapshot, collection) = (snapshot.clone(), collection.clone());
            async move {
                let stored = snapshot.get_many(&collection, &ids).await?;
                let scanned = |(id, stored): (DocId, Option<StoredDocument>)| {
                    let StoredDocument { lsn, document } = stored?;
                    Some(ScannedDocument { id, lsn, state: document.encode().into() })
                };
                Ok(ids.into_iter().zip(stored).filter_map(scanned).collect())
            }
        })
        .boxed()
}
