//! Kafka for the change feed, over librdkafka: the door through which feeds write to topics.
//!
//! # Consistency
//! A feed's producer has one transactional id, for as long as the feed is: opening it fences every producer before it, and
//! aborts what they left open. The number of a transaction is an offset that it commits for a consumer group of the same name,
//! with which nobody consumes. Kafka commits both or neither.
//!
//! # Cancellation
//! The library blocks, so its calls run where blocking is allowed, and go on when nobody waits for them. The next producer
//! fences them.
//!
//! # Memory
//! The library's queue holds one transaction.

mod client;
mod group;
mod message;
mod topic;

use std::sync::Arc;

use async_trait::async_trait;
use bigpeer_changefeed::{Kafka, Opening, Topic};

/// Kafka, by librdkafka.
#[derive(Clone, Copy, Debug, Default)]
pub struct Librdkafka;

#[async_trait]
impl Kafka for Librdkafka {
    async fn open(&self, opening: Opening) -> Result<(Box<dyn Topic>, Option<u64>), String> {
        let spec = opening.spec.clone();
        blocking(move || client::reach(&spec)).await??;
        client::make_topics(&opening.spec).await?;
        let limit = client::message_limit(&opening.spec).await;
        let opened = blocking(move || topic::Producing::open(opening, limit)).await??;
        let (producing, committed) = opened;
        Ok((Box::new(topic::Owned::new(Arc::new(producing))), committed))
    }
}

/// Runs what blocks.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
}
