//! Batches as transactions, one after the other. The next is gathered while one is under way: what a commit costs is shared by
//! as many events as can be read in that time.

use std::sync::Arc;
use std::time::Duration;

use bigpeer_chassis::Shutdown;
use tokio::sync::{mpsc, watch};

use super::{Buried, Topic, TopicError};
use crate::cursor::Cursor;
use crate::error::FeedError;
use crate::event::Event;
use crate::ledger::Ledger;
use crate::reader::Batch;
use crate::registry::Checkpoint;
use crate::sink::{Confirmed, SinkContext};

/// Most bytes and events of one transaction, above which another begins.
const TRANSACTION_BYTES: usize = 8 << 20;
const TRANSACTION_EVENTS: usize = 50_000;
/// How often a transaction is sent again, and how often its commit is waited for, before the topic is opened anew.
const ATTEMPTS: u32 = 20;
const WAITS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Delivers batches until `stop`, between transactions, or until there are no more. `base` is where the feed stands.
pub(crate) async fn run(
    mut topic: Box<dyn Topic>,
    base: Checkpoint,
    (context, ledger): (SinkContext, Arc<Ledger>),
    batches: mpsc::Receiver<Batch>,
    confirmed: watch::Sender<Confirmed>,
    stop: Shutdown,
) -> Result<(), FeedError> {
    let mut gathering = Gathering { batches, next: None };
    loop {
        let group = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            group = gathering.take() => group,
        };
        let Some(Group { events, cursor, time_ms, bytes: _ }) = group else { return Ok(()) };
        let mut moved = confirmed.borrow().clone();
        moved.move_to(cursor, events.len() as u64, time_ms);
        // A move over nothing is remembered with the feed, and by the next transaction.
        if !events.is_empty() {
            let checkpoint = moved.checkpoint(&base, context.clock.now_ms());
            let delivered = deliver(topic.as_mut(), &context, &ledger, events.into(), checkpoint);
            for buried in gathering.beside(delivered).await? {
                let Buried { event, reason } = buried;
                context.status.dead_letter();
                tracing::warn!(app = %context.app, feed = %context.name, event, reason, "an event was given up");
            }
        }
        confirmed.send_replace(moved);
    }
}

/// What becomes one transaction.
struct Group {
    events: Vec<Event>,
    bytes: usize,
    cursor: Cursor,
    time_ms: Option<u64>,
}

fn has_room(group: Option<&Group>) -> bool {
    group.is_none_or(|group| group.bytes < TRANSACTION_BYTES && group.events.len() < TRANSACTION_EVENTS)
}

/// Makes transactions of batches: the next one is gathered while one is under way.
struct Gathering {
    batches: mpsc::Receiver<Batch>,
    next: Option<Group>,
}

impl Gathering {
    /// The next transaction: all that was read. Waits if that is nothing. Cancel safe.
    async fn take(&mut self) -> Option<Group> {
        while has_room(self.next.as_ref()) {
            let batch = match self.next {
                Some(_) => self.batches.try_recv().ok(),
                None => self.batches.recv().await,
            };
            let Some(batch) = batch else { break };
            self.add(batch);
        }
        self.next.take()
    }

    fn add(&mut self, batch: Batch) {
        let bytes = batch.events.iter().map(|event| event.json.len()).sum::<usize>();
        match &mut self.next {
            Some(group) => {
                group.bytes += bytes;
                group.events.extend(batch.events);
                group.cursor = batch.cursor;
                group.time_ms = batch.time_ms.or(group.time_ms);
            }
            None => {
                let Batch { events, cursor, time_ms, .. } = batch;
                self.next = Some(Group { events, bytes, cursor, time_ms });
            }
        }
    }

    /// Waits for `delivered`, and gathers meanwhile.
    async fn beside<T>(&mut self, delivered: impl Future<Output = T>) -> T {
        let mut delivered = std::pin::pin!(delivered);
        loop {
            tokio::select! {
                biased;
                done = &mut delivered => return done,
                batch = self.batches.recv(), if has_room(self.next.as_ref()) => match batch {
                    Some(batch) => self.add(batch),
                    None => return delivered.await,
                },
            }
        }
    }
}

