//! The data API over a log in memory and an object store in memory, with one app and a key for everything. Shared by the
//! benchmark and by the example that serves it.

use std::sync::Arc;

use axum::Router;
use bigpeer_api::{ApiContext, ApiSettings, router};
use bigpeer_chassis::{ApiKeySpec, Catalogue, Name, Permissions, finish_router};
use bigpeer_log::MemoryLog;
use bigpeer_tables::{DocumentStore, Stores, TablesSettings};
use bigpeer_types::{AppId, RandomIds, SystemClock};
use object_store::memory::InMemory;

/// One app's store.
struct Only(AppId, Arc<DocumentStore>);

impl Stores for Only {
    fn store(&self, app: &AppId) -> Option<Arc<DocumentStore>> {
        (*app == self.0).then(|| Arc::clone(&self.1))
    }
}

pub(crate) struct Memory {
    pub(crate) router: Router,
    pub(crate) app: AppId,
    pub(crate) key: String,
}

impl Memory {
    pub(crate) async fn new() -> Self {
        let name = |text: &str| -> Name { text.parse().unwrap() };
        let log = Arc::new(MemoryLog::new());
        let (clock, ids) = (Arc::new(SystemClock), Arc::new(RandomIds));
        let catalogue =
            Catalogue::open(Arc::clone(&log) as _, Arc::clone(&clock) as _, Arc::clone(&ids) as _).await.unwrap();
        catalogue.create_tenant(&name("t")).await.unwrap();
        let app = catalogue.create_app(&name("t"), &name("a")).await.unwrap().id;
        let spec = ApiKeySpec { permissions: Permissions::all(), expires_at_ms: None, ..Default::default() };
        let key = catalogue.put_api_key(&app, &name("all"), spec).await.unwrap().1.unwrap().expose().to_owned();
        let objects = Arc::new(InMemory::new());
        let settings = TablesSettings::default();
        let store: Arc<DocumentStore> =
            DocumentStore::open(app.clone(), objects, Arc::clone(&log) as _, settings).await.unwrap();
        let context = ApiContext {
            catalogue,
            log,
            stores: Arc::new(Only(app.clone(), store)),
            clock: Arc::clone(&clock) as _,
            ids: Arc::clone(&ids) as _,
            columns: None,
            threads: tokio::runtime::Handle::current(),
            system: Default::default(),
            settings: ApiSettings::default(),
        };
        Self { router: finish_router(router(context), clock, ids), app, key }
    }
}
