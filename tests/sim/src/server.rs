//! The server's process: gateway, login and compactor over a log and an object store, composed as the binary does it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bigpeer_auth::{AuthContext, AuthSettings};
use bigpeer_chassis::{Catalogue, Shutdown};
use bigpeer_compactor::{Compactor, CompactorSettings};
use bigpeer_gateway::{GatewayContext, GatewaySettings};
use bigpeer_log::TransactionLog;
use bigpeer_tables::{DocumentStore, Stores, TablesSettings};
use bigpeer_types::{AppId, Clock, IdGenerator};
use object_store::ObjectStore;

use crate::network::Listener;

/// What a server is made of.
#[derive(Clone)]
pub struct Parts {
    pub app: AppId,
    pub log: Arc<dyn TransactionLog>,
    pub objects: Arc<dyn ObjectStore>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdGenerator>,
    pub shutdown: Shutdown,
    /// Whether this one flushes and compacts.
    pub compacts: bool,
}

/// What can be asked of a running one.
#[derive(Clone)]
pub struct Serving {
    pub catalogue: Arc<Catalogue>,
    pub store: Arc<DocumentStore>,
}

/// Where it is put when it runs.
pub type Slot = Arc<Mutex<Option<Serving>>>;

struct OneStore(Arc<DocumentStore>);

impl Stores for OneStore {
    fn store(&self, app: &AppId) -> Option<Arc<DocumentStore>> {
        (app == self.0.app()).then(|| Arc::clone(&self.0))
    }
}

/// Short times, so that little simulated time sees much.
fn gateway_settings() -> GatewaySettings {
    GatewaySettings {
        handshake_timeout: Duration::from_secs(3),
        idle_timeout: Duration::from_secs(6),
        cursor_interval: Duration::from_millis(500),
        max_clock_ahead_ms: 60_000,
        drain_timeout: Duration::from_secs(1),
        // Often too small, so that sessions are put back to catching up.
        queue_bytes: 4 << 10,
        ..GatewaySettings::default()
    }
}

/// Serves until the process is dropped.
pub async fn serve(parts: Parts, listener: Listener, slot: Slot) {
    let catalogue = loop {
        match Catalogue::open(Arc::clone(&parts.log), Arc::clone(&parts.clock), Arc::clone(&parts.ids)).await {
            Ok(catalogue) => break catalogue,
            Err(error) => tracing::info!(%error, "no catalogue yet"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let settings = TablesSettings {
        orphan_age: Duration::from_secs(10),
        clock: Arc::clone(&parts.clock),
        ids: Arc::clone(&parts.ids),
        ..TablesSettings::default()
    };
    let store = loop {
        let (objects, log) = (Arc::clone(&parts.objects), Arc::clone(&parts.log));
        match DocumentStore::open(parts.app.clone(), objects, log, settings.clone()).await {
            Ok(store) => break store,
            Err(error) => tracing::info!(%error, "no store yet"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    if parts.compacts {
        tokio::spawn(compact(parts.clone(), Arc::clone(&store)));
    }
    let context = GatewayContext {
        catalogue: Arc::clone(&catalogue),
        log: Arc::clone(&parts.log),
        stores: Arc::new(OneStore(Arc::clone(&store))),
        clock: Arc::clone(&parts.clock),
        ids: Arc::clone(&parts.ids),
        settings: gateway_settings(),
        shutdown: parts.shutdown.clone(),
        system: Default::default(),
    };
    let settings = AuthSettings { token_ttl_secs: 90, ..AuthSettings::default() };
    let auth = AuthContext::new(Arc::clone(&catalogue), settings);
    let router = bigpeer_gateway::router(context).merge(bigpeer_auth::router(auth));
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(Serving { catalogue, store });
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "serving ended");
    }
}

/// Flushes, compacts and trims, again and again.
async fn compact(parts: Parts, store: Arc<DocumentStore>) {
    let settings = CompactorSettings {
        flush_after: Duration::from_secs(1),
        tidy_after: Duration::from_secs(3),
        keep_tail: Duration::from_secs(3),
        keep_tail_flushes: 2,
        clock: Arc::clone(&parts.clock),
        ..CompactorSettings::default()
    };
    loop {
        match Compactor::open(Arc::clone(&store), Arc::clone(&parts.log), settings.clone()).await {
            Ok(compactor) => {
                if let Err(error) = compactor.run(std::future::pending()).await {
                    tracing::info!(%error, "the compactor ended");
                }
            }
            Err(error) => tracing::info!(%error, "no compactor yet"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
