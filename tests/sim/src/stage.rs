//! `Stage`: the log and the object store under the servers, and their deaths.

use std::future::Future;
use std::sync::Arc;

use bigpeer_chassis::{ApiKeySpec, Catalogue, Name};
use bigpeer_crdt::{DocId, Document, Editor, Object, ObjectMode, TransactionBuilder, Value};
use bigpeer_harness::{Checker, Faults, FaultyLog, FaultyObjects, InlineLog, Treachery, Violation};
use bigpeer_log::embedded::disk::Disk;
use bigpeer_log::embedded::sim_disk::{Fault, SimDisk, Unsynced};
use bigpeer_log::{AppendEntry, EmbeddedLog, EmbeddedSettings, MemoryLog, TransactionLog};
use bigpeer_types::{AppId, Clock, Hlc, HlcClock, IdGenerator, SeededIds};
use futures::FutureExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tokio::runtime::{Builder, Runtime};

use crate::clock::SimClock;
use crate::grants::{Grant, collection_name};

/// How the log's process dies.
#[derive(Clone, Copy, Debug)]
pub enum LogDeath {
    /// The process alone: the disk keeps what was written.
    Kill,
    /// The power: the disk keeps what was synced, and some of the rest.
    Power(u64),
}

/// What outlives servers.
pub struct Stage {
    /// The log itself, without faults.
    pub log: Arc<dyn TransactionLog>,
    pub objects: Arc<InMemory>,
    pub log_faults: Arc<Faults>,
    pub object_faults: Arc<Faults>,
    /// Where the log is, if it dies with its server.
    disk: Option<SimDisk>,
    is_dead: bool,
    /// The embedded log reads on threads of a runtime, when what it reads is not in memory.
    outside: Runtime,
    clock: Arc<SimClock>,
    ids: Arc<SeededIds>,
    /// How the log lies to servers, to see that the checkers notice.
    pub treachery: Option<Treachery>,
}

impl Stage {
    pub fn new(embedded: bool, seed: u64, clock: Arc<SimClock>) -> Self {
        let disk = embedded.then(|| SimDisk::new(seed));
        let ids = Arc::new(SeededIds::new(seed ^ 0x10c));
        let log: Arc<dyn TransactionLog> = match &disk {
            Some(disk) => open(disk, &clock, &ids),
            None => Arc::new(MemoryLog::new()),
        };
        Self {
            log,
            objects: Arc::new(InMemory::new()),
            log_faults: Arc::new(Faults::new(seed ^ 0x109)),
            object_faults: Arc::new(Faults::new(seed ^ 0x0b1)),
            disk,
            is_dead: false,
            outside: Builder::new_current_thread().build().expect("a runtime"),
            clock,
            ids,
            treachery: None,
        }
    }

    /// What the log without faults answers, asked from outside of every process.
    pub fn at_once<T>(&self, asked: impl Future<Output = Result<T, Violation>>) -> Result<T, Violation> {
        let _context = self.outside.enter();
        asked.now_or_never().unwrap_or_else(|| Err(Checker::GoesOn.broken("the log does not answer at once")))
    }

    /// Whether the log dies with its server.
    pub fn is_embedded(&self) -> bool {
        self.disk.is_some()
    }

    /// The log as servers see it.
    pub fn faulty_log(&self) -> Arc<dyn TransactionLog> {
        let log = FaultyLog::new(Arc::clone(&self.log), Arc::clone(&self.log_faults));
        Arc::new(log.treacherous(self.treachery))
    }

    /// The object store as servers see it.
    pub fn faulty_objects(&self) -> Arc<dyn ObjectStore> {
        Arc::new(FaultyObjects::new(Arc::clone(&self.objects) as _, Arc::clone(&self.object_faults)))
    }

    /// Waits until the log's thread has nothing to do: what it does after its last answer is done, too.
    fn settle(&self, app: &AppId) {
        // The answer does not matter, only that it came after everything else.
        let _answered = self.log.last_seq(app, bigpeer_types::SiteId::new(1)).now_or_never();
    }

    /// The disk loses its power some operations from now.
    pub fn doom(&self, app: &AppId, operations: u64) {
        self.settle(app);
        if let Some(disk) = &self.disk {
            disk.fault_at(disk.operations() + operations, Fault::PowerLoss);
        }
    }

    /// The process with the log in it dies. Call it before the process's tasks are dropped, and [`Self::revive`] after.
    pub fn die(&mut self, app: &AppId, death: LogDeath) {
        self.settle(app);
        if let Some(disk) = &self.disk {
            self.is_dead = true;
            self.disk = Some(match death {
                LogDeath::Kill => disk.after_kill(),
                LogDeath::Power(seed) => disk.after_power_loss(Unsynced::Some(seed)),
            });
        }
    }

    /// Opens the log again, if it has died.
    pub fn revive(&mut self) {
        if let Some(disk) = self.disk.as_ref().filter(|_| self.is_dead) {
            self.log = open(disk, &self.clock, &self.ids);
            self.is_dead = false;
        }
    }

    /// Makes an app with an API key for each grant, and the counters. Answers the app and the keys' secrets.
    pub async fn furnish(&self, grants: &[Grant]) -> (AppId, Vec<String>) {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let ids = Arc::clone(&self.ids) as Arc<dyn IdGenerator>;
        let catalogue = Catalogue::open(Arc::clone(&self.log), Arc::clone(&clock), ids).await.expect("a catalogue");
        let tenant: Name = "sim".parse().expect("a good name");
        catalogue.create_tenant(&tenant).await.expect("a tenant");
        let app = catalogue.create_app(&tenant, &tenant).await.expect("an app").id;
        let mut secrets = Vec::new();
        for (number, grant) in grants.iter().enumerate() {
            let spec = ApiKeySpec { permissions: grant.permissions(), expires_at_ms: None, ..Default::default() };
            let (_, secret) = catalogue.put_api_key(&app, &key_name(number), spec).await.expect("a key");
            secrets.push(secret.expect("a new key").expose().to_owned());
        }
        let site = catalogue.allocate_site(&app).await.expect("a site");
        let mut hlc = HlcClock::new(site, Hlc::ZERO, clock);
        let mut transaction = TransactionBuilder::new();
        for number in 0..3 {
            let id = DocId::from_value(&Value::String(format!("c{number}").into())).expect("a good id");
            let nothing = Document::new();
            let mut editor = Editor::new(&nothing, &mut hlc);
            let fields: Object = [("is", Value::String("a counter".into()))].into_iter().collect();
            editor.insert(&fields, ObjectMode::Map).expect("a document");
            transaction.change(&collection_name("counts"), &id, &editor.finish().expect("a change"));
        }
        let payload = transaction.finish().expect("a transaction");
        let entry = AppendEntry { site, seq: 1, writes: Vec::new(), unchanged: Vec::new(), payload };
        self.log.append(&app, vec![entry]).await.expect("counters");
        (app, secrets)
    }
}

/// The name of a peer's API key.
pub fn key_name(number: usize) -> Name {
    format!("key-{number}").parse().expect("a good name")
}

fn open(disk: &SimDisk, clock: &Arc<SimClock>, ids: &Arc<SeededIds>) -> Arc<dyn TransactionLog> {
    let settings = EmbeddedSettings {
        segment_bytes: 128 << 10,
        tail_bytes: 1 << 20,
        clock: Arc::clone(clock) as _,
        ids: Arc::clone(ids) as _,
        ..EmbeddedSettings::default()
    };
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let log = EmbeddedLog::open_on(&disk, settings).expect("the log opens again");
    Arc::new(InlineLog::new(Arc::new(log)))
}
