//! The truth in memory, an app to test against it, and the comparison of the two.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bigpeer_crdt::{Attachment, DocId, Document, Editor, Object, ObjectMode, TransactionBuilder, Value};
use bigpeer_log::{AppendEntry, AppendOutcome, MemoryLog, TransactionLog};
use bigpeer_tables::{DocumentStore, LocalObjects, Objects, ObjectsSettings, Scan, Snapshot, TablesSettings, Writer};
use bigpeer_types::{AppId, CollectionName, Hlc, HlcClock, Lsn, ManualClock, SeededIds, SiteId};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tempfile::TempDir;

pub(crate) fn app() -> AppId {
    AppId::new("app").unwrap()
}

pub(crate) fn collection(name: &str) -> CollectionName {
    CollectionName::new(name).unwrap()
}

pub(crate) fn id(value: impl Into<Value>) -> DocId {
    DocId::from_value(&value.into()).unwrap()
}

pub(crate) fn object<const N: usize>(fields: [(&str, Value); N]) -> Object {
    Object::from_iter(fields)
}

/// One edit of one document.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    Insert(Object),
    Set(&'static str, Value),
    Unset(&'static str),
    Increment(&'static str, i64),
    Attach(&'static str, Attachment),
    Delete,
    Purge,
}

pub(crate) type Changes = Vec<(CollectionName, DocId, Document)>;

/// Every state that the app ever had.
#[derive(Clone, Debug, Default)]
pub(crate) struct Truth {
    /// What each document is now.
    now: BTreeMap<(CollectionName, DocId), Document>,
    /// Transactions in order, and what each document is after them.
    pub(crate) history: Vec<(Lsn, Changes)>,
}

pub(crate) type Documents = BTreeMap<DocId, (Lsn, Document)>;

impl Truth {
    /// A collection at an LSN.
    pub(crate) fn at(&self, collection: &CollectionName, lsn: Lsn) -> Documents {
        let mut out = Documents::new();
        for (at, changes) in self.history.iter().take_while(|(at, _)| *at <= lsn) {
            for (name, id, document) in changes {
                if name == collection {
                    out.insert(id.clone(), (*at, document.clone()));
                }
            }
        }
        out
    }

    pub(crate) fn collections(&self, lsn: Lsn) -> Vec<CollectionName> {
        let changes = self.history.iter().take_while(|(at, _)| *at <= lsn).flat_map(|(_, changes)| changes);
        let mut names: Vec<_> = changes.map(|(name, _, _)| name.clone()).collect();
        names.sort();
        names.dedup();
        names
    }

    pub(crate) fn last(&self) -> Lsn {
        self.history.last().map_or(Lsn::ZERO, |(lsn, _)| *lsn)
    }
}

/// An app under test, beside its truth.
pub(crate) struct World {
    pub(crate) log: MemoryLog,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) truth: Truth,
    pub(crate) settings: TablesSettings,
    clock: HlcClock,
    seq: u64,
    /// What the objects are in, if it is a directory.
    _dir: Option<TempDir>,
}

/// Small files and row groups, so that few documents make many of them.
pub(crate) fn small_settings() -> TablesSettings {
    TablesSettings {
        segment_bytes: 2_000,
        row_group_bytes: 1_000,
        row_group_rows: 16,
        keep_for: Duration::ZERO,
        clock: Arc::new(ManualClock::new(1_700_000_000_000)),
        ids: Arc::new(SeededIds::new(7)),
        ..TablesSettings::default()
    }
}

/// Where the suite keeps its objects: in memory, or as `BIGPEER_TEST_OBJECTS` says on `disk` or on `s3`.
fn objects() -> (Arc<dyn ObjectStore>, Option<TempDir>) {
    match std::env::var("BIGPEER_TEST_OBJECTS").as_deref() {
        Err(_) | Ok("memory") => (Arc::new(InMemory::new()), None),
        Ok("disk") => {
            let dir = tempfile::tempdir().unwrap();
            let disk = Arc::new(LocalObjects::open(dir.path()).unwrap());
            (Arc::new(Objects::new(disk, false, &ObjectsSettings::default())), Some(dir))
        }
        Ok("s3") => (Arc::new(super::moto::open_blocking(&super::moto::settings()).unwrap()), None),
        Ok(other) => panic!("BIGPEER_TEST_OBJECTS is '{other}': memory, disk and s3 are known"),
    }
}

/// How many random cases to try: fewer where each takes its time.
pub(crate) fn cases(in_memory: u32) -> u32 {
    match std::env::var("BIGPEER_TEST_OBJECTS").as_deref() {
        Ok("s3") => in_memory.div_ceil(12),
        _ => in_memory,
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let (objects, dir) = objects();
        Self { _dir: dir, ..Self::on(objects) }
    }

    pub(crate) fn on(objects: Arc<dyn ObjectStore>) -> Self {
        let clock = HlcClock::new(SiteId::new(1), Hlc::ZERO, Arc::new(ManualClock::new(1_000)));
        let (log, truth, settings) = (MemoryLog::default(), Truth::default(), small_settings());
        Self { log, objects, truth, settings, clock, seq: 0, _dir: None }
    }

    pub(crate) async fn open(&self) -> Arc<DocumentStore> {
        self.try_open().await.unwrap()
    }

    pub(crate) async fn try_open(&self) -> Result<Arc<DocumentStore>, bigpeer_tables::TablesError> {
        let log: Arc<dyn TransactionLog> = Arc::new(self.log.clone());
        DocumentStore::open(app(), Arc::clone(&self.objects), log, self.settings.clone()).await
    }

    /// Appends one transaction to the log and to the truth.
    pub(crate) async fn write(&mut self, edits: &[(&CollectionName, DocId, Edit)]) -> Lsn {
        let mut builder = TransactionBuilder::new();
        let mut changed: BTreeMap<(CollectionName, DocId), Document> = BTreeMap::new();
        for (name, id, edit) in edits {
            let key = ((*name).clone(), id.clone());
            let current = changed.get(&key).or(self.truth.now.get(&key)).cloned().unwrap_or_default();
            let mut editor = Editor::new(&current, &mut self.clock);
            match edit {
                Edit::Insert(fields) => editor.insert(fields, ObjectMode::Map).unwrap(),
                Edit::Set(path, value) => editor.set(&[path], value.clone(), ObjectMode::Map).unwrap(),
                Edit::Unset(path) => editor.unset(&[path]).unwrap(),
                Edit::Increment(path, by) => editor.increment(&[path], *by).unwrap(),
                Edit::Attach(path, attachment) => editor.attach(&[path], attachment.clone()).unwrap(),
                Edit::Delete => editor.delete(),
                Edit::Purge => editor.purge(),
            }
            let Some(delta) = editor.finish() else { continue };
            let mut next = current;
            next.join(&delta);
            builder.change(name, id, &delta);
            changed.insert(key, next);
        }
        if changed.is_empty() {
            return self.truth.last();
        }
        self.seq += 1;
        let entry = AppendEntry {
            site: SiteId::new(1),
            seq: self.seq,
            writes: Vec::new(),
            unchanged: Vec::new(),
            payload: builder.finish().unwrap(),
        };
        let outcome = self.log.append(&app(), vec![entry]).await.unwrap();
        let [AppendOutcome::Applied(lsn)] = outcome.as_slice() else { panic!("{outcome:?}") };
        self.truth.now.extend(changed.clone());
        let changes = changed.into_iter().map(|((name, id), document)| (name, id, document)).collect();
        self.truth.history.push((*lsn, changes));
        *lsn
    }

    /// Inserts or sets one document.
    pub(crate) async fn put(&mut self, name: &CollectionName, key: impl Into<Value>, fields: Object) -> Lsn {
        self.write(&[(name, id(key), Edit::Insert(fields))]).await
    }

    pub(crate) async fn caught_up(&self) -> Arc<DocumentStore> {
        let store = self.open().await;
        store.wait_for(self.truth.last()).await.unwrap();
        store
    }
}

/// What a scan returns, with what it says of order checked.
pub(crate) async fn scanned(snapshot: &Snapshot, name: &CollectionName, scan: Scan) -> Documents {
    let batches: Vec<_> = snapshot.scan(name, scan).try_collect().await.unwrap();
    assert!(batches.iter().all(|batch| !batch.is_empty()));
    let mut out = Documents::new();
    for document in batches.into_iter().flatten() {
        if let Some((last, _)) = out.last_key_value() {
            assert!(*last < document.id, "out of order or twice: {last:?}, {:?}", document.id);
        }
        let state = Document::decode(&document.state).unwrap();
        assert_eq!(state.encode(), document.state, "not canonical");
        out.insert(document.id, (document.lsn, state));
    }
    out
}

/// Whether the snapshot is exactly the truth at its LSN, by every way of reading.
pub(crate) async fn check(snapshot: &Snapshot, truth: &Truth) {
    let lsn = snapshot.lsn();
    assert_eq!(snapshot.collections(), truth.collections(lsn));
    for name in truth.collections(lsn) {
        let expected = truth.at(&name, lsn);
        let all = Scan { deleted: true, ..Scan::default() };
        assert_eq!(scanned(snapshot, &name, all).await, expected, "scan of {name} at {lsn}");

        let visible: Documents = expected.clone().into_iter().filter(|(_, (_, doc))| doc.is_visible()).collect();
        assert_eq!(scanned(snapshot, &name, Scan::default()).await, visible, "visible of {name} at {lsn}");

        let mut ids: Vec<DocId> = expected.keys().rev().cloned().collect();
        ids.push(id("never written"));
        ids.extend(expected.keys().next().cloned());
        let found = snapshot.get_many(&name, &ids).await.unwrap();
        for (id, found) in ids.iter().zip(found) {
            let found = found.map(|found| (found.lsn, Document::clone(&found.document)));
            assert_eq!(found.as_ref(), expected.get(id), "get {id:?} of {name} at {lsn}");
        }

        let mut cursors = vec![Lsn::ZERO];
        cursors.extend(truth.history.iter().map(|(lsn, _)| *lsn).filter(|at| *at <= lsn));
        // All of a short history; of a long one the last, and some.
        let step = cursors.len().div_ceil(24);
        for since in cursors.into_iter().rev().step_by(step) {
            let changed: Documents = expected.clone().into_iter().filter(|(_, (at, _))| *at > since).collect();
            let scan = Scan { changed_since: Some(since), deleted: true, ..Scan::default() };
            assert_eq!(scanned(snapshot, &name, scan).await, changed, "changes of {name} since {since} at {lsn}");
        }

        if let Some(after) = expected.keys().nth(expected.len() / 2) {
            let rest: Documents = visible.clone().into_iter().filter(|(id, _)| id > after).collect();
            let scan = Scan { after: Some(after.clone()), ..Scan::default() };
            assert_eq!(scanned(snapshot, &name, scan).await, rest, "{name} after {after:?} at {lsn}");
        }
        super::tables::check_table(snapshot, &name, &visible).await;
    }
}

/// Everything that a writer can do, and a look at the result.
pub(crate) async fn flush(writer: &Writer) {
    writer.flush().await.unwrap();
}
