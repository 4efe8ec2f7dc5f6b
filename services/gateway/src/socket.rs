//! The HTTP side: turns a request into a WebSocket, and hands it to a session.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once, Weak};
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use bigpeer_chassis::{ApiError, ClientAddr, ClientCertificate, ErrorCode, Shutdown, TurnLimits, Turns, app_of};
use bigpeer_protocol::SUBPROTOCOL;
use tokio::sync::Semaphore;

use crate::apps::Apps;
use crate::budget::Budget;
use crate::websocket::Upgrade;
use crate::{GatewayContext, metrics, session};

/// What all sessions of the process share.
pub(crate) struct Gateway {
    pub(crate) context: GatewayContext,
    pub(crate) apps: Apps,
    /// Hellos that are answered at once.
    pub(crate) admissions: Semaphore,
    /// Catch-ups that read at once.
    pub(crate) turns: Turns,
    /// Of what waits for all sessions.
    pub(crate) budget: Arc<Budget>,
    /// Grows when the catalogue has changed: tokens may allow something else.
    catalogue: AtomicU64,
    slots: Arc<Semaphore>,
    sessions: AtomicU64,
    /// Begins to watch what concerns all sessions.
    watch: Once,
    /// Ends that.
    gone: Shutdown,
}

impl Gateway {
    pub(crate) fn new(context: GatewayContext) -> Self {
        let semaphore = |permits: usize| Semaphore::new(permits.clamp(1, Semaphore::MAX_PERMITS));
        let settings = &context.settings;
        Self {
            admissions: semaphore(settings.max_admissions),
            turns: Turns::new(TurnLimits {
                running: settings.max_catch_ups.max(1),
                waiting: usize::MAX,
                patience: settings.idle_timeout.max(Duration::from_secs(3600)),
            }),
            budget: Budget::new(settings.max_waiting_bytes),
            catalogue: AtomicU64::new(0),
            slots: Arc::new(semaphore(settings.max_sessions)),
            apps: Apps::default(),
            sessions: AtomicU64::new(0),
            watch: Once::new(),
            gone: Shutdown::new(),
            context,
        }
    }

    /// A number that is another one when the catalogue has changed.
    pub(crate) fn catalogue(&self) -> u64 {
        self.catalogue.load(Ordering::Acquire)
    }

    /// Wakes all sessions when the catalogue changes, and when the process shuts down: one task waits for it, not each
    /// session.
    fn watch(self: &Arc<Self>) {
        self.watch.call_once(|| {
            let (gateway, mut changes) = (Arc::downgrade(self), self.context.catalogue.changes());
            let (shutdown, gone) = (self.context.shutdown.clone(), self.gone.clone());
            tokio::spawn(async move {
                let mut draining = false;
                loop {
                    let changed = tokio::select! {
                        biased;
                        () = gone.cancelled() => return,
                        () = shutdown.cancelled(), if !draining => None,
                        changed = changes.changed() => Some(changed),
                    };
                    let Some(gateway) = Weak::upgrade(&gateway) else { return };
                    match changed {
                        Some(Ok(())) => _ = gateway.catalogue.fetch_add(1, Ordering::Release),
                        Some(Err(_)) => return,
                        None => draining = true,
                    }
                    gateway.apps.wake_all();
                }
            });
        });
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

/// `GET /{app}/sync`. Who asks is not known before the Hello; that there is such an app is answered there, too.
pub(crate) async fn upgrade(
    State(gateway): State<Arc<Gateway>>,
    Path(app): Path<String>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let app = app_of(&app)?;
    let certificate = request.extensions().get::<ClientCertificate>().map(|shown| Arc::clone(&shown.0));
    if certificate.as_ref().is_some_and(|shown| shown.login.app != app) {
        return Err(ApiError::unauthorized());
    }
    let upgrade = Upgrade::of(&mut request).map_err(|missing| {
        ApiError::new(ErrorCode::BadRequest, format!("this is a WebSocket, subprotocol {SUBPROTOCOL}: {missing}"))
    })?;
    if !Upgrade::offers(request.headers(), SUBPROTOCOL) {
        return Err(ApiError::new(ErrorCode::BadRequest, format!("ask for the subprotocol {SUBPROTOCOL}")));
    }
    if gateway.context.shutdown.is_cancelled() {
        return Err(ApiError::new(ErrorCode::Unavailable, "the gateway is shutting down; connect again"));
    }
    let Ok(slot) = Arc::clone(&gateway.slots).try_acquire_owned() else {
        metrics::turned_away();
        return Err(ApiError::new(ErrorCode::Unavailable, "too many sessions; connect again later"));
    };
    gateway.watch();
    let number = gateway.sessions.fetch_add(1, Ordering::Relaxed);
    let from = request.extensions().get::<ClientAddr>().map(|from| from.0.ip());
    let answer = upgrade.answer(SUBPROTOCOL);
    tokio::spawn(async move {
        if let Some(socket) = upgrade.socket().await {
            // By itself: what has been waited for before is not kept beside it.
            Box::pin(session::run(gateway, app, number, from, certificate, socket)).await;
        }
        drop(slot);
    });
    Ok(answer)
}
