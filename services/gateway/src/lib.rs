//! Sync sessions over WebSocket: `GET /{app}/sync`. The rules of a session are in `bigpeer_protocol::GatewaySession`; this
//! crate carries out its effects.
//!
//! # Consistency
//! A push is acknowledged when the log has it durably. Documents go out in the order of the log: live ones from the store's
//! feed, through one [`hub`] per app that matches each change against all sessions; older ones from a snapshot that stands
//! exactly where the hub stands, so that nothing falls between the two. A session delivers what is live up to a snapshot
//! before it delivers pages of the snapshot: what a peer holds of its live subscriptions is always one cut of the log.
//!
//! # Crash safety
//! All state here can be lost at any moment. What was acknowledged is in the log; cursors are the peers' own; rejections
//! are documents of a system collection, written under the rejected transaction's own number ([`rejections`]).
//!
//! # Memory
//! A session's queue of live changes is bounded: when it is full the session is put back to catching up from its cursor. So
//! are the queues of all sessions together ([`budget`]). Pages are made when the peer has credit and the socket takes them, one
//! at a time. A session that is idle holds no buffers: docs/decisions/idle-sessions-hold-no-buffers.md says what it costs.

mod appender;
mod apps;
mod budget;
mod check;
mod devices;
mod hub;
mod metrics;
mod rejections;
mod rules;
mod session;
mod settings;
mod socket;
mod websocket;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use bigpeer_chassis::{Catalogue, Shutdown, SystemCollections};
use bigpeer_log::TransactionLog;
use bigpeer_tables::Stores;
use bigpeer_types::{Clock, IdGenerator};

pub use settings::GatewaySettings;

/// What the route needs.
#[derive(Clone)]
pub struct GatewayContext {
    /// Who may do what.
    pub catalogue: Arc<Catalogue>,
    /// Where pushes go.
    pub log: Arc<dyn TransactionLog>,
    /// Where documents come from.
    pub stores: Arc<dyn Stores>,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where names of sessions come from.
    pub ids: Arc<dyn IdGenerator>,
    /// Limits.
    pub settings: GatewaySettings,
    /// Ends all sessions when it is cancelled.
    pub shutdown: Shutdown,
    /// Where the connected devices are shown, as `__devices`.
    pub system: SystemCollections,
}

impl std::fmt::Debug for GatewayContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GatewayContext").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// `GET /{app}/sync`. As long as the router lives, its sessions are the system collection `__devices`.
pub fn router(context: GatewayContext) -> Router {
    let system = context.system.clone();
    let gateway = Arc::new(socket::Gateway::new(context));
    system.register(devices::COLLECTION, Arc::new(devices::Devices::new(&gateway)));
    Router::new().route("/{app}/sync", get(socket::upgrade)).with_state(gateway)
}
