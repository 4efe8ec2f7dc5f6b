//! `Reader`: what one reader is told from its cursor on: a snapshot if it asked for one, then every change, without gap
//! or overlap.
//!
//! # Consistency
//! A **fixed** snapshot is the app at one position, which the cursor keeps; changes come after it. An **interleaved** one is
//! read in pieces between changes, each piece as the documents are where the reader stands: a document's events are always
//! in its order, whichever they come from. When what a cursor needs is no longer kept, the reader is told so
//! ([`Kind::RequeryRequired`]), with the collections in which something changed, and a fixed snapshot of these follows.
//!
//! # Cancellation
//! Dropping a call of [`Reader::next`] loses nothing.

use std::sync::Arc;

use bigpeer_crdt::Document;
use bigpeer_log::TransactionLog;
use bigpeer_tables::{DocumentStore, Scan, ScannedDocument, Snapshot, TablesError};
use bigpeer_types::{CollectionName, Lsn};
use futures::StreamExt;
use futures::stream::BoxStream;

use crate::cursor::{Cursor, Position, SnapshotProgress, key_text};
use crate::error::FeedError;
use crate::event::{Encoder, Event, Kind, Origin};
use crate::lens::Lens;
use crate::walker::{Walked, Walker, WalkerSettings};

/// Most bytes of collections' names that are put into a cursor at once: it is kept with a feed, and stands in each event.
pub(crate) const MAX_NAMED_BYTES: usize = 8 * 1024;

type Documents = BoxStream<'static, Result<Vec<ScannedDocument>, TablesError>>;

/// What a reader is told at once.
#[derive(Debug)]
pub struct Batch {
    /// In order. May be empty: then only the cursor moves.
    pub events: Vec<Event>,
    /// Where the reader stands behind all of them.
    pub cursor: Cursor,
    /// Whole transactions that it moved over.
    pub transactions: u64,
    /// Their bytes in the log.
    pub bytes: u64,
    /// When the last of them was written, by its writer's clock, in milliseconds since the epoch.
    pub time_ms: Option<u64>,
}

/// Where a new reader starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what changes from now on.
    Now,
    /// With everything that there is now, and then what changes.
    Snapshot,
    /// Where another stopped.
    At(Cursor),
}

/// One reader's way through an app.
pub struct Reader {
    store: Arc<DocumentStore>,
    log: Arc<dyn TransactionLog>,
    lens: Arc<Lens>,
    encoder: Encoder,
    settings: WalkerSettings,
    cursor: Cursor,
    walker: Option<Walker>,
    /// The state of the fixed snapshot that is under way.
    state: Option<Snapshot>,
    scan: Option<OpenScan>,
    /// Whether the snapshot is next, when it is read between changes.
    snapshots_turn: bool,
}

/// A scan under way.
struct OpenScan {
    at: Lsn,
    collection: CollectionName,
    documents: Documents,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

impl Reader {
    /// A reader from `start` on. Reads nothing yet.
    #[must_use]
    pub fn new(
        store: Arc<DocumentStore>,
        log: Arc<dyn TransactionLog>,
        lens: Arc<Lens>,
        encoder: Encoder,
        start: Start,
    ) -> Self {
        let cursor = match start {
            Start::At(cursor) => cursor,
            Start::Now => Cursor::after(store.applied()),
            Start::Snapshot => everything(&store.snapshot(), &lens),
        };
        let settings = WalkerSettings { collections: lens.collections(), ..WalkerSettings::default() };
        Self {
            store,
            log,
            lens,
            encoder,
            settings,
            cursor,
            walker: None,
            state: None,
            scan: None,
            snapshots_turn: false,
        }
    }

    /// With other limits than the defaults.
    #[must_use]
    pub fn with_settings(mut self, settings: WalkerSettings) -> Self {
        self.settings = WalkerSettings { collections: self.lens.collections(), ..settings };
        self
    }

    /// Where the reader stands.
    #[must_use]
    pub const fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// From now on sees what `lens` does, of the same collections.
    pub fn set_lens(&mut self, lens: Arc<Lens>) {
        self.lens = lens;
    }

    /// Reads some collections anew, between changes. If a snapshot is under way they are added to it, or begun again.
    pub fn snapshot_again(&mut self, collections: Vec<CollectionName>) {
        add_snapshot(&mut self.cursor, collections);
        self.scan = None;
    }

    /// Whether [`Self::next`] has something at once, as far as that is known.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.cursor.snapshot.is_some() || self.walker.as_ref().is_none_or(Walker::is_behind)
    }

    /// What comes next; waits for it.
    ///
    /// # Errors
    /// [`FeedError::Ahead`], and when log or tables fail; after one that is retryable the call may be repeated.
    pub async fn next(&mut self) -> Result<Batch, FeedError> {
        let done = self.step().await;
        if done.is_err() {
            self.walker = None;
            self.state = None;
            self.scan = None;
        }
        match done {
            Err(FeedError::Gap { after }) => self.requery(after).await,
            done => done,
        }
    }

