//! `Owner`: one process's work on one feed, for as long as it holds the feed's lease.
//!
//! # Consistency
//! The lease is renewed beside the work; when it is lost the work stops. That alone would be a matter of clocks: what
//! protects is that checkpoints are written only while the lease holds, and that Kafka refuses producers that were fenced.
//! A webhook can be sent twice by two owners that both believe in the lease, never forgotten.

use std::sync::Arc;
use std::time::Duration;

use bigpeer_chassis::{Access, Door, Name, Shutdown};
use bigpeer_feed_spec::{FeedSpec, SinkSpec};
use bigpeer_log::{Lease, LeaseError};
use bigpeer_tables::DocumentStore;
use bigpeer_types::AppId;
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use crate::ChangefeedContext;
use crate::error::FeedError;
use crate::event::{Encoder, Kind};
use crate::kafka::{self, Opening, Topic};
use crate::ledger::Ledger;
use crate::lens::Lens;
use crate::metrics;
use crate::reader::{Batch, Reader, Start, add_snapshot};
use crate::registry::{Asked, Checkpoint, Entry, Journal, Registry, Stored};
use crate::sink::{Confirmed, SinkContext};
use crate::status::Status;
use crate::webhook;

/// How often checkpoints are committed, while they move.
const COMMIT_EVERY: Duration = Duration::from_millis(500);
/// How often a feed says that there is nothing to deliver, in commits.
const SAY_IDLE_EVERY: u32 = 60;
/// How long attempts of a webhook wait to be kept while the feed does not move, in commits.
const KEEP_EVERY: u32 = 10;
/// Batches between reader and sink, which gathers them itself.
const BUFFERED: usize = 1;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const MAX_PAUSE: Duration = Duration::from_secs(15);
/// How long a sink may take to end what it has begun.
const ENDING: Duration = Duration::from_secs(5);
/// Why a feed to Kafka cannot be worked on.
pub(crate) const NO_KAFKA: &str = "this build has no Kafka; use one with the feature kafka";

/// One process's work on one feed.
pub(crate) struct Owner {
    pub(crate) context: ChangefeedContext,
    pub(crate) registry: Registry,
    /// Of this process.
    pub(crate) process: String,
    pub(crate) app: AppId,
    pub(crate) name: Name,
    pub(crate) store: Arc<DocumentStore>,
    pub(crate) status: Arc<Status>,
}

/// How work on a feed ended, when nothing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The feed was changed: begin anew.
    Changed,
    /// It is paused or gone, or the process ends.
    Stopped,
}

