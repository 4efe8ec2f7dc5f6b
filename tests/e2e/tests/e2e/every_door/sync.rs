//! A peer, frame by frame: what it ever receives, and what it holds when it is quiet. It is told of changes of rules before they
//! are made: until its session says that it begins anew, what either allows may come; from then on only what the new ones allow.

use std::collections::{BTreeMap, BTreeSet};

use bigpeer_crdt::{DocId, Document};
use bigpeer_protocol::pb::{self, FromGateway};
use bigpeer_protocol::{SUBPROTOCOL, decode_gateway_frame, encode_frame, fingerprint};
use bigpeer_types::Lsn;
use bigpeer_types::limits::MAX_FRAME_BYTES;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use serde_json::{Value as Json, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::caller::{Caller, View};
use super::history::{History, id_of, ids, mark_of, marks};
use super::rules::{Chance, Condition};
use super::world::{App, World};

/// Nothing takes so long; a peer that hangs fails.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// What a subscription has stored.
#[derive(Clone, Debug, Default)]
struct Subscription {
    /// In this session; none while it is refused, or there is no session.
    id: Option<u32>,
    /// Up to where it has everything; none before it has caught up for the first time.
    cursor: Option<Lsn>,
    scope: u64,
    live: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Docs,
    /// One document that changes when everything before it has been sent.
    Beat,
}

pub(super) struct Peer {
    socket: Option<WebSocketStream<MaybeTlsStream<TcpStream>>>,
    docs: Subscription,
    beat: Subscription,
    next_id: u32,
    /// Of the subscription to the documents; none: all.
    condition: Option<Condition>,
    held: BTreeMap<(String, Bytes), Document>,
    /// Documents that are dropped unless the first sync that is under way names them.
    stale: BTreeSet<Bytes>,
    /// What was said to be held, in its order.
    told: Vec<Bytes>,
    tells_held: bool,
    /// What the session may go by: the rules, and those before while it has not begun anew.
    in_force: Vec<View>,
    awaits_resync: bool,
    case: String,
}

impl Peer {
    pub(super) fn new(case: &str, condition: Option<Condition>) -> Self {
        Self {
            socket: None,
            docs: Subscription::default(),
            beat: Subscription::default(),
            next_id: 1,
            condition,
            held: BTreeMap::new(),
            stale: BTreeSet::new(),
            told: Vec::new(),
            tells_held: false,
            in_force: Vec::new(),
            awaits_resync: false,
            case: case.to_owned(),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.socket.is_some()
    }

    /// Gone, whatever was under way.
    pub(super) fn disconnect(&mut self) {
        self.socket = None;
    }

    pub(super) async fn connect(&mut self, world: &World, app: &App, caller: &Caller, chance: &Chance) {
        let url = format!("{}/{}/sync", world.server.url().replace("http://", "ws://"), app.id);
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
        let (socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        self.socket = Some(socket);
        self.tells_held = chance.one_in(2);
        (self.next_id, self.awaits_resync, self.in_force) = (1, false, vec![caller.view.clone()]);
        self.send(pb::Hello {
            versions: vec![1],
            site: caller.site,
            access_token: caller.access_token.clone(),
            credit: 1 << 40,
            tells_held: self.tells_held,
            ..Default::default()
        })
        .await;
        let (welcome, _) = self.next().await;
        assert!(matches!(welcome, FromGateway::Welcome(_)), "{}: no Welcome: {welcome:?}", self.case);
        self.subscribe(Of::Docs).await;
        self.subscribe(Of::Beat).await;
    }

    async fn send(&mut self, message: impl Into<pb::PeerMessage>) {
        let frame = encode_frame(&message.into(), pb::Compression::None).message;
        self.socket.as_mut().unwrap().send(Message::Binary(frame)).await.unwrap();
    }

    /// The next message, and its frame, which is not compressed.
    async fn next(&mut self) -> (FromGateway, Bytes) {
        loop {
            let message = self.socket.as_mut().unwrap().next().await;
            match message.expect("the connection is open").expect("a frame") {
                Message::Binary(frame) => {
                    return (decode_gateway_frame(frame.clone(), MAX_FRAME_BYTES).unwrap().message, frame);
                }
                Message::Ping(_) | Message::Pong(_) => {}
                other @ (Message::Text(_) | Message::Close(_) | Message::Frame(_)) => {
                    panic!("{}: not a frame: {other:?}", self.case)
                }
            }
        }
    }

    fn of(&mut self, of: Of) -> &mut Subscription {
        match of {
            Of::Docs => &mut self.docs,
            Of::Beat => &mut self.beat,
        }
    }

    async fn subscribe(&mut self, of: Of) {
        let id = self.next_id;
        self.next_id += 1;
        let query = match (of, &self.condition) {
            (Of::Beat, _) => "SELECT * FROM beat".to_owned(),
            (Of::Docs, None) => "SELECT * FROM docs".to_owned(),
            (Of::Docs, Some(condition)) => format!("SELECT * FROM docs WHERE {}", condition.text()),
        };
        let stored = self.of(of);
        (stored.id, stored.live) = (Some(id), false);
        let scope = stored.scope;
        let resume = stored.cursor.map(|cursor| pb::Resume { lsn: Some(cursor.into()), scope, ..Default::default() });
        if resume.is_none() && of == Of::Docs {
            self.begin_anew();
        }
        self.send(pb::Subscribe { id, query, resume, ..Default::default() }).await;
    }

    fn begin_anew(&mut self) {
        self.docs.cursor = None;
        self.stale = self.held.keys().filter(|(collection, _)| collection == "docs").map(|key| key.1.clone()).collect();
    }

    /// Says that other rules are about to be put in force.
    pub(super) fn expect_rules(&mut self, view: &View) {
        if !self.is_connected() {
            return;
        }
        let before = self.in_force.last().cloned();
        let changes = before.as_ref().is_some_and(|before| before.scope() != view.scope());
        // A subscription that was refused is not begun anew by the session.
        if changes && self.docs.id.is_some() {
            self.awaits_resync = true;
            self.in_force.push(view.clone());
        } else {
            self.in_force = vec![view.clone()];
        }
    }

    /// Shows a new access token in the running session.
    pub(super) async fn renew(&mut self, token: &str) {
        if self.is_connected() {
            self.send(pb::Renew { access_token: token.to_owned() }).await;
        }
    }

    /// Takes messages until everything up to `target` has been sent, by the newest rules.
    pub(super) async fn settle(&mut self, history: &History, target: Lsn) {
        let settled = tokio::time::timeout(PATIENCE, self.take_until(history, target)).await;
        assert!(settled.is_ok(), "{}: not settled at {target}: {self}", self.case);
    }

    async fn take_until(&mut self, history: &History, target: Lsn) {
        let mut tries = 0;
        loop {
            let newest = self.in_force.last().unwrap().clone();
            // Rules that allow something may be in force a moment after the one that refused.
            if self.docs.id.is_none() && !newest.is_nothing() {
                assert!(tries < 10_000, "{}: refused again and again", self.case);
                tries += 1;
                self.subscribe(Of::Docs).await;
            }
            let reached = |of: &Subscription| of.live && of.cursor.is_some_and(|cursor| cursor >= target);
            let has_docs = if newest.is_nothing() { self.docs.id.is_none() } else { reached(&self.docs) };
            if !self.awaits_resync && has_docs && reached(&self.beat) {
                return;
            }
            let (message, frame) = self.next().await;
            self.judge(history, &message, &frame);
            self.take(message).await;
        }
    }

    /// Nothing comes that no rule in force allows: no version of a document, no id.
    fn judge(&self, history: &History, message: &FromGateway, frame: &[u8]) {
        let may: BTreeSet<String> = self.in_force.iter().flat_map(|view| view.marks(history)).collect();
        let came = marks(frame);
        let rules = || self.in_force.iter().map(View::describe).collect::<Vec<_>>().join("\n  or ");
        assert!(
            came.is_subset(&may),
            "{}: the peer received {:?}, which it may not read\n  {}\n  {message:?}",
            self.case,
            came.difference(&may).map(|mark| history.versions.get(mark)).collect::<Vec<_>>(),
            rules()
        );
        let seen = history.versions.values().filter(|version| self.in_force.iter().any(|view| view.allows(version)));
        let mut may: BTreeSet<String> = seen.map(id_of).collect();
        may.extend(self.held.keys().filter(|key| key.0 == "docs").map(|key| name(&key.1)));
        let named = ids(frame);
        assert!(
            named.is_subset(&may),
            "{}: the peer is told of {:?}, which it may not read\n  {}\n  {message:?}",
            self.case,
            named.difference(&may),
            rules()
        );
    }

    async fn take(&mut self, message: FromGateway) {
        match message {
            FromGateway::Subscribed(subscribed) => {
                if let Some(of) = self.which(subscribed.id) {
                    self.of(of).scope = subscribed.scope;
                }
            }
            FromGateway::Refused(refused) => match self.which(refused.id) {
                Some(Of::Docs) => {
                    self.docs = Subscription::default();
                    self.held.retain(|key, _| key.0 != "docs");
                    self.stale.clear();
                    self.settled_rules();
                }
                Some(Of::Beat) => panic!("{}: {refused:?}", self.case),
                None => {}
            },
            FromGateway::Changes(changes) => self.apply(changes),
            FromGateway::Left(left) => left.documents.iter().for_each(|left| self.leave(&left.collection, &left.id)),
            FromGateway::CaughtUp(caught_up) => {
                for id in caught_up.subscriptions {
                    let Some(of) = self.which(id) else { continue };
                    let stored = self.of(of);
                    (stored.live, stored.cursor) = (true, Some(caught_up.lsn.unwrap().into()));
                    if of == Of::Docs {
                        for key in std::mem::take(&mut self.stale) {
                            self.held.remove(&("docs".to_owned(), key));
                        }
                    }
                }
            }
            FromGateway::Resync(resync) => {
                for id in resync.subscriptions {
                    let Some(of) = self.which(id) else { continue };
                    self.of(of).live = false;
                    if of == Of::Docs {
                        self.begin_anew();
                        self.settled_rules();
                    }
                }
            }
            FromGateway::AskHeld(ask) => self.tell(ask).await,
            FromGateway::Close(close) => panic!("{}: {close:?}", self.case),
            other @ (FromGateway::Welcome(_) | FromGateway::Accepted(_) | FromGateway::Rejected(_)) => {
                panic!("{}: {other:?}", self.case)
            }
        }
    }

    /// From here on the newest rules hold alone.
    fn settled_rules(&mut self) {
        if self.awaits_resync {
            self.awaits_resync = false;
            self.in_force = self.in_force.split_off(self.in_force.len() - 1);
        }
    }

    fn which(&self, id: u32) -> Option<Of> {
        [(Of::Docs, self.docs.id), (Of::Beat, self.beat.id)]
            .into_iter()
            .find(|(_, of)| *of == Some(id))
            .map(|(of, _)| of)
    }

    fn apply(&mut self, changes: pb::Changes) {
        if let Some(page) = changes.page {
            for id in page.subscriptions {
                if let Some(of) = self.which(id) {
                    self.of(of).live = false;
                }
            }
            for state in page.states {
                self.join(&page.collection, &state.id, &state.state);
            }
            for left in page.left {
                let id = left.held.map_or(left.id, |place| self.told[place as usize].clone());
                self.leave(&page.collection, &id);
            }
        }
        for transaction in changes.transactions {
            for change in transaction.changes {
                match change.content {
                    Some(pb::change::Content::Delta(delta)) => {
                        let is_held = self.held.contains_key(&(change.collection.clone(), change.id.clone()));
                        assert!(
                            is_held || Document::decode(&delta).unwrap().is_visible(),
                            "{}: a delta to nothing",
                            self.case
                        );
                        self.join(&change.collection, &change.id, &delta);
                    }
                    Some(pb::change::Content::State(state)) => self.join(&change.collection, &change.id, &state),
                    None => {}
                }
            }
            for left in transaction.left {
                self.leave(&left.collection, &left.id);
            }
        }
        if let Some(through) = changes.through {
            for of in [Of::Docs, Of::Beat] {
                let stored = self.of(of);
                if stored.live {
                    stored.cursor = Some(through.into());
                }
            }
        }
    }

    fn join(&mut self, collection: &str, id: &Bytes, state: &[u8]) {
        self.held.entry((collection.to_owned(), id.clone())).or_default().join_encoded(state).unwrap();
        if collection == "docs" {
            self.stale.remove(id);
        }
    }

    fn leave(&mut self, collection: &str, id: &Bytes) {
        self.held.remove(&(collection.to_owned(), id.clone()));
    }

    async fn tell(&mut self, ask: pb::AskHeld) {
        assert!(self.tells_held, "{}: a question to a peer that answers none", self.case);
        self.told = self.held.keys().filter(|key| key.0 == ask.collection).map(|key| key.1.clone()).collect();
        let count = self.told.len() as u32;
        let fingerprints = self.told.iter().map(|key| fingerprint(ask.salt, key)).collect();
        let fingerprints = if count > ask.at_most { Vec::new() } else { fingerprints };
        self.send(pb::Held { ask: ask.ask, fingerprints, count }).await;
    }

    /// What it shows is what the model allows now, all of it and nothing else.
    pub(super) fn holds_what_it_may(&self, history: &History) {
        let view = self.in_force.last().unwrap();
        let mut shown = BTreeMap::new();
        for ((_, key), document) in self.held.iter().filter(|(key, document)| key.0 == "docs" && document.is_visible())
        {
            let mut json = document.to_object().to_json();
            json["_id"] = json!(name(key));
            shown.insert(name(key), json);
        }
        let matches = |json: &Json| self.condition.as_ref().is_none_or(|condition| condition.holds(json, &json!({})));
        let seen = view.of(&history.documents).into_iter().filter(|stored| matches(&stored.json));
        let expected: BTreeMap<String, Json> = seen.map(|stored| (id_of(&stored.json), stored.json.clone())).collect();
        let brief = |of: &BTreeMap<String, Json>| of.values().map(mark_of).collect::<Vec<_>>();
        assert!(
            shown == expected,
            "{}: the peer, whose condition is {:?}, holds {:?}, and not {:?}\n  {}\n  {shown:?}\n  {expected:?}",
            self.case,
            self.condition.as_ref().map(Condition::text),
            brief(&shown),
            brief(&expected),
            view.describe()
        );
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}, {:?}, awaits anew: {}", self.docs, self.beat, self.awaits_resync)
    }
}

/// A document's id.
fn name(key: &[u8]) -> String {
    DocId::from_key(key).unwrap().to_value().as_str().unwrap().to_owned()
}
