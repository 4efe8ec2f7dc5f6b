//! `Owned`: a topic that was taken over, and `Producing`: its producer, whose calls block.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bigpeer_changefeed::{Buried, Event, KafkaSpec, Opening, Topic, TopicError};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};

use crate::blocking;
use crate::client::{ASK, Deliveries, create_with, producer_config, told};
use crate::group::Group;
use crate::message::{key_of, letter, letter_record, reason, record};

/// How long one attempt to commit, or to abort, may take.
const COMMIT: Duration = Duration::from_secs(10);
/// How long to wait for room in the library's queue before looking whether to stop.
const FULL: Duration = Duration::from_millis(5);
/// How long to wait for deliveries before looking whether they were the last.
const DELIVERED: Duration = Duration::from_millis(1);
/// The place of messages that are no event of the transaction.
const NO_PLACE: usize = usize::MAX;

type Failure = TopicError;

/// A topic that was taken over.
#[derive(Debug)]
pub(crate) struct Owned(Option<Arc<Producing>>);

impl Owned {
    pub(crate) const fn new(producing: Arc<Producing>) -> Self {
        Self(Some(producing))
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Producing) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let Some(producing) = self.0.clone() else { return Err(Failure::Broken("it was closed".to_owned())) };
        blocking(move || work(&producing)).await.map_err(Failure::Broken)?
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let Some(producing) = self.0.take() else { return };
        producing.stop.store(true, Ordering::Release);
        // Closing waits for the library's threads.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(producing));
        }
    }
}

#[async_trait]
impl Topic for Owned {
    async fn send(&mut self, events: Arc<[Event]>) -> Result<(), Failure> {
        self.run(move |producing| producing.send_all(&events)).await
    }

    async fn commit(&mut self, number: u64) -> Result<Vec<Buried>, Failure> {
        self.run(move |producing| producing.commit(number)).await
    }
}

/// A producer that owns a topic.
pub(crate) struct Producing {
    producer: ThreadedProducer<Deliveries>,
    group: Group,
    spec: KafkaSpec,
    content_type: &'static str,
    /// Partitions of the topic: each is told what is about whole collections.
    partitions: i32,
    /// Nobody waits any more.
    stop: AtomicBool,
    transaction: Mutex<Transaction>,
}

/// What is known of the transaction under way.
#[derive(Debug, Default)]
struct Transaction {
    /// Messages that are too large, by their place.
    poison: BTreeSet<usize>,
    /// Messages of a batch that the brokers refused as too large. Each is then sent by itself: the one that is too large must
    /// not take others with it.
    suspects: BTreeSet<usize>,
    buried: Vec<Buried>,
    /// Whether the number is in it: from then on only committing goes on with it.
    is_numbered: bool,
}

impl std::fmt::Debug for Producing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producing").field("topic", &self.spec.topic).finish_non_exhaustive()
    }
}

fn too_large(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize)
}

impl Producing {
    /// Fences whoever produced under this name before, and answers the number that was committed last. Blocks.
    pub(crate) fn open(opening: Opening, limit: u32) -> Result<(Self, Option<u64>), String> {
        let Opening { spec, producer: name, content_type } = opening;
        let config = producer_config(&spec, &name, limit);
        let producer: ThreadedProducer<Deliveries> = create_with(&config, Deliveries::default())?;
        let context = Arc::clone(producer.context());
        let cannot = |error: KafkaError| format!("the brokers cannot be reached: {}", context.told(&error));
        producer.init_transactions(ASK).map_err(cannot)?;
        let group = Group::open(&spec, &name)?;
        let committed = group.committed()?;
        let metadata = producer.client().fetch_metadata(Some(&spec.topic), ASK).map_err(cannot)?;
        let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        if partitions == 0 {
            return Err(format!("there is no topic '{}'; make it, or let the feed do so with 'create'", spec.topic));
        }
        let partitions = i32::try_from(partitions).unwrap_or(1);
        let (stop, transaction) = (AtomicBool::new(false), Mutex::default());
        Ok((Self { producer, group, spec, content_type, partitions, stop, transaction }, committed))
    }

    fn send_all(&self, events: &[Event]) -> Result<(), Failure> {
        let mut transaction = self.transaction.lock().unwrap_or_else(PoisonError::into_inner);
        let _of_before = self.producer.context().take_failed();
        transaction.buried.clear();
        transaction.is_numbered = false;
        self.producer.begin_transaction().map_err(|error| Failure::Broken(told(&error)))?;
        let sent = events.iter().enumerate().try_for_each(|(place, event)| {
            if !transaction.suspects.contains(&place) {
                return self.send_one(&mut transaction, place, event);
            }
            self.flush()?;
            self.send_one(&mut transaction, place, event)?;
            self.flush()
        });
        sent.or_else(|error| self.abort(&mut transaction, &error))
    }

