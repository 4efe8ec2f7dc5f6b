//! A server with one app, and clients that speak the protocol frame by frame.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use bigpeer_chassis::{
    ApiKeySpec, Catalogue, ClientAddr, ClientCertificate, Name, PeerCertificate, Permissions, Shutdown,
    SystemCollections,
};
use bigpeer_crdt::{DocId, Document, Editor, Object, ObjectMode, TransactionBuilder, Value};
use bigpeer_gateway::{GatewayContext, GatewaySettings, router};
use bigpeer_log::{MemoryLog, TransactionLog};
use bigpeer_protocol::limits::TARGET_FRAME_BYTES;
use bigpeer_protocol::pb::{self, FromGateway};
use bigpeer_protocol::{SUBPROTOCOL, decode_gateway_frame, encode_frame};
use bigpeer_tables::{DocumentStore, Stores, TablesSettings};
use bigpeer_types::limits::MAX_FRAME_BYTES;
use bigpeer_types::{AppId, Clock, CollectionName, Hlc, HlcClock, Lsn, RandomIds, SiteId, SystemClock};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use object_store::ObjectStore;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Nothing takes so long; a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(30);
/// Credit of a client that takes whatever comes.
pub(crate) const PLENTY: u64 = 1 << 40;

pub(crate) struct World {
    pub(crate) app: AppId,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) store: Arc<DocumentStore>,
    pub(crate) shutdown: Shutdown,
    pub(crate) system: SystemCollections,
    address: std::net::SocketAddr,
    router: Router,
}

struct OneStore(AppId, Arc<DocumentStore>);

impl Stores for OneStore {
    fn store(&self, app: &AppId) -> Option<Arc<DocumentStore>> {
        (*app == self.0).then(|| Arc::clone(&self.1))
    }
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(GatewaySettings::default()).await
    }

    pub(crate) async fn with(settings: GatewaySettings) -> Self {
        Self::on(settings, Arc::new(object_store::memory::InMemory::new()), TablesSettings::default()).await
    }

    /// With objects that may be slow, and a feed that may be short.
    pub(crate) async fn on(settings: GatewaySettings, objects: Arc<dyn ObjectStore>, tables: TablesSettings) -> Self {
        let log = Arc::new(MemoryLog::new());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let catalogue = Catalogue::open(Arc::clone(&log) as _, Arc::clone(&clock), Arc::new(RandomIds)).await.unwrap();
        catalogue.create_tenant(&name("t")).await.unwrap();
        let app = catalogue.create_app(&name("t"), &name("a")).await.unwrap().id;
        let store = DocumentStore::open(app.clone(), objects, Arc::clone(&log) as _, tables).await.unwrap();
        let shutdown = Shutdown::new();
        let system = SystemCollections::default();
        let context = GatewayContext {
            catalogue: Arc::clone(&catalogue),
            log: Arc::clone(&log) as _,
            stores: Arc::new(OneStore(app.clone(), Arc::clone(&store))),
            clock,
            ids: Arc::new(RandomIds),
            settings,
            shutdown: shutdown.clone(),
            system: system.clone(),
        };
        let router = router(context);
        let address = serve(router.clone()).await;
        let world = Self { app, catalogue, log, store, shutdown, system, address, router };
        world.key("all", Permissions::all()).await;
        world
    }

    /// Makes or changes an API key.
    pub(crate) async fn key(&self, key: &str, permissions: Permissions) {
        let spec = ApiKeySpec { permissions, expires_at_ms: None, ..Default::default() };
        self.catalogue.put_api_key(&self.app, &name(key), spec).await.unwrap();
    }

    /// A new site with its token.
    pub(crate) async fn login(&self, key: &str) -> (SiteId, String) {
        let site = self.catalogue.allocate_site(&self.app).await.unwrap();
        (site, self.token(key, site))
    }

    pub(crate) fn token(&self, key: &str, site: SiteId) -> String {
        let key = self.catalogue.api_key(&self.app, &name(key)).unwrap();
        self.catalogue.issue_token(&self.app, site, &key, 3600).unwrap().0
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.catalogue.clock().now_ms()
    }

    pub(crate) async fn socket(&self) -> Client {
        self.socket_at(self.address).await
    }

    /// A connection on which this certificate was shown.
    pub(crate) async fn showing(&self, certificate: &Arc<PeerCertificate>) -> Client {
        self.socket_at(self.address_showing(certificate).await).await
    }

    /// The status of a request for a session on such a connection.
    pub(crate) async fn refused_showing(&self, certificate: &Arc<PeerCertificate>) -> u16 {
        let address = self.address_showing(certificate).await;
        refused_upgrade(&format!("ws://{address}/{}/sync", self.app), Some(SUBPROTOCOL)).await
    }

    async fn address_showing(&self, certificate: &Arc<PeerCertificate>) -> std::net::SocketAddr {
        serve(self.router.clone().layer(Extension(ClientCertificate(Arc::clone(certificate))))).await
    }

    async fn socket_at(&self, address: std::net::SocketAddr) -> Client {
        let mut request = format!("ws://{address}/{}/sync", self.app).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
        let tcp = TcpStream::connect(address).await.unwrap();
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let tcp = MaybeTlsStream::Plain(tcp);
        let (socket, _) = tokio_tungstenite::client_async_with_config(request, tcp, Some(config)).await.unwrap();
        Client { socket, site: SiteId::new(0), inbox: VecDeque::new() }
    }

    /// The status of a request that is not for a session.
    pub(crate) async fn refused_upgrade(&self, path: &str, protocol: Option<&str>) -> u16 {
        refused_upgrade(&format!("ws://{}{path}", self.address), protocol).await
    }

    /// A session of a new site with everything allowed.
    pub(crate) async fn client(&self) -> Client {
        let (site, token) = self.login("all").await;
        self.session(site, &token, hello(site, &token)).await
    }

    pub(crate) async fn session(&self, site: SiteId, _token: &str, hello: pb::Hello) -> Client {
        let mut client = self.socket().await;
        client.site = site;
        client.send(hello).await;
        match client.next().await {
            FromGateway::Welcome(welcome) => assert_eq!(welcome.version, 1),
            other => panic!("no Welcome: {other:?}"),
        }
        client
    }
}

