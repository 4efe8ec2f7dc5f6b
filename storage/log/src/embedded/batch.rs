//! One batch: decides requests one after the other, encodes what is to be written, and answers once that is durable.

use std::sync::Arc;

use bigpeer_types::{AppId, Lsn, SiteId};
use tokio::sync::oneshot;

use super::format::BatchEncoder;
use super::recent::Recent;
use super::shared::Shared;
use super::state::LogState;
use super::writer::{Request, publish_metadata};
use crate::memory::apply_ops;
use crate::preconditions::LastWrite;
use crate::{AppendEntry, AppendError, AppendOutcome, LogEntry, MetaError, MetaOp, ReadError};

/// An answer that waits for the sync.
#[derive(Debug)]
enum Answer {
    Append(oneshot::Sender<Result<Vec<AppendOutcome>, AppendError>>, Vec<AppendOutcome>),
    Commit(oneshot::Sender<Result<u64, MetaError>>, Result<u64, MetaError>),
    Trim(oneshot::Sender<Result<(), ReadError>>),
    LastSeq(oneshot::Sender<Result<u64, ReadError>>, u64),
}

/// An entry that becomes readable after the sync.
#[derive(Debug)]
struct NewEntry {
    app: u32,
    entry: LogEntry,
    start: u64,
    end: u64,
}

/// How to take a step of the writer's state back.
#[derive(Debug)]
enum Undo {
    Site { app: u32, site: SiteId, last: Option<LastWrite>, head: Lsn },
    Trim { app: u32, trimmed: Lsn },
    App,
    Metadata,
}

/// A batch that is being put together.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) encoder: BatchEncoder,
    answers: Vec<Answer>,
    entries: Vec<NewEntry>,
    trims: Vec<(u32, Lsn)>,
    commits: Vec<(Vec<MetaOp>, u64)>,
    undo: Vec<Undo>,
}

impl Batch {
    pub(crate) fn new(encoder: BatchEncoder) -> Self {
        Self {
            encoder,
            answers: Vec::new(),
            entries: Vec::new(),
            trims: Vec::new(),
            commits: Vec::new(),
            undo: Vec::new(),
        }
    }

    /// Decides a request, given everything decided before it.
    pub(crate) fn add(&mut self, request: Request, state: &mut LogState, shared: &Shared) {
        match request {
            Request::Append { app, entries, reply } => {
                let number = self.app_number(&app, state, shared);
                let outcomes = entries.into_iter().map(|entry| self.append(number, entry, state)).collect();
                self.answers.push(Answer::Append(reply, outcomes));
            }
            Request::Commit { ops, reply } => {
                let result = self.commit(ops, state);
                self.answers.push(Answer::Commit(reply, result));
            }
            Request::Trim { app, through, reply } => {
                self.trim(&app, through, state);
                self.answers.push(Answer::Trim(reply));
            }
            Request::LastSeq { app, site, reply } => {
                let app = state.numbers.get(&app).and_then(|number| state.app(*number));
                let last = app.and_then(|app| app.preconditions.sites.get(&site)).map_or(0, |last| last.seq);
                self.answers.push(Answer::LastSeq(reply, last));
            }
            Request::Close => {}
        }
    }

    fn app_number(&mut self, app: &AppId, state: &mut LogState, shared: &Shared) -> u32 {
        if let Some(number) = state.numbers.get(app) {
            return *number;
        }
        let number = state.add_app(app, shared.app(app));
        self.undo.push(Undo::App);
        self.encoder.app(number, app);
        number
    }

    fn append(&mut self, number: u32, entry: AppendEntry, state: &mut LogState) -> AppendOutcome {
        let Some(app) = state.app_mut(number) else { return AppendOutcome::SnapshotTooOld };
        if let Some(refusal) = app.preconditions.judge(&entry) {
            return refusal;
        }
        let (start, lsn) = (self.encoder.position(), Lsn::new(self.encoder.next_version(), 0));
        self.encoder.entry(number, &entry);
        let AppendEntry { site, seq, writes, unchanged: _, payload } = entry;
        let last = app.preconditions.sites.get(&site).copied();
        self.undo.push(Undo::Site { app: number, site, last, head: app.head });
        app.preconditions.applied(site, seq, lsn, writes.into_iter());
        app.head = lsn;
        let entry = LogEntry { lsn, site, seq, payload };
        self.entries.push(NewEntry { app: number, entry, start, end: self.encoder.position() });
        AppendOutcome::Applied(lsn)
    }

