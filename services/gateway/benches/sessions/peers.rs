//! The process of the peers: light ones, which speak the protocol and forget what they get, but for the ids of a first sync.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bigpeer_crdt::{DocId, Document, Editor, ObjectMode, TransactionBuilder, Value};
use bigpeer_protocol::pb::{self, FromGateway};
use bigpeer_protocol::{SUBPROTOCOL, decode_gateway_frame, encode_frame, fingerprint};
use bigpeer_types::{CollectionName, Hlc, HlcClock, SiteId, SystemClock};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::wire::now_ns;

const MAX_FRAME: usize = 16 << 20;

/// Counters that all peers share.
#[derive(Default)]
struct Counters {
    documents: AtomicU64,
    bytes: AtomicU64,
    refused: AtomicU64,
    pushed: AtomicU64,
}

/// What a peer keeps between connections.
#[derive(Clone)]
struct Peer {
    site: u64,
    token: String,
    queries: Vec<String>,
    resumes: BTreeMap<u32, pb::Resume>,
    keys: Vec<Bytes>,
}

/// What happens to all peers.
#[derive(Clone)]
struct World {
    address: String,
    app: String,
    counters: Arc<Counters>,
    /// When a live change came.
    arrivals: mpsc::UnboundedSender<u64>,
    /// A peer is caught up with all of its subscriptions.
    caught_up: mpsc::UnboundedSender<()>,
    /// A peer that was told to stop is gone, with what it keeps.
    gone: mpsc::UnboundedSender<Peer>,
    orders: watch::Receiver<Order>,
}

#[derive(Clone, Copy, PartialEq)]
enum Order {
    Stay,
    Push,
    Leave,
}

struct Session {
    socket: WebSocketStream<TcpStream>,
    world: World,
    peer: Peer,
    seq: u64,
    clock: HlcClock,
    expects: usize,
}