async fn serve(router: Router) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = router.layer(Extension(ClientAddr(address)));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn refused_upgrade(url: &str, protocol: Option<&str>) -> u16 {
    let mut request = url.into_client_request().unwrap();
    if let Some(protocol) = protocol {
        request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    }
    match tokio_tungstenite::connect_async(request).await {
        Err(tungstenite::Error::Http(response)) => response.status().as_u16(),
        other => panic!("the upgrade was not refused: {other:?}"),
    }
}

pub(crate) fn hello(site: SiteId, token: &str) -> pb::Hello {
    pb::Hello {
        versions: vec![1],
        site: site.get(),
        access_token: token.to_owned(),
        last_seq: 1 << 40,
        credit: PLENTY,
        ..Default::default()
    }
}

/// What a peer holds of its subscriptions, from what it was sent.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Replica {
    pub(crate) documents: BTreeMap<Vec<u8>, Document>,
    pub(crate) through: Lsn,
    pub(crate) position: Bytes,
    pub(crate) snapshot: Lsn,
    /// Where a resume is ahead of `through`: keys, and what was sent of the documents up to them.
    pub(crate) reached: BTreeMap<Bytes, Lsn>,
    pub(crate) pages: usize,
}

impl Replica {
    pub(crate) fn ids(&self) -> Vec<String> {
        let value = |key: &Vec<u8>| DocId::from_key(key).unwrap().to_value().as_str().unwrap().to_owned();
        self.documents.keys().map(value).collect()
    }

    pub(crate) fn field(&self, id: &str, field: &str) -> Option<Value> {
        let document = self.documents.get(doc_id(id).as_key())?;
        document.to_object().get(field).cloned()
    }

    fn join(&mut self, id: &Bytes, encoded: &[u8]) {
        let document = self.documents.entry(id.to_vec()).or_default();
        document.join_encoded(encoded).unwrap();
        if !document.is_visible() {
            self.documents.remove(&**id);
        }
    }