    fn commit(&mut self, ops: Vec<MetaOp>, state: &mut LogState) -> Result<u64, MetaError> {
        for op in &ops {
            if let MetaOp::Check { key, revision } = op
                && state.metadata.get(key).map(|versioned| versioned.revision) != *revision
            {
                return Err(MetaError::Conflict { key: key.clone() });
            }
        }
        let revision = self.encoder.next_version();
        self.encoder.metadata(&ops);
        apply_ops(&mut state.metadata, &ops, revision);
        self.undo.push(Undo::Metadata);
        self.commits.push((ops, revision));
        Ok(revision)
    }

    fn trim(&mut self, app: &AppId, through: Lsn, state: &mut LogState) {
        let Some(&number) = state.numbers.get(app) else { return };
        let Some(app) = state.app_mut(number) else { return };
        let through = through.min(app.head);
        if through > app.trimmed {
            self.undo.push(Undo::Trim { app: number, trimmed: app.trimmed });
            app.trimmed = through;
            self.encoder.trim(number, through);
            self.trims.push((number, through));
        }
    }

    /// The bytes to be written.
    pub(crate) fn take_bytes(&mut self) -> Result<Vec<u8>, std::num::TryFromIntError> {
        self.encoder.take()
    }

    /// Takes back what was decided: nothing of it was written. Conflict keys are left as they are: one that is
    /// remembered needlessly is a conflict needlessly, at worst.
    pub(crate) fn undo(&mut self, state: &mut LogState, shared: &Shared) {
        for step in self.undo.drain(..).rev() {
            match step {
                Undo::Site { app, site, last, head } => {
                    let Some(app) = state.app_mut(app) else { continue };
                    app.head = head;
                    match last {
                        Some(last) => app.preconditions.sites.insert(site, last),
                        None => app.preconditions.sites.remove(&site),
                    };
                }
                Undo::Trim { app, trimmed } => {
                    if let Some(app) = state.app_mut(app) {
                        app.trimmed = trimmed;
                    }
                }
                Undo::App => state.remove_last_app(),
                Undo::Metadata => {
                    // What readers see is what was before this batch.
                    let durable = shared.metadata.read().unwrap_or_else(std::sync::PoisonError::into_inner);
                    state.metadata.clone_from(&durable);
                }
            }
        }
    }

    /// Makes the batch readable and answers. Answers whether something was trimmed.
    pub(crate) fn publish(self, state: &mut LogState, shared: &Shared, recent: &mut Recent, segment: u64) -> bool {
        let mut entries = self.entries.into_iter().peekable();
        while let Some(next) = entries.peek() {
            let number = next.app;
            let Some(app) = state.app(number) else { break };
            let index = Arc::clone(&app.index);
            // Already known to all but the app's first entry.
            let _ = index.number.set(number);
            let run = std::iter::from_fn(|| entries.next_if(|entry| entry.app == number)).map(|new| {
                recent.added(&index, new.entry.lsn.version, new.entry.payload.len());
                (new.entry, new.start, new.end)
            });
            index.publish(segment, run);
        }
        recent.evict();
        let trimmed = !self.trims.is_empty();
        for (number, through) in self.trims {
            if let Some(app) = state.app(number) {
                app.index.trim(through);
            }
        }
        for (ops, revision) in self.commits {
            publish_metadata(shared, &ops, revision);
        }
        answer(self.answers);
        trimmed
    }

    /// Answers a batch in which nothing was to be written.
    pub(crate) fn answer_unchanged(self) {
        answer(self.answers);
    }

    /// Answers a batch that failed; `may_have_applied` says whether it may nevertheless be there after a restart.
    pub(crate) fn fail(self, reason: &str, may_have_applied: bool) {
        let reason = reason.to_owned();
        for waiting in self.answers {
            let reason = reason.clone();
            // Whoever does not wait any more is not told.
            match waiting {
                Answer::Append(reply, _) if may_have_applied => drop(reply.send(Err(AppendError::Unknown { reason }))),
                Answer::Append(reply, _) => drop(reply.send(Err(AppendError::Unavailable { reason }))),
                Answer::Commit(reply, _) if may_have_applied => drop(reply.send(Err(MetaError::Unknown { reason }))),
                Answer::Commit(reply, _) => drop(reply.send(Err(MetaError::Unavailable { reason }))),
                Answer::Trim(reply) => drop(reply.send(Err(ReadError::Unavailable { reason }))),
                Answer::LastSeq(reply, _) => drop(reply.send(Err(ReadError::Unavailable { reason }))),
            }
        }
    }
}

fn answer(answers: Vec<Answer>) {
    for answer in answers {
        // Whoever does not wait any more is not told.
        match answer {
            Answer::Append(reply, outcomes) => drop(reply.send(Ok(outcomes))),
            Answer::Commit(reply, result) => drop(reply.send(result)),
            Answer::Trim(reply) => drop(reply.send(Ok(()))),
            Answer::LastSeq(reply, seq) => drop(reply.send(Ok(seq))),
        }
    }
}
