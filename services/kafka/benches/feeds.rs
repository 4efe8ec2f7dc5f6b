//! The change feed over a log and an object store in memory (`make bench-feed`). Prints `name value unit beside`, with tabs in
//! between. With `BIGPEER_BENCH_KAFKA=host:port` also to that broker, beside a bare producer of the same payload in the same run.
//! `BIGPEER_BENCH_DOCUMENTS` is how many documents; without, 200,000.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, clippy::cast_precision_loss, reason = "a benchmark")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use bigpeer_changefeed::{
    ChangefeedContext, ChangefeedSettings, Cursor, Encoder, Format, Lens, Reader, Start, Values, run_feeds,
};
use bigpeer_chassis::Access;
use bigpeer_crdt::{Object, Value};
use bigpeer_log::TransactionLog;
use bigpeer_tables::TablesSettings;
use bigpeer_types::Lsn;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use serde_json::json;

#[path = "../tests/it/app.rs"]
mod app;
use app::{App, name};

/// As in the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DOCUMENTS: u64 = 200_000;
const PER_TRANSACTION: u64 = 100;
/// Documents that arrive each second while a feed makes up for an outage.
const ARRIVALS: f64 = 6_000.0;
/// Half a second, and what it takes to say it.
const FEEDS_SAY_EVERY: Duration = Duration::from_millis(700);
/// Requests at once.
const CONCURRENCY: usize = 32;
/// Transactions of one document each, of whose latencies the first few are left out: 500 are measured.
const WRITES: u64 = 520;
const WARM_UP: u64 = 20;
/// Ids from here on are nobody's.
const NEW: u64 = 1 << 40;

fn documents() -> u64 {
    std::env::var("BIGPEER_BENCH_DOCUMENTS").ok().map_or(DOCUMENTS, |text| text.parse().unwrap())
}

struct World {
    app: App,
    context: ChangefeedContext,
    /// Feeds so far.
    made: u32,
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

impl World {
    async fn new() -> Self {
        let tables = TablesSettings { max_overlay_bytes: 2 << 30, ..TablesSettings::default() };
        let app = App::new(tables).await;
        let settings = ChangefeedSettings { allow_private_receivers: true, ..ChangefeedSettings::default() };
        let context = app.process(settings);
        Self { app, context, made: 0 }
    }

    /// Inserts documents, so many in a transaction.
    async fn write(&mut self, from: u64, to: u64, at_once: u64) {
        for start in (from..to).step_by(usize::try_from(at_once).unwrap()) {
            self.app.write("flights", (start..(start + at_once).min(to)).map(|n| (n, flight(n)))).await;
        }
        self.app.applied().await;
    }

    async fn head(&self) -> Lsn {
        self.app.log.head(&self.app.id).await.unwrap()
    }

    fn reader(&self, start: Start) -> Reader {
        let lens = Arc::new(Lens::compile(&[], Access::all(), Values::Untyped).unwrap());
        let encoder = Encoder::new(&self.app.id, "bench", Format::Json);
        Reader::new(Arc::clone(&self.app.store), Arc::clone(&self.app.log) as _, lens, encoder, start)
    }

    /// Makes a feed from `cursor` on, and works on it.
    async fn feed(&mut self, sink: serde_json::Value, cursor: &Cursor) -> tokio::task::JoinHandle<()> {
        // A name of its own: the lease of one that was broken off is not over yet.
        self.made += 1;
        self.app.make_feed(&self.name(), sink, cursor).await;
        tokio::spawn(run_feeds(self.context.clone()))
    }

    /// The name of the feed that was made last.
    fn name(&self) -> String {
        format!("bench{}", self.made)
    }

    /// Whether the feed stands at the head.
    async fn is_caught_up(&self) -> bool {
        self.app.is_delivered(&self.context, &self.name()).await
    }

    /// How many events the feed that was made last says it has delivered.
    async fn delivered(&self) -> u64 {
        let name = name(&self.name());
        let checkpoint = self.context.registry().checkpoint(&self.app.id, &name).await.unwrap();
        checkpoint.unwrap().record.delivered
    }

