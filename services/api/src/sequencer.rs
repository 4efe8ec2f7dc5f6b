//! One writer per app and process: gives transactions the site's next sequence numbers and appends what is waiting as one
//! batch, so that many requests share a commit of the log.
//!
//! # Consistency
//! The site's transactions on one document follow each other: one that was made from a state that lacks an earlier one of
//! this site is sent back to be made again. (A counter's contribution is one number per site: made from an old state it
//! would undo the other.)
//!
//! # Crash safety
//! Sequence numbers live here only. A process that starts anew takes a new site, so none is used twice. After an unknown
//! append the same is appended again, under the same numbers, until the log says what became of it.
//!
//! # Cancellation
//! A submission that nobody waits for any more is appended all the same: it may already be on its way.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bigpeer_chassis::{ApiError, Catalogue, ErrorCode};
use bigpeer_log::{AppendEntry, AppendError, AppendOutcome, ConflictKey, TransactionLog};
use bigpeer_types::{AppId, Clock, Hlc, HlcClock, Lsn, SiteId};
use bytes::Bytes;
use tokio::sync::{OnceCell, mpsc, oneshot};

use crate::metrics;

/// Most transactions in one append.
const MAX_BATCH: usize = 512;
/// Most bytes in one append, unless a single transaction is larger.
const MAX_BATCH_BYTES: usize = 4 << 20;
/// Submissions that may wait; more wait for room.
const QUEUE: usize = 1024;
/// Documents whose last write by this site is remembered.
const MAX_RECENT: usize = 256 * 1024;
/// Pauses between repetitions of an unknown append.
const PAUSES_MS: std::ops::RangeInclusive<u64> = 20..=1000;

/// A transaction to append.
#[derive(Debug)]
pub(crate) struct Submission {
    /// The snapshot that it was made from.
    pub(crate) base: Lsn,
    pub(crate) writes: Vec<ConflictKey>,
    /// The collections that are written to: others may depend on these, this site's own transactions do not.
    pub(crate) collections: Vec<ConflictKey>,
    pub(crate) unchanged: Vec<(ConflictKey, Lsn)>,
    pub(crate) payload: Bytes,
}

/// What became of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is durable.
    Applied(Lsn),
    /// It was not applied: what it was made from has changed. `after`: where the change stands, when that is known.
    Stale {
        /// Make it again from a snapshot at or after this.
        after: Option<Lsn>,
    },
}

type Reply = oneshot::Sender<Result<Outcome, ApiError>>;

/// This process as a writer of one app.
#[derive(Debug)]
pub(crate) struct Writer {
    /// Held while stamps are made, so that none is made twice.
    pub(crate) clock: Mutex<HlcClock>,
    queue: mpsc::Sender<(Submission, Reply)>,
}

impl Writer {
    /// Appends, and answers when the outcome is durable.
    pub(crate) async fn submit(&self, submission: Submission) -> Result<Outcome, ApiError> {
        let (reply, answer) = oneshot::channel();
        let gone = || ApiError::new(ErrorCode::Unknown, "the writer stopped; it is not known whether this was written");
        if self.queue.send((submission, reply)).await.is_err() {
            return Err(ApiError::new(ErrorCode::Unavailable, "the writer stopped; nothing was written; try again"));
        }
        answer.await.map_err(|_| gone())?
    }
}

/// The writers of this process, one per app, made at the first write.
#[derive(Debug)]
pub(crate) struct Writers {
    log: Arc<dyn TransactionLog>,
    catalogue: Arc<Catalogue>,
    clock: Arc<dyn Clock>,
    writers: Mutex<HashMap<AppId, Arc<OnceCell<Arc<Writer>>>>>,
}

impl Writers {
    pub(crate) fn new(log: Arc<dyn TransactionLog>, catalogue: Arc<Catalogue>, clock: Arc<dyn Clock>) -> Self {
        Self { log, catalogue, clock, writers: Mutex::default() }
    }

    /// The app's writer.
    pub(crate) async fn of(&self, app: &AppId) -> Result<Arc<Writer>, ApiError> {
        let cell = {
            let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
            // One that stopped is replaced, with a new site.
            writers.retain(|_, cell| cell.get().is_none_or(|writer| !writer.queue.is_closed()));
            Arc::clone(writers.entry(app.clone()).or_default())
        };
        let writer = cell
            .get_or_try_init(|| async {
                let site = self.catalogue.allocate_site(app).await?;
                tracing::info!(%app, %site, "the data API writes as a new site");
                let (queue, submissions) = mpsc::channel(QUEUE);
                let sequencer = Sequencer {
                    app: app.clone(),
                    log: Arc::clone(&self.log),
                    site,
                    last_seq: 0,
                    recent: HashMap::new(),
                    forgotten: Lsn::ZERO,
                };
                tokio::spawn(sequencer.run(submissions));
                let clock = Mutex::new(HlcClock::new(site, Hlc::ZERO, Arc::clone(&self.clock)));
                Ok::<_, ApiError>(Arc::new(Writer { clock, queue }))
            })
            .await?;
        Ok(Arc::clone(writer))
    }
}

#[derive(Debug)]
struct Sequencer {
    app: AppId,
    log: Arc<dyn TransactionLog>,
    site: SiteId,
    /// The site's last sequence number that is in the log.
    last_seq: u64,
    /// Where this site wrote a document last, for all writes after `forgotten`.
    recent: HashMap<ConflictKey, Lsn>,
    forgotten: Lsn,
}

/// Sequence numbers are not what this writer believes; it must not go on.
#[derive(Debug)]
struct Lost;

