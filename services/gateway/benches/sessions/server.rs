//! The server: a gateway over an embedded log and segments on disk, in this process; and the process of its peers.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bigpeer_chassis::{ApiKeySpec, Catalogue, Permissions, Shutdown};
use bigpeer_crdt::{DocId, Document, Editor, ObjectMode, TransactionBuilder, Value};
use bigpeer_gateway::{GatewayContext, GatewaySettings, router};
use bigpeer_log::{AppendEntry, EmbeddedLog, EmbeddedSettings, TransactionLog};
use bigpeer_tables::{DocumentStore, LocalObjects, Stores, TablesSettings};
use bigpeer_types::{AppId, Clock, CollectionName, Hlc, HlcClock, RandomIds, SiteId, SystemClock};
use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::wire::{Command, now_ns};

struct OneStore(AppId, Arc<DocumentStore>);

impl Stores for OneStore {
    fn store(&self, app: &AppId) -> Option<Arc<DocumentStore>> {
        (*app == self.0).then(|| Arc::clone(&self.1))
    }
}

pub(crate) struct Server {
    app: AppId,
    catalogue: Arc<Catalogue>,
    log: Arc<EmbeddedLog>,
    store: Arc<DocumentStore>,
    shutdown: Shutdown,
    address: std::net::SocketAddr,
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// CPU time of this process, in seconds.
pub(crate) fn cpu() -> f64 {
    let of_thread = |task: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    };
    std::fs::read_dir("/proc/self/task").unwrap().filter_map(of_thread).sum::<f64>() / 1e9
}

/// Resident memory of this process, in bytes.
pub(crate) fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
}

pub(crate) fn percentile(values: &mut [f64], percent: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len().saturating_sub(1)) as f64 * percent / 100.0;
    values.get(at.round() as usize).copied().unwrap_or(f64::NAN)
}

/// Writes documents as one site.
pub(crate) struct Author {
    site: SiteId,
    clock: HlcClock,
}

impl Author {
    fn new(site: u64) -> Self {
        let site = SiteId::new(site);
        Self { site, clock: HlcClock::new(site, Hlc::ZERO, Arc::new(SystemClock)) }
    }

    fn delta(&mut self, fields: &[(&str, Value)]) -> Document {
        let nothing = Document::new();
        let mut editor = Editor::new(&nothing, &mut self.clock);
        for (field, value) in fields {
            editor.set(&[*field], value.clone(), ObjectMode::Map).unwrap();
        }
        editor.finish().unwrap()
    }
}

fn text(value: &str) -> Value {
    Value::String(value.into())
}

fn id(name: &str) -> DocId {
    DocId::from_value(&text(name)).unwrap()
}

fn collection(name: &str) -> CollectionName {
    CollectionName::new(name).unwrap()
}

async fn append(log: &EmbeddedLog, app: &AppId, (site, seq): (SiteId, u64), payload: Bytes) {
    let entry = AppendEntry { site, seq, writes: Vec::new(), unchanged: Vec::new(), payload };
    log.append(app, vec![entry]).await.unwrap();
}

