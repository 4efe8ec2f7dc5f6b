//! `Apps`: what the sessions of one app share (hub, appender, which site is connected), made with the first session and
//! dropped with the last.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bigpeer_chassis::{Account, Permissions};
use bigpeer_log::TransactionLog;
use bigpeer_tables::DocumentStore;
use bigpeer_types::{AppId, SiteId};

use crate::appender::Appender;
use crate::budget::Budget;
use crate::devices::Device;
use crate::hub::{Hub, SessionQueue};
use crate::rules::Rules;

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
    sites: Mutex<BTreeMap<SiteId, Arc<SessionQueue>>>,
    /// What each key or user may do, while a session has it: sessions with equal permissions share it.
    rules: Mutex<BTreeMap<Account, Weak<Rules>>>,
    /// The device at the other end of each session, by the session's number.
    devices: Mutex<BTreeMap<u64, Arc<Device>>>,
}

impl Apps {
    /// The app, if it has sessions.
    pub(crate) fn with_sessions(&self, app: &AppId) -> Option<Arc<App>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(app).and_then(Weak::upgrade)
    }

    /// Wakes every session.
    pub(crate) fn wake_all(&self) {
        let apps: Vec<Arc<App>> =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).values().filter_map(Weak::upgrade).collect();
        apps.iter().for_each(|app| app.sites().values().for_each(|queue| queue.notify()));
    }

    /// The app's shared part. Needs a tokio runtime.
    pub(crate) fn get(
        &self,
        store: &Arc<DocumentStore>,
        log: &Arc<dyn TransactionLog>,
        budget: &Arc<Budget>,
    ) -> Arc<App> {
        let id = store.app();
        let mut apps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(app) = apps.get(id).and_then(Weak::upgrade).filter(|app| Arc::ptr_eq(&app.store, store)) {
            return app;
        }
        let app = Arc::new(App {
            id: id.clone(),
            store: Arc::clone(store),
            hub: Hub::spawn(Arc::clone(store), Arc::clone(budget)),
            appender: Appender::spawn(id.clone(), Arc::clone(log)),
            sites: Mutex::default(),
            rules: Mutex::default(),
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

    fn sites(&self) -> MutexGuard<'_, BTreeMap<SiteId, Arc<SessionQueue>>> {
        self.sites.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that this session is the site's; an older one is told to end.
    pub(crate) fn enter(&self, session: &Arc<SessionQueue>) {
        if let Some(older) = self.sites().insert(session.site(), Arc::clone(session)) {
            older.replace();
        }
    }

    /// Whether the site has a session.
    pub(crate) fn has(&self, site: SiteId) -> bool {
        self.sites().contains_key(&site)
    }

    /// Forgets the session, unless a newer one is there.
    pub(crate) fn leave(&self, session: &SessionQueue) {
        let mut sites = self.sites();
        if sites.get(&session.site()).is_some_and(|current| current.number() == session.number()) {
            sites.remove(&session.site());
        }
    }

    /// The permissions that a key or user has, compiled; shared with other sessions of the same.
    pub(crate) fn rules(&self, account: &Account, permissions: Arc<Permissions>) -> Arc<Rules> {
        let mut all = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.get(account).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| *known.permissions() == *permissions) {
            return known;
        }
        let rules = Arc::new(Rules::new(permissions));
        all.retain(|_, rules| rules.strong_count() > 0);
        all.insert(account.clone(), Arc::downgrade(&rules));
        rules
    }
}