/// One transaction, again until it is committed.
async fn deliver(
    topic: &mut dyn Topic,
    context: &SinkContext,
    ledger: &Ledger,
    events: Arc<[Event]>,
    checkpoint: Checkpoint,
) -> Result<Vec<Buried>, FeedError> {
    let number = checkpoint.number;
    // Prepared before it can be committed; sent meanwhile.
    let (mut sent, prepared) = tokio::join!(topic.send(Arc::clone(&events)), ledger.prepare(checkpoint));
    prepared?;
    let (mut aborted, mut waited, mut pause) = (0, 0, FIRST_PAUSE);
    loop {
        let done = match sent.clone() {
            Ok(()) => topic.commit(number).await,
            Err(error) => Err(error),
        };
        let error = match done {
            Ok(buried) => return Ok(buried),
            Err(error) => error,
        };
        context.status.failed(&error.to_string());
        match &error {
            TopicError::Pending(_) if waited < WAITS => {
                waited += 1;
                sent = Ok(());
            }
            TopicError::Refused(_) => sent = topic.send(Arc::clone(&events)).await,
            TopicError::Aborted(_) if aborted < ATTEMPTS => {
                aborted += 1;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
                sent = topic.send(Arc::clone(&events)).await;
            }
            TopicError::Pending(_) | TopicError::Aborted(_) | TopicError::Broken(_) => {
                return Err(FeedError::Sink(error.to_string()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bigpeer_types::Lsn;
    use tokio::sync::oneshot;

    use super::*;
    use crate::event::Kind;

    /// So many events of so many bytes, up to a transaction of this version.
    fn batch(version: u64, events: usize, bytes: usize) -> Batch {
        let lsn = Lsn::new(version, 0);
        let json = bytes::Bytes::from(vec![b'x'; bytes]);
        let event = Event { id: version.to_string(), kind: Kind::Changed, cursor: String::new(), key: None, lsn, json };
        Batch { events: vec![event; events], cursor: Cursor::after(lsn), transactions: 1, bytes: 0, time_ms: None }
    }

    fn versions(group: &Group) -> Vec<u64> {
        let mut versions: Vec<u64> = group.events.iter().map(|event| event.lsn.version).collect();
        versions.dedup();
        assert_eq!(group.cursor, Cursor::after(Lsn::new(*versions.last().unwrap(), 0)));
        versions
    }

    #[tokio::test]
    async fn what_is_read_beside_a_delivery_is_the_next_transaction() {
        let (sender, batches) = mpsc::channel(1);
        let mut gathering = Gathering { batches, next: None };
        let (done, delivered) = oneshot::channel();
        let reading = tokio::spawn(async move {
            for version in 1..=10 {
                // Waits for ever if nobody takes them.
                sender.send(batch(version, 2, 10)).await.unwrap();
            }
            done.send("delivered").unwrap();
        });
        assert_eq!(gathering.beside(delivered).await.unwrap(), "delivered");
        assert_eq!(versions(&gathering.take().await.unwrap()), (1..=10).collect::<Vec<_>>());
        reading.await.unwrap();
        assert!(gathering.take().await.is_none());
    }

    #[tokio::test]
    async fn transactions_are_bounded_in_events_and_in_bytes() {
        for (events, bytes) in [(TRANSACTION_EVENTS / 2 - 1, 1), (10, TRANSACTION_BYTES / 25)] {
            let (sender, batches) = mpsc::channel(8);
            let mut gathering = Gathering { batches, next: None };
            for version in 1..=7 {
                sender.try_send(batch(version, events, bytes)).unwrap();
            }
            // Beside a delivery that takes long no more is taken than fits.
            let is_full = tokio::time::timeout(Duration::ZERO, gathering.beside(std::future::pending::<()>()));
            assert!(is_full.await.is_err());
            drop(sender);
            assert_eq!(versions(&gathering.take().await.unwrap()), [1, 2, 3]);
            assert_eq!(versions(&gathering.take().await.unwrap()), [4, 5, 6]);
            assert_eq!(versions(&gathering.take().await.unwrap()), [7]);
            assert!(gathering.take().await.is_none());
        }
    }
}
