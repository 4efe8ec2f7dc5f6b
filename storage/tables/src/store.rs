//! `DocumentStore`: one app, as a manifest and the overlay of what the log holds behind it. No other state.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bigpeer_log::TransactionLog;
use bigpeer_types::{AppId, CollectionName, Lsn};
use futures::StreamExt;
use object_store::ObjectStore;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use ulid::Ulid;

use crate::bases::Bases;
use crate::error::TablesError;
use crate::feed::{Feed, Published, Ring};
use crate::manifest::{CollectionSettings, Manifest, Repository};
use crate::overlay;
use crate::settings::TablesSettings;
use crate::snapshot::{Context, Snapshot, View};
use crate::version::Version;
use crate::writer::Writer;
use crate::written::Written;
use crate::{metrics, paths, tail};

/// How long applied transactions stay at hand for feeds when they have been flushed, if there is room.
const FEED_GRACE: Duration = Duration::from_secs(5);

/// Finds the store of an app; what roles are given.
pub trait Stores: Send + Sync {
    /// The store of `app`, if this process serves it.
    fn store(&self, app: &AppId) -> Option<Arc<DocumentStore>>;
}

/// One app's documents.
///
/// A task in the background reads the log's tail into the overlay, from the newest manifest on. Everybody else reads
/// snapshots.
#[derive(Debug)]
pub struct DocumentStore {
    pub(crate) shared: Arc<Shared>,
    tail: Mutex<Option<JoinHandle<()>>>,
}

/// What the tail, the writer and the readers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) app: AppId,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) log: Arc<dyn TransactionLog>,
    pub(crate) settings: TablesSettings,
    pub(crate) context: Arc<Context>,
    pub(crate) manifests: Repository,
    pub(crate) ring: Arc<Ring>,
    pub(crate) published: watch::Sender<Published>,
    /// Whoever makes a new view holds this: the tail for a batch, the writer for a new manifest.
    pub(crate) update: tokio::sync::Mutex<()>,
    /// Told when a new manifest has made room in the overlay.
    pub(crate) room: Notify,
    pub(crate) stop: watch::Sender<bool>,
    /// The state at this position is needed, and what comes after it.
    pub(crate) keep_from: Mutex<Option<Lsn>>,
    /// Every version that may still be in use.
    versions: Mutex<Vec<Weak<Version>>>,
}

impl DocumentStore {
    /// Opens an app: loads its newest manifest, and starts to replay the log behind it in the background. What is in
    /// segments is not read. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the manifest cannot be read.
    pub async fn open(
        app: AppId,
        objects: Arc<dyn ObjectStore>,
        log: Arc<dyn TransactionLog>,
        settings: TablesSettings,
    ) -> Result<Arc<Self>, TablesError> {
        let manifest =
            Repository::new(app.clone(), Arc::clone(&objects)).newest(0).await?.unwrap_or_else(Manifest::empty);
        let view = View {
            lsn: manifest.lsn,
            written: manifest.written,
            version: Arc::new(Version::new(&app, manifest, None)),
            overlays: overlay::Overlays::new(),
        };
        let shared = Shared::new(app, objects, log, settings, view);
        let task = tokio::spawn(tail::run(Arc::clone(&shared)));
        Ok(Arc::new(Self { shared, tail: Mutex::new(Some(task)) }))
    }

    /// The app.
    #[must_use]
    pub fn app(&self) -> &AppId {
        &self.shared.app
    }

