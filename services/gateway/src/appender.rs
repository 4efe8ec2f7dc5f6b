//! `Appender`: one writer per app that appends what all sessions have pushed. While one append is under way the next one
//! gathers: the batch follows the load, and nobody waits for a timer.
//!
//! # Cancellation
//! A session that ends does not take its transactions back: they are appended, and nobody hears of it until the site says
//! hello again.

use std::sync::Arc;

use bigpeer_log::{AppendEntry, TransactionLog};
use bigpeer_types::AppId;
use tokio::sync::mpsc;

use crate::hub::SessionQueue;
use crate::metrics;

/// Most bytes in one append.
const BATCH_BYTES: usize = 4 << 20;
/// Most entries in one append.
const BATCH_ENTRIES: usize = 4096;
/// Most jobs that wait.
const WAITING_JOBS: usize = 4096;

/// Transactions of one session, in order.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) entries: Vec<AppendEntry>,
    /// Where the outcomes go, all of the job at once.
    pub(crate) session: Arc<SessionQueue>,
}

/// Takes jobs; the task behind it ends when the last of these is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Appender {
    jobs: mpsc::Sender<Job>,
}

/// The appender is gone: the process ends.
#[derive(Debug)]
pub(crate) struct Gone;

impl Appender {
    pub(crate) fn spawn(app: AppId, log: Arc<dyn TransactionLog>) -> Self {
        let (jobs, waiting) = mpsc::channel(WAITING_JOBS);
        tokio::spawn(run(app, log, waiting));
        Self { jobs }
    }

    /// Hands over a job; waits while too many wait already.
    pub(crate) async fn append(&self, job: Job) -> Result<(), Gone> {
        self.jobs.send(job).await.map_err(|_| Gone)
    }
}

async fn run(app: AppId, log: Arc<dyn TransactionLog>, mut waiting: mpsc::Receiver<Job>) {
    while let Some(first) = waiting.recv().await {
        let (mut bytes, mut count) = (size(&first.entries), first.entries.len());
        let mut jobs = vec![first];
        while bytes < BATCH_BYTES && count < BATCH_ENTRIES {
            let Ok(job) = waiting.try_recv() else { break };
            bytes += size(&job.entries);
            count += job.entries.len();
            jobs.push(job);
        }
        append(&app, &*log, jobs, count).await;
    }
}

async fn append(app: &AppId, log: &dyn TransactionLog, jobs: Vec<Job>, count: usize) {
    let mut entries = Vec::with_capacity(count);
    let mut sessions = Vec::with_capacity(jobs.len());
    for job in jobs {
        sessions.push((job.entries.len(), job.session));
        entries.extend(job.entries);
    }
    // A session that is gone does not look: nothing to do about it.
    match log.append(app, entries).await {
        Ok(outcomes) => {
            metrics::appended(count);
            let mut outcomes = outcomes.into_iter();
            for (entries, session) in sessions {
                session.answer(Ok(outcomes.by_ref().take(entries).collect()));
            }
        }
        Err(error) => {
            tracing::warn!(%error, "an append failed; the sessions that pushed are closed, and will push again");
            for (_, session) in sessions {
                session.answer(Err(error.clone()));
            }
        }
    }
}

fn size(entries: &[AppendEntry]) -> usize {
    entries.iter().map(|entry| entry.payload.len()).sum()
}
