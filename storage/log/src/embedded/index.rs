//! What readers know of an app: where its entries are, the newest of them, how far it goes.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use bigpeer_types::Lsn;
use tokio::sync::watch;

use crate::{LogEntry, ReadBatch, ReadError};

/// Most bytes of a file that one span covers, if it holds more than one entry: what a reader may have to read and check for
/// one entry, and how finely the index knows the log.
const SPAN_BYTES: u64 = 64 * 1024;

/// A piece of a segment in which entries of an app stand; others' may stand between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Version of the app's first entry in it: the record that the span starts with.
    pub(crate) first: u64,
    /// Version of the app's last entry in it.
    pub(crate) last: u64,
    pub(crate) segment: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// How far an app's log goes; what those at the tail wait for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) head: Lsn,
    /// No more entries will come.
    pub(crate) ended: bool,
}

/// One app, as readers see it. Only what is durable is here.
#[derive(Debug)]
pub(crate) struct AppIndex {
    /// Known once the app's first entry is being written.
    pub(crate) number: OnceLock<u32>,
    pub(crate) progress: watch::Sender<Progress>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    spans: VecDeque<Span>,
    /// The newest entries: all that come after `recent_after`.
    recent: VecDeque<LogEntry>,
    recent_after: Lsn,
    trimmed: Lsn,
}

/// What an index can say to a read.
#[derive(Debug)]
pub(crate) enum Found {
    /// The answer.
    Batch(ReadBatch),
    /// Where to read it.
    Spans(Vec<Span>),
}

impl AppIndex {
    pub(crate) fn new() -> Self {
        Self { number: OnceLock::new(), progress: watch::channel(Progress::default()).0, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn trimmed(&self) -> Lsn {
        self.state().trimmed
    }

    /// Starts from what a checkpoint says.
    pub(crate) fn recovered_from(&self, head: Lsn, trimmed: Lsn) {
        let mut state = self.state();
        (state.recent_after, state.trimmed) = (head, trimmed);
    }

    /// Adds an entry that was found on disk when the log was opened: it is not kept in memory.
    pub(crate) fn recovered(&self, version: u64, segment: u64, start: u64, end: u64) {
        let mut state = self.state();
        state.add(version, segment, start, end);
        state.recent_after = state.recent_after.max(Lsn::new(version, 0));
    }

    /// Adds entries that have become durable, each with where it starts and ends in `segment`.
    pub(crate) fn publish(&self, segment: u64, entries: impl Iterator<Item = (LogEntry, u64, u64)>) {
        let mut state = self.state();
        for (entry, start, end) in entries {
            state.add(entry.lsn.version, segment, start, end);
            state.recent.push_back(entry);
        }
        let head = state.recent.back().map(|entry| entry.lsn);
        drop(state);
        if let Some(head) = head {
            self.progress.send_modify(|progress| progress.head = progress.head.max(head));
        }
    }

    /// Forgets the oldest entry in memory if it is that of `version`.
    pub(crate) fn evict(&self, version: u64) {
        let mut state = self.state();
        if state.recent.front().is_some_and(|entry| entry.lsn.version == version) {
            state.recent.pop_front();
            state.recent_after = state.recent_after.max(Lsn::new(version, 0));
        }
    }

    /// Moves the trim point.
    pub(crate) fn trim(&self, through: Lsn) {
        let mut state = self.state();
        state.trimmed = state.trimmed.max(through);
        while state.spans.front().is_some_and(|span| Lsn::new(span.last, 0) <= through) {
            state.spans.pop_front();
        }
        while state.recent.front().is_some_and(|entry| entry.lsn <= through) {
            state.recent.pop_front();
        }
        state.recent_after = state.recent_after.max(through);
    }

    /// The oldest segment in which the app still has entries.
    pub(crate) fn oldest_segment(&self) -> Option<u64> {
        self.state().spans.front().map(|span| span.segment)
    }

    /// Answers from memory what comes after `after`, or says where it is to be read.
    pub(crate) fn find(&self, after: Lsn, max_bytes: usize) -> Result<Found, ReadError> {
        let state = self.state();
        if after < state.trimmed {
            return Err(ReadError::Trimmed { kept_after: state.trimmed });
        }
        if after >= state.recent_after {
            return Ok(Found::Batch(state.recent(after, max_bytes)));
        }
        let from = state.spans.partition_point(|span| Lsn::new(span.last, 0) <= after);
        let mut bytes = 0;
        let mut spans = Vec::new();
        for span in state.spans.range(from..) {
            bytes += span.end - span.start;
            if bytes > max_bytes as u64 && !spans.is_empty() {
                break;
            }
            spans.push(*span);
        }
        if spans.is_empty() {
            return Ok(Found::Batch(ReadBatch { entries: Vec::new(), through: after }));
        }
        Ok(Found::Spans(spans))
    }
}

impl State {
    fn add(&mut self, version: u64, segment: u64, start: u64, end: u64) {
        if let Some(last) = self.spans.back_mut()
            && last.segment == segment
            && end - last.start <= SPAN_BYTES
        {
            (last.last, last.end) = (version, end);
            return;
        }
        self.spans.push_back(Span { first: version, last: version, segment, start, end });
    }

    fn recent(&self, after: Lsn, max_bytes: usize) -> ReadBatch {
        let from = self.recent.partition_point(|entry| entry.lsn <= after);
        let mut batch = ReadBatch { entries: Vec::new(), through: after };
        let mut bytes = 0;
        for entry in self.recent.range(from..) {
            bytes += entry.payload.len();
            if bytes > max_bytes && !batch.entries.is_empty() {
                break;
            }
            batch.through = entry.lsn;
            batch.entries.push(entry.clone());
        }
        batch
    }
}
