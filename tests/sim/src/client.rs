//! A peer's process: the real library, an app that works on it, and a look at the store after every change of it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bigpeer_crdt::{DocId, Value};
use bigpeer_harness::{Checker, Held, Truth, Violation};
use bigpeer_peer::{ConnectSettings, Params, Peer, PeerError, PeerEvent, PeerSettings, Status};
use bigpeer_types::{AppId, IdGenerator, SeededIds};
use tokio::sync::broadcast::error::RecvError;

use crate::carrier::Carrier;
use crate::clock::{SimClock, Time};
use crate::grants::{COLLECTIONS, collection_name};
use crate::record::{Committed, Record};
use crate::trace::Trace;
use crate::workload::Workload;

/// The first broken promise.
#[derive(Clone, Default)]
pub struct Verdict(Arc<Mutex<Option<Violation>>>);

impl Verdict {
    /// Notes a violation, unless there is one.
    pub fn note<T>(&self, result: Result<T, Violation>) -> Option<T> {
        match result {
            Ok(done) => Some(done),
            Err(violation) => {
                self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(violation);
                None
            }
        }
    }

    /// What was noted.
    pub fn violation(&self) -> Option<Violation> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a peer's process is started with.
#[derive(Clone)]
pub struct Parts {
    pub app: AppId,
    pub api_key: String,
    pub dir: PathBuf,
    pub clock: Arc<SimClock>,
    pub ids: Arc<SeededIds>,
    pub carrier: Arc<Carrier>,
    pub queries: Vec<String>,
    pub record: Arc<Mutex<Record>>,
    pub truth: Arc<Mutex<Truth>>,
    pub verdict: Verdict,
    pub trace: Trace,
    pub time: Time,
    /// The app works while this is so.
    pub works: Arc<std::sync::atomic::AtomicBool>,
    pub slot: Arc<Mutex<Option<Peer>>>,
    /// How long the app pauses between transactions at most, in milliseconds.
    pub pause_ms: u64,
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Parts {
    pub fn settings(&self) -> ConnectSettings {
        let mut settings = ConnectSettings::new("http://bigpeer", self.app.clone(), self.api_key.as_str());
        settings.backoff_max = Duration::from_secs(2);
        settings.connect_timeout = Duration::from_secs(3);
        settings.idle_timeout = Duration::from_secs(6);
        settings.network = Arc::clone(&self.carrier) as _;
        settings
    }

    fn event(&self, event: impl std::fmt::Display) {
        self.trace.event(self.time.now(), event);
    }

    /// Runs until the process is dropped.
    pub async fn run(self) {
        let settings = PeerSettings {
            clock: Arc::clone(&self.clock) as _,
            ids: Arc::clone(&self.ids) as _,
            ..PeerSettings::new(&self.dir)
        };
        let peer = match Peer::open(settings).await {
            Ok(peer) => peer,
            Err(error) => {
                let what = format!("{}: its store does not open: {error}", lock(&self.record).name);
                self.verdict.note::<()>(Err(Checker::NothingLost.broken(what)));
                return;
            }
        };
        let status = peer.status();
        let reopened = lock(&self.record).reopened(&lock(&self.truth), &status);
        self.verdict.note(reopened);
        *lock(&self.slot) = Some(peer.clone());
        tokio::spawn(self.clone().listen(peer.clone()));
        tokio::spawn(self.clone().watch(peer.clone()));
        for query in &self.queries {
            if let Err(error) = peer.subscribe(query, Params::new()).await {
                panic!("{query}: {error}");
            }
        }
        self.connect(&peer).await;
        self.work(&peer).await;
    }

    async fn connect(&self, peer: &Peer) {
        while let Err(error) = peer.connect(self.settings()).await {
            self.event(format_args!("cannot connect: {error}"));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Hears what the app must not miss.
    async fn listen(self, peer: Peer) {
        let mut events = peer.events();
        loop {
            match events.recv().await {
                Ok(event) => {
                    let name = lock(&self.record).name.clone();
                    self.event(format_args!("{name}: {event:?}"));
                    match event {
                        PeerEvent::WriteRejected { seq, .. } => {
                            let head = lock(&self.truth).head();
                            lock(&self.record).rejected.insert(seq, head);
                        }
                        PeerEvent::Refused { .. } => {
                            tokio::time::sleep(Duration::from_millis(500 + self.ids.next_u64() % 1000)).await;
                            self.connect(&peer).await;
                        }
                        _ => {}
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Looks at the store whenever the status has changed.
    async fn watch(self, peer: Peer) {
        let mut changes = peer.watch_status();
        loop {
            self.look(&peer).await;
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// What the peer holds and how far it is, at one moment, to the checkers.
    pub async fn look(&self, peer: &Peer) {
        let seen = hold(peer).await;
        let Ok((status, held)) = seen else { return };
        let truth = lock(&self.truth);
        let mut record = lock(&self.record);
        self.event(format_args!(
            "{} holds {} at {:?}, {} of {}",
            record.name,
            held.len(),
            status.subscriptions.values().map(|s| (s.cursor, s.caught_up)).collect::<Vec<_>>(),
            status.acknowledged,
            status.committed
        ));
        let looked = record.look(&truth, &status, held, false);
        self.verdict.note(looked);
    }

    async fn work(&self, peer: &Peer) {
        let mut graves: Vec<u64> = Vec::new();
        loop {
            tokio::time::sleep(Duration::from_millis(20 + self.ids.next_u64() % self.pause_ms)).await;
            if !self.works.load(std::sync::atomic::Ordering::SeqCst) {
                continue;
            }
            let Some(site) = peer.status().site else { continue };
            let (index, work) = {
                let mut record = lock(&self.record);
                let number = record.ops.len() as u64;
                let workload = Workload { chance: &*self.ids, site, number };
                let work = match graves.pop() {
                    Some(number) if self.ids.next_u64() % 3 == 0 => workload.unbury(number),
                    Some(other) => {
                        graves.push(other);
                        workload.next()
                    }
                    None => workload.next(),
                };
                if work.op.grave.is_none() && work.op.places.iter().any(|place| place.0.as_str() == "graves") {
                    graves.push(number);
                }
                record.ops.push(work.op.clone());
                (record.ops.len() - 1, work)
            };
            let statements = work.statements;
            let done = peer
                .transaction(move |transaction| {
                    let mut touched = 0;
                    for (statement, params) in &statements {
                        touched += transaction.execute(statement, params)?.mutated.len();
                    }
                    Ok(touched)
                })
                .await;
            self.done(index, done);
        }
    }

    fn done(&self, index: usize, done: Result<(usize, Option<u64>), PeerError>) {
        let mut record = lock(&self.record);
        self.event(format_args!("{}: {:?} is {done:?}", record.name, record.ops[index].places));
        match done {
            Ok((_, Some(seq))) => {
                record.last_seq = record.last_seq.max(seq);
                record.ops[index].committed = Committed::As(seq);
            }
            Ok((_, None)) | Err(PeerError::Dql(_)) => record.ops[index].committed = Committed::Not,
            Err(error) => panic!("{}: {error}", record.name),
        }
    }
}

/// What a peer holds and how far it is, at one moment.
pub async fn hold(peer: &Peer) -> Result<(Status, Held), PeerError> {
    // Nothing comes between the two: the transaction is done before this waits for the first time.
    let status = peer.status();
    let (held, _) = peer
        .transaction(|transaction| {
            let mut held = Held::new();
            for collection in COLLECTIONS {
                let rows = transaction.execute(&format!("SELECT * FROM {collection}"), &Params::new())?.items;
                for row in rows {
                    let Value::Object(mut object) = row else { continue };
                    let id = object.remove("_id").and_then(|id| DocId::from_value(&id).ok());
                    if let Some(id) = id {
                        held.insert((collection_name(collection), id), object);
                    }
                }
            }
            Ok(held)
        })
        .await?;
    Ok((status, held))
}