    async fn end(&self, running: tokio::task::JoinHandle<()>) {
        self.context.registry().delete(&self.app.id, &name(&self.name())).await.unwrap();
        running.abort();
    }

    /// Makes a feed from `cursor` on, works on it, and waits until it stands at the head.
    async fn deliver(&mut self, sink: serde_json::Value, cursor: &Cursor) -> Duration {
        let started = Instant::now();
        let running = self.feed(sink, cursor).await;
        while !self.is_caught_up().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let took = started.elapsed();
        self.end(running).await;
        took
    }
}

fn show(what: &str, value: f64, unit: &str, beside: &str) {
    println!("{what}\t{value:.2}\t{unit}\t{beside}");
}

fn rate(what: &str, count: u64, took: Duration) -> f64 {
    let rate = count as f64 / took.as_secs_f64();
    show(what, rate, "events/s", "");
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

async fn reading(world: &World) -> usize {
    let head = world.head().await;
    let started = Instant::now();
    let (events, bytes) = read_all(world.reader(Start::At(Cursor::after(Lsn::ZERO))), head).await;
    rate("feed_backlog_read", events, started.elapsed());
    let started = Instant::now();
    let (events, _) = read_all(world.reader(Start::Snapshot), head).await;
    rate("feed_snapshot_read", events, started.elapsed());
    usize::try_from(bytes / events).unwrap()
}

/// A client alone: the same number of requests of the same size, as many at once.
async fn bare_posts(url: &str, size: usize, count: u64) -> Duration {
    let client = reqwest::Client::builder().tcp_nodelay(true).no_proxy().build().unwrap();
    let payload = bytes::Bytes::from(vec![b'x'; size]);
    let left = AtomicU64::new(count);
    let started = Instant::now();
    let lane = async || {
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            client.post(url).body(payload.clone()).send().await.unwrap().bytes().await.unwrap();
        }
    };
    futures::future::join_all((0..CONCURRENCY).map(|_| lane())).await;
    started.elapsed()
}

async fn webhooks(world: &mut World, size: usize) {
    let taken = Arc::new(AtomicU64::new(0));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let hook = post(|State(taken): State<Arc<AtomicU64>>, _: bytes::Bytes| async move {
        taken.fetch_add(1, Ordering::Relaxed);
    });
    let router = Router::new().route("/hook", hook).with_state(Arc::clone(&taken));
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let sink = json!({"type": "webhook", "url": url, "secrets": ["a secret that is long enough"],
        "concurrency": CONCURRENCY});
    // The last twentieth of the backlog, or all of a small one.
    let head = world.reader(Start::Now).cursor().position.lsn;
    let back = (documents() / PER_TRANSACTION / 20).max(10).min(head.version - 1);
    let cursor = Cursor::after(Lsn::new(head.version - back, head.order));
    let mut shares = Vec::new();
    for _ in 0..3 {
        taken.store(0, Ordering::Relaxed);
        let took = world.deliver(sink.clone(), &cursor).await;
        let count = taken.load(Ordering::Relaxed);
        let feed = rate("feed_webhook_single", count, took);
        shares.push(feed / rate("bare_post", count, bare_posts(&url, size, count).await));
    }
    shares.sort_by(f64::total_cmp);
    show("feed_webhook_share_of_bare", shares[1], "ratio", "the middle of three, each beside posts of the same size");
    server.abort();
}

/// A bare producer: the same number of messages of the same size, in transactions of the feed's size.
fn bare(brokers: &str, size: usize) -> Duration {
    let documents = documents();
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
    for start in (0..documents).step_by(16_000) {
        producer.begin_transaction().unwrap();
        for n in start..(start + 16_000).min(documents) {
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

/// A feed that was away makes up for it while changes keep arriving, until what it says that it delivered is no older than how
/// often it says so.
async fn outage(world: &mut World, brokers: &str) {
    let sink = json!({"type": "kafka", "brokers": brokers, "topic": "bench-outage", "create": {"partitions": 1}});
    let started = Instant::now();
    let running = world.feed(sink, &Cursor::after(Lsn::ZERO)).await;
    let (from, mut written) = (documents(), 0);
    // What had arrived at which time, and is not delivered as far as is known.
    let mut waiting = VecDeque::from([(started, from)]);
    let is_late = |(since, count): &(Instant, u64)| *count == from || since.elapsed() > FEEDS_SAY_EVERY;
    while waiting.front().is_some_and(is_late) {
        let due = (started.elapsed().as_secs_f64() * ARRIVALS) as u64;
        if due < written + PER_TRANSACTION {
            let delivered = world.delivered().await;
            waiting.retain(|(_, count)| *count > delivered);
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        }
        world.write(from + written, from + written + PER_TRANSACTION, PER_TRANSACTION).await;
        written += PER_TRANSACTION;
        waiting.push_back((Instant::now(), from + written));
    }
    let took = started.elapsed().as_secs_f64();
    world.end(running).await;
    let beside = format!("{from} events waited, {written} arrived in the {took:.1} s until none did");
    show("feed_outage_over_arrivals", (from + written) as f64 / took / ARRIVALS, "ratio", &beside);
}

/// How long one change takes from durable to a consumer of committed messages.
async fn latency(world: &mut World, brokers: &str) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "bench")
        .set("isolation.level", "read_committed")
        // The broker of the benchmark answers a fetch that finds nothing after this time, and not when something comes.
        .set("fetch.wait.max.ms", "2")
        .create()
        .unwrap();
    let mut at = rdkafka::TopicPartitionList::new();
    at.add_partition_offset("bench-latency", 0, rdkafka::Offset::Beginning).unwrap();
    let cursor = Cursor::after(world.head().await);
    let sink = json!({"type": "kafka", "brokers": brokers, "topic": "bench-latency", "create": {"partitions": 1}});
    let running = world.feed(sink, &cursor).await;
    let mut took = Vec::new();
    for n in 0..WRITES {
        // Of new documents: what changes nothing is no event.
        world.write(NEW + n, NEW + n + 1, 1).await;
        let started = Instant::now();
        if n == 0 {
            // The topic is made when the feed begins.
            while !world.is_caught_up().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            consumer.assign(&at).unwrap();
        }
        // It answers nothing now and then, long before the time is over.
        while !matches!(tokio::task::block_in_place(|| consumer.poll(Duration::from_secs(1))), Some(Ok(_))) {
            assert!(started.elapsed() < Duration::from_secs(60), "nothing came of write {n}");
        }
        if n >= WARM_UP {
            took.push(started.elapsed().as_secs_f64() * 1000.0);
        }
    }
    world.end(running).await;
    took.sort_by(f64::total_cmp);
    show("feed_kafka_latency_p50", took[took.len() / 2], "ms", "from durable to a consumer of committed messages");
    show("feed_kafka_latency_p99", took[took.len() * 99 / 100], "ms", "");
}

async fn kafka(world: &mut World, brokers: &str, size: usize) {
    let mut shares = Vec::new();
    // In turns, so that what else the machine does meets both.
    for round in 0..3 {
        let topic = format!("bench-feed-{round}");
        let sink = json!({"type": "kafka", "brokers": brokers, "topic": topic, "create": {"partitions": 1}});
        let took = world.deliver(sink, &Cursor::after(Lsn::ZERO)).await;
        let feed = rate("feed_kafka_backlog", documents(), took);
        let address = brokers.to_owned();
        let took = tokio::task::spawn_blocking(move || bare(&address, size)).await.unwrap();
        shares.push(feed / rate("kafka_bare_producer", documents(), took));
    }
    shares.sort_by(f64::total_cmp);
    show(
        "feed_kafka_share_of_bare",
        shares[1],
        "ratio",
        "the middle of three, each beside a producer of the same payload",
    );
    outage(world, brokers).await;
    latency(world, brokers).await;
}

fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let mut world = World::new().await;
        world.write(0, documents(), PER_TRANSACTION).await;
        let size = reading(&world).await;
        show("feed_event_size", size as f64, "bytes", "");
        webhooks(&mut world, size).await;
        if let Ok(brokers) = std::env::var("BIGPEER_BENCH_KAFKA") {
            kafka(&mut world, &brokers, size).await;
        }
    });
}
