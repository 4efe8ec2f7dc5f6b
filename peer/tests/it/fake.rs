//! A gateway in this process: the protocol's own state machine over a log and documents in memory. It knows one app, any
//! API key but "wrong", and what the tests ask of it: to break off, to forget its history, to reject.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bigpeer_crdt::{DocId, Document, Transaction, Value};
use bigpeer_dql::{Mode, Plan, SelectPlan};
use bigpeer_peer::ConnectSettings;
use bigpeer_protocol::{
    Admission, GatewayEffect, GatewaySession, SUBPROTOCOL, SubscriptionPhase, decode_peer_frame, encode_frame, pb,
};
use bigpeer_types::{AppId, Lsn, RandomIds, SiteId};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use super::fake_blobs::FakeBlobs;

type Key = (String, DocId);
type Socket = tokio_tungstenite::WebSocketStream<TcpStream>;

/// One transaction of the log, with what it did.
struct Entry {
    site: SiteId,
    seq: u64,
    changes: Vec<Changed>,
}

struct Changed {
    key: Key,
    delta: bytes::Bytes,
    before: Option<Document>,
    after: Document,
}

#[derive(Default)]
struct State {
    /// LSN n is entry n - 1.
    log: Vec<Entry>,
    documents: BTreeMap<Key, Document>,
    changed_at: BTreeMap<Key, u64>,
    last_seq: BTreeMap<SiteId, u64>,
    rejected: BTreeMap<SiteId, Vec<(u64, BTreeSet<Key>)>>,
    /// Cursors before this cannot be resumed.
    history_from: u64,
}

pub(crate) struct Fake {
    inner: Arc<Inner>,
    url: String,
}

