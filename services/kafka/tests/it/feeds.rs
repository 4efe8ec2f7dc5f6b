//! Whole feeds to a real broker (`BIGPEER_TEST_KAFKA`), of processes over one log, more than one of which believes that the feed
//! is its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bigpeer_changefeed::{ChangefeedContext, ChangefeedSettings, FeedSpec, run_feeds};
use bigpeer_chassis::{ApiKeySpec, Catalogue, Name, Permissions, Shutdown};
use bigpeer_crdt::{DocId, Document, Editor, Object, ObjectMode, TransactionBuilder, Value};
use bigpeer_kafka::Librdkafka;
use bigpeer_log::{AppendEntry, MemoryLog, MetaOp, TransactionLog};
use bigpeer_tables::{DocumentStore, Stores, TablesSettings};
use bigpeer_types::{AppId, Clock, CollectionName, Hlc, HlcClock, IdGenerator, RandomIds, SiteId, SystemClock};
use object_store::memory::InMemory;
use serde_json::json;

use crate::world::read;

const PARTITIONS: i32 = 3;

#[derive(Debug)]
struct OneStore(Arc<DocumentStore>);

impl Stores for OneStore {
    fn store(&self, app: &AppId) -> Option<Arc<DocumentStore>> {
        (self.0.app() == app).then(|| Arc::clone(&self.0))
    }
}

/// An app, and what its feeds are.
struct World {
    log: Arc<MemoryLog>,
    catalogue: Arc<Catalogue>,
    store: Arc<DocumentStore>,
    app: AppId,
    clock: HlcClock,
    seq: u64,
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn world() -> (Arc<dyn Clock>, Arc<dyn IdGenerator>) {
    (Arc::new(SystemClock), Arc::new(RandomIds))
}

impl World {
    async fn new() -> Self {
        let log = Arc::new(MemoryLog::new());
        let (clock, ids) = world();
        let catalogue = Catalogue::open(Arc::clone(&log) as _, clock, ids).await.unwrap();
        catalogue.create_tenant(&name("t")).await.unwrap();
        let app = catalogue.create_app(&name("t"), &name("a")).await.unwrap().id;
        let spec = ApiKeySpec { permissions: Permissions::all(), expires_at_ms: None, ..Default::default() };
        catalogue.put_api_key(&app, &name("all"), spec).await.unwrap();
        let (objects, settings) = (Arc::new(InMemory::new()), TablesSettings::default());
        let store = DocumentStore::open(app.clone(), objects, Arc::clone(&log) as _, settings).await.unwrap();
        let clock = HlcClock::new(SiteId::new(1), Hlc::ZERO, Arc::new(SystemClock));
        Self { log, catalogue, store, app, clock, seq: 0 }
    }

    /// Another process, which renews what it owns once in ten seconds.
    fn process(&self) -> ChangefeedContext {
        let settings = ChangefeedSettings { lease: Duration::from_secs(30), ..ChangefeedSettings::default() };
        let stores = Arc::new(OneStore(Arc::clone(&self.store)));
        let (catalogue, log) = (Arc::clone(&self.catalogue), Arc::clone(&self.log) as _);
        ChangefeedContext::new(catalogue, log, stores, world(), settings, Shutdown::new())
            .with_kafka(Arc::new(Librdkafka))
    }

    /// Changes seven documents in turn.
    async fn write(&mut self, count: u64) {
        let (collection, nothing) = (CollectionName::new("cars").unwrap(), Document::new());
        for _ in 0..count {
            self.seq += 1;
            let mut fields = Object::new();
            fields.insert("n", Value::Int(self.seq as i64));
            let mut editor = Editor::new(&nothing, &mut self.clock);
            editor.insert(&fields, ObjectMode::Map).unwrap();
            let mut builder = TransactionBuilder::new();
            let id = DocId::from_value(&Value::Int((self.seq % 7) as i64)).unwrap();
            builder.change(&collection, &id, &editor.finish().unwrap());
            let (site, payload) = (SiteId::new(1), builder.finish().unwrap());
            let entry = AppendEntry { site, seq: self.seq, writes: Vec::new(), unchanged: Vec::new(), payload };
            self.log.append(&self.app, vec![entry]).await.unwrap();
        }
        self.store.wait_for(self.log.head(&self.app).await.unwrap()).await.unwrap();
    }

    fn lease(&self) -> String {
        format!("lease/feeds/{}/f", self.app)
    }

    /// Lets others take the feed over while its owner believes in it.
    async fn forget_owner(&self) {
        let key = self.lease().into();
        self.log.metadata().commit(vec![MetaOp::Delete { key }]).await.unwrap();
    }

    async fn until(&self, what: &str, check: impl AsyncFn() -> bool) {
        for _ in 0..12_000 {
            if check().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("still not: {what}");
    }

    async fn delivered(&self) {
        let (registry, head) = (self.process().registry().clone(), self.log.head(&self.app).await.unwrap());
        let head = bigpeer_changefeed::Cursor::after(head).to_string();
        self.until("everything is delivered", async || {
            registry.checkpoint(&self.app, &name("f")).await.unwrap().unwrap().record.cursor == head
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker: scripts/test_kafka.py"]
async fn processes_that_all_believe_they_own_a_feed_deliver_each_event_once() {
    let brokers = std::env::var("BIGPEER_TEST_KAFKA").expect("BIGPEER_TEST_KAFKA names no broker");
    let mut world = World::new().await;
    let sink = json!({"type": "kafka", "brokers": brokers, "topic": "owned", "create": {"partitions": PARTITIONS}});
    let spec: FeedSpec = serde_json::from_value(json!({"owner": "all", "sink": sink})).unwrap();
    world.process().registry().put(&world.app, &name("f"), spec, &"0.0".parse().unwrap()).await.unwrap();
    let mut running = tokio::task::JoinSet::new();
    for round in 0..6 {
        running.spawn(run_feeds(world.process()));
        let lease = world.lease();
        world
            .until("somebody owns it", async || world.log.metadata().get(lease.as_bytes()).await.unwrap().is_some())
            .await;
        world.write(50).await;
        if round % 2 == 0 {
            world.delivered().await;
        }
        world.forget_owner().await;
        world.write(50).await;
    }
    world.delivered().await;
    running.abort_all();
    let got = read(&brokers, "owned", PARTITIONS);
    let ids: BTreeSet<&str> = got.iter().map(|got| got.json["id"].as_str().unwrap()).collect();
    assert_eq!((ids.len(), got.len()), (600, 600), "each event is there, and once");
    for document in 0..7 {
        let of = |key: &str| key == format!("cars:{document}");
        let mut last = json!(null);
        for event in got.iter().filter(|got| got.key.as_deref().is_some_and(of)) {
            assert_eq!(event.json["change"]["oldValue"], last, "in order: {}", event.json);
            last = event.json["change"]["newValue"].clone();
        }
    }
}
