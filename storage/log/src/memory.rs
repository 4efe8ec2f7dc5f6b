//! A log in memory: the contract at its plainest, for tests and as the model for other engines.
//!
//! It makes use of the freedom that the contract gives: versions are not dense, and the entries of one call share one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bigpeer_types::{AppId, Lsn, SiteId};
use bytes::Bytes;
use tokio::sync::watch;

use crate::preconditions::{DEFAULT_CONFLICT_KEYS, Preconditions, check_entries};
use crate::watchers::Watchers;
use crate::{
    AppendEntry, AppendError, AppendOutcome, LogEntry, MetaError, MetaOp, MetaWatch, Metadata, ReadBatch, ReadError,
    TransactionLog, Versioned, check_ops,
};

/// How far apart versions are: so that nobody gets used to counting them.
const VERSION_STEP: u64 = 3;

/// A log that lives as long as its last clone; clones are the same log.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    watchers: Watchers,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    apps: BTreeMap<AppId, App>,
    metadata: BTreeMap<Bytes, Versioned>,
}

#[derive(Debug)]
struct App {
    entries: BTreeMap<Lsn, LogEntry>,
    preconditions: Preconditions,
    trimmed: Lsn,
    /// The last entry's position; readers wait on it.
    head: watch::Sender<Lsn>,
}

impl App {
    fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            preconditions: Preconditions::new(DEFAULT_CONFLICT_KEYS),
            trimmed: Lsn::ZERO,
            head: watch::channel(Lsn::ZERO).0,
        }
    }

    fn append(&mut self, entry: AppendEntry, lsn: Lsn) -> AppendOutcome {
        if let Some(refusal) = self.preconditions.judge(&entry) {
            return refusal;
        }
        let AppendEntry { site, seq, writes, unchanged: _, payload } = entry;
        self.preconditions.applied(site, seq, lsn, writes.into_iter());
        self.entries.insert(lsn, LogEntry { lsn, site, seq, payload });
        AppendOutcome::Applied(lsn)
    }

    fn read(&self, after: Lsn, max_bytes: usize) -> Result<ReadBatch, ReadError> {
        if after < self.trimmed {
            return Err(ReadError::Trimmed { kept_after: self.trimmed });
        }
        let mut batch = ReadBatch { entries: Vec::new(), through: after };
        if after == Lsn::MAX {
            return Ok(batch);
        }
        let mut bytes = 0;
        for (lsn, entry) in self.entries.range((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded)) {
            bytes += entry.payload.len();
            if bytes > max_bytes && !batch.entries.is_empty() && lsn.version != batch.through.version {
                break;
            }
            batch.through = *lsn;
            batch.entries.push(entry.clone());
        }
        Ok(batch)
    }
}

impl MemoryLog {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn app(&mut self, app: &AppId) -> &mut App {
        self.apps.entry(app.clone()).or_insert_with(App::new)
    }

    fn next_version(&mut self) -> u64 {
        self.version += VERSION_STEP;
        self.version
    }
}

#[async_trait]
impl TransactionLog for MemoryLog {
    async fn append(&self, app: &AppId, entries: Vec<AppendEntry>) -> Result<Vec<AppendOutcome>, AppendError> {
        check_entries(&entries)?;
        let mut state = self.state();
        let version = state.next_version();
        let app = state.app(app);
        let outcomes: Vec<_> =
            (0..).zip(entries).map(|(order, entry)| app.append(entry, Lsn::new(version, order))).collect();
        if let Some((&lsn, _)) = app.entries.last_key_value() {
            app.head.send_if_modified(|head| std::mem::replace(head, lsn.max(*head)) < lsn);
        }
        Ok(outcomes)
    }

    async fn read(&self, app: &AppId, after: Lsn, max_bytes: usize) -> Result<ReadBatch, ReadError> {
        self.state().app(app).read(after, max_bytes)
    }

    async fn wait_past(&self, app: &AppId, after: Lsn) -> Result<(), ReadError> {
        let mut head = self.state().app(app).head.subscribe();
        head.wait_for(|head| *head > after)
            .await
            .map_err(|_| ReadError::Unavailable { reason: "the log is closed".to_owned() })?;
        Ok(())
    }

    async fn head(&self, app: &AppId) -> Result<Lsn, ReadError> {
        Ok(*self.state().app(app).head.borrow())
    }

    async fn trimmed(&self, app: &AppId) -> Result<Lsn, ReadError> {
        Ok(self.state().app(app).trimmed)
    }

    async fn last_seq(&self, app: &AppId, site: SiteId) -> Result<u64, ReadError> {
        Ok(self.state().app(app).preconditions.sites.get(&site).map_or(0, |last| last.seq))
    }

    async fn trim(&self, app: &AppId, through: Lsn) -> Result<(), ReadError> {
        let mut state = self.state();
        let app = state.app(app);
        let through = through.min(*app.head.borrow());
        app.trimmed = app.trimmed.max(through);
        while app.entries.first_key_value().is_some_and(|(lsn, _)| *lsn <= through) {
            app.entries.pop_first();
        }
        Ok(())
    }

    fn metadata(&self) -> &dyn Metadata {
        self
    }
}

#[async_trait]
impl Metadata for MemoryLog {
    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, MetaError> {
        Ok(self.state().metadata.get(key).cloned())
    }

    async fn range(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Versioned)>, MetaError> {
        Ok(range_of(&self.state().metadata, prefix, after, limit))
    }

    async fn commit(&self, ops: Vec<MetaOp>) -> Result<u64, MetaError> {
        check_ops(&ops)?;
        let revision = {
            let mut state = self.state();
            for op in &ops {
                if let MetaOp::Check { key, revision } = op
                    && state.metadata.get(key).map(|versioned| versioned.revision) != *revision
                {
                    return Err(MetaError::Conflict { key: key.clone() });
                }
            }
            let revision = state.next_version();
            apply_ops(&mut state.metadata, &ops, revision);
            revision
        };
        let written = ops.iter().filter(|op| !matches!(op, MetaOp::Check { .. })).map(MetaOp::key);
        self.0.watchers.committed(written, revision);
        Ok(revision)
    }

    fn watch(&self, prefix: &[u8]) -> MetaWatch {
        self.0.watchers.watch(prefix)
    }
}

/// Does the writes of a commit whose checks held.
pub(crate) fn apply_ops(map: &mut BTreeMap<Bytes, Versioned>, ops: &[MetaOp], revision: u64) {
    for op in ops {
        match op {
            MetaOp::Check { .. } => {}
            MetaOp::Put { key, value } => {
                map.insert(key.clone(), Versioned { value: value.clone(), revision });
            }
            MetaOp::Delete { key } => {
                map.remove(key);
            }
        }
    }
}

/// What [`Metadata::range`] answers from a map.
pub(crate) fn range_of(
    map: &BTreeMap<Bytes, Versioned>,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Vec<(Bytes, Versioned)> {
    use std::ops::Bound;
    let from = match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        Some(_) | None => Bound::Included(prefix),
    };
    map.range::<[u8], _>((from, Bound::Unbounded))
        .take_while(|(key, _)| key.starts_with(prefix))
        .take(limit)
        .map(|(key, versioned)| (key.clone(), versioned.clone()))
        .collect()
}