    pub(crate) fn apply(&mut self, message: &FromGateway) {
        match message {
            FromGateway::Changes(changes) => {
                if let Some(page) = &changes.page {
                    self.pages += 1;
                    for state in &page.states {
                        self.join(&state.id, &state.state);
                    }
                    for left in &page.left {
                        self.documents.remove(&*left.id);
                    }
                    self.position = page.position.clone();
                    self.snapshot = page.snapshot.unwrap().into();
                    if !page.reached.is_empty() {
                        assert!(page.position.is_empty());
                        self.reached.retain(|key, _| *key > page.reached);
                        self.reached.insert(page.reached.clone(), self.snapshot);
                    }
                }
                for transaction in &changes.transactions {
                    for change in &transaction.changes {
                        match &change.content {
                            Some(pb::change::Content::Delta(delta)) => {
                                assert!(
                                    self.documents.contains_key(&*change.id)
                                        || Document::decode(delta).unwrap().is_visible(),
                                    "a delta to nothing"
                                );
                                self.join(&change.id, delta);
                            }
                            Some(pb::change::Content::State(state)) => self.join(&change.id, state),
                            None => {}
                        }
                    }
                    for left in &transaction.left {
                        self.documents.remove(&*left.id);
                    }
                }
                if let Some(through) = changes.through {
                    assert!(Lsn::from(through) >= self.through, "the cursor went back");
                    self.through = through.into();
                }
            }
            FromGateway::CaughtUp(caught_up) => {
                self.through = caught_up.lsn.unwrap().into();
                self.reached.clear();
            }
            FromGateway::Resync(_) => {
                self.documents.clear();
                self.reached.clear();
            }
            _ => {}
        }
    }
}

pub(crate) struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub(crate) site: SiteId,
    inbox: VecDeque<FromGateway>,
}

impl Client {
    pub(crate) async fn send(&mut self, message: impl Into<pb::PeerMessage>) {
        let frame = encode_frame(&message.into(), pb::Compression::None);
        self.raw(Message::Binary(frame.message)).await;
    }

    pub(crate) async fn raw(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// The next message of the gateway.
    pub(crate) async fn next(&mut self) -> FromGateway {
        if let Some(message) = self.inbox.pop_front() {
            return message;
        }
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("nothing came");
            match message.expect("the connection is open").expect("a frame") {
                Message::Binary(frame) => return decode_gateway_frame(frame, MAX_FRAME_BYTES).unwrap().message,
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("not a frame: {other:?}"),
            }
        }
    }

    /// The Close that the gateway ends with.
    pub(crate) async fn close(&mut self) -> pb::Close {
        loop {
            if let FromGateway::Close(close) = self.next().await {
                return close;
            }
        }
    }

    pub(crate) async fn accepted(&mut self) -> u64 {
        match self.next().await {
            FromGateway::Accepted(accepted) => accepted.seq,
            other => panic!("not accepted: {other:?}"),
        }
    }

    pub(crate) async fn push(&mut self, seq: u64, transaction: Bytes) {
        let transactions = vec![pb::PushedTransaction { seq, transaction, basis: seq.saturating_sub(1), more: false }];
        self.send(pb::Push { transactions }).await;
    }

    /// Pushes, and waits until it is durable; other messages go to `replica`.
    pub(crate) async fn write(&mut self, seq: u64, transaction: Bytes) -> Lsn {
        self.push(seq, transaction).await;
        let mut others = VecDeque::new();
        loop {
            match self.next().await {
                FromGateway::Accepted(accepted) if accepted.seq == seq => {
                    others.append(&mut self.inbox);
                    self.inbox = others;
                    return accepted.lsn.unwrap().into();
                }
                FromGateway::Rejected(rejected) => panic!("{rejected:?}"),
                FromGateway::Close(close) => panic!("{close:?}"),
                other => others.push_back(other),
            }
        }
    }

    pub(crate) async fn subscribe(&mut self, id: u32, query: &str, resume: Option<pb::Resume>) -> u64 {
        self.open(pb::Subscribe { id, query: query.to_owned(), resume, ..Default::default() }).await
    }

    /// Subscribes, and answers the scope.
    pub(crate) async fn open(&mut self, subscribe: pb::Subscribe) -> u64 {
        self.send(subscribe).await;
        match self.next().await {
            FromGateway::Subscribed(subscribed) => subscribed.scope,
            other => panic!("not subscribed: {other:?}"),
        }
    }