struct Inner {
    state: Mutex<State>,
    head: watch::Sender<u64>,
    /// Sessions end, without a word, when it changes.
    cut: watch::Sender<u64>,
    /// Whether connections are taken.
    open: watch::Sender<bool>,
    sites: AtomicU64,
    logins: AtomicU64,
    /// When tokens end, in milliseconds since the epoch.
    expires: AtomicU64,
    refuses_refresh: AtomicBool,
    /// The numbers of the refresh tokens that were shown.
    refreshed: Mutex<Vec<u64>>,
    /// Documents sent in pages.
    paged: AtomicU64,
    /// Pages after which the connection is cut; 0 for never.
    cut_after_pages: AtomicU64,
    /// Whether no connections are taken after that.
    closes_then: AtomicBool,
    /// Whether it knows `Subscribe.reached` and `Page.reached`; gateways of before did not.
    knows_reached: AtomicBool,
    blobs: FakeBlobs,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let inner = Arc::new(Inner {
            state: Mutex::default(),
            head: watch::Sender::new(0),
            cut: watch::Sender::new(0),
            open: watch::Sender::new(true),
            sites: AtomicU64::new(1),
            logins: AtomicU64::new(0),
            expires: AtomicU64::new(4_000_000_000_000),
            refuses_refresh: AtomicBool::new(false),
            refreshed: Mutex::default(),
            paged: AtomicU64::new(0),
            cut_after_pages: AtomicU64::new(0),
            closes_then: AtomicBool::new(false),
            knows_reached: AtomicBool::new(true),
            blobs: FakeBlobs::default(),
        });
        tokio::spawn(accept(listener, Arc::clone(&inner)));
        Self { inner, url }
    }

    /// The attachments.
    pub(crate) fn blobs(&self) -> &FakeBlobs {
        &self.inner.blobs
    }

    /// Settings that reconnect quickly.
    pub(crate) fn settings(&self) -> ConnectSettings {
        let app = AppId::new("an-app").expect("valid");
        let mut settings = ConnectSettings::new(self.url.clone(), app, "a-key");
        settings.backoff_min = std::time::Duration::from_millis(1);
        settings.backoff_max = std::time::Duration::from_millis(20);
        settings
    }

    /// Cuts every connection.
    pub(crate) fn cut(&self) {
        self.inner.cut.send_modify(|cut| *cut += 1);
    }

    /// Takes no connections (and cuts those there are), or takes them again.
    pub(crate) fn set_open(&self, open: bool) {
        self.inner.open.send_replace(open);
        if !open {
            self.cut();
        }
    }

    /// Forgets history: cursors from before now cannot be resumed.
    pub(crate) fn forget_history(&self) {
        let mut state = self.inner.lock();
        state.history_from = state.log.len() as u64;
    }

    /// Forgets that deleted documents ever were, as after the time for which tombstones are kept. (Writes from before the
    /// deletion that come later than that bring them back; tests that want convergence leave this out.)
    pub(crate) fn forget_tombstones(&self) {
        let mut state = self.inner.lock();
        let gone: Vec<Key> =
            state.documents.iter().filter(|(_, document)| !document.is_visible()).map(|(key, _)| key.clone()).collect();
        for key in gone {
            state.documents.remove(&key);
        }
    }

    /// The visible documents of a collection, as JSON text.
    pub(crate) fn documents(&self, collection: &str) -> Vec<String> {
        let state = self.inner.lock();
        let mut rows: Vec<String> = state
            .documents
            .iter()
            .filter(|((name, _), document)| name == collection && document.is_visible())
            .map(|((_, id), document)| {
                let mut object = document.to_object();
                object.insert("_id", id.to_value());
                object.to_json().to_string()
            })
            .collect();
        rows.sort();
        rows
    }

    /// Logins and refreshes so far.
    pub(crate) fn logins(&self) -> u64 {
        self.inner.logins.load(Ordering::SeqCst)
    }

    /// From now on tokens have ended when they are given, so that each connect takes a new one.
    pub(crate) fn give_ended_tokens(&self) {
        self.inner.expires.store(1, Ordering::SeqCst);
    }

    /// Knows no refresh token any more.
    pub(crate) fn refuse_refresh(&self) {
        self.inner.refuses_refresh.store(true, Ordering::SeqCst);
    }

    /// The numbers of the refresh tokens that were shown: each login and refresh gives the next number.
    pub(crate) fn refreshed(&self) -> Vec<u64> {
        self.inner.refreshed.lock().expect("not poisoned").clone()
    }

    /// Documents sent in pages so far.
    pub(crate) fn paged(&self) -> u64 {
        self.inner.paged.load(Ordering::SeqCst)
    }

    /// Cuts the connection after so many more pages, once.
    pub(crate) fn cut_after_pages(&self, pages: u64) {
        self.inner.cut_after_pages.store(pages, Ordering::SeqCst);
    }

    /// Cuts the connection after so many more pages, and takes none from then on.
    pub(crate) fn close_after_pages(&self, pages: u64) {
        self.inner.closes_then.store(true, Ordering::SeqCst);
        self.cut_after_pages(pages);
    }

    /// Waits until it takes no connections.
    pub(crate) async fn closed(&self) {
        let mut open = self.inner.open.subscribe();
        open.wait_for(|open| !open).await.expect("the server lives");
    }

    /// Answers from now on as a gateway that knows how far a broken resume came, or as one of before.
    pub(crate) fn set_knows_reached(&self, knows: bool) {
        self.inner.knows_reached.store(knows, Ordering::SeqCst);
    }

    /// The number of transactions in the log.
    pub(crate) fn log_len(&self) -> usize {
        self.inner.lock().log.len()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds this")
    }
}

