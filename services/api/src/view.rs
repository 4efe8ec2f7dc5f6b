//! What the statements of one transaction see: a snapshot, and what the transaction has written so far. Remembers what was
//! looked at, when that is to be checked at the append.
//!
//! # Consistency
//! A transaction is serializable: it is applied only if no document that it looked up has changed since the snapshot, and no
//! document of a collection that it scanned, none that would have been found included.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bigpeer_chassis::{ApiError, ErrorCode, collection_key, conflict_key};
use bigpeer_crdt::{DocId, Document, TransactionBuilder};
use bigpeer_dql::{Flow, Mutation, Wanted};
use bigpeer_log::ConflictKey;
use bigpeer_tables::{Scan, ScannedDocument, Snapshot, TablesError};
use bigpeer_types::{CollectionName, Lsn};
use futures::StreamExt;
use futures::stream::BoxStream;

use crate::computing::Computing;
use crate::envelope::refused;
use crate::read::{Run, failed};
use crate::rules::Allowed;
use crate::sequencer::Submission;

/// How many documents are looked up before the run is asked whether it has enough.
const IDS_AT_ONCE: usize = 1000;

type Place = (CollectionName, DocId);
type Documents = BTreeMap<DocId, Arc<Document>>;

/// A snapshot with a transaction's own writes.
#[derive(Debug)]
pub(crate) struct View<'a> {
    computing: &'a Computing,
    snapshot: Snapshot,
    /// The documents that the transaction wrote, as they are with it.
    written: BTreeMap<CollectionName, Documents>,
    /// What it will append.
    deltas: BTreeMap<Place, Document>,
    /// Documents that must not have changed since the snapshot.
    unchanged: BTreeSet<Place>,
    /// Collections of which no document must have changed.
    scanned: BTreeSet<CollectionName>,
    /// Whether what is looked at is remembered.
    pub(crate) recording: bool,
}

impl<'a> View<'a> {
    pub(crate) fn new(snapshot: Snapshot, computing: &'a Computing) -> Self {
        Self {
            computing,
            snapshot,
            written: BTreeMap::new(),
            deltas: BTreeMap::new(),
            unchanged: BTreeSet::new(),
            scanned: BTreeSet::new(),
            recording: false,
        }
    }

    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Whether the transaction would change nothing.
    pub(crate) fn is_clean(&self) -> bool {
        self.deltas.is_empty()
    }

    /// Whether the transaction has written to the collection.
    pub(crate) fn has_written(&self, collection: &CollectionName) -> bool {
        self.written.contains_key(collection)
    }

    /// Takes note that all of the collection was looked at.
    pub(crate) fn scanned(&mut self, collection: &CollectionName) {
        if self.recording {
            self.scanned.insert(collection.clone());
        }
    }

    fn own(&self, collection: &CollectionName, id: &DocId) -> Option<&Arc<Document>> {
        self.written.get(collection)?.get(id)
    }

    /// Documents by id, in the order asked for; deleted ones included.
    pub(crate) async fn get_many(
        &mut self,
        collection: &CollectionName,
        ids: &[DocId],
    ) -> Result<Vec<Option<Arc<Document>>>, ApiError> {
        if self.recording {
            self.unchanged.extend(ids.iter().map(|id| (collection.clone(), id.clone())));
        }
        let stored = self.snapshot.get_many(collection, ids).await.map_err(|error| failed(&error))?;
        let found = stored.into_iter().zip(ids).map(|(stored, id)| {
            let own = self.own(collection, id).cloned();
            own.or_else(|| stored.map(|stored| stored.document))
        });
        Ok(found.collect())
    }

    /// Feeds what is `wanted` and `readable` to `run`, in key order, until it has enough.
    pub(crate) async fn feed<R: Run>(
        &mut self,
        mut run: R,
        wanted: Wanted,
        readable: &Arc<Allowed>,
    ) -> Result<R, ApiError> {
        if let Some(ids) = &wanted.ids {
            for ids in ids.chunks(IDS_AT_ONCE) {
                let found = self.get_many(&wanted.collection, ids).await?;
                for (id, document) in ids.iter().zip(found) {
                    let Some(document) = document else { continue };
                    if push(&mut run, id, document, readable)? == Flow::Enough {
                        return Ok(run);
                    }
                }
            }
            return Ok(run);
        }
        self.scanned(&wanted.collection);
        let own = self.written.get(&wanted.collection);
        let mut own: VecDeque<(DocId, Arc<Document>)> =
            own.into_iter().flatten().map(|(id, document)| (id.clone(), Arc::clone(document))).collect();
        let scan = Scan {
            conditions: wanted.conditions,
            after: None,
            changed_since: None,
            unchanged_since: None,
            deleted: false,
        };
        let batches = self.snapshot.scan(&wanted.collection, scan);
        let (computing, readable_there) = (self.computing.clone(), Arc::clone(readable));
        let pushed = push_batches(computing, batches, run, own, readable_there);
        let flow;
        (run, own, flow) = self.computing.run(pushed).await?;
        if flow == Flow::Enough {
            return Ok(run);
        }
        for (id, document) in own {
            if push(&mut run, &id, document, readable)? == Flow::Enough {
                break;
            }
        }
        Ok(run)
    }