impl Sequencer {
    async fn run(mut self, mut submissions: mpsc::Receiver<(Submission, Reply)>) {
        while let Some(first) = submissions.recv().await {
            let mut bytes = first.0.payload.len();
            let mut batch = vec![first];
            while batch.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
                let Ok(next) = submissions.try_recv() else { break };
                bytes += next.0.payload.len();
                batch.push(next);
            }
            if let Err(Lost) = self.write(batch).await {
                tracing::error!(app = %self.app, site = %self.site, "another writer uses this site; taking a new one");
                return;
            }
        }
    }

    /// Appends a batch and answers everyone in it.
    async fn write(&mut self, batch: Vec<(Submission, Reply)>) -> Result<(), Lost> {
        let (mut ready, mut after_these) = (Vec::new(), Vec::new());
        let mut claimed = HashSet::new();
        for (submission, reply) in batch {
            if let Some(after) = self.written_since(&submission) {
                answer(reply, Ok(Outcome::Stale { after: Some(after) }));
            } else if submission.writes.iter().any(|key| claimed.contains(key)) {
                after_these.push(reply);
            } else {
                claimed.extend(submission.writes.iter().copied());
                ready.push((submission, reply));
            }
        }
        // One that the log refuses makes gaps of those behind it: what cannot be refused goes first.
        ready.sort_by_key(|(submission, _)| !submission.unchanged.is_empty());
        let mut newest = None;
        while !ready.is_empty() {
            metrics::appended(ready.len());
            let (outcomes, repeated) = match self.append(&ready).await {
                Ok(outcomes) => outcomes,
                Err(error) => {
                    for (_, reply) in ready {
                        answer(reply, Err(error.clone()));
                    }
                    break;
                }
            };
            ready = self.settle(ready, outcomes, repeated, &mut newest)?;
        }
        for reply in after_these {
            answer(reply, Ok(Outcome::Stale { after: newest }));
        }
        Ok(())
    }

    /// Answers those whose outcome is known; the rest goes into the next append.
    fn settle(
        &mut self,
        batch: Vec<(Submission, Reply)>,
        outcomes: Vec<AppendOutcome>,
        repeated: bool,
        newest: &mut Option<Lsn>,
    ) -> Result<Vec<(Submission, Reply)>, Lost> {
        let first_seq = self.last_seq + 1;
        let before = batch.len();
        let mut again = Vec::new();
        for ((seq, (submission, reply)), outcome) in (first_seq..).zip(batch).zip(outcomes) {
            match outcome {
                AppendOutcome::Duplicate { .. } if !repeated => {
                    answer(reply, Err(ApiError::internal(&"a sequence number of this writer was used by another")));
                    return Err(Lost);
                }
                AppendOutcome::Applied(lsn) | AppendOutcome::Duplicate { lsn, .. } => {
                    self.last_seq = seq;
                    self.remember(&submission.writes, lsn);
                    *newest = (*newest).max(Some(lsn));
                    answer(reply, Ok(Outcome::Applied(lsn)));
                }
                AppendOutcome::SeqGap { .. } => again.push((submission, reply)),
                AppendOutcome::Conflict { .. } | AppendOutcome::SnapshotTooOld => {
                    answer(reply, Ok(Outcome::Stale { after: None }));
                }
            }
        }
        // The first of an append can only be a gap when the log holds less of this site than was acknowledged.
        if again.len() == before { Err(Lost) } else { Ok(again) }
    }

    /// Appends until the log says what became of it; whether it took more than one try.
    async fn append(&self, batch: &[(Submission, Reply)]) -> Result<(Vec<AppendOutcome>, bool), ApiError> {
        let entries: Vec<AppendEntry> = (self.last_seq + 1..)
            .zip(batch)
            .map(|(seq, (submission, _))| AppendEntry {
                site: self.site,
                seq,
                writes: [submission.writes.as_slice(), &submission.collections].concat(),
                unchanged: submission.unchanged.clone(),
                payload: submission.payload.clone(),
            })
            .collect();
        let mut pause_ms = *PAUSES_MS.start();
        let mut unknown = false;
        loop {
            match self.log.append(&self.app, entries.clone()).await {
                Ok(outcomes) => return Ok((outcomes, unknown)),
                Err(AppendError::Unknown { reason }) => {
                    tracing::warn!(app = %self.app, reason, "an append may have happened; appending the same again");
                    unknown = true;
                }
                // What was unknown before stays so: only an outcome settles it.
                Err(AppendError::Unavailable { .. } | AppendError::Rejected { .. }) if unknown => {}
                Err(AppendError::Unavailable { reason }) => {
                    tracing::warn!(app = %self.app, reason, "the log takes no appends");
                    let message = format!("nothing was written: {reason}");
                    return Err(ApiError::new(ErrorCode::Unavailable, message));
                }
                Err(error @ AppendError::Rejected { .. }) => return Err(ApiError::internal(&error)),
            }
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            pause_ms = (pause_ms * 2).min(*PAUSES_MS.end());
        }
    }

    /// Where this site wrote one of the submission's documents after the snapshot that it was made from.
    fn written_since(&self, submission: &Submission) -> Option<Lsn> {
        if submission.base < self.forgotten {
            return Some(self.forgotten);
        }
        submission
            .writes
            .iter()
            .filter_map(|key| self.recent.get(key))
            .filter(|lsn| **lsn > submission.base)
            .max()
            .copied()
    }

    fn remember(&mut self, writes: &[ConflictKey], lsn: Lsn) {
        if self.recent.len() + writes.len() > MAX_RECENT {
            self.recent.clear();
            self.forgotten = lsn;
        }
        self.recent.extend(writes.iter().map(|key| (*key, lsn)));
    }
}

/// Nobody may be waiting any more.
fn answer(reply: Reply, outcome: Result<Outcome, ApiError>) {
    let _gone = reply.send(outcome);
}