    /// Applies messages until the subscriptions are caught up.
    pub(crate) async fn catch_up(&mut self, replica: &mut Replica) {
        loop {
            let message = self.next().await;
            assert!(!matches!(message, FromGateway::Close(_)), "{message:?}");
            replica.apply(&message);
            if matches!(message, FromGateway::CaughtUp(_)) {
                return;
            }
        }
    }

    /// Applies messages until `done`.
    pub(crate) async fn until(&mut self, replica: &mut Replica, mut done: impl FnMut(&Replica) -> bool) {
        while !done(replica) {
            let message = self.next().await;
            assert!(!matches!(message, FromGateway::Close(_)), "{message:?}");
            replica.apply(&message);
        }
    }
}

pub(crate) fn doc_id(id: &str) -> DocId {
    DocId::from_value(&Value::String(id.into())).unwrap()
}

pub(crate) fn flights() -> CollectionName {
    CollectionName::new("flights").unwrap()
}

/// Makes transactions of one site, over documents as that site sees them.
pub(crate) struct Author {
    clock: HlcClock,
    documents: BTreeMap<String, Document>,
}

impl Author {
    pub(crate) fn new(site: SiteId) -> Self {
        Self { clock: HlcClock::new(site, Hlc::ZERO, Arc::new(SystemClock)), documents: BTreeMap::new() }
    }

    pub(crate) fn with_clock(site: SiteId, clock: Arc<dyn Clock>) -> Self {
        Self { clock: HlcClock::new(site, Hlc::ZERO, clock), documents: BTreeMap::new() }
    }

    /// One transaction with one change for each.
    pub(crate) fn edit(&mut self, collection: &CollectionName, edits: &[(&str, Edit)]) -> Bytes {
        let mut transaction = TransactionBuilder::new();
        for (id, edit) in edits {
            let current = self.documents.entry((*id).to_owned()).or_default();
            let mut editor = Editor::new(current, &mut self.clock);
            match edit {
                Edit::Insert(fields) => {
                    let fields: Object = fields.iter().map(|(key, value)| (*key, value.clone())).collect();
                    editor.insert(&fields, ObjectMode::Map).unwrap();
                }
                Edit::Set(field, value) => editor.set(&[*field], value.clone(), ObjectMode::Map).unwrap(),
                Edit::Delete => editor.delete(),
            }
            let delta = editor.finish().unwrap();
            current.join(&delta);
            transaction.change(collection, &doc_id(id), &delta);
        }
        transaction.finish().unwrap()
    }

    pub(crate) fn insert(&mut self, id: &str, carrier: &str) -> Bytes {
        self.edit(&flights(), &[(id, Edit::flight(carrier))])
    }

    pub(crate) fn set(&mut self, id: &str, field: &'static str, value: &str) -> Bytes {
        self.edit(&flights(), &[(id, Edit::Set(field, Value::String(value.into())))])
    }

    pub(crate) fn delete(&mut self, id: &str) -> Bytes {
        self.edit(&flights(), &[(id, Edit::Delete)])
    }

    /// As [`Self::set`], in the collection `other`.
    pub(crate) fn elsewhere(&mut self, id: &str) -> Bytes {
        self.edit(&CollectionName::new("other").unwrap(), &[(id, Edit::flight("DL"))])
    }

    /// A transaction with many flights of 300 bytes or so.
    pub(crate) fn many(&mut self, range: std::ops::Range<usize>, carrier: &str) -> Bytes {
        let ids: Vec<String> = range.map(|number| format!("f{number:06}")).collect();
        let edits: Vec<(&str, Edit)> = ids.iter().map(|id| (id.as_str(), Edit::flight(carrier))).collect();
        self.edit(&flights(), &edits)
    }
}

pub(crate) enum Edit {
    Insert(Vec<(&'static str, Value)>),
    Set(&'static str, Value),
    Delete,
}

impl Edit {
    pub(crate) fn flight(carrier: &str) -> Self {
        let note = "x".repeat(200);
        Self::Insert(vec![
            ("carrier", Value::String(carrier.into())),
            ("gate", Value::String("A1".into())),
            ("note", Value::String(note.into())),
        ])
    }
}

/// More documents than one page holds.
pub(crate) const SEVERAL_PAGES: usize = 4 * TARGET_FRAME_BYTES / 250;

impl World {
    /// Where the log ends.
    pub(crate) async fn head(&self) -> Lsn {
        self.log.head(&self.app).await.unwrap()
    }
}
