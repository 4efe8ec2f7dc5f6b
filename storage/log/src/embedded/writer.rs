//! The writer thread: takes what waits, writes it as one batch, syncs once, and answers all of it.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use bigpeer_types::{AppId, Clock, IdGenerator, Lsn, SiteId};
use tokio::sync::{mpsc, oneshot};

use super::disk::is_full;
use super::format::{BATCH_HEADER_BYTES, BatchEncoder, RECORD_OVERHEAD_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::maintenance::{Job, Maintenance};
use super::segments::{ReadyFile, Segment};
use super::shared::Shared;
use super::state::LogState;
use super::{batch::Batch, checkpoint};
use crate::{AppendEntry, AppendError, AppendOutcome, MetaError, MetaOp, ReadError, metrics};

/// When a batch has this many bytes it takes no more requests.
pub(crate) const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// What is asked of the writer.
#[derive(Debug)]
pub(crate) enum Request {
    Append {
        app: AppId,
        entries: Vec<AppendEntry>,
        reply: oneshot::Sender<Result<Vec<AppendOutcome>, AppendError>>,
    },
    Commit {
        ops: Vec<MetaOp>,
        reply: oneshot::Sender<Result<u64, MetaError>>,
    },
    Trim {
        app: AppId,
        through: Lsn,
        reply: oneshot::Sender<Result<(), ReadError>>,
    },
    LastSeq {
        app: AppId,
        site: SiteId,
        reply: oneshot::Sender<Result<u64, ReadError>>,
    },
    /// Everything asked before is done; nothing asked after will be.
    Close,
}

impl Request {
    /// Most bytes that it takes in the log.
    fn most_bytes(&self) -> usize {
        let bytes = match self {
            Self::Append { app, entries, .. } => entries
                .iter()
                .map(|entry| entry.payload.len() + 8 * entry.writes.len() + RECORD_OVERHEAD_BYTES)
                .fold(app.as_str().len(), usize::saturating_add),
            Self::Commit { ops, .. } => ops
                .iter()
                .map(|op| match op {
                    MetaOp::Put { key, value } => key.len() + value.len() + RECORD_OVERHEAD_BYTES,
                    MetaOp::Check { key, .. } | MetaOp::Delete { key } => key.len() + RECORD_OVERHEAD_BYTES,
                })
                .fold(0, usize::saturating_add),
            Self::Trim { app, .. } => app.as_str().len() + RECORD_OVERHEAD_BYTES,
            Self::LastSeq { .. } | Self::Close => return 0,
        };
        bytes + RECORD_OVERHEAD_BYTES
    }

    /// Answers that the log did not and cannot do it.
    pub(crate) fn refuse(self, reason: &str) {
        let reason = reason.to_owned();
        // Whoever does not wait any more is not told.
        match self {
            Self::Append { reply, .. } => drop(reply.send(Err(AppendError::Unavailable { reason }))),
            Self::Commit { reply, .. } => drop(reply.send(Err(MetaError::Unavailable { reason }))),
            Self::Trim { reply, .. } => drop(reply.send(Err(ReadError::Unavailable { reason }))),
            Self::LastSeq { reply, .. } => drop(reply.send(Err(ReadError::Unavailable { reason }))),
            Self::Close => {}
        }
    }
}

/// Where the next batch goes.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    /// 0: not even the segment's header is written.
    pub(crate) offset: u64,
}

/// The writer's side of an open log.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) state: LogState,
    pub(crate) active: Active,
    pub(crate) log_id: [u8; 16],
    pub(crate) maintenance: Maintenance,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdGenerator>,
    pub(crate) recent: super::recent::Recent,
    /// Kept from batch to batch to save allocations.
    pub(crate) buffer: Vec<u8>,
    /// How many requests the last batch answered: about as many may come at once now.
    pub(crate) last_batch: usize,
}

impl Drop for Writer {
    /// Also when the thread panics: nobody must wait for it for ever.
    fn drop(&mut self) {
        self.shared.end("the log is closed".to_owned());
    }
}