    fn send_one(&self, transaction: &mut Transaction, place: usize, event: &Event) -> Result<(), KafkaError> {
        let topic = self.spec.topic.as_str();
        let Some(key) = key_of(event) else {
            for partition in 0..self.partitions {
                self.send(&|| record(event, (topic, None), self.content_type, place).partition(partition))?;
            }
            return Ok(());
        };
        if !transaction.poison.contains(&place) {
            match self.send(&|| record(event, (topic, Some(&key)), self.content_type, place)) {
                Err(KafkaError::MessageProduction(code)) if too_large(code) => _ = transaction.poison.insert(place),
                other => return other,
            }
        }
        let (dead, reason) = (self.spec.dead_letter_topic(), reason(event, topic));
        let letter = letter(event, &reason);
        self.send(&|| letter_record(event, (&dead, &key), (&letter, &reason), NO_PLACE))?;
        transaction.buried.push(Buried { event: event.id.clone(), reason });
        Ok(())
    }

    /// Puts a message into the library's queue, and waits for room.
    fn send<'a>(&self, record: &dyn Fn() -> BaseRecord<'a, str, [u8], usize>) -> Result<(), KafkaError> {
        loop {
            match self.producer.send(record()) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    if self.stop.load(Ordering::Acquire) {
                        return Err(KafkaError::Canceled);
                    }
                    std::thread::sleep(FULL);
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Waits until the queue is empty, however long that takes.
    fn flush(&self) -> Result<(), KafkaError> {
        while !self.stop.load(Ordering::Acquire) {
            match self.drain() {
                Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)) => {}
                other => return other,
            }
        }
        Err(KafkaError::Canceled)
    }

    /// Waits until the queue is empty, as long as an attempt to commit may take. What the library offers, and does itself before it
    /// commits, waits in whole tenths of a second, also when the last message was delivered long before.
    fn drain(&self) -> Result<(), KafkaError> {
        let mut waited = Duration::ZERO;
        loop {
            match self.producer.flush(Duration::ZERO) {
                Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)) if waited < COMMIT => {
                    self.producer.poll(DELIVERED);
                    waited += DELIVERED;
                }
                other => return other,
            }
        }
    }

    fn commit(&self, number: u64) -> Result<Vec<Buried>, Failure> {
        let mut transaction = self.transaction.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.number(&mut transaction, number) {
            // Whoever coordinates the group may be forgotten for good; a new producer finds it.
            if error.rdkafka_error_code() == Some(RDKafkaErrorCode::OperationTimedOut) {
                return Err(Failure::Broken(self.producer.context().told(&error)));
            }
            return self.abort(&mut transaction, &error).map(|()| Vec::new());
        }
        match self.drain().and_then(|()| self.producer.commit_transaction(COMMIT)) {
            Ok(()) => {
                transaction.poison.clear();
                transaction.suspects.clear();
                Ok(std::mem::take(&mut transaction.buried))
            }
            // The same call goes on with it.
            Err(KafkaError::Transaction(error)) if error.is_retriable() && !error.txn_requires_abort() => {
                Err(Failure::Pending(self.producer.context().told(&KafkaError::Transaction(error))))
            }
            Err(error) => self.abort(&mut transaction, &error).map(|()| Vec::new()),
        }
    }

    fn number(&self, transaction: &mut Transaction, number: u64) -> Result<(), KafkaError> {
        if !transaction.is_numbered {
            let (offsets, group) = self.group.at(number)?;
            self.producer.send_offsets_to_transaction(&offsets, &group, COMMIT)?;
            transaction.is_numbered = true;
        }
        Ok(())
    }

    /// Ends a transaction in which `error` happened. What cannot be aborted is ended by whoever opens the topic anew.
    fn abort(&self, transaction: &mut Transaction, error: &KafkaError) -> Result<(), Failure> {
        let why = told(error);
        if self.stop.load(Ordering::Acquire) {
            return Err(Failure::Broken(why));
        }
        self.producer.abort_transaction(COMMIT).map_err(|error| Failure::Broken(format!("{why}; {}", told(&error))))?;
        let failed = self.producer.context().take_failed();
        let refused = failed.into_iter().filter(|(place, code)| too_large(*code) && *place != NO_PLACE);
        let refused: Vec<usize> = refused.map(|(place, _)| place).collect();
        let Some(first) = refused.first() else { return Err(Failure::Aborted(why)) };
        let is_new = if transaction.suspects.contains(first) {
            // It was sent by itself.
            transaction.poison.insert(*first)
        } else {
            transaction.suspects.extend(refused);
            true
        };
        Err(if is_new { Failure::Refused(why) } else { Failure::Aborted(why) })
    }
}