impl State {
    /// Appends a transaction, or rejects it; its number is used up either way. Answers the LSN. What another session of
    /// the site, which has not noticed yet that it is over, brought before is recognized.
    fn append(&mut self, site: SiteId, pushed: &pb::PushedTransaction) -> (u64, Result<(), pb::Rejected>) {
        if let Some(at) = self.log.iter().position(|entry| entry.site == site && entry.seq == pushed.seq) {
            let rejected = self.rejected.get(&site).into_iter().flatten().find(|(seq, _)| *seq == pushed.seq);
            let rejected = rejected.map(|(seq, keys)| self.rejection(*seq, keys, pb::RejectCode::RejectForbidden));
            return (at as u64 + 1, rejected.map_or(Ok(()), Err));
        }
        let last = self.last_seq.entry(site).or_default();
        assert_eq!(pushed.seq, *last + 1, "the session hands out what is next");
        *last = pushed.seq;
        let transaction = Transaction::decode(pushed.transaction.clone()).expect("a peer's transaction decodes");
        let keys: BTreeSet<Key> =
            transaction.changes().iter().map(|change| (change.collection.to_string(), change.id.clone())).collect();
        let rejected = self.rejected.entry(site).or_default();
        let built_on = rejected.iter().any(|(seq, of)| *seq > pushed.basis && !of.is_disjoint(&keys));
        let refused = self.refuses(&transaction);
        let changes = if built_on || refused { Vec::new() } else { self.apply(&transaction) };
        self.log.push(Entry { site, seq: pushed.seq, changes });
        let lsn = self.log.len() as u64;
        if !built_on && !refused {
            return (lsn, Ok(()));
        }
        let code = if built_on { pb::RejectCode::RejectBuiltOnRejected } else { pb::RejectCode::RejectForbidden };
        let rejection = self.rejection(pushed.seq, &keys, code);
        self.rejected.entry(site).or_default().push((pushed.seq, keys));
        (lsn, Err(rejection))
    }

    /// What the peer is told of a rejected transaction, with the documents as they are.
    fn rejection(&self, seq: u64, keys: &BTreeSet<Key>, code: pb::RejectCode) -> pb::Rejected {
        let restore = keys.iter().map(|(collection, id)| pb::Restore {
            collection: collection.clone(),
            id: id.as_key().to_vec().into(),
            state: self.documents.get(&(collection.clone(), id.clone())).map(|document| document.encode().into()),
        });
        let message = "the test does not allow it".to_owned();
        pb::Rejected { seq, code: code.into(), message, restore: restore.collect(), ..pb::Rejected::default() }
    }

    /// Nothing may write a field `forbidden`.
    fn refuses(&self, transaction: &Transaction) -> bool {
        transaction.changes().iter().any(|change| {
            let delta = Document::decode(&change.delta).expect("a valid delta");
            let key = (change.collection.to_string(), change.id.clone());
            let mut after = self.documents.get(&key).cloned().unwrap_or_default();
            after.join(&delta);
            after.to_object().get("forbidden").is_some()
        })
    }

    fn apply(&mut self, transaction: &Transaction) -> Vec<Changed> {
        let lsn = self.log.len() as u64 + 1;
        let mut changes = Vec::new();
        for change in transaction.changes() {
            let key = (change.collection.to_string(), change.id.clone());
            let before = self.documents.get(&key).cloned();
            let mut after = before.clone().unwrap_or_default();
            after.join_encoded(&change.delta).expect("a valid delta");
            self.documents.insert(key.clone(), after.clone());
            self.changed_at.insert(key.clone(), lsn);
            changes.push(Changed { key, delta: change.delta.clone(), before, after });
        }
        changes
    }
}

async fn accept(listener: TcpListener, inner: Arc<Inner>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, Arc::clone(&inner)));
    }
}

async fn serve(stream: TcpStream, inner: Arc<Inner>) {
    let mut cut = inner.cut.subscribe();
    cut.mark_unchanged();
    if !*inner.open.borrow() {
        return;
    }
    let mut first = [0_u8; 32];
    if !matches!(stream.peek(&mut first).await, Ok(32)) {
        return;
    }
    tokio::select! {
        () = async {
            if String::from_utf8_lossy(&first).contains(" /an-app/api/") {
                inner.blobs.serve(stream).await;
            } else if first.starts_with(b"POST") {
                login(stream, &inner).await;
            } else {
                session(stream, &inner).await;
            }
        } => {}
        _changed = cut.changed() => {}
    }
}