impl Writer {
    /// Serves requests until the log is closed or nobody can ask any more.
    pub(crate) fn run(mut self, requests: &mut mpsc::Receiver<Request>) {
        let mut batch = Vec::new();
        while let Some(first) = requests.blocking_recv() {
            let goes_on = self.gather(first, requests, &mut batch);
            if let Some(reason) = self.shared.ended() {
                batch.drain(..).for_each(|request| request.refuse(reason));
            } else {
                self.last_batch = batch.len();
                self.commit(&mut batch);
            }
            if !goes_on {
                break;
            }
        }
        requests.close();
        while let Some(request) = requests.blocking_recv() {
            request.refuse("the log is closed");
        }
        if self.shared.ended().is_none() {
            self.write_end();
        }
    }

    /// Takes what waits, up to a batch. Answers `false` when the log is to be closed after it.
    ///
    /// Those whom the last batch answered are about to ask again. While they do so this gives them the processor, and takes
    /// them along instead of letting them wait for another sync. Nothing is waited for when nothing comes.
    fn gather(&self, first: Request, requests: &mut mpsc::Receiver<Request>, batch: &mut Vec<Request>) -> bool {
        let mut bytes = 0;
        let mut next = Some(first);
        loop {
            while let Some(request) = next.take() {
                if matches!(request, Request::Close) {
                    return false;
                }
                bytes += request.most_bytes();
                batch.push(request);
                if bytes >= BATCH_BYTES {
                    return true;
                }
                next = requests.try_recv().ok();
            }
            if batch.len() >= self.last_batch {
                return true;
            }
            std::thread::yield_now();
            next = requests.try_recv().ok();
            if next.is_none() {
                return true;
            }
        }
    }

    /// Does one batch of requests and answers them.
    fn commit(&mut self, requests: &mut Vec<Request>) {
        let started = self.clock.monotonic();
        let needed = requests.iter().map(Request::most_bytes).fold(0, usize::saturating_add);
        if needed > 0
            && let Err(error) = self.make_room(needed as u64)
        {
            let reason = refusal(&error);
            tracing::warn!(%error, "the log cannot grow; appends are refused");
            metrics::full();
            for request in requests.drain(..) {
                if let Request::LastSeq { app, site, reply } = request {
                    // Whoever does not wait any more is not told.
                    let _ = reply.send(Ok(self.last_seq(&app, site)));
                } else {
                    request.refuse(&reason);
                }
            }
            return;
        }
        let mut batch = Batch::new(self.encoder());
        for request in requests.drain(..) {
            batch.add(request, &mut self.state, &self.shared);
        }
        if batch.encoder.records() == 0 {
            self.buffer = batch.take_bytes().unwrap_or_default();
            batch.answer_unchanged();
            return;
        }
        self.write(batch, started);
    }

    fn encoder(&mut self) -> BatchEncoder {
        let Active { segment, offset } = &self.active;
        let header = (*offset == 0).then_some(&segment.header);
        BatchEncoder::new(std::mem::take(&mut self.buffer), segment.seed, *offset, self.state.next_version, header)
    }

    /// Writes a batch, syncs, and lets the world know.
    fn write(&mut self, mut batch: Batch, started: std::time::Duration) {
        let (records, next_version) = (batch.encoder.records(), batch.encoder.next_version());
        let bytes = match batch.take_bytes() {
            Ok(bytes) => bytes,
            Err(error) => {
                batch.undo(&mut self.state, &self.shared);
                return batch.fail(&format!("the batch is too large: {error}"), false);
            }
        };
        if let Err(error) = self.active.segment.file.write_at(&bytes, self.active.offset) {
            if is_full(&error) {
                batch.undo(&mut self.state, &self.shared);
                tracing::warn!(%error, "the log cannot be written; appends are refused");
                metrics::full();
                return batch.fail(&refusal(&error), false);
            }
            return self.stop(batch, "writing", &error);
        }
        if let Err(error) = self.active.segment.file.sync() {
            metrics::sync_failed();
            return self.stop(batch, "syncing", &error);
        }
        self.state.next_version = next_version;
        let is_first = self.active.offset == 0;
        self.active.offset += bytes.len() as u64;
        if is_first {
            self.shared.segments.add(Arc::clone(&self.active.segment));
        }
        metrics::committed(self.clock.monotonic().saturating_sub(started), records, bytes.len());
        self.buffer = bytes;
        let trimmed = batch.publish(&mut self.state, &self.shared, &mut self.recent, self.active.segment.header.number);
        if is_first {
            self.maintenance.give(Job::Prepare);
        }
        if is_first || trimmed {
            self.free();
        }
    }

