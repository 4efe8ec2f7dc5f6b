//! The change feed: what happens in an app, as events with the documents before and after, in order, from any cursor.
//!
//! A [`Walker`] reads transactions with exact images; a [`Lens`] says what one reader sees of them; a [`Reader`] puts a
//! snapshot before them, and tells what a cursor missed. Streams are readers over HTTP; a feed is a reader that some process
//! owns, and whose events go to a webhook or to Kafka.
//!
//! # Consistency
//! Every event is of one change of one transaction, in the order of the log. What a reader was told up to a cursor is its
//! view of the app at that cursor, exactly; the cursor is all there is to know of a reader.
//!
//! # Crash safety
//! Nothing here is kept but cursors: a stream's by its reader, a feed's in the log's metadata space.
//!
//! # Memory
//! A reader holds one batch, the documents that it touched of late up to a bound, and a scan of about a megabyte.

mod admin;
mod cursor;
mod error;
mod event;
mod feeds;
mod images;
mod kafka;
mod ledger;
mod lens;
mod metrics;
mod odometer;
mod owner;
mod paths;
mod reader;
mod registry;
mod settings;
mod sink;
mod status;
mod stream;
mod walker;
mod webhook;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use bigpeer_chassis::{Catalogue, Shutdown};
use bigpeer_log::TransactionLog;
use bigpeer_tables::Stores;
use bigpeer_types::{Clock, IdGenerator};

pub use admin::routes as admin_routes;
pub use bigpeer_feed_spec::{
    Compression, CreateTopic, FeedSpec, Format, Hidden, KafkaSpec, MAX_SOURCES, Mechanism, On, Sasl, SinkSpec, Source,
    Tls, Values, WebhookSpec,
};
pub use cursor::{Cursor, CursorError, Position, SnapshotProgress};
pub use error::FeedError;
pub use event::{Encoder, Event, Kind};
pub use feeds::run_feeds;
pub use kafka::{Buried, Kafka, Opening, Topic, TopicError};
pub use lens::{Lens, Seen};
pub use reader::{Batch, Reader, Start};
pub use registry::{Asked, Checkpoint, Entry, Registry, Retention, Stored};
pub use settings::ChangefeedSettings;
pub use walker::{Walked, WalkedChange, Walker, WalkerSettings};

/// What routes and feeds need.
#[derive(Clone)]
pub struct ChangefeedContext {
    /// Who may do what.
    pub catalogue: Arc<Catalogue>,
    /// Where transactions come from.
    pub log: Arc<dyn TransactionLog>,
    /// Where documents come from.
    pub stores: Arc<dyn Stores>,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where chance comes from.
    pub ids: Arc<dyn IdGenerator>,
    /// Limits.
    pub settings: ChangefeedSettings,
    /// Ends all streams and feeds when it is cancelled.
    pub shutdown: Shutdown,
    /// What writes to Kafka, if there is something.
    pub kafka: Option<Arc<dyn Kafka>>,
    open: Arc<stream::Open>,
    feeds: Arc<feeds::Feeds>,
}

impl std::fmt::Debug for ChangefeedContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChangefeedContext").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl ChangefeedContext {
    /// What routes and feeds need, with no stream open and no feed at work.
    #[must_use]
    pub fn new(
        catalogue: Arc<Catalogue>,
        log: Arc<dyn TransactionLog>,
        stores: Arc<dyn Stores>,
        (clock, ids): (Arc<dyn Clock>, Arc<dyn IdGenerator>),
        settings: ChangefeedSettings,
        shutdown: Shutdown,
    ) -> Self {
        let registry = Registry::new(Arc::clone(&log), Arc::clone(&clock), Arc::clone(&ids))
            .with_keyring(catalogue.keyring().clone());
        let feeds = Arc::new(feeds::Feeds::new(registry));
        Self { catalogue, log, stores, clock, ids, settings, shutdown, kafka: None, open: Arc::default(), feeds }
    }

    /// The same, with feeds to Kafka.
    #[must_use]
    pub fn with_kafka(self, kafka: Arc<dyn Kafka>) -> Self {
        Self { kafka: Some(kafka), ..self }
    }

    /// The feeds' records.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.feeds.registry
    }
}

/// `GET /{app}/changes`, and the admin API of feeds.
pub fn router(context: ChangefeedContext) -> Router {
    let context = Arc::new(context);
    let streams = Router::new().route("/{app}/changes", get(stream::changes)).with_state(Arc::clone(&context));
    streams.merge(admin::router(context))
}