/// `POST /an-app/auth/login` or `refresh`: the token is the site.
async fn login(mut stream: TcpStream, inner: &Inner) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).expect("text");
    let bearer = head.split_once("earer ").and_then(|(_, rest)| rest.lines().next()).unwrap_or_default();
    inner.logins.fetch_add(1, Ordering::SeqCst);
    let body = head
        .to_ascii_lowercase()
        .split_once("content-length: ")
        .map_or(0, |(_, rest)| rest.lines().next().unwrap_or_default().parse::<usize>().expect("a length"));
    let mut body = vec![0_u8; body];
    if stream.read_exact(&mut body).await.is_err() {
        return;
    }
    let previous = String::from_utf8(body).expect("text");
    let previous = previous.split("token-").nth(1).and_then(|rest| rest.split('"').next().map(str::to_owned));
    let shown = bearer.strip_prefix("refresh-").and_then(|rest| rest.rsplit_once('-'));
    if let Some((_, number)) = shown {
        inner.refreshed.lock().expect("not poisoned").push(number.parse().expect("a number"));
    }
    let site = match bearer.strip_prefix("token-").or(shown.map(|shown| shown.0)).or(previous.as_deref()) {
        Some(site) => site.parse().expect("a site"),
        None => SiteId::new(inner.sites.fetch_add(1, Ordering::SeqCst)),
    };
    let refused = shown.is_some() && inner.refuses_refresh.load(Ordering::SeqCst);
    let (status, body) = if bearer == "wrong" || refused {
        (401, r#"{"error":{"code":"unauthenticated","message":"the API key is not known"}}"#.to_owned())
    } else {
        let expires = inner.expires.load(Ordering::SeqCst);
        let number = inner.logins.load(Ordering::SeqCst);
        let refresh = format!(r#""refresh_token":"refresh-{site}-{number}""#);
        (200, format!(r#"{{"site":"{site}","access_token":"token-{site}","expires_at":{expires},{refresh}}}"#))
    };
    let length = body.len();
    let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    let _gone = stream.write_all(answer.as_bytes()).await;
}

struct Session<'i> {
    inner: &'i Inner,
    socket: Socket,
    session: GatewaySession,
    plans: BTreeMap<u32, SelectPlan>,
    /// The log up to here was sent to live subscriptions.
    sent: u64,
}

/// The connection is to be cut.
struct Over;

#[allow(clippy::result_large_err, reason = "tungstenite's callback")]
async fn session(stream: TcpStream, inner: &Inner) {
    let choose = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        response.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().expect("a header"));
        Ok(response)
    };
    let Ok(socket) = tokio_tungstenite::accept_hdr_async(stream, choose).await else { return };
    let limits = pb::Limits {
        max_frame_bytes: 1 << 24,
        max_transaction_bytes: 1 << 23,
        max_pushes_in_flight: 64,
        max_push_bytes_in_flight: 1 << 24,
        max_subscriptions: 100,
        max_clock_ahead_ms: 300_000,
        idle_timeout_ms: 60_000,
    };
    let session = GatewaySession::new(limits);
    let mut session = Session { inner, socket, session, plans: BTreeMap::new(), sent: 0 };
    let _over = session.run().await;
}