    /// A write or sync failed: what is on disk is not known, and nothing may be acknowledged after it.
    fn stop(&mut self, batch: Batch, action: &str, error: &io::Error) {
        let file = self.shared.disk.path().join(&self.active.segment.name);
        let reason = format!(
            "{action} {} failed ({error}); the log has stopped, and must be opened again once the disk is well",
            file.display()
        );
        tracing::error!(%reason, "the transaction log has stopped");
        self.shared.end(reason.clone());
        batch.fail(&reason, true);
    }

    fn last_seq(&self, app: &AppId, site: SiteId) -> u64 {
        let number = self.state.numbers.get(app).copied();
        number
            .and_then(|number| self.state.app(number))
            .and_then(|app| app.preconditions.sites.get(&site))
            .map_or(0, |last| last.seq)
    }

    /// Sees to it that a batch of up to `needed` bytes of records fits, in a new segment if need be.
    fn make_room(&mut self, needed: u64) -> io::Result<()> {
        let needed = needed + BATCH_HEADER_BYTES as u64;
        let Active { segment, offset } = &self.active;
        let start = if *offset == 0 { SEGMENT_HEADER_BYTES as u64 } else { *offset };
        if start + needed <= segment.header.file_bytes {
            return Ok(());
        }
        let ready = self.shared.segments.take(needed + SEGMENT_HEADER_BYTES as u64)?;
        let number = if *offset == 0 { segment.header.number } else { segment.header.number + 1 };
        let header = SegmentHeader {
            log_id: self.log_id,
            number,
            salt: self.ids.next_u64(),
            first_version: self.state.next_version,
            file_bytes: ready.bytes,
        };
        let next = Active { segment: Arc::new(Segment::new(ready.name, header, ready.file)), offset: 0 };
        let Active { segment, offset } = std::mem::replace(&mut self.active, next);
        if offset == 0 {
            let unused = ReadyFile {
                name: segment.name.clone(),
                file: Arc::clone(&segment.file),
                bytes: segment.header.file_bytes,
            };
            self.shared.segments.give_back(unused)?;
        }
        Ok(())
    }

    /// Has a checkpoint written, and then the segments freed in which nothing is needed any more.
    fn free(&mut self) {
        let active = self.active.segment.header.number;
        let oldest = self.state.apps.iter().filter_map(|app| app.index.oldest_segment()).min();
        let first = oldest.unwrap_or(active).min(active);
        if first <= self.shared.first_segment.load(Ordering::SeqCst)
            || self.shared.checkpointing.swap(true, Ordering::SeqCst)
        {
            return;
        }
        let content = checkpoint::encode_content(self.log_id, first, &self.state);
        self.maintenance.give(Job::Checkpoint { content, first_segment: first });
    }

    /// Marks that the log was closed: from then on, whatever is not whole before it is damage, not a torn tail.
    fn write_end(&mut self) {
        if self.make_room(0).is_err() {
            return;
        }
        let Ok(bytes) = self.encoder().finish() else { return };
        let file = &self.active.segment.file;
        if let Err(error) = file.write_at(&bytes, self.active.offset).and_then(|()| file.sync()) {
            tracing::warn!(%error, "the log could not be marked as closed");
        }
    }
}

/// Tells the metadata that a batch changed to readers.
pub(crate) fn publish_metadata(shared: &Shared, ops: &[MetaOp], revision: u64) {
    {
        let mut map = shared.metadata.write().unwrap_or_else(PoisonError::into_inner);
        crate::memory::apply_ops(&mut map, ops, revision);
    }
    let written = ops.iter().filter(|op| !matches!(op, MetaOp::Check { .. })).map(MetaOp::key);
    shared.watchers.committed(written, revision);
}

fn refusal(error: &io::Error) -> String {
    if is_full(error) {
        format!("the disk is full ({error}); free some space, or trim the log")
    } else {
        format!("a new segment file could not be made ({error})")
    }
}
