//! The maintenance thread: what takes the disk long is done here, beside the writer.

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

/// Does jobs until the writer has ended. `sequence` is that of the newest durable checkpoint.
pub(crate) fn run(shared: &Arc<Shared>, jobs: &mpsc::Receiver<Job>, mut sequence: u64) {
    for job in jobs {
        match job {
            Job::Prepare => {
                // Failing is no harm yet: the writer will try for itself when it needs the file, and say so then.
                if let Err(error) = shared.segments.prepare() {
                    tracing::info!(%error, "no segment file could be made ready ahead of use");
                }
            }
            Job::Checkpoint { content, first_segment } => {
                let bytes = checkpoint::frame(sequence + 1, &content);
                match checkpoint::write(&*shared.disk, sequence + 1, &bytes) {
                    Ok(()) => {
                        sequence += 1;
                        shared.first_segment.store(first_segment, Ordering::SeqCst);
                        if let Err(error) = shared.segments.free_before(first_segment) {
                            tracing::warn!(%error, "a trimmed segment file could not be removed");
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "no checkpoint could be written; trimmed segments are kept until the next one");
                    }
                }
                shared.checkpointing.store(false, Ordering::SeqCst);
            }
        }
    }
}
