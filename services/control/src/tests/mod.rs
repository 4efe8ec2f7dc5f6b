//! The admin API as a client meets it: the routers of all services that have a part in it, over a log in memory.

mod audit;
mod keys;
mod life;
mod matrix;
mod openapi;
mod quota;

use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request};
use bigpeer_auth::{AuthContext, AuthSettings};
use bigpeer_changefeed::{ChangefeedContext, ChangefeedSettings};
use bigpeer_chassis::{AdminScope, AdminTokenSpec, ApiKeySpec, Door, Permissions, finish_router};
use bigpeer_log::MemoryLog;
use bigpeer_tables::{DocumentStore, Stores};
use bigpeer_types::{ManualClock, RandomIds};
use serde_json::Value;
use tower::ServiceExt;

use super::*;

/// The moment at which the tests begin.
pub(crate) const NOW_MS: u64 = 1_800_000_000_000;

/// A process without stores, that notes what it is asked for.
#[derive(Debug, Default)]
pub(crate) struct Noting {
    pub(crate) opened: Mutex<Vec<AppId>>,
    pub(crate) forgotten: Mutex<Vec<AppId>>,
    /// Whether it cannot forget.
    pub(crate) fails: Mutex<bool>,
}

#[async_trait]
impl Process for Noting {
    async fn open(&self, app: &AppId) -> Result<(), ApiError> {
        self.opened.lock().unwrap().push(app.clone());
        Ok(())
    }

    async fn compact(&self, _: &AppId) -> Result<Option<(Lsn, u64)>, ApiError> {
        Ok(Some((Lsn::ZERO, 7)))
    }

    async fn stored(&self, _: &AppId) -> Result<Option<Stored>, ApiError> {
        let through = Lsn::new(9, 0);
        Ok(Some(Stored { through, transactions: 1, documents: 2, bytes: 3, document_bytes: 4, attachment_bytes: 5 }))
    }

    async fn forget(&self, app: &AppId) -> Result<(), ApiError> {
        if *self.fails.lock().unwrap() {
            return Err(ApiError::new(ErrorCode::Unavailable, "not now"));
        }
        self.forgotten.lock().unwrap().push(app.clone());
        Ok(())
    }
}

#[derive(Debug)]
struct NoStores;

impl Stores for NoStores {
    fn store(&self, _: &AppId) -> Option<Arc<DocumentStore>> {
        None
    }
}

/// Two tenants: acme with the apps flights and boats, globex with trains; and everybody who could ask.
pub(crate) struct World {
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) process: Arc<Noting>,
    pub(crate) context: ControlContext,
    router: Router,
    pub(crate) flights: AppId,
    pub(crate) boats: AppId,
    pub(crate) trains: AppId,
    pub(crate) root: String,
    pub(crate) acme: String,
    pub(crate) globex: String,
    /// Keys that open the admin API.
    pub(crate) key: String,
    pub(crate) key_of_boats: String,
    pub(crate) key_of_trains: String,
    /// A key of flights that opens everything else.
    pub(crate) data_key: String,
}

pub(crate) fn named(text: &str) -> Name {
    text.parse().unwrap()
}

/// What is said of the other services' routes.
pub(crate) fn others() -> Vec<Described> {
    let auth = bigpeer_auth::admin_routes();
    let feeds = bigpeer_changefeed::admin_routes();
    let auth = auth.iter().map(|route| route.described().clone());
    auth.chain(feeds.iter().map(|route| route.described().clone())).collect()
}

pub(crate) async fn world() -> World {
    let (log, clock) = (Arc::new(MemoryLog::new()), Arc::new(ManualClock::new(NOW_MS)));
    let catalogue = Catalogue::open(Arc::clone(&log) as _, Arc::clone(&clock) as _, Arc::new(RandomIds)).await.unwrap();
    let mut apps = Vec::new();
    for (tenant, app) in [("acme", "flights"), ("acme", "boats"), ("globex", "trains")] {
        catalogue.create_tenant(&named(tenant)).await.unwrap();
        apps.push(catalogue.create_app(&named(tenant), &named(app)).await.unwrap().id);
    }
    let [flights, boats, trains] = <[AppId; 3]>::try_from(apps).unwrap();
    let root = catalogue.create_admin(&named("root")).await.unwrap().unwrap().expose().to_owned();
    let mut tokens = Vec::new();
    for tenant in ["acme", "globex"] {
        let spec = AdminTokenSpec { scope: AdminScope::Tenant(named(tenant)), ..AdminTokenSpec::default() };
        let made = catalogue.put_admin_token(&named(&format!("{tenant}-admin")), spec, |_| true).await.unwrap();
        tokens.push(made.1.unwrap().expose().to_owned());
    }
    let mut keys = Vec::new();
    for app in [&flights, &boats, &trains] {
        let scopes = Door::ALL.into_iter().collect();
        let spec = ApiKeySpec { permissions: Permissions::all(), scopes, ..ApiKeySpec::default() };
        let made = catalogue.put_api_key(app, &named("ops"), spec).await.unwrap();
        keys.push(made.1.unwrap().expose().to_owned());
    }
    let spec = ApiKeySpec { permissions: Permissions::all(), ..ApiKeySpec::default() };
    let data_key = catalogue.put_api_key(&flights, &named("data"), spec).await.unwrap().1.unwrap().expose().to_owned();
    let process = Arc::new(Noting::default());
    let context = ControlContext {
        catalogue: Arc::clone(&catalogue),
        process: Arc::clone(&process) as _,
        others: Arc::new(others()),
    };
    let changes = ChangefeedContext::new(
        Arc::clone(&catalogue),
        Arc::clone(&log) as _,
        Arc::new(NoStores),
        (Arc::clone(&clock) as _, Arc::new(RandomIds)),
        ChangefeedSettings::default(),
        Shutdown::new(),
    );
    let auth = AuthContext::new(Arc::clone(&catalogue), AuthSettings::default());
    let all =
        router(context.clone()).merge(bigpeer_auth::admin_router(auth)).merge(bigpeer_changefeed::router(changes));
    let router = finish_router(all, Arc::clone(&clock) as _, Arc::new(RandomIds));
    let [acme, globex] = <[String; 2]>::try_from(tokens).unwrap();
    let [key, key_of_boats, key_of_trains] = <[String; 3]>::try_from(keys).unwrap();
    World {
        log,
        clock,
        catalogue,
        process,
        context,
        router,
        flights,
        boats,
        trains,
        root,
        acme,
        globex,
        key,
        key_of_boats,
        key_of_trains,
        data_key,
    }
}

impl World {
    /// Asks, and answers status, headers and body as text.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        credential: Option<&str>,
        body: &str,
    ) -> (u16, HeaderMap, String) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(credential) = credential {
            request = request.header("authorization", format!("Bearer {credential}"));
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let (parts, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let bytes = to_bytes(body, 1 << 24).await.unwrap();
        (parts.status.as_u16(), parts.headers, String::from_utf8(bytes.to_vec()).unwrap())
    }

    /// Asks, and answers status and JSON.
    pub(crate) async fn ask(&self, method: &str, path: &str, credential: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, _, text) = self.send(method, path, Some(credential), &body).await;
        (status, serde_json::from_str(&text).unwrap_or_default())
    }
}
