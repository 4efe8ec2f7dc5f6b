//! How the parts of a peer tell each other that something changed: no polling, no lost wake-ups.

use std::collections::BTreeMap;

use bigpeer_types::CollectionName;
use tokio::sync::{broadcast, watch};

use crate::status::{Connection, PeerEvent, Status};

/// Events that an observer may be behind before it misses the oldest.
const EVENT_CAPACITY: usize = 1024;

/// How often each collection was changed since the peer was opened.
pub(crate) type Versions = BTreeMap<CollectionName, u64>;

/// The channels of one open peer.
#[derive(Debug)]
pub(crate) struct Signals {
    pub(crate) status: watch::Sender<Status>,
    pub(crate) versions: watch::Sender<Versions>,
    pub(crate) events: broadcast::Sender<PeerEvent>,
}

impl Signals {
    pub(crate) fn new() -> Self {
        Self {
            status: watch::Sender::new(Status::default()),
            versions: watch::Sender::new(Versions::new()),
            events: broadcast::Sender::new(EVENT_CAPACITY),
        }
    }

    /// Says how the session stands.
    pub(crate) fn set_connection(&self, connection: Connection) {
        self.status.send_if_modified(|status| {
            let changed = status.connection != connection;
            status.connection = connection;
            changed
        });
    }

    /// Tells whoever listens. Nobody listening is fine.
    pub(crate) fn event(&self, event: PeerEvent) {
        let _listeners = self.events.send(event);
    }
}
