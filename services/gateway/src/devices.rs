//! Connected devices: what people ask about the sessions of this process, as the system collection `__devices`.
//!
//! # Consistency
//! Soft state: a device is shown from its Welcome to the end of its session, by the process that holds the session. What
//! is shown is of one moment per device, not of one moment for all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bigpeer_chassis::{Account, Column, ColumnKind, SystemCollection};
use bigpeer_protocol::pb;
use bigpeer_types::{AppId, Lsn, SiteId};
use serde_json::{Value, json};

use crate::apps::App;
use crate::hub::{Matcher, SessionQueue};
use crate::metrics;
use crate::socket::Gateway;

/// The collection's name.
pub(crate) const COLLECTION: &str = "__devices";

/// Longest text that a device may say about itself, in characters; more is cut off.
const MAX_TEXT: usize = 128;
/// Most queries shown of one device; the number of all of them is shown, too.
const MAX_QUERIES: usize = 32;
/// Longest query shown, in characters.
const MAX_QUERY: usize = 512;

const COLUMNS: [Column; 16] = [
    Column { name: "_id", kind: ColumnKind::Text },
    Column { name: "site", kind: ColumnKind::Text },
    Column { name: "user", kind: ColumnKind::Text },
    Column { name: "device_name", kind: ColumnKind::Text },
    Column { name: "device_model", kind: ColumnKind::Text },
    Column { name: "device_system", kind: ColumnKind::Text },
    Column { name: "device_software", kind: ColumnKind::Text },
    Column { name: "connected_at", kind: ColumnKind::Integer },
    Column { name: "subscription_count", kind: ColumnKind::Integer },
    Column { name: "subscriptions", kind: ColumnKind::Json },
    Column { name: "last_lsn", kind: ColumnKind::Text },
    Column { name: "behind", kind: ColumnKind::Boolean },
    Column { name: "lag_ms", kind: ColumnKind::Integer },
    Column { name: "queued_bytes", kind: ColumnKind::Integer },
    Column { name: "received_bytes", kind: ColumnKind::Integer },
    Column { name: "sent_bytes", kind: ColumnKind::Integer },
];

/// The device at the other end of a session. The session writes, whoever asks reads.
#[derive(Debug)]
pub(crate) struct Device {
    session: String,
    site: SiteId,
    /// The API key that the peer logged in with.
    user: Account,
    about: pb::Device,
    connected_at_ms: u64,
    queue: Arc<SessionQueue>,
    received: AtomicU64,
    sent: AtomicU64,
    /// Since when there is something that the device has not been sent, in milliseconds since the epoch; 0 when there is
    /// nothing.
    behind_since_ms: AtomicU64,
    /// Up to where it was sent everything, when it was last asked.
    through: Mutex<Lsn>,
    subscriptions: Mutex<Vec<(u32, Arc<Matcher>)>>,
}

impl Device {
    pub(crate) fn new(
        session: String,
        user: Account,
        about: Option<pb::Device>,
        connected_at_ms: u64,
        queue: Arc<SessionQueue>,
    ) -> Arc<Self> {
        let about = about.unwrap_or_default();
        let about = pb::Device {
            name: shortened(&about.name, MAX_TEXT),
            model: shortened(&about.model, MAX_TEXT),
            system: shortened(&about.system, MAX_TEXT),
            software: shortened(&about.software, MAX_TEXT),
        };
        Arc::new(Self {
            session,
            site: queue.site(),
            user,
            about,
            connected_at_ms,
            queue,
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            behind_since_ms: AtomicU64::new(0),
            through: Mutex::new(Lsn::ZERO),
            subscriptions: Mutex::default(),
        })
    }

    /// The session's name.
    pub(crate) fn session(&self) -> &str {
        &self.session
    }