    async fn step(&mut self) -> Result<Batch, FeedError> {
        let Some(progress) = self.cursor.snapshot.clone() else { return self.follow().await };
        if !progress.begun {
            let at = self.cursor.position.lsn;
            let collections = if progress.rest {
                let state = self.fixed_state().await?;
                self.seen(&state)
            } else {
                progress.collections.clone()
            };
            let begun = SnapshotProgress { begun: true, ..progress };
            return Ok(self.tell(Kind::SnapshotBegin, at, &collections, Some(begun)));
        }
        if progress.fixed {
            let state = self.fixed_state().await?;
            return self.piece(&state, progress).await;
        }
        let begun = self.cursor.position.seen.is_some();
        let walker = self.walker().await?;
        let (within, behind) = (walker.is_within() || begun, walker.is_behind());
        self.snapshots_turn = !self.snapshots_turn;
        if within || behind && !self.snapshots_turn {
            return self.follow().await;
        }
        let state = self.walker().await?.state().await?;
        self.piece(&state, progress).await
    }

    /// The state that a fixed snapshot is of.
    async fn fixed_state(&mut self) -> Result<Snapshot, FeedError> {
        let at = self.cursor.position.lsn;
        let state = match self.state.take().filter(|state| state.lsn() == at) {
            Some(state) => state,
            None => self.store.at(at).await.map_err(|error| FeedError::at(at, error))?,
        };
        Ok(self.state.insert(state).clone())
    }

    /// What of a state the reader sees, in the order of the names.
    fn seen(&self, state: &Snapshot) -> Vec<CollectionName> {
        seen(state, &self.lens)
    }

    async fn walker(&mut self) -> Result<&mut Walker, FeedError> {
        if self.walker.is_none() {
            let (store, log) = (Arc::clone(&self.store), Arc::clone(&self.log));
            let from = self.cursor.position.whole();
            self.walker = Some(Walker::open(store, log, from, self.settings.clone()).await?);
        }
        self.walker.as_mut().ok_or(FeedError::Lost)
    }

    /// The next changes.
    async fn follow(&mut self) -> Result<Batch, FeedError> {
        let parts = self.walker().await?.next().await?;
        let mut events = Vec::new();
        let (mut transactions, mut bytes, mut time_ms) = (0, 0, None);
        for part in parts {
            self.tell_part(&part, &mut events);
            self.cursor.position = match (part.seen, self.cursor.position) {
                (None, _) => Position::after(part.lsn),
                // A cursor within a transaction lies behind what is walked again of it.
                (Some(seen), Position { lsn, seen: Some(before) }) if lsn == part.lsn => {
                    Position { lsn, seen: Some(seen.max(before)) }
                }
                (seen @ Some(_), _) => Position { lsn: part.lsn, seen },
            };
            if part.seen.is_none() {
                transactions += 1;
            }
            bytes += part.bytes as u64;
            time_ms = Some(part.time_ms);
        }
        Ok(Batch { events, cursor: self.cursor.clone(), transactions, bytes, time_ms })
    }

    fn tell_part(&self, part: &Walked, events: &mut Vec<Event>) {
        let origin = Origin { lsn: part.lsn, site: part.site, seq: part.seq, time_ms: part.time_ms };
        // A cursor within a transaction: what was seen of it is walked again, and not told.
        let seen = match self.cursor.position {
            Position { lsn, seen: Some(seen) } if lsn == part.lsn => seen,
            Position { .. } => 0,
        };
        let told: Vec<_> = (part.changes.iter())
            .filter(|change| change.index >= seen)
            .filter_map(|change| Some((change, self.lens.change(change)?)))
            .collect();
        let snapshot = self.cursor.snapshot.clone();
        let last = told.len().saturating_sub(1);
        for (number, (change, what)) in told.iter().enumerate() {
            let position = if number == last && part.seen.is_none() {
                Position::after(part.lsn)
            } else {
                Position { lsn: part.lsn, seen: Some(change.index + 1) }
            };
            let cursor = Cursor { position, snapshot: snapshot.clone() }.to_string();
            let key = (&change.collection, &change.id);
            events.push(self.encoder.changed(&origin, change.index, key, what, cursor));
        }
    }