impl Session {
    async fn open(world: World, mut peer: Peer) -> Option<Self> {
        let mut request = format!("ws://{}/{}/sync", world.address, world.app).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
        let tcp = TcpStream::connect(&world.address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let config = WebSocketConfig::default()
            .read_buffer_size(4096)
            .write_buffer_size(0)
            .max_message_size(None)
            .max_frame_size(None);
        let (socket, _) = tokio_tungstenite::client_async_with_config(request, tcp, Some(config)).await.ok()?;
        let clock = HlcClock::new(SiteId::new(peer.site), Hlc::ZERO, Arc::new(SystemClock));
        let expects = peer.queries.len();
        let resumes = std::mem::take(&mut peer.resumes);
        let mut session = Self { socket, world, peer, seq: 0, clock, expects };
        session
            .send(pb::Hello {
                versions: vec![1],
                site: session.peer.site,
                access_token: session.peer.token.clone(),
                last_seq: 1 << 40,
                credit: 1 << 40,
                tells_held: true,
                ..Default::default()
            })
            .await;
        match session.next().await? {
            FromGateway::Welcome(welcome) => session.seq = welcome.last_seq,
            _ => return None,
        }
        for (query, id) in session.peer.queries.clone().into_iter().zip(1..) {
            let resume = resumes.get(&id).cloned();
            session.send(pb::Subscribe { id, query, resume, ..Default::default() }).await;
        }
        Some(session)
    }

    async fn send(&mut self, message: impl Into<pb::PeerMessage>) {
        let frame = encode_frame(&message.into(), pb::Compression::None).message;
        self.world.counters.bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
        let _ = self.socket.send(Message::Binary(frame)).await;
    }

    async fn next(&mut self) -> Option<FromGateway> {
        loop {
            match self.socket.next().await?.ok()? {
                Message::Binary(frame) => {
                    self.world.counters.bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
                    return Some(decode_gateway_frame(frame, MAX_FRAME).unwrap().message);
                }
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    async fn take(&mut self, message: FromGateway) {
        match message {
            FromGateway::Subscribed(subscribed) => {
                let resume = pb::Resume { scope: subscribed.scope, ..Default::default() };
                self.peer.resumes.insert(subscribed.id, resume);
            }
            FromGateway::Changes(changes) => {
                let now = now_ns();
                for _ in changes.transactions.iter().flat_map(|transaction| &transaction.changes) {
                    let _ = self.world.arrivals.send(now);
                }
                if let Some(page) = changes.page {
                    self.world.counters.documents.fetch_add(page.states.len() as u64, Ordering::Relaxed);
                    if self.peer.keys.len() < 10_000 {
                        self.peer.keys.extend(page.states.iter().map(|state| state.id.clone()));
                    }
                }
                if let Some(through) = changes.through {
                    self.peer.resumes.values_mut().for_each(|resume| resume.lsn = Some(through));
                }
            }
            FromGateway::CaughtUp(caught_up) => {
                self.peer.resumes.values_mut().for_each(|resume| resume.lsn = caught_up.lsn);
                self.expects = self.expects.saturating_sub(caught_up.subscriptions.len());
                if self.expects == 0 {
                    let _ = self.world.caught_up.send(());
                }
            }
            FromGateway::AskHeld(ask) => {
                let keys: std::collections::BTreeSet<Bytes> = self.peer.keys.drain(..).collect();
                self.peer.keys = keys.into_iter().collect();
                let fingerprints = self.peer.keys.iter().map(|key| fingerprint(ask.salt, key)).collect();
                self.send(pb::Held { ask: ask.ask, fingerprints, count: self.peer.keys.len() as u32 }).await;
            }
            _ => {}
        }
    }

    /// One small transaction.
    async fn push(&mut self, collection: &str, id: &str) {
        self.seq += 1;
        let nothing = Document::new();
        let mut editor = Editor::new(&nothing, &mut self.clock);
        editor.set(&["n"], Value::Int(self.seq as i64), ObjectMode::Map).unwrap();
        let mut transaction = TransactionBuilder::new();
        let id = DocId::from_value(&Value::String(id.into())).unwrap();
        transaction.change(&CollectionName::new(collection).unwrap(), &id, &editor.finish().unwrap());
        let transaction = transaction.finish().unwrap();
        let pushed = pb::PushedTransaction { seq: self.seq, transaction, basis: self.seq - 1, more: false };
        self.send(pb::Push { transactions: vec![pushed] }).await;
    }

    /// Until it is told to leave.
    async fn run(mut self) {
        let mut orders = self.world.orders.clone();
        let name = format!("p{}", self.peer.site);
        loop {
            if *orders.borrow() == Order::Push && self.expects == 0 {
                self.push("pushed", &name).await;
                while let Some(message) = self.next().await {
                    if matches!(message, FromGateway::Accepted(_)) {
                        self.world.counters.pushed.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                }
                continue;
            }
            tokio::select! {
                message = self.next() => match message {
                    Some(message) => self.take(message).await,
                    None => return,
                },
                _ = orders.changed() => if *orders.borrow() == Order::Leave {
                    let _ = self.world.gone.send(self.peer);
                    return;
                }
            }
        }
    }
}

/// Connects a peer; one that is refused tries again.
async fn live(world: World, peer: Peer) {
    loop {
        if let Some(session) = Session::open(world.clone(), peer.clone()).await {
            return session.run().await;
        }
        world.counters.refused.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Where what the peers do is seen.
struct Stage {
    world: World,
    orders: watch::Sender<Order>,
    arrivals: mpsc::UnboundedReceiver<u64>,
    caught_up: mpsc::UnboundedReceiver<()>,
    gone: mpsc::UnboundedReceiver<Peer>,
    peers: usize,
    left: Vec<Peer>,
}

fn answer(value: &serde_json::Value) {
    println!("{value}");
}

pub(crate) async fn run() {
    let [address, app] = [2, 3].map(|at| std::env::args().nth(at).unwrap());
    let (arrivals, arrived) = mpsc::unbounded_channel();
    let (caught_up, are_caught_up) = mpsc::unbounded_channel();
    let (gone, are_gone) = mpsc::unbounded_channel();
    let orders = watch::Sender::new(Order::Stay);
    let world = World { address, app, counters: Arc::default(), arrivals, caught_up, gone, orders: orders.subscribe() };
    let mut stage = Stage {
        world,
        orders,
        arrivals: arrived,
        caught_up: are_caught_up,
        gone: are_gone,
        peers: 0,
        left: Vec::new(),
    };
    let (lines, mut input) = mpsc::unbounded_channel();
    let read = move || std::io::stdin().lines().map_while(Result::ok).try_for_each(|line| lines.send(line));
    std::thread::Builder::new().name("input".to_owned()).spawn(read).unwrap();
    while let Some(line) = input.recv().await {
        let command: serde_json::Value = serde_json::from_str(&line).unwrap();
        let number = |name: &str| command[name].as_u64().unwrap_or_default();
        match command["do"].as_str().unwrap() {
            "connect" => {
                let mut peers = Vec::new();
                for site in number("first")..number("first") + number("count") {
                    let token = input.recv().await.unwrap();
                    let queries = (0..number("each"))
                        .map(|each| command["query"].as_str().unwrap().replace("{}", &format!("{site}-{each}")));
                    let queries = queries.collect();
                    peers.push(Peer { site, token, queries, resumes: BTreeMap::new(), keys: Vec::new() });
                }
                stage.connect(peers, 200).await;
            }
            "drop" => stage.drop_all().await,
            "reconnect" => {
                let peers = std::mem::take(&mut stage.left);
                stage.connect(peers, usize::MAX).await;
            }
            "expect" => stage.expect(number("changes")).await,
            "ping_pong" => stage.ping_pong(number("times")).await,
            "push" => stage.push(number("ms")).await,
            other => panic!("{other}"),
        }
    }
}

impl Stage {
    /// Connects peers, so many at once, and waits until all are caught up.
    async fn connect(&mut self, peers: Vec<Peer>, at_once: usize) {
        let counters = Arc::clone(&self.world.counters);
        for counter in [&counters.documents, &counters.bytes, &counters.refused] {
            counter.store(0, Ordering::Relaxed);
        }
        self.peers += peers.len();
        let mut waiting = 0_usize;
        for peer in peers {
            if waiting >= at_once {
                self.caught_up.recv().await.unwrap();
                waiting -= 1;
            }
            tokio::spawn(live(self.world.clone(), peer));
            waiting += 1;
        }
        for _ in 0..waiting {
            self.caught_up.recv().await.unwrap();
        }
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        answer(&json!({
            "documents": count(&counters.documents), "bytes": count(&counters.bytes), "refused": count(&counters.refused)
        }));
    }

    async fn drop_all(&mut self) {
        self.orders.send_replace(Order::Leave);
        for _ in 0..std::mem::take(&mut self.peers) {
            self.left.push(self.gone.recv().await.unwrap());
        }
        self.orders.send_replace(Order::Stay);
        answer(&json!({}));
    }

    async fn expect(&mut self, changes: u64) {
        while self.arrivals.try_recv().is_ok() {}
        answer(&json!({"ready": true}));
        let mut at = Vec::new();
        for _ in 0..changes {
            at.push(self.arrivals.recv().await.unwrap());
        }
        answer(&json!({"at": at}));
    }

    /// A peer of its own writes, and the time until the others have it is taken.
    async fn ping_pong(&mut self, times: u64) {
        let mut took = Vec::new();
        self.orders.send_replace(Order::Leave);
        let mut peers = Vec::new();
        for _ in 0..std::mem::take(&mut self.peers) {
            peers.push(self.gone.recv().await.unwrap());
        }
        self.orders.send_replace(Order::Stay);
        let writer = peers.pop().unwrap();
        for peer in peers {
            tokio::spawn(live(self.world.clone(), peer));
            self.caught_up.recv().await.unwrap();
            self.peers += 1;
        }
        let mut writer = Session::open(self.world.clone(), Peer { queries: Vec::new(), ..writer }).await.unwrap();
        for _ in 0..times {
            while self.arrivals.try_recv().is_ok() {}
            let begun = now_ns();
            writer.push("board", "ping").await;
            let accepted = async {
                while let Some(message) = writer.next().await {
                    if matches!(message, FromGateway::Accepted(_)) {
                        break;
                    }
                }
            };
            let ((), at) = tokio::join!(accepted, self.arrivals.recv());
            took.push(at.unwrap() - begun);
        }
        answer(&json!({"took": took}));
    }

    async fn push(&mut self, ms: u64) {
        self.orders.send_replace(Order::Push);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let pushed = &self.world.counters.pushed;
        let (before, begun) = (pushed.load(Ordering::Relaxed), Instant::now());
        tokio::time::sleep(Duration::from_millis(ms)).await;
        let count = (pushed.load(Ordering::Relaxed) - before) as f64 * ms as f64 / 1e3 / begun.elapsed().as_secs_f64();
        self.orders.send_replace(Order::Stay);
        answer(&json!({"pushed": count}));
    }
}
