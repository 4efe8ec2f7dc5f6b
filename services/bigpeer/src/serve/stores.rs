//! The apps that this process serves: a document store and its compaction for each app of the catalogue, opened when the
//! app appears, closed when it is deleted.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bigpeer_chassis::{Catalogue, Shutdown};
use bigpeer_compactor::{Compactor, CompactorError, CompactorSettings, Remover};
use bigpeer_log::TransactionLog;
use bigpeer_tables::{DocumentStore, Stores, TablesError, TablesSettings};
use bigpeer_types::{AppId, Lsn};
use futures::FutureExt;
use object_store::ObjectStore;
use tokio::task::JoinHandle;

use super::apps::CatalogueApps;

/// How long to wait before an app that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// One app that is served.
#[derive(Clone, Debug)]
struct Served {
    store: Arc<DocumentStore>,
    compactor: Arc<Compactor>,
    remover: Arc<Remover>,
    /// Ends the compaction.
    stop: Shutdown,
    task: Arc<tokio::sync::Mutex<JoinHandle<()>>>,
    /// The log's head when the app was opened: before that is applied, reads would be of an older time than the process
    /// before this one had acknowledged.
    ready_at: Lsn,
}

/// The apps that this process serves.
#[derive(Debug)]
pub(super) struct AppStores {
    catalogue: Arc<Catalogue>,
    log: Arc<dyn TransactionLog>,
    objects: Arc<dyn ObjectStore>,
    /// How apps are compacted, and who needs their past.
    compaction: CompactorSettings,
    served: RwLock<BTreeMap<AppId, Served>>,
    /// One app is opened at a time, once.
    opening: tokio::sync::Mutex<()>,
}

impl AppStores {
    pub(super) fn new(
        catalogue: Arc<Catalogue>,
        log: Arc<dyn TransactionLog>,
        objects: Arc<dyn ObjectStore>,
        compaction: CompactorSettings,
    ) -> Arc<Self> {
        let opening = tokio::sync::Mutex::default();
        Arc::new(Self { catalogue, log, objects, compaction, served: RwLock::default(), opening })
    }

    /// What keeps the app's objects in order, if the app is open.
    pub(super) fn compactor(&self, app: &AppId) -> Option<Arc<Compactor>> {
        self.find(app).map(|served| served.compactor)
    }

    /// What removes documents of the app, if the app is open.
    pub(super) fn remover_of(&self, app: &AppId) -> Option<Arc<Remover>> {
        self.find(app).map(|served| served.remover)
    }

    fn remover(&self, store: &Arc<DocumentStore>) -> Remover {
        let (catalogue, app) = (Arc::clone(&self.catalogue), store.app().clone());
        let new_site = move || {
            let (catalogue, app) = (Arc::clone(&catalogue), app.clone());
            async move { catalogue.allocate_site(&app).await.map_err(|error| error.to_string()) }.boxed()
        };
        let clock = Arc::clone(self.catalogue.clock());
        Remover::new(Arc::clone(store), Arc::clone(&self.log), clock, Box::new(new_site))
    }

    fn find(&self, app: &AppId) -> Option<Served> {
        self.served.read().unwrap_or_else(PoisonError::into_inner).get(app).cloned()
    }

