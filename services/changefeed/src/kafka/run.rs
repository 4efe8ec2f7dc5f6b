//! Batches as transactions, one after the other.

use std::sync::Arc;
use std::time::Duration;

use bigpeer_chassis::Shutdown;
use tokio::sync::{mpsc, watch};

use super::{Buried, Topic, TopicError};
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
    mut batches: mpsc::Receiver<Batch>,
    confirmed: watch::Sender<Confirmed>,
    stop: Shutdown,
) -> Result<(), FeedError> {
    loop {
        let first = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            first = batches.recv() => first,
        };
        let Some(first) = first else { return Ok(()) };
        let group = gather(first, &mut batches);
        let mut moved = confirmed.borrow().clone();
        moved.move_to(group.cursor, group.events.len() as u64, group.time_ms);
        // A move over nothing is remembered with the feed, and by the next transaction.
        if !group.events.is_empty() {
            let checkpoint = moved.checkpoint(&base, context.clock.now_ms());
            for buried in deliver(topic.as_mut(), &context, &ledger, group.events.into(), checkpoint).await? {
                let Buried { event, reason } = buried;
                context.status.dead_letter();
                tracing::warn!(app = %context.app, feed = %context.name, event, reason, "an event was given up");
            }
        }
        confirmed.send_replace(moved);
    }
}

/// What is there already, as one transaction.
fn gather(first: Batch, batches: &mut mpsc::Receiver<Batch>) -> Batch {
    let mut group = first;
    let mut bytes = size(&group);
    while bytes < TRANSACTION_BYTES && group.events.len() < TRANSACTION_EVENTS {
        let Ok(next) = batches.try_recv() else { break };
        bytes += size(&next);
        group.events.extend(next.events);
        group.cursor = next.cursor;
        group.time_ms = next.time_ms.or(group.time_ms);
    }
    group
}

fn size(batch: &Batch) -> usize {
    batch.events.iter().map(|event| event.json.len()).sum()
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