/// A lease that is renewed in the background.
struct Held {
    lease: Arc<Mutex<Lease>>,
    lost: Shutdown,
    renewing: tokio::task::JoinHandle<()>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

/// A sink that is at work.
struct Working {
    batches: mpsc::Sender<Batch>,
    confirmed: watch::Receiver<Confirmed>,
    ended: oneshot::Receiver<Result<(), FeedError>>,
    /// Asks the sink to end where it stands.
    stop: Shutdown,
    task: tokio::task::JoinHandle<()>,
}

impl Working {
    /// Lets the sink end what it has begun, for a while.
    async fn end(mut self) -> Confirmed {
        self.stop.cancel();
        if !self.ended.is_terminated() {
            let _ended_or_not = tokio::time::timeout(ENDING, &mut self.ended).await;
        }
        self.confirmed.borrow().clone()
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Owner {
    /// Works on the feed if nobody else does, until it is paused or gone, or somebody else takes it over.
    pub(crate) async fn run(self) {
        let held = match self.acquire().await {
            Ok(held) => held,
            Err(LeaseError::Held { .. }) => return,
            Err(error) => {
                tracing::warn!(app = %self.app, feed = %self.name, %error, "the feed cannot be owned, will try again");
                return;
            }
        };
        self.status.own();
        tracing::info!(app = %self.app, feed = %self.name, "the feed is owned by this process");
        tokio::select! {
            () = held.lost.cancelled() => tracing::warn!(app = %self.app, feed = %self.name, "the feed was taken over"),
            () = self.work(&held) => {}
        }
        let lease = held.lease.lock().await.clone();
        drop(held);
        if let Err(error) = lease.release(self.context.log.metadata()).await {
            tracing::debug!(app = %self.app, feed = %self.name, %error, "the feed's lease was not released");
        }
    }

    async fn acquire(&self) -> Result<Held, LeaseError> {
        let name = format!("feeds/{}/{}", self.app, self.name);
        let (log, clock) = (Arc::clone(&self.context.log), Arc::clone(&self.context.clock));
        let ttl = self.context.settings.lease;
        let lease = Lease::acquire(log.metadata(), &name, &self.process, ttl, clock.as_ref()).await?;
        let (lease, lost) = (Arc::new(Mutex::new(lease)), Shutdown::new());
        let (ours, told) = (Arc::clone(&lease), lost.clone());
        let renewing = tokio::spawn(async move {
            loop {
                tokio::time::sleep(ttl / 3).await;
                let mut lease = ours.lock().await;
                match lease.renew(log.metadata(), ttl, clock.as_ref()).await {
                    Ok(()) => {}
                    Err(LeaseError::Metadata(_)) if clock.now_ms() < lease.expires_ms() => {}
                    Err(_) => {
                        told.cancel();
                        return;
                    }
                }
            }
        });
        Ok(Held { lease, lost, renewing })
    }

    async fn work(&self, held: &Held) {
        let (mut pause, mut journal) = (Duration::ZERO, None);
        loop {
            let began = self.context.clock.monotonic();
            match self.deliver(held, &mut journal).await {
                Ok(Ended::Changed) => pause = Duration::ZERO,
                Ok(Ended::Stopped) | Err(FeedError::Lost) => return,
                Err(error) if error.is_retryable() => {
                    // One that ran well for long starts over with short pauses.
                    if self.context.clock.monotonic().saturating_sub(began) > 2 * MAX_PAUSE {
                        pause = Duration::ZERO;
                    }
                    pause = (pause * 2).clamp(FIRST_PAUSE, MAX_PAUSE);
                    self.status.failed(&error.to_string());
                    tracing::warn!(app = %self.app, feed = %self.name, %error, "a feed failed, will try again in {pause:?}");
                    tokio::select! {
                        () = self.context.shutdown.cancelled() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                }
                Err(error) => {
                    self.pause(&error.to_string()).await;
                    return;
                }
            }
        }
    }

    /// Lets the feed stand still until somebody has seen why.
    async fn pause(&self, reason: &str) {
        tracing::error!(app = %self.app, feed = %self.name, reason, "the feed is paused");
        self.status.failed(reason);
        if let Err(error) = self.registry.pause(&self.app, &self.name, reason).await {
            tracing::warn!(app = %self.app, feed = %self.name, %error, "the feed could not be paused");
        }
    }

    /// What the feed may read: what its owner may, if that key is still good.
    fn access(&self, spec: &FeedSpec) -> Result<Access, String> {
        let none = || format!("its owner, the API key '{}', is gone, has ended or does not open 'changes'", spec.owner);
        let allowed = self.context.catalogue.permissions_of_key(&self.app, &spec.owner, Door::Changes);
        allowed.map(|allowed| allowed.read.clone()).ok_or_else(none)
    }

    /// Delivers until something changes.
    #[allow(clippy::too_many_lines, reason = "one select over everything that can happen")]
    async fn deliver(&self, held: &Held, journal: &mut Option<Journal>) -> Result<Ended, FeedError> {
        let mut entries = self.registry.watch();
        let mut catalogue = self.context.catalogue.changes();
        if self.context.catalogue.app(&self.app).is_none() {
            // It was deleted; whoever does that removes its feeds, too.
            return Ok(Ended::Stopped);
        }
        let stored = self.registry.entry(&self.app, &self.name).await?;
        let Some(Stored { record: entry, .. }) = stored.filter(|stored| stored.record.paused.is_none()) else {
            return Ok(Ended::Stopped);
        };
        let access = self.access(&entry.spec);
        let lens = access.clone().and_then(|access| Lens::compile(&entry.spec.sources, access, entry.spec.values));
        let lens = match lens {
            Ok(lens) => Arc::new(lens),
            Err(reason) => {
                self.pause(&reason).await;
                return Ok(Ended::Stopped);
            }
        };
        let (mut working, ledger, base) = tokio::select! {
            () = self.context.shutdown.cancelled() => return Ok(Ended::Stopped),
            started = self.start(held, &entry) => started?,
        };
        let journal = match journal {
            Some(journal) => journal,
            None => journal.insert(Journal::open(&self.registry, &self.app, &self.name).await?),
        };
        let encoder = Encoder::new(&self.app, &format!("feeds/{}", self.name), entry.spec.format);
        let (store, log) = (Arc::clone(&self.store), Arc::clone(&self.context.log));
        let mut reader = Reader::new(store, log, lens, encoder, Start::At(base.cursor()?));
        let mut committing = Committing { owner: self, ledger, journal, base, last: None, idle: 0, unkept: 0 };
        let mut tick = tokio::time::interval(COMMIT_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let ended = loop {
            tokio::select! {
                biased;
                () = self.context.shutdown.cancelled() => break Ok(Ended::Stopped),
                result = &mut working.ended => break match result {
                    Ok(Ok(())) | Err(_) => Err(FeedError::Records("the sink has ended".to_owned())),
                    Ok(Err(error)) => Err(error),
                },
                changed = entries.changed() => {
                    changed?;
                    if let Some(ended) = self.is_another_than(&entry).await? {
                        break Ok(ended);
                    }
                }
                changed = catalogue.changed() => {
                    if changed.is_err() {
                        break Ok(Ended::Stopped);
                    }
                    // What waits was written for the permissions of before: begin anew where the sink stands.
                    if self.access(&entry.spec) != access {
                        break Ok(Ended::Changed);
                    }
                }
                _ = tick.tick() => {
                    // A key also ends by itself, of which the catalogue tells nothing.
                    if self.access(&entry.spec).is_err() {
                        break Ok(Ended::Changed);
                    }
                    let confirmed = working.confirmed.borrow().clone();
                    let (behind, at) = (reader.is_behind(), reader.cursor().to_string());
                    committing.commit(&confirmed, (behind, &at), false).await?;
                }
                pumped = pump(&mut reader, &working.batches) => match pumped {
                    Ok(true) => {
                        metrics::gap(&self.app, &self.name);
                        tracing::warn!(app = %self.app, feed = %self.name, "a feed has lost changes; its reader starts anew");
                    }
                    Ok(false) => {}
                    Err(error) => break Err(error),
                },
            }
        };
        let confirmed = working.end().await;
        let (behind, at) = (reader.is_behind(), reader.cursor().to_string());
        committing.commit(&confirmed, (behind, &at), true).await?;
        ended
    }

    /// What ends the delivery if the feed is no longer what it was.
    async fn is_another_than(&self, entry: &Entry) -> Result<Option<Ended>, FeedError> {
        Ok(match self.registry.entry(&self.app, &self.name).await? {
            Some(stored) if stored.record == *entry => None,
            Some(_) => Some(Ended::Changed),
            None => Some(Ended::Stopped),
        })
    }

    /// Opens the sink, and finds out where the feed stands.
    async fn start(&self, held: &Held, entry: &Entry) -> Result<(Working, Arc<Ledger>, Checkpoint), FeedError> {
        let (topic, committed) = match &entry.spec.sink {
            SinkSpec::Webhook(_) => (None, None),
            SinkSpec::Kafka(_) => self.open_topic(entry).await?,
        };
        // Only now: what a process or an attempt before this one can still prepare, it cannot commit any more.
        let (registry, names) = (self.registry.clone(), (self.app.clone(), self.name.clone()));
        let lease = Arc::clone(&held.lease);
        let (ledger, mut base) = Ledger::open(registry, names, lease, entry.incarnation, committed).await?;
        let ledger = Arc::new(ledger);
        if entry.request > base.request {
            let mut cursor = base.cursor()?;
            match &entry.asked {
                Some(Asked::Rewind(to)) => base.cursor.clone_from(to),
                Some(Asked::Snapshot(collections)) => {
                    add_snapshot(&mut cursor, collections.clone());
                    base.cursor = cursor.to_string();
                }
                None => {}
            }
            base.request = entry.request;
            base.number += 1;
            base.caught_up_ms = None;
            ledger.confirm(base.clone(), &[]).await?;
        }
        let working = self.working(entry, topic, Arc::clone(&ledger), base.clone());
        Ok((working, ledger, base))
    }

    /// Takes the feed's topic over; answers the number that was committed last, too.
    async fn open_topic(&self, entry: &Entry) -> Result<(Option<Box<dyn Topic>>, Option<u64>), FeedError> {
        let SinkSpec::Kafka(spec) = &entry.spec.sink else { return Ok((None, None)) };
        let kafka = self.context.kafka.as_ref().ok_or_else(|| FeedError::Sink(NO_KAFKA.to_owned()))?;
        let opening = Opening {
            spec: spec.clone(),
            // Another feed of the same name has numbers of its own.
            producer: format!("bigpeer.{}.{}.{:016x}", self.app, self.name, entry.incarnation),
            content_type: entry.spec.format.content_type(),
        };
        let (topic, committed) = kafka.open(opening).await.map_err(FeedError::Sink)?;
        Ok((Some(topic), committed))
    }

    /// Sets the sink to work, from `base` on.
    fn working(&self, entry: &Entry, topic: Option<Box<dyn Topic>>, ledger: Arc<Ledger>, base: Checkpoint) -> Working {
        let context = SinkContext {
            app: self.app.clone(),
            name: self.name.clone(),
            format: entry.spec.format,
            clock: Arc::clone(&self.context.clock),
            ids: Arc::clone(&self.context.ids),
            registry: self.registry.clone(),
            status: Arc::clone(&self.status),
            allow_private: self.context.settings.allow_private_receivers,
        };
        let (batches, queue) = mpsc::channel(BUFFERED);
        let (confirms, confirmed) = watch::channel(Confirmed::default());
        let (done, ended) = oneshot::channel();
        let stop = Shutdown::new();
        let asked = stop.clone();
        let sink = entry.spec.sink.clone();
        let task = tokio::spawn(async move {
            let result = match (sink, topic) {
                (SinkSpec::Kafka(_), Some(topic)) => {
                    kafka::run(topic, base, (context, ledger), queue, confirms, asked).await
                }
                (SinkSpec::Kafka(_), None) => Err(FeedError::Sink(NO_KAFKA.to_owned())),
                // What it has sent may be told again: there is nothing to end.
                (SinkSpec::Webhook(spec), _) => tokio::select! {
                    () = asked.cancelled() => Ok(()),
                    result = webhook::run(spec, context, queue, confirms) => result,
                },
            };
            // Whoever waited is gone.
            let _gone = done.send(result);
        });
        Working { batches, confirmed, ended, stop, task }
    }
}

/// Moves one batch from the reader to the sink, when there is room. Answers whether it tells of a gap. Cancel safe.
async fn pump(reader: &mut Reader, batches: &mpsc::Sender<Batch>) -> Result<bool, FeedError> {
    // A sink that is gone says so itself.
    let Ok(room) = batches.reserve().await else { return std::future::pending().await };
    let batch = reader.next().await?;
    let gap = batch.events.iter().any(|event| event.kind == Kind::RequeryRequired);
    room.send(batch);
    Ok(gap)
}

/// Remembers how far the feed has come.
struct Committing<'a> {
    owner: &'a Owner,
    ledger: Arc<Ledger>,
    /// Attempts are kept with checkpoints.
    journal: &'a mut Journal,
    base: Checkpoint,
    last: Option<Checkpoint>,
    /// Commits that were left out because nothing moved.
    idle: u32,
    /// Commits that were left out while attempts waited to be kept.
    unkept: u32,
}

impl Committing<'_> {
    /// `behind`: whether the reader has more at once; `at`: where it stands.
    async fn commit(
        &mut self,
        confirmed: &Confirmed,
        (behind, at): (bool, &str),
        is_last: bool,
    ) -> Result<(), FeedError> {
        let owner = self.owner;
        let now_ms = owner.context.clock.now_ms();
        let mut checkpoint = confirmed.checkpoint(&self.base, now_ms);
        owner.status.count(checkpoint.delivered, now_ms);
        let last = self.last.as_ref().unwrap_or(&self.base);
        let caught_up = !behind && checkpoint.cursor == at;
        let moved = checkpoint.number > last.number;
        self.idle = if moved { 0 } else { self.idle + 1 };
        let is_kept = !self.journal.is_due() && owner.status.fresh().is_empty();
        self.unkept = if is_kept { 0 } else { self.unkept + 1 };
        let due = !is_kept && (is_last || self.unkept >= KEEP_EVERY);
        if !moved && !due && !(caught_up && (self.idle == 1 || self.idle.is_multiple_of(SAY_IDLE_EVERY))) {
            return Ok(());
        }
        checkpoint.delivered_ms = if checkpoint.delivered > last.delivered { Some(now_ms) } else { last.delivered_ms };
        checkpoint.caught_up_ms = if caught_up { Some(now_ms) } else { last.caught_up_ms };
        self.journal.take(&mut owner.status.fresh());
        let entries = self.journal.entries(now_ms)?;
        if self.ledger.confirm(checkpoint.clone(), &entries.ops).await? {
            self.journal.committed(&entries);
            self.unkept = 0;
        }
        self.last = Some(checkpoint);
        Ok(())
    }
}
