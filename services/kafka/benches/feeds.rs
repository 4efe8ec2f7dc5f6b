//! The change feed over a log and an object store in memory: `cargo bench -p bigpeer-kafka`. Prints `name value unit`. With
//! `BIGPEER_BENCH_KAFKA=host:port` also to that broker, beside a bare producer of the same payload in the same run.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, clippy::cast_precision_loss, reason = "a benchmark")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use bigpeer_changefeed::{
    ChangefeedContext, ChangefeedSettings, Cursor, Encoder, FeedSpec, Format, Lens, Reader, Start, Values, run_feeds,
};
use bigpeer_chassis::{Access, ApiKeySpec, Catalogue, Name, Permissions, Shutdown};
use bigpeer_crdt::{DocId, Document, Editor, Object, ObjectMode, TransactionBuilder, Value};
use bigpeer_kafka::Librdkafka;
use bigpeer_log::{AppendEntry, MemoryLog, TransactionLog};
use bigpeer_tables::{DocumentStore, Stores, TablesSettings};
use bigpeer_types::{AppId, Clock, CollectionName, Hlc, HlcClock, IdGenerator, Lsn, RandomIds, SiteId, SystemClock};
use object_store::memory::InMemory;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use serde_json::json;

/// As in the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DOCUMENTS: u64 = 200_000;
const PER_TRANSACTION: u64 = 100;

struct OneStore(Arc<DocumentStore>);

impl Stores for OneStore {
    fn store(&self, app: &AppId) -> Option<Arc<DocumentStore>> {
        (self.0.app() == app).then(|| Arc::clone(&self.0))
    }
}

struct World {
    log: Arc<MemoryLog>,
    store: Arc<DocumentStore>,
    context: ChangefeedContext,
    app: AppId,
    clock: HlcClock,
    seq: u64,
}

