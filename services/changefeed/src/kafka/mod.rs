//! Kafka, as far as a feed has to know it: what a feed says of its topic, and what it needs of the client, which another crate
//! brings.
//!
//! # Consistency
//! Events go out in transactions, and each commits a number with them: the checkpoint's. The checkpoint itself is written
//! before, as **prepared**, while the lease holds. Whoever takes the feed over begins with [`Kafka::open`]: that fences every
//! producer before it, ends what they left open, and reads the number that was committed last. If it is the prepared one's,
//! that is where the feed stands; if not, it never happened. So what was delivered and how far the feed is cannot differ.
//!
//! # Memory
//! One transaction is under way and one is gathered, each bounded in events and bytes; when brokers are slow or gone, the feed
//! waits.

mod run;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bigpeer_feed_spec::KafkaSpec;
use thiserror::Error;

use crate::event::Event;
pub(crate) use run::run;

/// What is opened.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Where the topic is.
    pub spec: KafkaSpec,
    /// Whose events they are: one name for each feed that ever was. Producers of one name fence each other.
    pub producer: String,
    /// What a message holds.
    pub content_type: &'static str,
}

/// A client of Kafka.
#[async_trait]
pub trait Kafka: fmt::Debug + Send + Sync {
    /// Takes a topic over. From the answer on nothing that was opened under the same name before can commit, what it had not
    /// committed never will be, and the number is the one that was committed last, if one was. Makes the topics if it is to.
    ///
    /// # Errors
    /// Says what, without secrets. It may be tried again.
    async fn open(&self, opening: Opening) -> Result<(Box<dyn Topic>, Option<u64>), String>;
}

/// A topic that was taken over.
///
/// # Cancellation
/// When a call is dropped it is not known what of it happened; the topic has to be opened anew.
#[async_trait]
pub trait Topic: fmt::Debug + Send {
    /// Begins a transaction, and hands over its events: in order for each document, those about whole collections to each
    /// partition. Waits for room.
    ///
    /// # Errors
    /// Any [`TopicError`] but [`TopicError::Pending`].
    async fn send(&mut self, events: Arc<[Event]>) -> Result<(), TopicError>;

    /// Commits what was handed over, and `number` with it: both or neither, for whoever reads committed messages. Answers the
    /// events that the brokers never take, of which another topic tells now.
    ///
    /// # Errors
    /// Any [`TopicError`].
    async fn commit(&mut self, number: u64) -> Result<Vec<Buried>, TopicError>;
}

/// An event that the brokers never take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buried {
    /// Its id.
    pub event: String,
    /// Why.
    pub reason: String,
}

/// Why a transaction is not committed; told by what to do next.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TopicError {
    /// It is not known yet: commit again.
    #[error("the brokers do not answer: {0}")]
    Pending(String),
    /// None of it happened: send it again.
    #[error("the transaction was aborted: {0}")]
    Aborted(String),
    /// None of it happened, because of an event that the brokers do not take, which is going to be left out: send it again.
    #[error("the brokers refused an event: {0}")]
    Refused(String),
    /// Open the topic anew; that tells what happened.
    #[error("the brokers cannot be written to: {0}")]
    Broken(String),
}
