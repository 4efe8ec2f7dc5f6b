//! An app over a log and an object store in memory, and the processes that work on its feeds: for tests and for the benchmark.

use std::sync::Arc;

use bigpeer_changefeed::{ChangefeedContext, ChangefeedSettings, Cursor, FeedSpec};
use bigpeer_chassis::{ApiKeySpec, Catalogue, Name, Permissions, Shutdown};
use bigpeer_crdt::{DocId, Document, Editor, Object, ObjectMode, TransactionBuilder, Value};
use bigpeer_kafka::Librdkafka;
use bigpeer_log::{AppendEntry, MemoryLog, TransactionLog};
use bigpeer_tables::{DocumentStore, Stores, TablesSettings};
use bigpeer_types::{AppId, Clock, CollectionName, Hlc, HlcClock, IdGenerator, RandomIds, SiteId, SystemClock};
use object_store::memory::InMemory;
use serde_json::json;

#[derive(Debug)]
struct OneStore(Arc<DocumentStore>);

impl Stores for OneStore {
    fn store(&self, app: &AppId) -> Option<Arc<DocumentStore>> {
        (self.0.app() == app).then(|| Arc::clone(&self.0))
    }
}

/// An app, what its feeds are, and whoever writes to it. Its API key `all` may do everything.
pub(crate) struct App {
    pub(crate) id: AppId,
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) store: Arc<DocumentStore>,
    catalogue: Arc<Catalogue>,
    clock: HlcClock,
    seq: u64,
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn world() -> (Arc<dyn Clock>, Arc<dyn IdGenerator>) {
    (Arc::new(SystemClock), Arc::new(RandomIds))
}

impl App {
    pub(crate) async fn new(tables: TablesSettings) -> Self {
        let log = Arc::new(MemoryLog::new());
        let (clock, ids) = world();
        let catalogue = Catalogue::open(Arc::clone(&log) as _, clock, ids).await.unwrap();
        catalogue.create_tenant(&name("t")).await.unwrap();
        let id = catalogue.create_app(&name("t"), &name("a")).await.unwrap().id;
        let spec = ApiKeySpec { permissions: Permissions::all(), ..Default::default() };
        catalogue.put_api_key(&id, &name("all"), spec).await.unwrap();
        let store = DocumentStore::open(id.clone(), Arc::new(InMemory::new()), Arc::clone(&log) as _, tables);
        let store = store.await.unwrap();
        let clock = HlcClock::new(SiteId::new(1), Hlc::ZERO, Arc::new(SystemClock));
        Self { id, log, store, catalogue, clock, seq: 0 }
    }

    /// Another process, which does nothing yet.
    pub(crate) fn process(&self, settings: ChangefeedSettings) -> ChangefeedContext {
        let stores = Arc::new(OneStore(Arc::clone(&self.store)));
        let (catalogue, log) = (Arc::clone(&self.catalogue), Arc::clone(&self.log) as _);
        ChangefeedContext::new(catalogue, log, stores, world(), settings, Shutdown::new())
            .with_kafka(Arc::new(Librdkafka))
    }

    /// Writes whole documents, in one transaction, whatever was there before.
    pub(crate) async fn write(&mut self, collection: &str, documents: impl IntoIterator<Item = (u64, Object)>) {
        let (collection, nothing) = (CollectionName::new(collection).unwrap(), Document::new());
        let mut builder = TransactionBuilder::new();
        for (id, fields) in documents {
            let mut editor = Editor::new(&nothing, &mut self.clock);
            editor.insert(&fields, ObjectMode::Map).unwrap();
            let id = DocId::from_value(&Value::Int(i64::try_from(id).unwrap())).unwrap();
            builder.change(&collection, &id, &editor.finish().unwrap());
        }
        self.seq += 1;
        let (site, payload) = (SiteId::new(1), builder.finish().unwrap());
        let entry = AppendEntry { site, seq: self.seq, writes: Vec::new(), unchanged: Vec::new(), payload };
        self.log.append(&self.id, vec![entry]).await.unwrap();
    }

    /// Waits until what was written can be read.
    pub(crate) async fn applied(&self) {
        self.store.wait_for(self.log.head(&self.id).await.unwrap()).await.unwrap();
    }

    /// Makes a feed, from `cursor` on.
    pub(crate) async fn make_feed(&self, feed: &str, sink: serde_json::Value, cursor: &Cursor) {
        let spec: FeedSpec = serde_json::from_value(json!({"owner": "all", "sink": sink})).unwrap();
        let process = self.process(ChangefeedSettings::default());
        process.registry().put(&self.id, &name(feed), spec, cursor).await.unwrap();
    }

    /// Whether a feed has delivered everything.
    pub(crate) async fn is_delivered(&self, process: &ChangefeedContext, feed: &str) -> bool {
        let head = Cursor::after(self.log.head(&self.id).await.unwrap()).to_string();
        let checkpoint = process.registry().checkpoint(&self.id, &name(feed)).await.unwrap().unwrap().record;
        checkpoint.cursor == head && checkpoint.prepared.is_none()
    }
}
