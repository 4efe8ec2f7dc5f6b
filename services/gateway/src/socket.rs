//! The HTTP side: turns a request into a WebSocket, and hands it to a session.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bigpeer_chassis::{ApiError, ErrorCode, app_of};
use bigpeer_protocol::SUBPROTOCOL;
use bigpeer_types::limits::MAX_FRAME_BYTES;
use tokio::sync::Semaphore;

use crate::apps::Apps;
use crate::{GatewayContext, metrics, session};

/// Bytes that are gathered before the socket is written to.
const WRITE_BUFFER_BYTES: usize = 16 << 10;
/// Bytes read at once: sessions are many and mostly idle.
const READ_BUFFER_BYTES: usize = 4 << 10;

/// What all sessions of the process share.
pub(crate) struct Gateway {
    pub(crate) context: GatewayContext,
    pub(crate) apps: Apps,
    /// Hellos that are answered at once.
    pub(crate) admissions: Semaphore,
    /// Catch-ups that read at once.
    pub(crate) turns: Arc<Semaphore>,
    slots: Arc<Semaphore>,
    sessions: AtomicU64,
}

impl Gateway {
    pub(crate) fn new(context: GatewayContext) -> Self {
        let semaphore = |permits: usize| Semaphore::new(permits.clamp(1, Semaphore::MAX_PERMITS));
        let settings = &context.settings;
        Self {
            admissions: semaphore(settings.max_admissions),
            turns: Arc::new(semaphore(settings.max_catch_ups)),
            slots: Arc::new(semaphore(settings.max_sessions)),
            apps: Apps::default(),
            sessions: AtomicU64::new(0),
            context,
        }
    }
}

/// `GET /{app}/sync`. Who asks is not known before the Hello; that there is such an app is answered there, too.
pub(crate) async fn upgrade(
    State(gateway): State<Arc<Gateway>>,
    Path(app): Path<String>,
    socket: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let app = app_of(&app)?;
    let socket = socket.map_err(|error| {
        ApiError::new(ErrorCode::BadRequest, format!("this is a WebSocket, subprotocol {SUBPROTOCOL}: {error}"))
    })?;
    let socket = socket.protocols([SUBPROTOCOL]);
    if socket.selected_protocol().is_none() {
        return Err(ApiError::new(ErrorCode::BadRequest, format!("ask for the subprotocol {SUBPROTOCOL}")));
    }
    if gateway.context.shutdown.is_cancelled() {
        return Err(ApiError::new(ErrorCode::Unavailable, "the gateway is shutting down; connect again"));
    }
    let Ok(slot) = Arc::clone(&gateway.slots).try_acquire_owned() else {
        metrics::turned_away();
        return Err(ApiError::new(ErrorCode::Unavailable, "too many sessions; connect again later"));
    };
    let number = gateway.sessions.fetch_add(1, Ordering::Relaxed);
    let socket = socket
        .max_message_size(MAX_FRAME_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES);
    Ok(socket
        .on_upgrade(move |socket| async move {
            session::run(gateway, app, number, socket).await;
            drop(slot);
        })
        .into_response())
}
