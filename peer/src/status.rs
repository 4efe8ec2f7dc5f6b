//! What a peer can say about itself: `Status`, and the events that an app must not miss.

use std::collections::BTreeMap;
use std::fmt;

use bigpeer_crdt::DocId;
use bigpeer_types::{AppId, CollectionName, Lsn, SiteId};

/// A subscription of this store. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub(crate) u64);

impl SubscriptionId {
    /// The subscription with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How the session with the server stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Connection {
    /// `connect` was not called, or `disconnect` was.
    #[default]
    Offline,
    /// Logging in or connecting; `failures` in a row so far, and the last one's message.
    Connecting {
        /// Attempts that failed since the last connection.
        failures: u32,
        /// Why the last of them failed.
        last_error: Option<String>,
    },
    /// The server has said welcome.
    Connected,
    /// The server refused for good; the peer has stopped trying. Call `connect` with other credentials.
    Refused {
        /// What the server said.
        reason: String,
    },
}

/// How far one subscription is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionStatus {
    /// The query.
    pub query: String,
    /// The LSN up to which everything that matches is in the store; none before the first sync is complete.
    pub cursor: Option<Lsn>,
    /// Whether the server has said, since the last connect, that everything was sent.
    pub caught_up: bool,
    /// Why the server refused the subscription, if it did. It is asked for again at the next connect.
    pub refused: Option<String>,
}

/// A peer at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The session.
    pub connection: Connection,
    /// The app that the store belongs to, after the first login.
    pub app: Option<AppId>,
    /// The site that the store writes as, after the first login.
    pub site: Option<SiteId>,
    /// Sequence number of the newest local transaction; 0 before the first.
    pub committed: u64,
    /// Local transactions that the server has not said to be durable (or rejected).
    pub unpushed: u64,
    /// Every local transaction up to this one is durable at the server, or was rejected.
    pub acknowledged: u64,
    /// An LSN at or after all of those: a reader that waits for it sees them.
    pub acknowledged_lsn: Option<Lsn>,
    /// Attachments of this store that the server is not known to have.
    pub uploads: u64,
    /// Rejected transactions that the app has not taken note of; see [`Peer::rejections`](crate::Peer::rejections).
    pub rejections: u64,
    /// The subscriptions.
    pub subscriptions: BTreeMap<SubscriptionId, SubscriptionStatus>,
}

impl Status {
    /// Whether the session stands.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connection == Connection::Connected
    }
}

/// What became of a local transaction.
#[derive(Clone, Debug, PartialEq)]
pub enum WriteStatus {
    /// This store never had it.
    Unknown,
    /// It is on disk here, and the server has not answered for it.
    Waiting,
    /// It is durable at the server: whoever reads at or after `lsn` sees it.
    Durable {
        /// A position at or after it.
        lsn: Lsn,
    },
    /// The server rejected it; it is undone here.
    Rejected(Rejection),
}

/// A local transaction that the server rejected.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    /// Names it in this store, for [`Peer::dismiss_rejection`](crate::Peer::dismiss_rejection).
    pub number: u64,
    /// Which transaction.
    pub seq: u64,
    /// The protocol's name of the reason.
    pub code: String,
    /// What the server said.
    pub message: String,
    /// The documents that it had changed.
    pub documents: Vec<(CollectionName, DocId)>,
}

/// Something that happened to the peer, and that its app may have to tell a person.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerEvent {
    /// The session stands.
    Connected,
    /// The session ended; the peer reconnects unless it was told to disconnect.
    Disconnected {
        /// Why.
        reason: String,
    },
    /// The server refused for good; see [`Connection::Refused`].
    Refused {
        /// What the server said.
        reason: String,
    },
    /// The server rejected a local transaction. Its documents are back to what the server has (with later local
    /// changes on top).
    WriteRejected {
        /// Which transaction.
        seq: u64,
        /// The protocol's name of the reason.
        code: String,
        /// What the server said.
        message: String,
        /// The documents that it had changed.
        documents: Vec<(CollectionName, DocId)>,
    },
    /// The server has an attachment of this store.
    AttachmentUploaded {
        /// Its id.
        id: String,
    },
    /// The server will never take an attachment of this store, or it is not in the store any more; it is not tried again.
    AttachmentFailed {
        /// Its id.
        id: String,
        /// Why.
        reason: String,
    },
    /// A subscription has everything.
    CaughtUp {
        /// Which.
        subscription: SubscriptionId,
        /// Up to where.
        lsn: Lsn,
    },
    /// A subscription starts over from a snapshot: the store was away for longer than the server keeps history.
    Resync {
        /// Which.
        subscription: SubscriptionId,
    },
    /// The server refused a subscription.
    SubscriptionRefused {
        /// Which.
        subscription: SubscriptionId,
        /// What the server said.
        reason: String,
    },
}
