//! An app, its truth, and a consumer that replays what it is told and checks every word of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bigpeer_changefeed::{Cursor, Encoder, Event, Format, Kind, Lens, Reader, Source, Start, Values, WalkerSettings};
use bigpeer_chassis::Access;
use bigpeer_crdt::{Attachment, DocId, Document, Editor, Object, ObjectMode, TransactionBuilder, Value};
use bigpeer_log::{AppendEntry, AppendOutcome, MemoryLog, TransactionLog};
use bigpeer_tables::{DocumentStore, TablesSettings, Writer};
use bigpeer_types::{AppId, CollectionName, Hlc, HlcClock, Lsn, ManualClock, SeededIds, SiteId};
use object_store::memory::InMemory;
use serde_json::{Value as Json, json};

pub(crate) fn app() -> AppId {
    AppId::new("app").unwrap()
}

pub(crate) fn collection(name: &str) -> CollectionName {
    CollectionName::new(name).unwrap()
}

pub(crate) fn id(value: impl Into<Value>) -> DocId {
    DocId::from_value(&value.into()).unwrap()
}

pub(crate) fn object(json: Json) -> Object {
    Value::from_json(json).unwrap().as_object().unwrap().clone()
}

#[derive(Clone, Debug)]
pub(crate) enum Edit {
    Insert(Json),
    Set(&'static str, Json),
    Unset(&'static str),
    Increment(&'static str, i64),
    Attach(&'static str, Attachment),
    Delete,
    /// Sets a field as a device would that last saw the document so many versions ago.
    StaleSet(usize, &'static str, Json),
}

pub(crate) type Place = (CollectionName, DocId);

pub(crate) struct World {
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) store: Arc<DocumentStore>,
    pub(crate) writer: Writer,
    clock: Arc<ManualClock>,
    sites: Vec<(HlcClock, u64)>,
    /// Every version of each document.
    versions: BTreeMap<Place, Vec<(Lsn, Document)>>,
    pub(crate) lsns: Vec<Lsn>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let log = Arc::new(MemoryLog::default());
        let clock = Arc::new(ManualClock::new(1_700_000_000_000));
        let settings = TablesSettings {
            segment_bytes: 2_000,
            row_group_bytes: 1_000,
            row_group_rows: 16,
            feed_bytes: 1_500,
            read_bytes: 200,
            clock: Arc::clone(&clock) as _,
            ids: Arc::new(SeededIds::new(7)),
            ..TablesSettings::default()
        };
        let store = DocumentStore::open(app(), Arc::new(InMemory::new()), Arc::clone(&log) as _, settings);
        let store = store.await.unwrap();
        let writer = store.writer().await.unwrap();
        let site = |number| (HlcClock::new(SiteId::new(number), Hlc::ZERO, Arc::clone(&clock) as _), 0);
        let sites = vec![site(1), site(2)];
        Self { log, store, writer, sites, clock, versions: BTreeMap::new(), lsns: Vec::new() }
    }

    pub(crate) fn last(&self) -> Lsn {
        self.lsns.last().copied().unwrap_or_default()
    }

    /// Appends one transaction, and waits until it is applied.
    pub(crate) async fn write(&mut self, site: usize, edits: &[(&CollectionName, DocId, Edit)]) -> Lsn {
        self.clock.advance(1);
        let mut builder = TransactionBuilder::new();
        let mut changed: BTreeMap<Place, Document> = BTreeMap::new();
        let (clock, seq) = &mut self.sites[site];
        for (name, id, edit) in edits {
            let place = ((*name).clone(), id.clone());
            let versions = self.versions.get(&place).map(Vec::as_slice).unwrap_or_default();
            let newest = changed.get(&place).or(versions.last().map(|(_, document)| document)).cloned();
            let newest = newest.unwrap_or_default();
            let base = match edit {
                Edit::StaleSet(back, ..) => {
                    let at = versions.len().saturating_sub(back + 1);
                    versions.get(at).map(|(_, document)| document.clone()).unwrap_or_default()
                }
                _ => newest.clone(),
            };
            let mut editor = Editor::new(&base, clock);
            match edit {
                Edit::Insert(fields) => editor.insert(&object(fields.clone()), ObjectMode::Map).unwrap(),
                Edit::Set(path, value) | Edit::StaleSet(_, path, value) => {
                    editor.set(&[path], Value::from_json(value.clone()).unwrap(), ObjectMode::Map).unwrap();
                }
                Edit::Unset(path) => editor.unset(&[path]).unwrap(),
                Edit::Increment(path, by) => _ = editor.increment(&[path], *by),
                Edit::Attach(path, attachment) => editor.attach(&[path], attachment.clone()).unwrap(),
                Edit::Delete => editor.delete(),
            }
            let Some(delta) = editor.finish() else { continue };
            let mut next = newest;
            next.join(&delta);
            builder.change(name, id, &delta);
            changed.insert(place, next);
        }
        if changed.is_empty() {
            return self.last();
        }
        *seq += 1;
        let site = SiteId::new(site as u64 + 1);
        let payload = builder.finish().unwrap();
        let entry = AppendEntry { site, seq: *seq, writes: Vec::new(), unchanged: Vec::new(), payload };
        let outcome = self.log.append(&app(), vec![entry]).await.unwrap();
        let [AppendOutcome::Applied(lsn)] = outcome.as_slice() else { panic!("{outcome:?}") };
        for (place, document) in changed {
            self.versions.entry(place).or_default().push((*lsn, document));
        }
        self.lsns.push(*lsn);
        self.store.wait_for(*lsn).await.unwrap();
        *lsn
    }

    pub(crate) async fn put(&mut self, name: &CollectionName, key: i64, fields: Json) -> Lsn {
        self.write(0, &[(name, id(key), Edit::Insert(fields))]).await
    }

    /// The visible documents at a position.
    pub(crate) fn at(&self, lsn: Lsn) -> BTreeMap<(String, String), Json> {
        let mut out = BTreeMap::new();
        for ((collection, id), versions) in &self.versions {
            let Some((_, document)) = versions.iter().rev().find(|(at, _)| *at <= lsn) else { continue };
            if document.is_visible() {
                let mut json = document.to_object().to_json();
                json["_id"] = id.to_value().to_json();
                out.insert((collection.to_string(), id.to_value().to_json().to_string()), json);
            }
        }
        out
    }

    pub(crate) fn lens(sources: &[Source], access: Access) -> Arc<Lens> {
        Arc::new(Lens::compile(sources, access, Values::Untyped).unwrap())
    }

    pub(crate) fn reader(&self, sources: &[Source], start: Start) -> Reader {
        let encoder = Encoder::new(&app(), "test", Format::Json);
        let (store, log) = (Arc::clone(&self.store), Arc::clone(&self.log) as Arc<dyn TransactionLog>);
        Reader::new(store, log, Self::lens(sources, Access::all()), encoder, start)
    }
}

/// Limits that make a walker move its base all the time.
pub(crate) fn tiny() -> WalkerSettings {
    WalkerSettings { image_bytes: 600, read_bytes: 300, collections: None }
}

/// What somebody knows who was told everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Consumer {
    pub(crate) documents: BTreeMap<(String, String), Json>,
    /// Whether a fixed snapshot is under way, so that the documents are not all there yet.
    filling: bool,
    pub(crate) gaps: usize,
    pub(crate) ends: usize,
}

pub(crate) fn json(event: &Event) -> Json {
    serde_json::from_slice(&event.json).unwrap()
}

impl Consumer {
    /// Takes an event; an old value that is not the new value before it is a defect.
    pub(crate) fn take(&mut self, event: &Event) {
        let told = json(event);
        let cursor: Cursor = event.cursor.parse().unwrap();
        assert_eq!(told["cursor"], json!(event.cursor));
        let key = || (told["collection"].as_str().unwrap().to_owned(), told["documentId"].to_string());
        match event.kind {
            Kind::Changed => {
                let change = &told["change"];
                let old = if change["method"] == "remove" { &change["value"] } else { &change["oldValue"] };
                let known = self.documents.get(&key()).unwrap_or(&Json::Null);
                assert_eq!(old, known, "the old value is not what was there: {told}");
                assert_eq!(change["method"] == "upsert", known.is_null(), "{told}");
                match change.get("newValue") {
                    Some(new) => self.documents.insert(key(), new.clone()),
                    None => self.documents.remove(&key()),
                };
                // Of a document without fields there is no path to name.
                let has_fields = |image: &Json| image.as_object().is_some_and(|image| image.len() > 1);
                let has_paths = !told["changedPaths"].as_array().unwrap().is_empty();
                assert_eq!(has_paths, has_fields(old) || change.get("newValue").is_some_and(has_fields), "{told}");
            }
            Kind::Snapshot => {
                let new = told["change"]["newValue"].clone();
                let known = self.documents.insert(key(), new.clone());
                if !self.filling {
                    assert_eq!(known, Some(new), "read again, it is not what changes had made of it: {told}");
                }
            }
            Kind::SnapshotBegin => self.filling = cursor.snapshot.unwrap().fixed,
            Kind::SnapshotEnd => {
                self.filling = false;
                self.ends += 1;
            }
            Kind::RequeryRequired => {
                self.gaps += 1;
                self.filling = true;
                let gone: Vec<&str> =
                    told["collections"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
                self.documents.retain(|(collection, _), _| !gone.contains(&collection.as_str()));
            }
        }
    }

    /// Whether it knows exactly what `world` is where `cursor` says that it stands.
    pub(crate) fn check(&self, world: &World, cursor: &str) {
        let cursor: Cursor = cursor.parse().unwrap();
        if !self.filling && cursor.position.seen.is_none() {
            assert_eq!(self.documents, world.at(cursor.position.lsn), "at {}", cursor.position);
        }
    }
}