    /// The next piece of a snapshot, as it is in `state`.
    async fn piece(&mut self, state: &Snapshot, mut progress: SnapshotProgress) -> Result<Batch, FeedError> {
        let at = state.lsn();
        let Some(collection) = progress.collections.first().cloned() else {
            return Ok(self.tell(Kind::SnapshotEnd, at, &[], None));
        };
        let scan = match self.scan.take() {
            Some(scan) if scan.at == at && scan.collection == collection => scan,
            Some(_) | None => self.open_scan(state, collection.clone(), &progress),
        };
        let next = self.scan.insert(scan).documents.next().await;
        let Some(found) = next.transpose().map_err(|error| FeedError::at(at, error))? else {
            self.scan = None;
            self.cursor.snapshot = Some(progress.next_collection(self.seen(state)));
            return Ok(self.batch(Vec::new()));
        };
        let prefix = Cursor {
            position: self.cursor.position,
            snapshot: Some(SnapshotProgress { after: None, ..progress.clone() }),
        };
        let prefix = prefix.to_string();
        let mut events = Vec::with_capacity(found.len());
        for document in &found {
            let corrupt = |reason: String| FeedError::Corrupt { lsn: document.lsn, reason };
            let state = Document::decode(&document.state).map_err(|error| corrupt(error.to_string()))?;
            let Some(object) = self.lens.document(&collection, &document.id, &state) else { continue };
            let cursor = format!("{prefix}~{}", key_text(&document.id));
            events.push(self.encoder.snapshot(at, document.lsn, (&collection, &document.id), &object, cursor));
        }
        progress.after = found.last().map(|document| document.id.clone());
        self.cursor.snapshot = Some(progress);
        Ok(self.batch(events))
    }

    fn open_scan(&self, state: &Snapshot, collection: CollectionName, progress: &SnapshotProgress) -> OpenScan {
        let conditions = self.lens.conditions(&collection);
        let scan = Scan { conditions, after: progress.after.clone(), ..Scan::default() };
        OpenScan { at: state.lsn(), documents: state.scan(&collection, scan), collection }
    }

    fn batch(&self, events: Vec<Event>) -> Batch {
        Batch { events, cursor: self.cursor.clone(), transactions: 0, bytes: 0, time_ms: None }
    }

    fn tell(
        &mut self,
        kind: Kind,
        at: Lsn,
        collections: &[CollectionName],
        snapshot: Option<SnapshotProgress>,
    ) -> Batch {
        self.cursor.snapshot = snapshot;
        self.state = None;
        self.scan = None;
        let event = self.encoder.about(kind, at, collections, self.cursor.to_string());
        self.batch(vec![event])
    }

    /// What comes after `after` is gone: tells what has to be read anew, and reads it.
    async fn requery(&mut self, after: Lsn) -> Result<Batch, FeedError> {
        let now = self.store.snapshot();
        let was_whole = self.cursor.snapshot.is_none();
        let mut changed = Vec::new();
        let all = self.seen(&now);
        for collection in &all {
            if !was_whole || has_changed(&now, collection, after).await? {
                changed.push(collection.clone());
            }
        }
        self.cursor.position = Position::after(now.lsn());
        // What a cursor cannot name one by one is read with everything else.
        let is_short = changed.iter().map(|name| name.as_str().len()).sum::<usize>() <= MAX_NAMED_BYTES;
        let progress = if is_short && changed.len() < all.len() {
            SnapshotProgress::new(changed.clone(), true)
        } else {
            changed.clone_from(&all);
            SnapshotProgress::of_all(all)
        };
        Ok(self.tell(Kind::RequeryRequired, now.lsn(), &changed, Some(progress)))
    }
}

/// A cursor with everything still to come.
pub(crate) fn everything(snapshot: &Snapshot, lens: &Lens) -> Cursor {
    let progress = SnapshotProgress::of_all(seen(snapshot, lens));
    Cursor { position: Position::after(snapshot.lsn()), snapshot: Some(progress) }
}

/// What of a state is seen, in the order of the names.
fn seen(snapshot: &Snapshot, lens: &Lens) -> Vec<CollectionName> {
    snapshot.collections().into_iter().filter(|collection| lens.sees(collection)).collect()
}

/// Puts some collections in line to be read anew.
pub(crate) fn add_snapshot(cursor: &mut Cursor, collections: Vec<CollectionName>) {
    match &mut cursor.snapshot {
        // What is under way goes on; what of it is to be read again comes behind it, whole.
        Some(progress) => {
            for collection in collections {
                if !progress.collections.iter().skip(1).any(|waiting| *waiting == collection) {
                    progress.collections.push(collection);
                }
            }
        }
        None => cursor.snapshot = Some(SnapshotProgress::new(collections, false)),
    }
}

/// Whether anything of a collection has changed since, or may have: a deletion that is forgotten.
async fn has_changed(snapshot: &Snapshot, collection: &CollectionName, since: Lsn) -> Result<bool, FeedError> {
    if snapshot.forgotten(collection) > since {
        return Ok(true);
    }
    let scan = Scan { changed_since: Some(since), deleted: true, ..Scan::default() };
    match snapshot.scan(collection, scan).next().await {
        None => Ok(false),
        Some(Ok(found)) => Ok(!found.is_empty()),
        Some(Err(error)) => Err(FeedError::Tables(error)),
    }
}