    /// A frame of so many bytes came from it.
    pub(crate) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A frame of so many bytes went to it.
    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Where the session stands after an event; `now_ms` is asked only when that changes what is shown.
    pub(crate) fn stands(&self, through: Lsn, behind: bool, now_ms: impl FnOnce() -> u64) {
        *self.through.lock().unwrap_or_else(PoisonError::into_inner) = through;
        let was_behind = self.behind_since_ms.load(Ordering::Relaxed) != 0;
        if behind != was_behind {
            self.behind_since_ms.store(if behind { now_ms().max(1) } else { 0 }, Ordering::Relaxed);
            metrics::behind(behind);
        }
    }

    /// It subscribes to this, or to something else under the same name.
    pub(crate) fn subscribed(&self, id: u32, matcher: &Arc<Matcher>) {
        self.unsubscribed(id);
        metrics::subscriptions(1.0);
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner).push((id, Arc::clone(matcher)));
    }

    pub(crate) fn unsubscribed(&self, id: u32) {
        let mut subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        let before = subscriptions.len();
        subscriptions.retain(|(known, _)| *known != id);
        if subscriptions.len() < before {
            metrics::subscriptions(-1.0);
        }
    }

    fn row(&self, head: Lsn, now_ms: u64) -> Value {
        let since = self.behind_since_ms.load(Ordering::Relaxed);
        let queued = self.queue.bytes();
        let behind = since != 0 || queued > 0;
        // With nothing left to send, everything up to where the app stands was sent, or was none of its business.
        let last = if behind { *self.through.lock().unwrap_or_else(PoisonError::into_inner) } else { head };
        let lag_ms = if since == 0 { 0 } else { now_ms.saturating_sub(since) };
        let (count, queries) = {
            let subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
            let queries = subscriptions.iter().take(MAX_QUERIES);
            (subscriptions.len(), queries.map(|(_, matcher)| shortened(matcher.query(), MAX_QUERY)).collect::<Vec<_>>())
        };
        json!({
            "_id": self.session,
            "site": self.site.to_string(),
            "user": self.user.to_string(),
            "device_name": self.about.name,
            "device_model": self.about.model,
            "device_system": self.about.system,
            "device_software": self.about.software,
            "connected_at": self.connected_at_ms,
            "subscription_count": count,
            "subscriptions": queries,
            "last_lsn": last.to_string(),
            "behind": behind,
            "lag_ms": lag_ms,
            "queued_bytes": queued,
            "received_bytes": self.received.load(Ordering::Relaxed),
            "sent_bytes": self.sent.load(Ordering::Relaxed),
        })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let subscriptions = self.subscriptions.get_mut().unwrap_or_else(PoisonError::into_inner).len();
        metrics::subscriptions(-f64::from(u32::try_from(subscriptions).unwrap_or(u32::MAX)));
        if *self.behind_since_ms.get_mut() != 0 {
            metrics::behind(false);
        }
    }
}

/// The devices that are connected to this process.
pub(crate) struct Devices(Weak<Gateway>);

impl std::fmt::Debug for Devices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Devices")
    }
}

impl Devices {
    pub(crate) fn new(gateway: &Arc<Gateway>) -> Self {
        Self(Arc::downgrade(gateway))
    }
}

impl SystemCollection for Devices {
    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn rows(&self, app: &AppId) -> Vec<Value> {
        let Some(gateway) = self.0.upgrade() else { return Vec::new() };
        let Some(app) = gateway.apps.with_sessions(app) else { return Vec::new() };
        let now_ms = gateway.context.clock.now_ms();
        let head = app.hub.position();
        let mut devices: Vec<Arc<Device>> = App::connected(&app);
        devices.sort_by(|a, b| a.session.cmp(&b.session));
        devices.iter().map(|device| device.row(head, now_ms)).collect()
    }
}

/// The beginning of a text from outside, without control characters.
fn shortened(text: &str, most: usize) -> String {
    text.chars().filter(|character| !character.is_control()).take(most).collect()
}
