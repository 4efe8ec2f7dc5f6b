//! `World`: all hosts of one seed. It moves time, lets the hosts run one after the other, and judges.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bigpeer_chassis::{ApiKeySpec, Shutdown};
use bigpeer_crdt::{DocId, Document};
use bigpeer_harness::{Checker, Held, Place, Truth, Violation};
use bigpeer_harness::{check_counters, check_dead, check_log, check_outcomes, check_store};
use bigpeer_peer::Peer;
use bigpeer_protocol::pb::{FromGateway, change::Content};
use bigpeer_tables::Scan;
use bigpeer_types::{AppId, SeededIds};
use futures::StreamExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::carrier::Carrier;
use crate::client::{self, Verdict, lock};
use crate::clock::{SimClock, Time};
use crate::grants::{Grant, collection_name};
use crate::network::{Death, Host, Network};
use crate::node::Node;
use crate::record::{Committed, Record};
use crate::server::{self, Slot};
use crate::stage::{LogDeath, Stage, key_name};
use crate::tap::Tap;
use crate::trace::Trace;

/// A server and its process.
pub struct Server {
    pub host: Host,
    pub clock: Arc<SimClock>,
    pub slot: Slot,
    pub shutdown: Shutdown,
    pub node: Option<Node>,
    /// When it comes back.
    pub back_at: u64,
}

/// A peer and its process.
pub struct Client {
    pub host: Host,
    pub parts: client::Parts,
    pub grant: Grant,
    pub node: Option<Node>,
    pub back_at: u64,
}

/// Everything of one seed.
pub struct World {
    pub chance: StdRng,
    pub time: Time,
    pub trace: Trace,
    pub network: Network,
    tap: Tap,
    pub verdict: Verdict,
    pub truth: Arc<Mutex<Truth>>,
    pub stage: Stage,
    pub app: AppId,
    pub servers: Vec<Server>,
    pub clients: Vec<Client>,
    pub works: Arc<AtomicBool>,
    _stores: tempfile::TempDir,
}

/// How a world is made.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub clients: usize,
    pub servers: usize,
    /// The log is the embedded one on a simulated disk, and dies with its server.
    pub embedded: bool,
}

impl Plan {
    /// What a seed decides.
    pub fn of(seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed ^ 0x91a9);
        let embedded = chance.random_ratio(1, 2);
        // A log in memory can have several servers over it, as one of a cluster has.
        let servers = match seed % 8 {
            3 if !embedded => 2,
            6 if !embedded => 3,
            _ => 1,
        };
        Self { seed, clients: chance.random_range(3..=6), servers, embedded }
    }
}

const QUERIES: [&str; 7] = [
    "SELECT * FROM items",
    "SELECT * FROM items WHERE grp = 1",
    "SELECT * FROM items WHERE grp = 1 OR grp = 2",
    "SELECT * FROM items WHERE realm = 'a'",
    "SELECT * FROM items WHERE realm IN ('a', 'b') AND grp = 3",
    "SELECT * FROM items WHERE note IS NOT MISSING",
    "SELECT * FROM items WHERE grp > 2",
];

impl World {
    pub fn new(plan: Plan) -> Self {
        let seed = plan.seed;
        let mut chance = StdRng::seed_from_u64(seed);
        let (time, trace, tap) = (Time::default(), Trace::new(), Tap::default());
        let network = Network::new(seed ^ 0x2e7, trace.clone(), tap.clone());
        let stage = Stage::new(plan.embedded, seed, SimClock::new(&time));
        let grants: Vec<Grant> = (0..plan.clients)
            .map(|_| if chance.random_ratio(1, 2) { Grant(0) } else { Grant(chance.random_range(0..Grant::COUNT)) })
            .collect();
        let (app, secrets) = Node::start(0, seed).ask(stage.furnish(&grants));
        let servers: Vec<Server> = (0..plan.servers)
            .map(|number| Server {
                host: number as Host,
                clock: SimClock::new(&time),
                slot: Slot::default(),
                shutdown: Shutdown::new(),
                node: None,
                back_at: 0,
            })
            .collect();
        // In memory: what a peer syncs costs nothing there.
        let memory = std::path::Path::new("/dev/shm");
        let stores = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let stores = stores.expect("a directory for the peers' stores");
        let (truth, verdict) = (Arc::new(Mutex::new(Truth::default())), Verdict::default());
        let works = Arc::new(AtomicBool::new(true));
        let mut clients = Vec::new();
        for (number, (grant, api_key)) in grants.into_iter().zip(secrets).enumerate() {
            let host = 100 + number as Host;
            let ids = Arc::new(SeededIds::new(seed ^ (u64::from(host) << 32)));
            let mut queries: Vec<String> =
                ["counts", "pairs", "graves"].iter().map(|collection| format!("SELECT * FROM {collection}")).collect();
            for _ in 0..chance.random_range(1..=2) {
                queries.push(QUERIES[chance.random_range(0..QUERIES.len())].to_owned());
            }
            let carrier = Carrier {
                network: network.clone(),
                host,
                servers: servers.iter().map(|server| server.host).collect(),
                chance: Arc::new(SeededIds::new(seed ^ (u64::from(host) << 16))),
            };
            let parts = client::Parts {
                app: app.clone(),
                api_key,
                dir: stores.path().join(format!("peer-{number}")),
                clock: SimClock::new(&time),
                ids,
                carrier: Arc::new(carrier),
                queries,
                record: Arc::new(Mutex::new(Record::new(format!("peer-{number}"), grant))),
                truth: Arc::clone(&truth),
                verdict: verdict.clone(),
                trace: trace.clone(),
                time: time.clone(),
                works: Arc::clone(&works),
                slot: Arc::default(),
                pause_ms: chance.random_range(100..800),
            };
            clients.push(Client { host, parts, grant, node: None, back_at: 0 });
        }
        Self { chance, time, trace, network, tap, verdict, truth, stage, app, servers, clients, works, _stores: stores }
    }

