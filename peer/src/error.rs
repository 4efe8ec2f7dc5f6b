//! `PeerError`: what a caller of the peer can be told.

use std::path::PathBuf;
use std::sync::Arc;

use bigpeer_types::{AppId, SiteId};
use thiserror::Error;

/// Why the peer did not do what it was asked to. No variant ever holds a key or a token.
#[derive(Clone, Debug, Error)]
pub enum PeerError {
    /// Another process, or another `Peer` of this process, has the store open.
    #[error("the store {0} is in use by another peer; close that one first, or choose another directory")]
    StoreInUse(PathBuf),
    /// The store was written by another version of bigpeer, or is not a store.
    #[error("the store {path} cannot be opened: {reason}")]
    NotAStore {
        /// The store's directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The store's files could not be read or written.
    #[error("the store failed: {0}")]
    Store(Arc<rusqlite::Error>),
    /// The store's directory or lock could not be made or opened.
    #[error("the store {path} failed: {source}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What the operating system said.
        source: Arc<std::io::Error>,
    },
    /// Something in the store does not decode. The store should be deleted and synced again.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// A local write before the peer ever logged in: its writes would have no site.
    #[error("this store has no site yet; connect or log in once before the first local write")]
    NoSite,
    /// The store belongs to another app.
    #[error("this store belongs to the app '{store}', not to '{asked}'; use another store directory")]
    OtherApp {
        /// The app of the store.
        store: AppId,
        /// The app that was asked for.
        asked: AppId,
    },
    /// The credentials are for another site than the store's.
    #[error("this store writes as site {store}, the credentials are for site {given}")]
    OtherSite {
        /// The site of the store.
        store: SiteId,
        /// The site of the credentials.
        given: SiteId,
    },
    /// The DQL statement is wrong, or cannot be done.
    #[error("{0}")]
    Dql(String),
    /// A statement of another kind was expected here.
    #[error("{0}")]
    WrongStatement(&'static str),
    /// The transaction is larger than a peer may push; write in smaller transactions.
    #[error("the transaction is too large: {0}")]
    TransactionTooLarge(String),
    /// The caller's own transaction function gave up; nothing was written.
    #[error("the transaction was abandoned: {0}")]
    Abandoned(String),
    /// There is no such subscription.
    #[error("there is no subscription {0}")]
    NoSubscription(u64),
    /// The server does not have the attachment (yet), or the document does not hold it, or may not be read.
    #[error("the attachment cannot be had: {0}")]
    NoAttachment(String),
    /// The URL of the server cannot be used.
    #[error("'{0}' is not a usable server URL; expected http://HOST:PORT, https://…, ws://… or wss://…")]
    Url(String),
    /// What should name the certificate authorities to trust does not.
    #[error("the certificate authorities cannot be used: {0}")]
    Trust(String),
    /// The server refused the credentials, or the peer itself. Trying again with the same will not help.
    #[error("the server refused: {0}")]
    Refused(String),
    /// The server rejected an uploaded transaction for good; its sequence number is used up.
    #[error("transaction {seq} was rejected ({code}): {message}")]
    Rejected {
        /// Which.
        seq: u64,
        /// The protocol's name of the reason.
        code: String,
        /// What the server said.
        message: String,
    },
    /// The server could not be reached, or broke off. Trying again may help.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// The other end does not speak the protocol as agreed.
    #[error("protocol error: {0}")]
    Protocol(String),
    /// The wait cannot end: the peer is not connected, and not trying to be.
    #[error("the peer is not connected")]
    NotConnected,
    /// The peer was closed.
    #[error("the peer is closed")]
    Closed,
}

impl PeerError {
    /// Whether the same call may succeed later without anything else being changed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::StoreInUse(_) | Self::NoAttachment(_) => true,
            Self::NotAStore { .. }
            | Self::Store(_)
            | Self::Io { .. }
            | Self::Damaged(_)
            | Self::NoSite
            | Self::OtherApp { .. }
            | Self::OtherSite { .. }
            | Self::Dql(_)
            | Self::WrongStatement(_)
            | Self::TransactionTooLarge(_)
            | Self::Abandoned(_)
            | Self::NoSubscription(_)
            | Self::Url(_)
            | Self::Trust(_)
            | Self::Refused(_)
            | Self::Rejected { .. }
            | Self::Protocol(_)
            | Self::NotConnected
            | Self::Closed => false,
        }
    }
}

impl From<rusqlite::Error> for PeerError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(Arc::new(error))
    }
}
