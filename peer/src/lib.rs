//! The Small Peer: a local store that works offline, and its session with a bigpeer.
//!
//! A [`Peer`] keeps documents in a directory of its own. DQL reads and writes them at once, with or without a network
//! ([`Peer::execute`], [`Peer::transaction`]); [`Peer::observe`] answers again whenever a result changes.
//! [`Peer::subscribe`] says which of the app's documents belong here, and [`Peer::connect`] starts a background session
//! that pushes local transactions, receives what matches the subscriptions, and comes back by itself after the
//! connection was lost. Documents merge as `docs/` describes; nobody overwrites anybody by accident.
//!
//! [`Uploader`] is the way for bulk writers: it pushes ready-made transactions without a local store.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), bigpeer_peer::PeerError> {
//! use bigpeer_peer::{Params, Peer, PeerSettings};
//!
//! let dir = tempfile::tempdir().expect("a directory");
//! let peer = Peer::open(PeerSettings::new(dir.path())).await?;
//!
//! // Which documents belong here. Offline this is remembered, and asked for at the next connect.
//! let cars = peer.subscribe("SELECT * FROM cars WHERE sold = false", Params::new()).await?;
//! assert!(!peer.status().subscriptions[&cars].caught_up);
//!
//! // A store gets its site, the name that its writes bear, at the first login. Reading works at once.
//! let all = peer.execute("SELECT * FROM cars", Params::new()).await?;
//! assert!(all.items.is_empty());
//!
//! // let settings = ConnectSettings::new("http://localhost:8080", app, api_key);
//! // peer.connect(settings).await?;
//! // peer.wait_caught_up(cars).await?;
//! peer.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # The whole interface
//! | | |
//! | --- | --- |
//! | [`Peer::open`], [`Peer::close`] | the local store, one process at a time |
//! | [`Peer::execute`], [`Peer::transaction`] | DQL over the local store; mutations are committed and queued for the server |
//! | [`Peer::observe`] → [`LiveQuery::next`] | a result, again and again, with what changed |
//! | [`Peer::subscribe`], [`Peer::unsubscribe`] | what the server is to send; kept in the store |
//! | [`Peer::login`], [`Peer::connect`], [`Peer::disconnect`], [`Peer::certificate`] | the session, and who the peer is to others |
//! | [`Peer::status`], [`Peer::watch_status`], [`Peer::events`] | where things stand, and what must not be missed |
//! | [`Peer::write_status`], [`Peer::rejections`], [`Peer::dismiss_rejection`] | what became of each write |
//! | [`Peer::attach`], [`Peer::attach_bytes`], [`Peer::fetch_attachment`], [`Peer::attachment`], [`Peer::evict_attachments`] | blobs beside documents |
//! | [`Peer::wait_connected`], [`Peer::wait_pushed`], [`Peer::wait_caught_up`], [`Peer::wait_for`], [`Peer::wait_written`], [`Peer::wait_uploaded`] | waiting without polling |
//! | [`Uploader::connect`], [`Uploader::push`], [`Uploader::wait_acknowledged`] | bulk writing without a store |
//!
//! Dropping any of the futures is safe: what was begun is done whole, or not at all.

#![warn(missing_docs)]

mod apply;
mod attachments;
mod error;
mod identity;
mod local;
mod network;
mod observe;
mod peer;
mod session;
mod settings;
mod signals;
mod status;
mod store;
mod uploader;

pub use attachments::{Fetch, FetchProgress};
pub use bigpeer_crdt::{Attachment, DocId, Object, Value};
pub use bigpeer_dql::Params;
pub use error::PeerError;
pub use identity::Certificate;
pub use local::{QueryResult, WriteTransaction};
pub use network::{Network, SystemNetwork, Wire, http_client};
pub use observe::{LiveQuery, LiveResult};
pub use peer::Peer;
pub use settings::{ConnectSettings, Credentials, PeerSettings, Secret};
pub use status::{Connection, PeerEvent, Rejection, Status, SubscriptionId, SubscriptionStatus, WriteStatus};
pub use uploader::{Acknowledged, Uploader, UploaderState};