    /// Stops reading the log. Snapshots stay readable; waits end with [`TablesError::Stopped`]. Nothing is flushed:
    /// what is not in segments is in the log.
    pub async fn shutdown(&self) {
        self.shared.stop.send_replace(true);
        let task = self.tail.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            // The task ends by itself; if it panicked there is nothing left to stop.
            let _ = task.await;
        }
    }

    /// Everything up to here is visible in new snapshots.
    #[must_use]
    pub fn applied(&self) -> Lsn {
        self.shared.view().lsn
    }

    /// Everything up to here is in segments, committed.
    #[must_use]
    pub fn flushed(&self) -> Lsn {
        self.shared.view().version.manifest.lsn
    }

    /// The number of the manifest in use; 0 when nothing was ever flushed.
    #[must_use]
    pub fn manifest_number(&self) -> u64 {
        self.shared.view().version.manifest.number
    }

    /// The collections that have settings, with these, as of the newest manifest known here.
    #[must_use]
    pub fn collection_settings(&self) -> BTreeMap<CollectionName, CollectionSettings> {
        let view = self.shared.view();
        let all =
            view.version.manifest.collections.iter().map(|(name, collection)| (name.clone(), collection.settings));
        all.filter(|(_, settings)| *settings != CollectionSettings::default()).collect()
    }

    /// Everything up to here reached segments at least `age` ago; zero if that is not known of anything.
    #[must_use]
    pub fn written_before(&self, age: Duration) -> Lsn {
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self.shared.view().version.manifest.moments.before(self.shared.settings.clock.now_ms(), age_ms)
    }

    /// Bytes of the overlay in memory, estimated.
    #[must_use]
    pub fn overlay_bytes(&self) -> usize {
        overlay::bytes(&self.shared.view().overlays)
    }

    /// How much was ever written to the app, and up to which LSN that is counted: exact.
    #[must_use]
    pub fn written(&self) -> (Lsn, Written) {
        let view = self.shared.view();
        (view.lsn, view.written)
    }

    /// Bytes that the app's documents take: the files of the newest manifest, and about what waits to be flushed. Attachments,
    /// and what is kept of the past, are not in it.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        let view = self.shared.view();
        view.version.bytes.saturating_add(overlay::bytes(&view.overlays) as u64)
    }

    /// Bytes of the app's attachments. Asks object storage, once for every thousand of them.
    ///
    /// # Errors
    /// When object storage fails.
    pub async fn attachment_bytes(&self) -> Result<u64, TablesError> {
        let path = paths::attachments(&self.shared.app);
        let mut objects = self.shared.objects.list(Some(&path));
        let mut bytes = 0_u64;
        while let Some(object) = objects.next().await {
            bytes = bytes.saturating_add(object.map_err(|error| TablesError::objects(&path, error))?.size);
        }
        Ok(bytes)
    }

    /// Why the store has stopped applying; none while it works. Reads of what was applied go on.
    #[must_use]
    pub fn failed(&self) -> Option<TablesError> {
        self.shared.published.borrow().failed.clone()
    }

    /// The state at [`Self::applied`].
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshot(self.shared.view())
    }

    /// Waits until everything up to `lsn` is applied. Cancel safe; put a timeout around it.
    ///
    /// # Errors
    /// When the store stops before that.
    pub async fn wait_for(&self, lsn: Lsn) -> Result<(), TablesError> {
        self.wait(|view| view.lsn >= lsn).await
    }

    /// Waits until the transaction with this id (the `version` of its LSN) is applied. Cancel safe; put a timeout around
    /// it.
    ///
    /// # Errors
    /// When the store stops before that.
    pub async fn wait_for_version(&self, version: u64) -> Result<(), TablesError> {
        self.wait(|view| view.lsn.version >= version).await
    }

    async fn wait(&self, reached: impl Fn(&View) -> bool + Send + Sync) -> Result<(), TablesError> {
        self.shared.wait(reached).await
    }

    /// Applied transactions after `after`, live. Its first call of `next` says if `after` is too long ago.
    #[must_use]
    pub fn feed(&self, after: Lsn) -> Feed {
        Feed::new(Arc::clone(&self.shared.ring), self.shared.published.subscribe(), after)
    }

    /// The writer of this app's segments and manifests. Give it one owner: a second writer of the same app, here or
    /// elsewhere, fences the first.
    ///
    /// # Errors
    /// When the newest manifest cannot be read.
    pub async fn writer(&self) -> Result<Writer, TablesError> {
        Writer::open(Arc::clone(&self.shared)).await
    }

    /// From now on the manifests from which the state at `lsn` and everything after it can be read are not collected, as long as
    /// the log behind them is there. None: only as the settings say.
    pub fn keep_from(&self, lsn: Option<Lsn>) {
        *self.shared.keep_from.lock().unwrap_or_else(PoisonError::into_inner) = lsn;
    }

    /// Looks for a newer manifest, committed by another process, and takes it up. Returns whether there was one.
    ///
    /// # Errors
    /// When manifests cannot be read.
    pub async fn refresh(&self) -> Result<bool, TablesError> {
        self.shared.refresh().await
    }
}

impl Drop for DocumentStore {
    fn drop(&mut self) {
        self.shared.stop.send_replace(true);
    }
}

