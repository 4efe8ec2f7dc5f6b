//! What a feed is to be, as an administrator writes it, with the rules for what cannot work: for the service that runs feeds,
//! and for whoever wants to know before the service is asked.

mod feed;
mod kafka;
mod source;
mod webhook;

pub use feed::{FeedSpec, Format, Hidden, SinkSpec};
pub use kafka::{Compression, CreateTopic, KafkaSpec, Mechanism, Sasl, Tls};
pub use source::{CompiledSource, MAX_SOURCES, On, Path, Source, Values, compile_sources, parse_path};
pub use webhook::WebhookSpec;
