//! Webhooks: each event, or a few at once, as a signed POST. At least once; in order per document, with concurrency across
//! documents.
//!
//! # Consistency
//! Documents are spread over **lanes** by their id; a lane delivers one request at a time, and does not go on before it was
//! taken or given up. The feed moves when everything before some point was. Events about whole collections wait for all that
//! come before them, and all that come after wait for them.
//!
//! # Memory
//! What is under way is bounded in events and bytes.

mod breaker;
mod lane;
mod post;

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bigpeer_feed_spec::WebhookSpec;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::error::FeedError;
use crate::event::Event;
use crate::reader::Batch;
use crate::sink::{Confirmed, SinkContext};
use breaker::Breaker;
use lane::{Job, Lane};
pub(crate) use post::{Answer, Poster};

/// Most events, and bytes of events, that are under way.
const WINDOW_EVENTS: usize = 8192;
const WINDOW_BYTES: usize = 32 << 20;

/// A batch under way.
struct InFlight {
    /// Requests of it that are not done.
    left: Arc<AtomicUsize>,
    batch: Moved,
    bytes: usize,
    /// Whether it is about whole collections.
    alone: bool,
}

/// What of a batch is left when its events are under way.
struct Moved {
    cursor: crate::cursor::Cursor,
    events: usize,
    time_ms: Option<u64>,
}

/// Delivers batches until there are no more.
pub(crate) async fn run(
    spec: WebhookSpec,
    context: SinkContext,
    mut batches: mpsc::Receiver<Batch>,
    confirmed: watch::Sender<Confirmed>,
) -> Result<(), FeedError> {
    let poster = Poster::new(&spec, context.allow_private, Arc::clone(&context.clock)).map_err(FeedError::Records)?;
    let breaker = Arc::new(Breaker::new(Arc::clone(&context.clock)));
    let progress = Arc::new(Notify::new());
    // Aborted when this is dropped.
    let mut tasks = JoinSet::new();
    let mut lanes = Vec::new();
    for _ in 0..spec.concurrency {
        let (jobs, queue) = mpsc::unbounded_channel();
        let lane = Lane {
            poster: poster.clone(),
            spec: spec.clone(),
            context: context.clone(),
            breaker: Arc::clone(&breaker),
            progress: Arc::clone(&progress),
        };
        tasks.spawn(lane.run(queue));
        lanes.push(jobs);
    }
    let mut window: VecDeque<InFlight> = VecDeque::new();
    let (mut events, mut bytes) = (0, 0);
    let mut held: Option<Batch> = None;
    let mut is_open = true;
    loop {
        while window.front().is_some_and(|front| front.left.load(Ordering::Acquire) == 0) {
            let Some(done) = window.pop_front() else { break };
            events -= done.batch.events;
            bytes -= done.bytes;
            confirmed.send_modify(|confirmed| {
                confirmed.move_to(done.batch.cursor, done.batch.events as u64, done.batch.time_ms);
            });
        }
        if held.as_ref().is_some_and(|batch| !is_about_collections(batch) || window.is_empty())
            && let Some(batch) = held.take()
        {
            let begun = dispatch(batch, &lanes, usize::from(spec.batch));
            events += begun.batch.events;
            bytes += begun.bytes;
            window.push_back(begun);
            continue;
        }
        if !is_open && window.is_empty() && held.is_none() {
            return Ok(());
        }
        let alone = window.back().is_some_and(|last| last.alone);
        let room = is_open && held.is_none() && !alone && events < WINDOW_EVENTS && bytes < WINDOW_BYTES;
        tokio::select! {
            batch = batches.recv(), if room => match batch {
                Some(batch) => held = Some(batch),
                None => is_open = false,
            },
            () = progress.notified() => {}
            Some(ended) = tasks.join_next() => {
                let why = ended.err().map_or_else(|| "a lane has ended".to_owned(), |error| error.to_string());
                return Err(FeedError::Records(why));
            }
        }
    }
}

fn is_about_collections(batch: &Batch) -> bool {
    batch.events.iter().any(|event| event.key.is_none())
}

/// Gives a batch's events to their lanes.
fn dispatch(batch: Batch, lanes: &[mpsc::UnboundedSender<Job>], at_once: usize) -> InFlight {
    let alone = is_about_collections(&batch);
    let bytes = batch.events.iter().map(|event| event.json.len() + 200).sum();
    let moved = Moved { cursor: batch.cursor, events: batch.events.len(), time_ms: batch.time_ms };
    let mut parts: Vec<Vec<Event>> = lanes.iter().map(|_| Vec::new()).collect();
    for event in batch.events {
        let lane = event.key.as_ref().map_or(0, |key| {
            let mut hasher = DefaultHasher::new();
            key.hash(&mut hasher);
            hasher.finish() % (lanes.len() as u64).max(1)
        });
        if let Some(part) = usize::try_from(lane).ok().and_then(|lane| parts.get_mut(lane)) {
            part.push(event);
        }
    }
    let requests: usize = parts.iter().map(|part| part.len().div_ceil(at_once)).sum();
    let left = Arc::new(AtomicUsize::new(requests));
    for (lane, part) in lanes.iter().zip(parts) {
        let mut part = part.into_iter().peekable();
        while part.peek().is_some() {
            let events: Vec<Event> = part.by_ref().take(at_once).collect();
            // A lane that is gone is noticed by whoever waits for its task.
            let _gone = lane.send(Job { events, left: Arc::clone(&left) });
        }
    }
    InFlight { left, batch: moved, bytes, alone }
}