/// So many small documents, in one sorted run.
async fn fill(app: &AppId, log: &EmbeddedLog, store: &Arc<DocumentStore>, documents: usize) {
    let mut author = Author::new(1);
    let writer = store.writer().await.unwrap();
    for (chunk, seq) in (0..documents).step_by(1000).zip(1..) {
        let mut transaction = TransactionBuilder::new();
        for number in chunk..(chunk + 1000).min(documents) {
            let delta =
                author.delta(&[("n", Value::Int(number as i64)), ("name", text(&format!("document {number}")))]);
            transaction.change(&collection("small"), &id(&format!("{number:08}")), &delta);
        }
        append(log, app, (author.site, seq), transaction.finish().unwrap()).await;
        if seq % 250 == 0 || chunk + 1000 >= documents {
            store.wait_for(log.head(app).await.unwrap()).await.unwrap();
            writer.flush().await.unwrap();
        }
    }
    writer.compact(&collection("small"), bigpeer_tables::Extent::Full).await.unwrap();
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with_segments(0).await
    }

    /// One whose store finds so many documents of `small` in segments when it is opened, and nothing in memory.
    pub(crate) async fn with_segments(documents: usize) -> Self {
        let root = std::env::var_os("BIGPEER_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
        let dir = tempfile::tempdir_in(root).unwrap();
        let log = Arc::new(EmbeddedLog::open(&dir.path().join("log"), EmbeddedSettings::default()).unwrap());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let catalogue = Catalogue::open(Arc::clone(&log) as _, Arc::clone(&clock), Arc::new(RandomIds)).await.unwrap();
        catalogue.create_tenant(&"t".parse().unwrap()).await.unwrap();
        let app = catalogue.create_app(&"t".parse().unwrap(), &"a".parse().unwrap()).await.unwrap().id;
        let spec = ApiKeySpec { permissions: Permissions::all(), expires_at_ms: None, ..Default::default() };
        catalogue.put_api_key(&app, &"all".parse().unwrap(), spec).await.unwrap();
        let open = async || {
            let objects = Arc::new(LocalObjects::open(&dir.path().join("objects")).unwrap());
            let settings = TablesSettings::default();
            DocumentStore::open(app.clone(), objects, Arc::clone(&log) as _, settings).await.unwrap()
        };
        if documents > 0 {
            fill(&app, &log, &open().await, documents).await;
        }
        let store = open().await;
        let (in_segments, in_memory) = (store.snapshot().segment_rows(&collection("small")), store.overlay_bytes());
        assert_eq!((in_segments, in_memory), (documents as u64, 0), "all of them in segments");
        let shutdown = Shutdown::new();
        let context = GatewayContext {
            catalogue: Arc::clone(&catalogue),
            log: Arc::clone(&log) as _,
            stores: Arc::new(OneStore(app.clone(), Arc::clone(&store))),
            clock,
            ids: Arc::new(RandomIds),
            settings: GatewaySettings::default(),
            shutdown: shutdown.clone(),
            system: Default::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let listener = axum::serve::ListenerExt::tap_io(listener, |tcp| tcp.set_nodelay(true).unwrap());
        tokio::spawn(async move { axum::serve(listener, router(context)).await });
        Self { app, catalogue, log, store, shutdown, address, _dir: dir }
    }

    pub(crate) fn author(&self, site: u64) -> Author {
        Author::new(site)
    }

    async fn log(&self, site: SiteId, seq: u64, payload: Bytes) -> u64 {
        append(&self.log, &self.app, (site, seq), payload).await;
        now_ns()
    }

    /// Writes a field of each of these documents of `board` in one transaction. Answers when it was durable.
    pub(crate) async fn append(&self, seq: u64, author: &mut Author, names: &[&str]) -> u64 {
        let mut transaction = TransactionBuilder::new();
        for name in names {
            let delta = author.delta(&[("n", Value::Int(seq as i64)), ("text", text(&"x".repeat(60)))]);
            transaction.change(&collection("board"), &id(name), &delta);
        }
        self.log(author.site, seq, transaction.finish().unwrap()).await
    }

    /// Writes a task of an owner.
    pub(crate) async fn append_owned(&self, seq: u64, author: &mut Author, name: &str, owner: &str) -> u64 {
        let mut transaction = TransactionBuilder::new();
        let delta = author.delta(&[("owner", text(owner)), ("n", Value::Int(seq as i64))]);
        transaction.change(&collection("tasks"), &id(name), &delta);
        self.log(author.site, seq, transaction.finish().unwrap()).await
    }

    /// Writes so many tasks of an owner.
    pub(crate) async fn append_many(&self, seq: u64, author: &mut Author, prefix: &str, count: usize, owner: &str) {
        let mut transaction = TransactionBuilder::new();
        for number in 0..count {
            let delta =
                author.delta(&[("owner", text(owner)), ("n", Value::Int(seq as i64)), ("text", text(&"x".repeat(60)))]);
            transaction.change(&collection("tasks"), &id(&format!("{prefix}-{number:04}")), &delta);
        }
        self.log(author.site, seq, transaction.finish().unwrap()).await;
        let head = self.log.head(&self.app).await.unwrap();
        self.store.wait_for(head).await.unwrap();
    }

    /// Appends of so many appenders that each wait for their own: appends a second, and the p50 in ms.
    pub(crate) async fn commits(&self, appenders: usize, time: Duration) -> (f64, f64) {
        let payload = {
            let mut transaction = TransactionBuilder::new();
            transaction.change(&collection("pushed"), &id("document"), &self.author(9).delta(&[("n", Value::Int(1))]));
            transaction.finish().unwrap()
        };
        let begun = Instant::now();
        let tasks = (0..appenders as u64).map(|number| {
            let (log, app, payload) = (Arc::clone(&self.log), self.app.clone(), payload.clone());
            tokio::spawn(async move {
                let site = SiteId::new(5_000_000 + number);
                let mut seq = log.last_seq(&app, site).await.unwrap();
                let mut latencies = Vec::new();
                while begun.elapsed() < time {
                    seq += 1;
                    let began = Instant::now();
                    let writes = vec![bigpeer_chassis::conflict_key(&collection("pushed"), &seq.to_be_bytes())];
                    let entry = AppendEntry { site, seq, writes, unchanged: Vec::new(), payload: payload.clone() };
                    log.append(&app, vec![entry]).await.unwrap();
                    latencies.push(began.elapsed().as_secs_f64() * 1e3);
                }
                latencies
            })
        });
        let mut latencies = Vec::new();
        for task in tasks.collect::<Vec<_>>() {
            latencies.extend(task.await.unwrap());
        }
        (latencies.len() as f64 / begun.elapsed().as_secs_f64(), percentile(&mut latencies, 50.0))
    }

    /// The process of the peers.
    pub(crate) fn peers(&self) -> Peers {
        let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["peers", &self.address.to_string(), self.app.as_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Peers { _child: child, input, output: BufReader::new(output).lines() }
    }

    fn token(&self, site: u64) -> String {
        let key = self.catalogue.api_key(&self.app, &"all".parse().unwrap()).unwrap();
        self.catalogue.issue_token(&self.app, SiteId::new(site), &key, 3600).unwrap().0
    }
}

pub(crate) struct Peers {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// What the peers got.
pub(crate) struct Got {
    pub(crate) documents: u64,
    pub(crate) bytes: u64,
    pub(crate) refused: u64,
}

impl Peers {
    async fn send(&mut self, line: String) {
        self.input.write_all((line + "\n").as_bytes()).await.unwrap();
        self.input.flush().await.unwrap();
    }

    async fn answer(&mut self) -> serde_json::Value {
        let line =
            tokio::time::timeout(Duration::from_secs(120), self.output.next_line()).await.expect("an answer in time");
        serde_json::from_str(&line.unwrap().expect("the peers are there")).unwrap()
    }

    /// Begins a command that answers later.
    pub(crate) async fn begin(&mut self, command: &Command) {
        self.send(command.to_json().to_string()).await;
        assert_eq!(self.answer().await["ready"], true);
    }

    /// Does a command, and waits for its end.
    pub(crate) async fn tell(&mut self, command: &Command, server: &Server) -> Got {
        self.send(command.to_json().to_string()).await;
        if let Command::Connect { sites: (first, count), .. } = command {
            for site in *first..*first + *count as u64 {
                self.send(server.token(site)).await;
            }
        }
        let answer = self.answer().await;
        let number = |name: &str| answer[name].as_u64().unwrap_or_default();
        Got { documents: number("documents"), bytes: number("bytes"), refused: number("refused") }
    }

    /// When what was expected came, in milliseconds after `from`.
    pub(crate) async fn latencies(&mut self, from: u64) -> Vec<f64> {
        let answer = self.answer().await;
        let times = answer["at"].as_array().unwrap().iter().map(|at| at.as_u64().unwrap());
        times.map(|at| at.saturating_sub(from) as f64 / 1e6).collect()
    }

    pub(crate) async fn ping_pong(&mut self, times: usize) -> Vec<f64> {
        self.send(Command::PingPong { times }.to_json().to_string()).await;
        let answer = self.answer().await;
        answer["took"].as_array().unwrap().iter().map(|ns| ns.as_f64().unwrap() / 1e6).collect()
    }

    /// Pushes a second.
    pub(crate) async fn push(&mut self, time: Duration) -> f64 {
        self.send(Command::Push { ms: time.as_millis() as u64 }.to_json().to_string()).await;
        let answer = self.answer().await;
        answer["pushed"].as_f64().unwrap() / time.as_secs_f64()
    }
}