    /// Starts a server's process.
    pub fn start_server(&mut self, which: usize) {
        if self.stage.is_embedded() {
            self.stage.revive();
            let truth = lock(&self.truth);
            let checked = self.stage.at_once(check_log(&truth, &*self.stage.log, &self.app));
            self.verdict.note(checked);
        }
        let (now, seed) = (self.time.now(), self.chance.random());
        let server = &mut self.servers[which];
        let node = Node::start(now, seed);
        server.shutdown = Shutdown::new();
        let parts = server::Parts {
            app: self.app.clone(),
            log: self.stage.faulty_log(),
            objects: self.stage.faulty_objects(),
            clock: Arc::clone(&server.clock) as _,
            ids: Arc::new(SeededIds::new(self.chance.random())),
            shutdown: server.shutdown.clone(),
            compacts: which == 0,
        };
        node.spawn(server::serve(parts, self.network.listen(server.host), Arc::clone(&server.slot)));
        server.node = Some(node);
        self.trace.event(now, format_args!("server {which} starts"));
    }

    /// A server's process dies.
    pub fn stop_server(&mut self, which: usize, death: Death, log: LogDeath) {
        self.trace.event(self.time.now(), format_args!("server {which} dies: {death:?} {log:?}"));
        let server = &mut self.servers[which];
        self.network.down(server.host, death);
        self.stage.die(&self.app, log);
        lock(&server.slot).take();
        server.node = None;
    }

    /// Starts a peer's process.
    pub fn start_client(&mut self, which: usize) {
        let (now, seed) = (self.time.now(), self.chance.random());
        let client = &mut self.clients[which];
        let node = Node::start(now, seed);
        node.spawn(client.parts.clone().run());
        client.node = Some(node);
        self.trace.event(now, format_args!("client {which} starts"));
    }

    /// A peer's process dies.
    pub fn stop_client(&mut self, which: usize, death: Death) {
        self.trace.event(self.time.now(), format_args!("client {which} dies: {death:?}"));
        let client = &mut self.clients[which];
        self.network.down(client.host, death);
        lock(&client.parts.slot).take();
        client.node = None;
    }