/// Fifteen fields, about 300 bytes of JSON.
fn flight(n: u64) -> Object {
    let mut fields = Object::new();
    for name in ["year", "month", "day", "dep_time", "dep_delay", "arr_time", "arr_delay", "flight", "air_time", "hour"]
    {
        fields.insert(name, Value::Int(i64::try_from(n % 2_400).unwrap()));
    }
    for (name, text) in [("carrier", "UA"), ("origin", "EWR"), ("dest", "IAH"), ("tailnum", "N14228")] {
        fields.insert(name, text);
    }
    fields.insert("time_hour", "2013-01-01T05:00:00Z");
    fields
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

impl World {
    async fn new() -> Self {
        let log = Arc::new(MemoryLog::new());
        let world: (Arc<dyn Clock>, Arc<dyn IdGenerator>) = (Arc::new(SystemClock), Arc::new(RandomIds));
        let catalogue =
            Catalogue::open(Arc::clone(&log) as _, Arc::clone(&world.0), Arc::clone(&world.1)).await.unwrap();
        catalogue.create_tenant(&name("t")).await.unwrap();
        let app = catalogue.create_app(&name("t"), &name("a")).await.unwrap().id;
        let spec = ApiKeySpec { permissions: Permissions::all(), expires_at_ms: None, limits: Default::default() };
        catalogue.put_api_key(&app, &name("all"), spec).await.unwrap();
        let tables = TablesSettings { max_overlay_bytes: 2 << 30, ..TablesSettings::default() };
        let store = DocumentStore::open(app.clone(), Arc::new(InMemory::new()), Arc::clone(&log) as _, tables);
        let store = store.await.unwrap();
        let settings = ChangefeedSettings { allow_private_receivers: true, ..ChangefeedSettings::default() };
        let stores = Arc::new(OneStore(Arc::clone(&store)));
        let context =
            ChangefeedContext::new(catalogue, Arc::clone(&log) as _, stores, world, settings, Shutdown::new())
                .with_kafka(Arc::new(Librdkafka));
        let clock = HlcClock::new(SiteId::new(1), Hlc::ZERO, Arc::new(SystemClock));
        Self { log, store, context, app, clock, seq: 0 }
    }

    /// Inserts documents, so many in a transaction.
    async fn write(&mut self, from: u64, to: u64, at_once: u64) {
        let collection = CollectionName::new("flights").unwrap();
        let nothing = Document::new();
        for start in (from..to).step_by(usize::try_from(at_once).unwrap()) {
            let mut builder = TransactionBuilder::new();
            for n in start..(start + at_once).min(to) {
                let mut editor = Editor::new(&nothing, &mut self.clock);
                editor.insert(&flight(n), ObjectMode::Map).unwrap();
                let id = DocId::from_value(&Value::Int(i64::try_from(n).unwrap())).unwrap();
                builder.change(&collection, &id, &editor.finish().unwrap());
            }
            self.seq += 1;
            let payload = builder.finish().unwrap();
            let (site, seq) = (SiteId::new(1), self.seq);
            let entry = AppendEntry { site, seq, writes: Vec::new(), unchanged: Vec::new(), payload };
            self.log.append(&self.app, vec![entry]).await.unwrap();
        }
        self.store.wait_for(self.log.head(&self.app).await.unwrap()).await.unwrap();
    }

    fn reader(&self, start: Start) -> Reader {
        let lens = Arc::new(Lens::compile(&[], Access::all(), Values::Untyped).unwrap());
        let encoder = Encoder::new(&self.app, "bench", Format::Json);
        Reader::new(Arc::clone(&self.store), Arc::clone(&self.log) as _, lens, encoder, start)
    }

    /// Makes a feed from `cursor` on, works on it, and waits until it stands at the head.
    async fn deliver(&self, sink: serde_json::Value, cursor: &Cursor) -> Duration {
        let spec: FeedSpec = serde_json::from_value(json!({"owner": "all", "sink": sink})).unwrap();
        let feed = name("bench");
        self.context.registry().put(&self.app, &feed, spec, cursor).await.unwrap();
        let head = Cursor::after(self.log.head(&self.app).await.unwrap()).to_string();
        let started = Instant::now();
        let running = tokio::spawn(run_feeds(self.context.clone()));
        loop {
            let checkpoint = self.context.registry().checkpoint(&self.app, &feed).await.unwrap().unwrap().record;
            let committed = checkpoint.prepared.is_none();
            if checkpoint.cursor == head && committed {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let took = started.elapsed();
        self.context.registry().delete(&self.app, &feed).await.unwrap();
        running.abort();
        took
    }
}

fn rate(what: &str, count: u64, took: Duration) -> f64 {
    let rate = count as f64 / took.as_secs_f64();
    println!("{what} {rate:.0} events/s");
    rate
}

async fn read_all(mut reader: Reader, to: Lsn) -> (u64, u64) {
    let (mut events, mut bytes) = (0, 0);
    while *reader.cursor() != Cursor::after(to) {
        let batch = reader.next().await.unwrap();
        events += batch.events.len() as u64;
        bytes += batch.events.iter().map(|event| event.json.len() as u64).sum::<u64>();
    }
    (events, bytes)
}

async fn reading(world: &World) -> u64 {
    let head = world.log.head(&world.app).await.unwrap();
    let started = Instant::now();
    let (events, bytes) = read_all(world.reader(Start::At(Cursor::after(Lsn::ZERO))), head).await;
    rate("feed_backlog_read", events, started.elapsed());
    let started = Instant::now();
    let (events, _) = read_all(world.reader(Start::Snapshot), head).await;
    rate("feed_snapshot_read", events, started.elapsed());
    bytes / events
}

async fn webhooks(world: &World) {
    let taken = Arc::new(AtomicU64::new(0));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let hook = post(|State(taken): State<Arc<AtomicU64>>, _: bytes::Bytes| async move {
        taken.fetch_add(1, Ordering::Relaxed);
    });
    let router = Router::new().route("/hook", hook).with_state(Arc::clone(&taken));
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let sink = json!({"type": "webhook", "url": url, "secrets": ["a secret that is long enough"], "concurrency": 32});
    // The last twentieth of the backlog.
    let from = world.reader(Start::Now).cursor().position.lsn;
    let cursor = Cursor::after(Lsn::new(from.version - DOCUMENTS / PER_TRANSACTION / 20, from.order));
    let took = world.deliver(sink, &cursor).await;
    rate("feed_webhook_single", taken.load(Ordering::Relaxed), took);
    server.abort();
}

/// A bare producer: the same number of messages of the same size, in transactions of the feed's size.
fn bare(brokers: &str, size: usize) -> Duration {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("transactional.id", "bench-bare")
        .set("compression.type", "lz4")
        .set("linger.ms", "2")
        .set("batch.num.messages", "20000")
        .create()
        .unwrap();
    producer.init_transactions(Duration::from_secs(10)).unwrap();
    let payload = format!("{{{}}}", "\"dep_time\":1234,".repeat(size / 16));
    let started = Instant::now();
    for start in (0..DOCUMENTS).step_by(16_000) {
        producer.begin_transaction().unwrap();
        for n in start..(start + 16_000).min(DOCUMENTS) {
            let key = n.to_string();
            let record = || BaseRecord::<str, str>::to("bench-bare").key(key.as_str()).payload(payload.as_str());
            while producer.send(record()).is_err() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        producer.commit_transaction(Duration::from_secs(30)).unwrap();
    }
    started.elapsed()
}

/// How long one change takes from durable to a consumer of committed messages.
async fn latency(world: &mut World, brokers: &str) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "bench")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "100")
        .create()
        .unwrap();
    let mut at = rdkafka::TopicPartitionList::new();
    at.add_partition_offset("bench-latency", 0, rdkafka::Offset::Beginning).unwrap();
    let spec = json!({"owner": "all", "sink":
        {"type": "kafka", "brokers": brokers, "topic": "bench-latency", "create": {"partitions": 1}}});
    let spec: FeedSpec = serde_json::from_value(spec).unwrap();
    let cursor = Cursor::after(world.log.head(&world.app).await.unwrap());
    world.context.registry().put(&world.app, &name("bench"), spec, &cursor).await.unwrap();
    let running = tokio::spawn(run_feeds(world.context.clone()));
    let mut took = Vec::new();
    for n in 0..500 {
        world.write(DOCUMENTS + n, DOCUMENTS + n + 1, 1).await;
        let started = Instant::now();
        if n == 0 {
            // The topic is made when the feed begins.
            tokio::time::sleep(Duration::from_secs(3)).await;
            consumer.assign(&at).unwrap();
        }
        while tokio::task::block_in_place(|| consumer.poll(Duration::from_secs(10))).unwrap().is_err() {}
        if n > 20 {
            took.push(started.elapsed().as_secs_f64() * 1000.0);
        }
    }
    running.abort();
    world.context.registry().delete(&world.app, &name("bench")).await.unwrap();
    took.sort_by(f64::total_cmp);
    println!("feed_kafka_latency_p50 {:.1} ms", took[took.len() / 2]);
    println!("feed_kafka_latency_p99 {:.1} ms", took[took.len() * 99 / 100]);
}

async fn kafka(world: &mut World, brokers: &str, size: u64) {
    let size = usize::try_from(size).unwrap();
    let mut shares = Vec::new();
    // In turns, so that what else the machine does meets both.
    for round in 0..3 {
        let topic = format!("bench-feed-{round}");
        let sink = json!({"type": "kafka", "brokers": brokers, "topic": topic, "create": {"partitions": 1}});
        let took = world.deliver(sink, &Cursor::after(Lsn::ZERO)).await;
        let feed = rate("feed_kafka_backlog", DOCUMENTS, took);
        let address = brokers.to_owned();
        let took = tokio::task::spawn_blocking(move || bare(&address, size)).await.unwrap();
        shares.push(feed / rate("kafka_bare_producer", DOCUMENTS, took));
    }
    shares.sort_by(f64::total_cmp);
    println!("feed_kafka_share_of_bare {:.2} ratio", shares[1]);
    latency(world, brokers).await;
}

fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let mut world = World::new().await;
        world.write(0, DOCUMENTS, PER_TRANSACTION).await;
        let size = reading(&world).await;
        println!("feed_event_size {size} bytes");
        webhooks(&world).await;
        if let Ok(brokers) = std::env::var("BIGPEER_BENCH_KAFKA") {
            kafka(&mut world, &brokers, size).await;
        }
    });
}