    /// Remembers what a statement decided on.
    pub(crate) fn depend(&mut self, collection: &CollectionName, mutation: &Mutation) {
        let depends = mutation.must_be_unchanged.iter();
        self.unchanged.extend(depends.map(|id| (collection.clone(), id.clone())));
    }

    /// As [`Self::depend`], and the statements after it see what it did.
    pub(crate) async fn write(&mut self, collection: &CollectionName, mutation: &Mutation) -> Result<(), ApiError> {
        self.depend(collection, mutation);
        let unknown: Vec<DocId> = mutation
            .changes
            .iter()
            .filter(|(collection, id, _)| self.own(collection, id).is_none())
            .map(|(_, id, _)| id.clone())
            .collect();
        let recording = std::mem::replace(&mut self.recording, false);
        let found = self.get_many(collection, &unknown).await;
        self.recording = recording;
        let states = self.written.entry(collection.clone()).or_default();
        states.extend(unknown.into_iter().zip(found?).map(|(id, found)| (id, found.unwrap_or_default())));
        for (collection, id, delta) in &mutation.changes {
            let state = self.written.entry(collection.clone()).or_default().entry(id.clone()).or_default();
            Arc::make_mut(state).join(delta);
        }
        Ok(())
    }

    /// Takes what will be appended.
    pub(crate) fn append(&mut self, mutation: &mut Mutation) {
        for (collection, id, delta) in std::mem::take(&mut mutation.changes) {
            match self.deltas.entry((collection, id)) {
                std::collections::btree_map::Entry::Vacant(entry) => _ = entry.insert(delta),
                std::collections::btree_map::Entry::Occupied(mut entry) => entry.get_mut().join(&delta),
            }
        }
    }

    /// The transaction.
    pub(crate) fn submission(&self) -> Result<Submission, ApiError> {
        let base = self.snapshot.lsn();
        let mut builder = TransactionBuilder::new();
        let mut writes = Vec::with_capacity(self.deltas.len());
        let mut collections: Vec<ConflictKey> = Vec::new();
        let mut last: Option<&CollectionName> = None;
        for ((collection, id), delta) in &self.deltas {
            builder.change(collection, id, delta);
            writes.push(conflict_key(collection, id.as_key()));
            // They are in order.
            if last != Some(collection) {
                collections.push(collection_key(collection));
                last = Some(collection);
            }
        }
        let payload = builder.finish().map_err(|error| {
            let message = format!("{error}; nothing was written; change fewer documents at once, with LIMIT");
            ApiError::new(ErrorCode::TooLarge, message)
        })?;
        let documents = self.unchanged.iter().map(|(collection, id)| (conflict_key(collection, id.as_key()), base));
        let scanned = self.scanned.iter().map(|collection| (collection_key(collection), base));
        let unchanged: Vec<(ConflictKey, Lsn)> = documents.chain(scanned).collect();
        Ok(Submission { base, writes, collections, unchanged, payload })
    }
}

fn push<R: Run>(run: &mut R, id: &DocId, document: Arc<Document>, readable: &Allowed) -> Result<Flow, ApiError> {
    if readable.holds(id, &document) { run.push(id, document).map_err(|error| refused(&error)) } else { Ok(Flow::More) }
}

type Pushed<R> = (R, VecDeque<(DocId, Arc<Document>)>, Flow);

/// The batches of a scan, each in a turn of its own, which is held while files are read, too.
async fn push_batches<R: Run>(
    computing: Computing,
    mut batches: BoxStream<'static, Result<Vec<ScannedDocument>, TablesError>>,
    mut run: R,
    mut own: VecDeque<(DocId, Arc<Document>)>,
    readable: Arc<Allowed>,
) -> Result<Pushed<R>, ApiError> {
    loop {
        let _turn = computing.turn().await?;
        let Some(batch) = batches.next().await else { return Ok((run, own, Flow::More)) };
        let flow;
        (run, own, flow) = push_batch(run, &batch.map_err(|error| failed(&error))?, own, &readable)?;
        if flow == Flow::Enough {
            return Ok((run, own, flow));
        }
    }
}

/// A batch of a scan, with the transaction's own documents in their places.
fn push_batch<R: Run>(
    mut run: R,
    batch: &[ScannedDocument],
    mut own: VecDeque<(DocId, Arc<Document>)>,
    readable: &Allowed,
) -> Result<Pushed<R>, ApiError> {
    for found in batch {
        while let Some((id, document)) = own.pop_front_if(|(id, _)| *id < found.id) {
            if push(&mut run, &id, document, readable)? == Flow::Enough {
                return Ok((run, own, Flow::Enough));
            }
        }
        let document = match own.pop_front_if(|(id, _)| *id == found.id) {
            Some((_, document)) => document,
            None => Arc::new(Document::decode(&found.state).map_err(|error| ApiError::internal(&error))?),
        };
        if push(&mut run, &found.id, document, readable)? == Flow::Enough {
            return Ok((run, own, Flow::Enough));
        }
    }
    Ok((run, own, Flow::More))
}
