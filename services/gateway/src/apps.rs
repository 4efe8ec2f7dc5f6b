//! `Apps`: what the sessions of one app share (hub, appender, which site is connected), made with the first session and
//! dropped with the last.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bigpeer_chassis::Shutdown;
use bigpeer_log::TransactionLog;
use bigpeer_tables::DocumentStore;
use bigpeer_types::{AppId, SiteId};

use crate::appender::Appender;
use crate::devices::Device;
use crate::hub::Hub;

/// The apps that have sessions.
#[derive(Debug, Default)]
pub(crate) struct Apps(Mutex<BTreeMap<AppId, Weak<App>>>);

/// One app, as long as it has sessions.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) id: AppId,
    pub(crate) store: Arc<DocumentStore>,
    pub(crate) hub: Hub,
    pub(crate) appender: Appender,
    /// The session of each site that is connected.
    sites: Mutex<BTreeMap<SiteId, (u64, Shutdown)>>,
    /// The device at the other end of each session, by the session's number.
    devices: Mutex<BTreeMap<u64, Arc<Device>>>,
}

impl Apps {
    /// The app, if it has sessions.
    pub(crate) fn with_sessions(&self, app: &AppId) -> Option<Arc<App>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(app).and_then(Weak::upgrade)
    }

    /// The app's shared part. Needs a tokio runtime.
    pub(crate) fn get(&self, store: &Arc<DocumentStore>, log: &Arc<dyn TransactionLog>) -> Arc<App> {
        let id = store.app();
        let mut apps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(app) = apps.get(id).and_then(Weak::upgrade).filter(|app| Arc::ptr_eq(&app.store, store)) {
            return app;
        }
        let app = Arc::new(App {
            id: id.clone(),
            store: Arc::clone(store),
            hub: Hub::spawn(Arc::clone(store)),
            appender: Appender::spawn(id.clone(), Arc::clone(log)),
            sites: Mutex::default(),
            devices: Mutex::default(),
        });
        apps.retain(|_, app| app.strong_count() > 0);
        apps.insert(id.clone(), Arc::downgrade(&app));
        app
    }
}

impl App {
    fn devices(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Device>>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the device of a session until [`Self::hide`].
    pub(crate) fn show(&self, session: u64, device: &Arc<Device>) {
        self.devices().insert(session, Arc::clone(device));
    }

    pub(crate) fn hide(&self, session: u64) {
        self.devices().remove(&session);
    }

    /// The devices that are connected now.
    pub(crate) fn connected(&self) -> Vec<Arc<Device>> {
        self.devices().values().cloned().collect()
    }

    fn sites(&self) -> MutexGuard<'_, BTreeMap<SiteId, (u64, Shutdown)>> {
        self.sites.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that `session` is the site's; an older one is told to end by its token.
    pub(crate) fn enter(&self, site: SiteId, session: u64) -> Shutdown {
        let replaced = Shutdown::new();
        if let Some((_, older)) = self.sites().insert(site, (session, replaced.clone())) {
            older.cancel();
        }
        replaced
    }

    /// Forgets the session, unless a newer one is there.
    pub(crate) fn leave(&self, site: SiteId, session: u64) {
        let mut sites = self.sites();
        if sites.get(&site).is_some_and(|(current, _)| *current == session) {
            sites.remove(&site);
        }
    }
}