    /// Gives a peer's key other permissions, through a server that runs; answers whether one did.
    pub fn change_grant(&mut self, which: usize, grant: Grant) -> bool {
        let Some(server) = self.servers.iter().find(|server| server.node.is_some()) else { return false };
        let Some(serving) = lock(&server.slot).clone() else { return false };
        let client = &mut self.clients[which];
        {
            let mut record = lock(&client.parts.record);
            record.grants.push(grant);
            record.ever_granted.push(grant);
        }
        client.grant = grant;
        self.trace.event(self.time.now(), format_args!("client {which} is granted {grant:?}"));
        let app = self.app.clone();
        if let Some(node) = &server.node {
            node.spawn(async move {
                let spec =
                    ApiKeySpec { permissions: grant.permissions(), expires_at_ms: None, ..Default::default() };
                while serving.catalogue.put_api_key(&app, &key_name(which), spec.clone()).await.is_err() {
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            });
        }
        true
    }

    /// Says again what everybody is granted: a server may have died while it was told.
    pub fn grant_all(&mut self) {
        for which in 0..self.clients.len() {
            let grant = self.clients[which].grant;
            self.change_grant(which, grant);
        }
    }

    /// One step: what is due arrives, everybody runs until then, and what was seen is judged.
    pub fn step(&mut self) {
        let now = self.time.now() + self.chance.random_range(1..=12);
        self.time.set(now);
        self.network.deliver(now);
        for which in 0..self.servers.len() {
            if self.servers[which].node.is_none() && self.servers[which].back_at <= now {
                self.start_server(which);
            }
        }
        for which in 0..self.clients.len() {
            if self.clients[which].node.is_none() && self.clients[which].back_at <= now {
                self.start_client(which);
            }
        }
        let servers = self.servers.iter().filter_map(|server| server.node.as_ref());
        let clients = self.clients.iter().filter_map(|client| client.node.as_ref());
        let mut nodes: Vec<&Node> = servers.chain(clients).collect();
        nodes.shuffle(&mut self.chance);
        for node in nodes {
            node.step(now);
        }
        let followed = {
            let mut truth = lock(&self.truth);
            let before = truth.entries().len();
            let followed = self.stage.at_once(truth.follow(&*self.stage.log, &self.app));
            for entry in &truth.entries()[before..] {
                let event = format_args!("log {} {}/{} {}", entry.lsn, entry.site, entry.seq, entry.is_rejection);
                self.trace.event(now, event);
            }
            followed
        };
        self.verdict.note(followed);
        let heard = self.overhear();
        self.verdict.note(heard);
    }

    /// Checker 5, on the wire: no message names or shows a document that its reader may never have read.
    fn overhear(&self) -> Result<(), Violation> {
        let truth = lock(&self.truth);
        for (host, message) in self.tap.take() {
            let Some(client) = self.clients.iter().find(|client| client.host == host) else { continue };
            let record = lock(&client.parts.record);
            self.trace.event(self.time.now(), format_args!("{} is told {message:?}", record.name));
            let mut named: Vec<(&str, &[u8], Option<&[u8]>)> = Vec::new();
            match &message {
                FromGateway::Changes(changes) => {
                    if let Some(page) = &changes.page {
                        let states = page.states.iter();
                        named.extend(states.map(|state| (&*page.collection, &*state.id, Some(&*state.state))));
                        named.extend(page.left.iter().map(|left| (&*page.collection, &*left.id, None)));
                    }
                    for transaction in &changes.transactions {
                        for change in &transaction.changes {
                            let state = match &change.content {
                                Some(Content::State(state)) => Some(&**state),
                                Some(Content::Delta(_)) | None => None,
                            };
                            named.push((&change.collection, &change.id, state));
                        }
                        named.extend(transaction.left.iter().map(|left| (&*left.collection, &*left.id, None)));
                    }
                }
                FromGateway::Left(left) => {
                    named.extend(left.documents.iter().map(|left| (&*left.collection, &*left.id, None)));
                }
                FromGateway::Rejected(rejected) => {
                    let restore = rejected.restore.iter();
                    named.extend(restore.map(|one| (&*one.collection, &*one.id, one.state.as_deref())));
                }
                _ => {}
            }
            for (collection, id, state) in named {
                let Ok(id) = DocId::from_key(id) else { continue };
                let place = (collection_name(collection), id);
                let shown = state.and_then(|state| Document::decode(state).ok()).filter(Document::is_visible);
                let allows = |document: &Document| {
                    record.ever_granted.iter().any(|grant| grant.readable().allows(&place.0, &place.1, document))
                };
                let is_fine = match &shown {
                    Some(document) => allows(document),
                    None if record.ever_granted.iter().any(|grant| grant.is_everything(collection)) => true,
                    None => record.wrote(&place) || truth.versions(&place).any(|document| allows(document)),
                };
                if !is_fine {
                    let (id, shown) = (place.1.to_value().to_json(), shown.map(|document| document.to_object()));
                    let message: String = format!("{message:?}").chars().take(300).collect();
                    let what = format!("{} was sent {collection}/{id}, {shown:?}, in {message}", record.name);
                    return Err(Checker::Permitted.broken(what));
                }
            }
        }
        Ok(())
    }

    /// Who has not, and what.
    pub fn unquiet(&self) -> Option<String> {
        let head = lock(&self.truth).head();
        for client in &self.clients {
            let name = lock(&client.parts.record).name.clone();
            let Some(peer) = lock(&client.parts.slot).clone() else { return Some(format!("{name} does not run")) };
            let status = peer.status();
            let is_done = status.is_connected()
                && status.unpushed == 0
                && status.subscriptions.len() == distinct(&client.parts.queries)
                && status.subscriptions.values().all(|subscription| {
                    subscription.refused.is_some()
                        || subscription.caught_up && subscription.cursor.is_some_and(|cursor| cursor >= head)
                });
            if !is_done {
                let stores: Vec<_> = self
                    .servers
                    .iter()
                    .filter_map(|server| lock(&server.slot).clone())
                    .map(|serving| (serving.store.applied().to_string(), serving.store.failed()))
                    .collect();
                return Some(format!("{name}, with the log's head at {head}, the stores at {stores:?}: {status:?}"));
            }
        }
        None
    }

    /// Has every peer end its session and begin a new one.
    pub fn reconnect_all(&self) {
        for client in &self.clients {
            let (Some(node), Some(peer)) = (&client.node, lock(&client.parts.slot).clone()) else { continue };
            let parts = client.parts.clone();
            node.spawn(async move { reconnect(&parts, &peer).await });
        }
    }

    /// Checker 2: what peers were told about their transactions stands in the log.
    pub fn check_outcomes(&self) -> Result<(), Violation> {
        let truth = lock(&self.truth);
        for client in &self.clients {
            let mut record = lock(&client.parts.record);
            if let Some(peer) = &*lock(&client.parts.slot) {
                record.told(&peer.status());
            }
            let Some(site) = record.site else { continue };
            let rejected = record.rejected.keys().copied().collect();
            check_outcomes(&truth, &record.name, site, record.acknowledged, &rejected)?;
        }
        Ok(())
    }

    /// Everything that must hold when it is quiet.
    pub fn judge(&mut self) -> Result<(), Violation> {
        self.check_outcomes()?;
        let truth = lock(&self.truth);
        let mut increments = Vec::new();
        let mut dead = Vec::new();
        let mut held: Vec<(String, Held)> = Vec::new();
        for client in &self.clients {
            let (Some(node), Some(peer)) = (&client.node, lock(&client.parts.slot).clone()) else { continue };
            let seen = node.ask(client::hold(&peer));
            let mut record = lock(&client.parts.record);
            let (status, seen) = seen.map_err(|error| Checker::GoesOn.broken(format!("{}: {error}", record.name)))?;
            record.grants = vec![client.grant];
            held.push((record.name.clone(), seen.clone()));
            record.look(&truth, &status, seen, true)?;
            let Some(site) = record.site else { continue };
            for op in &record.ops {
                let Committed::As(seq) = op.committed else { continue };
                increments.extend(op.increment.clone().map(|(place, by)| (site, seq, place, by)));
                dead.extend(op.grave.clone().map(|place| (site, seq, place)));
            }
        }
        check_counters(&truth, "n", &increments)?;
        let held: Vec<(&str, &Held)> = held.iter().map(|(name, held)| (name.as_str(), held)).collect();
        check_dead(&truth, &dead, &held)?;
        for (number, server) in self.servers.iter().enumerate() {
            let (Some(node), Some(serving)) = (&server.node, lock(&server.slot).clone()) else { continue };
            let stored = node.ask(stored(&serving)).map_err(|error| Checker::GoesOn.broken(error))?;
            check_store(&truth, &format!("server {number}"), &stored)?;
        }
        self.stage.at_once(check_log(&truth, &*self.stage.log, &self.app))
    }

    /// The app stops, or goes on, on every peer.
    pub fn set_works(&self, works: bool) {
        self.works.store(works, Ordering::SeqCst);
    }
}

fn distinct(queries: &[String]) -> usize {
    queries.iter().collect::<std::collections::BTreeSet<_>>().len()
}

/// Ends the session, and begins another.
pub async fn reconnect(parts: &client::Parts, peer: &Peer) {
    peer.disconnect().await;
    while peer.connect(parts.settings()).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
}

/// Every document of a server's store.
async fn stored(serving: &server::Serving) -> Result<BTreeMap<Place, Document>, String> {
    let snapshot = serving.store.snapshot();
    let mut all = BTreeMap::new();
    for collection in snapshot.collections() {
        let mut scan = snapshot.scan(&collection, Scan { deleted: true, ..Scan::default() });
        while let Some(found) = scan.next().await {
            for document in found.map_err(|error| error.to_string())? {
                let state = Document::decode(&document.state).map_err(|error| error.to_string())?;
                all.insert((collection.clone(), document.id), state);
            }
        }
    }
    Ok(all)
}