impl Session<'_> {
    async fn run(&mut self) -> Result<(), Over> {
        let mut head = self.inner.head.subscribe();
        loop {
            tokio::select! {
                frame = self.socket.next() => {
                    let Some(Ok(message)) = frame else { return Err(Over) };
                    let Message::Binary(frame) = message else { continue };
                    let max = self.session.max_frame_bytes();
                    let effects = match decode_peer_frame(frame, max) {
                        Ok(framed) => self.session.receive(framed.message),
                        Err(error) => self.session.malformed(&error),
                    };
                    self.effects(effects).await?;
                }
                _changed = head.changed() => self.tail().await?,
            }
            self.session.validate().expect("the gateway's session is sound");
        }
    }

    async fn effects(&mut self, effects: Vec<GatewayEffect>) -> Result<(), Over> {
        for effect in effects {
            match effect {
                GatewayEffect::Send(message) => self.send(&message).await?,
                GatewayEffect::Close(close) => {
                    self.send(&close.into()).await?;
                    let _gone = self.socket.close(None).await;
                    return Err(Over);
                }
                GatewayEffect::Admit(hello) => {
                    let effects = self.admit(&hello);
                    Box::pin(self.effects(effects)).await?;
                }
                GatewayEffect::Append(transactions) => self.append(&transactions).await?,
                GatewayEffect::Subscribe(subscribe) => self.subscribe(subscribe).await?,
                GatewayEffect::Unsubscribe(id) => drop(self.plans.remove(&id)),
                GatewayEffect::Resume | GatewayEffect::Held(_) | GatewayEffect::Renew(_) => {}
            }
        }
        Ok(())
    }

    async fn send(&mut self, message: &pb::GatewayMessage) -> Result<(), Over> {
        let framed = encode_frame(message, self.session.compression());
        if matches!(message.message, Some(pb::FromGateway::Changes(_) | pb::FromGateway::Left(_))) {
            self.session.spend(framed.bytes);
        }
        self.socket.send(Message::Binary(framed.message)).await.map_err(|_| Over)
    }

    fn admit(&mut self, hello: &pb::Hello) -> Vec<GatewayEffect> {
        let site = SiteId::new(hello.site);
        if hello.access_token != format!("token-{site}") {
            return self.session.close(pb::Close::new(pb::CloseCode::CloseUnauthenticated, "not a token"));
        }
        let state = self.inner.lock();
        self.sent = state.log.len() as u64;
        let rejected = state.rejected.get(&site).into_iter().flatten().filter(|(seq, _)| *seq > hello.acknowledged_seq);
        let rejected = rejected.map(|(seq, keys)| state.rejection(*seq, keys, pb::RejectCode::RejectForbidden));
        let admission = Admission {
            session: "a session".to_owned(),
            last_seq: state.last_seq.get(&site).copied().unwrap_or(0),
            rejected: rejected.collect(),
            head: Lsn::new(self.sent, 0),
            compress: true,
            ..Admission::default()
        };
        drop(state);
        self.session.admitted(admission)
    }

    async fn append(&mut self, transactions: &[pb::PushedTransaction]) -> Result<(), Over> {
        let site = self.session.site();
        for transaction in transactions {
            let (lsn, outcome) = self.inner.lock().append(site, transaction);
            self.inner.head.send_modify(|head| *head = lsn.max(*head));
            let effects = match outcome {
                Ok(()) => self.session.accepted(transaction.seq, Lsn::new(lsn, 0)),
                Err(rejected) => {
                    // The states in it are as of now: what came before them must have been sent.
                    self.tail().await?;
                    self.session.rejected(rejected, Lsn::new(lsn, 0))
                }
            };
            Box::pin(self.effects(effects)).await?;
        }
        Ok(())
    }

    /// Sends the log's news to the live subscriptions.
    async fn tail(&mut self) -> Result<(), Over> {
        if !self.session.is_open() {
            return Ok(());
        }
        let (transactions, through) = {
            let state = self.inner.lock();
            let from = usize::try_from(self.sent).expect("small");
            let news = state.log.iter().enumerate().skip(from);
            let transactions: Vec<_> = news.map(|(at, entry)| self.matched(at as u64 + 1, entry)).collect();
            (transactions, state.log.len() as u64)
        };
        if through == self.sent {
            return Ok(());
        }
        self.sent = through;
        let transactions = transactions.into_iter().flatten().collect();
        let through = Lsn::new(through, 0);
        self.session.advanced(through);
        self.send(&pb::Changes { transactions, through: Some(through.into()), page: None }.into()).await
    }

    fn matched(&self, lsn: u64, entry: &Entry) -> Option<pb::Transaction> {
        let live = |id: u32| matches!(self.session.subscription(id), Some(SubscriptionPhase::Live(since)) if since.version < lsn);
        let mut of = pb::Transaction {
            lsn: Some(Lsn::new(lsn, 0).into()),
            site: entry.site.get(),
            seq: entry.seq,
            ..pb::Transaction::default()
        };
        for Changed { key: (collection, id), delta, before, after } in &entry.changes {
            let plans =
                || self.plans.iter().filter(|(name, plan)| live(**name) && plan.collection().as_str() == collection);
            let had: BTreeSet<u32> = plans()
                .filter(|(_, plan)| before.as_ref().is_some_and(|before| plan.matches(id, before)))
                .map(|(name, _)| *name)
                .collect();
            let has: BTreeSet<u32> =
                plans().filter(|(_, plan)| plan.matches(id, after)).map(|(name, _)| *name).collect();
            let left: Vec<u32> = had.difference(&has).copied().collect();
            let key: bytes::Bytes = id.as_key().to_vec().into();
            // The peer wrote to a document that it does not have as it is: it is told what became of it.
            let unseen = entry.site == self.session.site() && before.is_some();
            if has.is_empty() && had.is_empty() && unseen {
                let content = Some(pb::change::Content::State(after.encode().into()));
                of.changes.push(pb::Change {
                    collection: collection.clone(),
                    id: key.clone(),
                    content,
                    ..pb::Change::default()
                });
            }
            if !has.is_empty() {
                let content = match (had.is_empty(), entry.site == self.session.site()) {
                    (true, _) => Some(pb::change::Content::State(after.encode().into())),
                    (false, true) => None,
                    (false, false) => Some(pb::change::Content::Delta(delta.clone())),
                };
                let subscriptions = has.into_iter().collect();
                of.changes.push(pb::Change { collection: collection.clone(), id: key.clone(), content, subscriptions });
            }
            if !left.is_empty() {
                of.clock = of.clock.max(after.max_hlc().to_bits());
                of.left.push(pb::LeftDocument { collection: collection.clone(), id: key, subscriptions: left });
            }
        }
        (!of.changes.is_empty() || !of.left.is_empty()).then_some(of)
    }

    async fn subscribe(&mut self, subscribe: pb::Subscribe) -> Result<(), Over> {
        // What is live must not fall behind what this subscription is about to see.
        self.tail().await?;
        let id = subscribe.id;
        let plan = match plan_of(&subscribe) {
            Ok(plan) => plan,
            Err(message) => {
                let effects = self.session.refused(id, pb::RefuseCode::RefuseInvalidQuery, message);
                return Box::pin(self.effects(effects)).await;
            }
        };
        let effects = self.session.subscribed(id, 1);
        Box::pin(self.effects(effects)).await?;
        let mut resume = subscribe.resume.map(|resume| (resume.lsn.map_or(0, |lsn| lsn.version), resume.position));
        let history_from = self.inner.lock().history_from;
        if resume.as_ref().is_some_and(|(lsn, _)| *lsn < history_from) {
            resume = None;
            let effects = self.session.resync(&[id]);
            Box::pin(self.effects(effects)).await?;
        }
        let reached = subscribe.reached.into_iter();
        let reached: Vec<_> = reached.map(|one| (one.position, one.lsn.map_or(0, |lsn| lsn.version))).collect();
        let (pages, snapshot) = self.pages(id, &plan, resume, &reached);
        for page in pages {
            self.inner.paged.fetch_add(page.states.len() as u64, Ordering::SeqCst);
            self.send(&pb::Changes { page: Some(page), ..pb::Changes::default() }.into()).await?;
            if self.inner.cut_after_pages.load(Ordering::SeqCst) > 0
                && self.inner.cut_after_pages.fetch_sub(1, Ordering::SeqCst) == 1
            {
                if self.inner.closes_then.swap(false, Ordering::SeqCst) {
                    self.inner.open.send_replace(false);
                }
                return Err(Over);
            }
        }
        self.plans.insert(id, plan);
        let effects = self.session.caught_up(&[id], snapshot);
        Box::pin(self.effects(effects)).await
    }

    /// What a subscription that comes from `resume`, and is ahead of it in places, has to hear, two documents a page.
    fn pages(
        &self,
        id: u32,
        plan: &SelectPlan,
        resume: Option<(u64, bytes::Bytes)>,
        reached: &[(bytes::Bytes, u64)],
    ) -> (Vec<pb::Page>, Lsn) {
        let state = self.inner.lock();
        let snapshot = Lsn::new(state.log.len() as u64, 0);
        let page = || pb::Page {
            subscriptions: vec![id],
            collection: plan.collection().to_string(),
            snapshot: Some(snapshot.into()),
            ..pb::Page::default()
        };
        let knows_reached = self.inner.knows_reached.load(Ordering::SeqCst);
        let reached = if resume.is_some() && knows_reached { reached } else { &[] };
        let (cursor, position) = resume.unwrap_or_default();
        let first_sync = cursor == 0 || !position.is_empty();
        let (mut caught, mut pages, mut next) = (page(), Vec::new(), page());
        for ((collection, document_id), document) in &state.documents {
            if collection != plan.collection().as_str() {
                continue;
            }
            let key: bytes::Bytes = document_id.as_key().to_vec().into();
            let lsn = state.changed_at.get(&(collection.clone(), document_id.clone())).copied().unwrap_or(0);
            let ahead = reached.iter().find(|(position, _)| document_id.as_key() <= position.as_ref());
            let since = ahead.map_or(cursor, |(_, lsn)| *lsn);
            let is_new = ahead.is_none() && first_sync && document_id.as_key() > position.as_ref();
            let matches = plan.matches(document_id, document);
            let found = || pb::State {
                id: key.clone(),
                state: document.encode().into(),
                lsn: Some(Lsn::new(lsn, 0).into()),
                subscriptions: Vec::new(),
            };
            if is_new && matches {
                next.states.push(found());
                if next.states.len() == 2 {
                    next.position = key;
                    pages.push(std::mem::replace(&mut next, page()));
                }
            } else if !is_new && lsn > since && matches {
                caught.states.push(found());
                if caught.states.len() == 2 {
                    caught.reached = if knows_reached { key } else { bytes::Bytes::new() };
                    pages.push(std::mem::replace(&mut caught, page()));
                }
            } else if !is_new && lsn > since {
                caught.clock = caught.clock.max(document.max_hlc().to_bits());
                caught.left.push(pb::LeftKey { id: key, ..pb::LeftKey::default() });
            }
        }
        // What has changed comes before what is new.
        let at = pages.iter().position(|page: &pb::Page| !page.position.is_empty()).unwrap_or(pages.len());
        pages.insert(at, caught);
        pages.push(next);
        (pages, snapshot)
    }
}

fn plan_of(subscribe: &pb::Subscribe) -> Result<SelectPlan, String> {
    if subscribe.query.contains("refuse me") {
        return Err("the test refuses it".to_owned());
    }
    let arguments = match subscribe.arguments_json.as_str() {
        "" => bigpeer_peer::Params::new(),
        json => match Value::from_json(serde_json::from_str(json).map_err(|error| error.to_string())?) {
            Ok(Value::Object(arguments)) => arguments,
            other => return Err(format!("{other:?}")),
        },
    };
    let statement = bigpeer_dql::parse(&subscribe.query).map_err(|error| error.to_string())?;
    let plan = statement.bind(&arguments, Mode::default(), &RandomIds).map_err(|error| error.to_string())?;
    if let Plan::Select(plan) = plan { Ok(plan) } else { Err(format!("{plan:?}")) }
}
