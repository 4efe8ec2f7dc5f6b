//! Maintenance: what takes the disk long is done here, beside the writer.

use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};

use super::checkpoint;
use super::shared::Shared;

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Job {
    /// Make a segment file ready, if there is none.
    Prepare,
    /// Write a checkpoint, then free the segments before `first_segment`.
    Checkpoint {
        /// All of it but the sequence number.
        content: Vec<u8>,
        first_segment: u64,
    },
}

/// Where jobs are done.
#[derive(Debug)]
pub(crate) enum Maintenance {
    /// On a thread of their own.
    Thread(mpsc::Sender<Job>),
    /// At once, by whoever has them: so that tests see the same operations in the same order.
    Inline(Worker),
}

impl Maintenance {
    /// Has a job done.
    pub(crate) fn give(&mut self, job: Job) {
        match self {
            // A thread that has ended (it panicked) does nothing any more.
            Self::Thread(jobs) => drop(jobs.send(job)),
            Self::Inline(worker) => worker.work(job),
        }
    }
}

/// Does jobs.
#[derive(Debug)]
pub(crate) struct Worker {
    shared: Arc<Shared>,
    /// Of the newest durable checkpoint.
    sequence: u64,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, sequence: u64) -> Self {
        Self { shared, sequence }
    }

    /// Does jobs until there can be no more.
    pub(crate) fn run(mut self, jobs: &mpsc::Receiver<Job>) {
        for job in jobs {
            self.work(job);
        }
    }

    fn work(&mut self, job: Job) {
        match job {
            Job::Prepare => {
                // Failing is no harm yet: the writer will try for itself when it needs the file, and say so then.
                if let Err(error) = self.shared.segments.prepare() {
                    tracing::info!(%error, "no segment file could be made ready ahead of use");
                }
            }
            Job::Checkpoint { content, first_segment } => {
                self.checkpoint(&content, first_segment);
                self.shared.checkpointing.store(false, Ordering::SeqCst);
            }
        }
    }

    fn checkpoint(&mut self, content: &[u8], first_segment: u64) {
        let Self { shared, sequence } = self;
        let bytes = checkpoint::frame(*sequence + 1, content);
        if let Err(error) = checkpoint::write(&*shared.disk, *sequence + 1, &bytes) {
            tracing::warn!(%error, "no checkpoint could be written; trimmed segments are kept until the next one");
            return;
        }
        *sequence += 1;
        shared.first_segment.store(first_segment, Ordering::SeqCst);
        if let Err(error) = shared.segments.free_before(first_segment) {
            tracing::warn!(%error, "a trimmed segment file could not be removed");
        }
    }
}