impl Shared {
    /// Starts from a view; nothing follows the log yet.
    pub(crate) fn new(
        app: AppId,
        objects: Arc<dyn ObjectStore>,
        log: Arc<dyn TransactionLog>,
        settings: TablesSettings,
        view: View,
    ) -> Arc<Self> {
        let context = Context {
            app: app.clone(),
            objects: Arc::clone(&objects),
            tables: crate::table::Cache::default(),
            bases: Bases::new(settings.lookup_bytes),
        };
        let versions = Mutex::new(vec![Arc::downgrade(&view.version)]);
        Arc::new(Self {
            manifests: Repository::new(app.clone(), Arc::clone(&objects)),
            app,
            objects,
            log,
            context: Arc::new(context),
            ring: Arc::new(Ring::new(view.lsn, settings.feed_bytes)),
            published: watch::Sender::new(Published { view: Arc::new(view), failed: None }),
            update: tokio::sync::Mutex::new(()),
            room: Notify::new(),
            stop: watch::Sender::new(false),
            keep_from: Mutex::default(),
            versions,
            settings,
        })
    }

    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.published.borrow().view)
    }

    async fn wait(&self, reached: impl Fn(&View) -> bool + Send + Sync) -> Result<(), TablesError> {
        let mut published = self.published.subscribe();
        let now = published.wait_for(|now| reached(&now.view) || now.failed.is_some()).await;
        match now {
            Ok(now) if reached(&now.view) => Ok(()),
            Ok(now) => Err(now.failed.clone().unwrap_or(TablesError::Stopped)),
            Err(_) => Err(TablesError::Stopped),
        }
    }

    /// Waits until what the log holds now is applied.
    pub(crate) async fn catch_up(&self) -> Result<(), TablesError> {
        let head = self.log.head(&self.app).await?;
        self.wait(|view| view.lsn >= head).await
    }

    /// A collection's settings, as of the newest manifest.
    pub(crate) fn settings_of(&self, collection: &CollectionName) -> CollectionSettings {
        self.view()
            .version
            .manifest
            .collections
            .get(collection)
            .map(|collection| collection.settings)
            .unwrap_or_default()
    }

    pub(crate) fn snapshot(&self, view: Arc<View>) -> Snapshot {
        Snapshot { context: Arc::clone(&self.context), view }
    }

    pub(crate) fn publish(&self, view: Arc<View>) {
        metrics::overlay(&self.app, overlay::bytes(&view.overlays));
        self.published.send_modify(|published| published.view = view);
    }

    pub(crate) async fn refresh(&self) -> Result<bool, TablesError> {
        let current = self.view().version.manifest.number;
        match self.manifests.newest(current + 1).await? {
            Some(manifest) => {
                self.install(manifest).await;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Segments that a snapshot in this process may read.
    pub(crate) fn pinned(&self) -> HashSet<Ulid> {
        let versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        let used = versions.iter().filter_map(Weak::upgrade);
        used.flat_map(|version| version.manifest.segments().map(|(_, meta)| meta.ulid).collect::<Vec<_>>()).collect()
    }

    /// Opens a manifest; from now on its files are kept in this process.
    pub(crate) fn open_version(&self, manifest: Manifest, like: &Version) -> Arc<Version> {
        let version = Arc::new(Version::new(&self.app, manifest, Some(like)));
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        versions.retain(|version| version.strong_count() > 0);
        versions.push(Arc::downgrade(&version));
        version
    }

    /// Takes up a newer manifest: what it holds leaves the overlay. One that is not newer changes nothing.
    pub(crate) async fn install(&self, manifest: Manifest) {
        let _update = self.update.lock().await;
        let view = self.view();
        if manifest.number <= view.version.manifest.number {
            return;
        }
        let lsn = view.lsn.max(manifest.lsn);
        let overlays = overlay::after(&view.overlays, manifest.lsn);
        let jumped = manifest.lsn > view.lsn;
        let flushed = manifest.lsn;
        // Of what is behind the manifest the view knows; of what it never applied the manifest does.
        let written = if jumped { manifest.written } else { view.written };
        let version = self.open_version(manifest, &view.version);
        self.context.tables.clear();
        if jumped {
            self.ring.jump(lsn);
        } else {
            self.ring.forget(flushed, self.settings.clock.monotonic().saturating_sub(FEED_GRACE));
        }
        self.publish(Arc::new(View { lsn, version, overlays, written }));
        self.room.notify_waiters();
    }
}