    /// Opens the app unless it is open.
    pub(super) async fn open(&self, app: &AppId) -> Result<(), CompactorError> {
        let _one_at_a_time = self.opening.lock().await;
        // One that was deleted in the meantime is not opened again.
        if self.find(app).is_some() || self.catalogue.app(app).is_none() {
            return Ok(());
        }
        let ready_at = self.log.head(app).await.map_err(TablesError::from)?;
        let (objects, log) = (Arc::clone(&self.objects), Arc::clone(&self.log));
        let apps = Arc::new(CatalogueApps(Arc::clone(&self.catalogue)));
        let tables =
            TablesSettings { keep_for: self.compaction.keep_tail, apps: Some(apps), ..TablesSettings::default() };
        let store = DocumentStore::open(app.clone(), objects, log, tables).await?;
        let (ours, log) = (Arc::clone(&store), Arc::clone(&self.log));
        let compactor = Arc::new(Compactor::open(ours, log, self.compaction.clone()).await?);
        let remover = Arc::new(self.remover(&store));
        let (stop, work, removing) = (Shutdown::new(), Arc::clone(&compactor), Arc::clone(&remover));
        let (app_id, ended) = (app.clone(), stop.clone());
        let task = tokio::spawn(async move {
            // Writes and reads go on without it, until the overlay is full: a person must look.
            let failed = tokio::select! {
                done = work.run(ended.cancelled_owned()) => done.err(),
                error = removing.run() => Some(error),
            };
            if let Some(error) = failed {
                tracing::error!(app = %app_id, %error, "compaction has ended");
            }
        });
        let served =
            Served { store, compactor, remover, ready_at, stop, task: Arc::new(tokio::sync::Mutex::new(task)) };
        self.served.write().unwrap_or_else(PoisonError::into_inner).insert(app.clone(), served);
        Ok(())
    }

    /// Closes an app that was deleted. Requests that are under way end with it as it was.
    pub(super) async fn close(&self, app: &AppId) {
        let _one_at_a_time = self.opening.lock().await;
        let served = self.served.write().unwrap_or_else(PoisonError::into_inner).remove(app);
        if let Some(served) = served {
            end(served).await;
            tracing::info!(%app, "an app is served no more");
        }
    }

    /// Opens every app of the catalogue, now and when it appears, and closes it when it is deleted, until `shutdown`.
    pub(super) async fn follow(self: Arc<Self>, shutdown: Shutdown) {
        let mut changes = self.catalogue.changes();
        loop {
            let mut failed = false;
            let open: Vec<AppId> = self.served.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
            for app in open.iter().filter(|app| self.catalogue.app(app).is_none()) {
                self.close(app).await;
            }
            for app in self.catalogue.apps() {
                if let Err(error) = self.open(&app.id).await {
                    tracing::warn!(app = %app.id, %error, "an app cannot be opened; trying again");
                    failed = true;
                }
            }
            let wait = async {
                if failed {
                    tokio::time::sleep(RETRY).await;
                } else if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = wait => {}
            }
        }
    }

    /// Whether every app can be read as it was when the process started.
    pub(super) fn is_ready(&self) -> Result<(), String> {
        let served = self.served.read().unwrap_or_else(PoisonError::into_inner);
        for app in self.catalogue.apps() {
            let Some(served) = served.get(&app.id) else { return Err("an app is being opened".to_owned()) };
            if served.store.failed().is_some() {
                return Err("an app's tables have stopped; see the log".to_owned());
            }
            if served.store.applied() < served.ready_at {
                return Err("an app's log is being read".to_owned());
            }
        }
        Ok(())
    }

    /// Puts everything applied so far into segments, in one sorted run per collection. Answers the LSN up to which and the
    /// manifest; none when the app is not open.
    pub(super) async fn compact(&self, app: &AppId) -> Result<Option<(Lsn, u64)>, CompactorError> {
        let Some(served) = self.find(app) else { return Ok(None) };
        served.compactor.tidy().await?;
        Ok(Some((served.store.flushed(), served.store.manifest_number())))
    }

    /// Stops compaction and reading of all apps.
    pub(super) async fn stop(&self) {
        let served: Vec<Served> = {
            let mut all = self.served.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *all).into_values().collect()
        };
        for served in served {
            end(served).await;
        }
    }
}

/// Stops compaction and reading of an app.
async fn end(served: Served) {
    served.stop.cancel();
    if let Err(error) = (&mut *served.task.lock().await).await {
        tracing::error!(app = %served.store.app(), %error, "compaction did not end in order");
    }
    served.store.shutdown().await;
}

/// The flushes of so much time, at the rate of a busy app.
pub(super) fn flushes_within(time: Duration) -> usize {
    usize::try_from(time.as_secs() / 10).unwrap_or(usize::MAX).max(12)
}

impl Stores for AppStores {
    fn store(&self, app: &AppId) -> Option<Arc<DocumentStore>> {
        self.find(app).map(|served| served.store)
    }
}
