//! `Writer`: turns the overlay into segments and commits manifests. One owner at a time per app.
//!
//! A second writer takes a later epoch, and the first finds out at its next commit: every commit is a put-if-absent of the
//! next manifest number, and whoever meets a manifest of an epoch at or above its own, by another writer, stops.

mod attachments;
mod compact;
mod flush;
mod garbage;

pub use compact::{Compacted, Debt, Extent};
pub use flush::Flushed;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bigpeer_types::CollectionName;
use object_store::{ObjectStoreExt, PutPayload};
use tokio::sync::Mutex;
use ulid::Ulid;

use crate::error::TablesError;
use crate::manifest::{CollectionSettings, Committed, Manifest, SegmentMeta};
use crate::paths::ObjectPath;
use crate::publish::DeltaLogs;
use crate::segment::write::GroupLimits;
use crate::settings::TablesSettings;
use crate::store::Shared;

/// Writes one app's segments and manifests.
///
/// Nothing that it does blocks readers or the tail. **Cancellation**: dropping a call loses nothing; files that it had
/// written and not committed are garbage, and are collected later.
#[derive(Debug)]
pub struct Writer {
    pub(crate) shared: Arc<Shared>,
    epoch: u64,
    /// Tells writers of one epoch apart.
    id: u64,
    /// Held from reading the manifest that a change starts from until the change is committed.
    commit: Mutex<CommitState>,
    /// Held for a compaction: one at a time.
    compaction: Mutex<()>,
    /// Held for a flush, and by whoever needs that there is none.
    pub(crate) flushing: Mutex<()>,
    /// Of published tables.
    pub(crate) delta_logs: DeltaLogs,
}

#[derive(Debug, Default)]
struct CommitState {
    /// Segments that were in a manifest and are no more, and are not deleted yet.
    retired: HashSet<Ulid>,
    /// What collections have read of manifests, so that each is read once.
    known: BTreeMap<u64, garbage::Known>,
}

impl Writer {
    pub(crate) async fn open(shared: Arc<Shared>) -> Result<Self, TablesError> {
        shared.refresh().await?;
        let epoch = shared.view().version.manifest.epoch + 1;
        let id = shared.settings.ids.next_u64();
        Ok(Self::new(shared, epoch, id))
    }

    /// A writer of an app that nobody else writes.
    pub(crate) fn first(shared: Arc<Shared>) -> Self {
        let id = shared.settings.ids.next_u64();
        Self::new(shared, 1, id)
    }

    fn new(shared: Arc<Shared>, epoch: u64, id: u64) -> Self {
        Self {
            shared,
            epoch,
            id,
            commit: Mutex::default(),
            compaction: Mutex::default(),
            flushing: Mutex::default(),
            delta_logs: DeltaLogs::default(),
        }
    }

    /// Commits what there is, as it is, unless a manifest was committed already.
    pub(crate) async fn commit_first(&self) -> Result<bool, TablesError> {
        let mut state = self.commit.lock().await;
        let view = self.shared.view();
        if view.version.manifest.number > 0 {
            return Ok(true);
        }
        self.try_commit(&mut state, &view.version.manifest, |_| {}).await
    }

    /// The number that fences earlier writers.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether the newest manifest says that another writer has taken over.
    ///
    /// # Errors
    /// [`TablesError::Fenced`] if so.
    pub(crate) fn check_owner(&self, newest: &Manifest) -> Result<(), TablesError> {
        if newest.epoch >= self.epoch && newest.writer != self.id {
            return Err(TablesError::Fenced { ours: self.epoch, theirs: newest.epoch });
        }
        Ok(())
    }

    /// Commits what `change` makes of the newest manifest, and takes it up. False when the newest manifest was another
    /// than `base`: then nothing was committed, the newest is taken up, and the change must be made again.
    async fn try_commit(
        &self,
        state: &mut CommitState,
        base: &Manifest,
        change: impl FnOnce(&mut Manifest),
    ) -> Result<bool, TablesError> {
        let mut next = base.clone();
        next.number += 1;
        next.epoch = self.epoch;
        next.writer = self.id;
        next.committed_ms = self.shared.settings.clock.now_ms();
        change(&mut next);
        note_moment(&mut next, &self.shared.settings);
        match self.shared.manifests.commit(&next).await? {
            Committed::Yes => {
                let kept: HashSet<Ulid> = next.segments().map(|(_, segment)| segment.ulid).collect();
                state
                    .retired
                    .extend(base.segments().map(|(_, segment)| segment.ulid).filter(|ulid| !kept.contains(ulid)));
                self.shared.install(next).await;
                Ok(true)
            }
            // An earlier commit of this writer that seemed to have failed.
            Committed::Conflict(theirs) if theirs.writer == self.id => {
                self.shared.install(*theirs).await;
                Ok(false)
            }
            Committed::Conflict(theirs) if theirs.epoch >= self.epoch => {
                Err(TablesError::Fenced { ours: self.epoch, theirs: theirs.epoch })
            }
            Committed::Conflict(theirs) => {
                self.shared.install(*theirs).await;
                Ok(false)
            }
        }
    }

    /// Changes a collection's settings. Commits a manifest, unless they are so already.
    ///
    /// # Errors
    /// [`TablesError::Fenced`] when another writer has taken over; others leave everything as it was.
    pub async fn configure(
        &self,
        collection: &CollectionName,
        settings: CollectionSettings,
    ) -> Result<(), TablesError> {
        let mut state = self.commit.lock().await;
        loop {
            let view = self.shared.view();
            if self.shared.settings_of(collection) == settings {
                return Ok(());
            }
            let change = |next: &mut Manifest| {
                next.collections.entry(collection.clone()).or_default().settings = settings;
            };
            if self.try_commit(&mut state, &view.version.manifest, change).await? {
                return Ok(());
            }
        }
    }

    fn group_limits(&self) -> GroupLimits {
        let settings = &self.shared.settings;
        GroupLimits { rows: settings.row_group_rows, bytes: settings.row_group_bytes }
    }

    pub(crate) fn new_ulid(&self) -> Ulid {
        let settings = &self.shared.settings;
        let mut random = [0; 16];
        settings.ids.fill(&mut random);
        Ulid::from_parts(settings.clock.now_ms(), u128::from_le_bytes(random))
    }

    async fn put_segment(
        &self,
        collection: &CollectionName,
        meta: &SegmentMeta,
        file: Vec<u8>,
    ) -> Result<(), TablesError> {
        let path = ObjectPath::Segment(self.shared.app.clone(), collection.clone(), meta.ulid).to_path();
        let put = self.shared.objects.put(&path, PutPayload::from(file)).await;
        put.map_err(|error| TablesError::objects(&path, error))?;
        Ok(())
    }
}

/// Notes when the manifest's LSN was reached, for as long as somebody may ask.
fn note_moment(next: &mut Manifest, settings: &TablesSettings) {
    let expiries = next.collections.values().filter_map(|collection| collection.settings.expiry);
    let longest = expiries.map(|expiry| expiry.after_secs.saturating_mul(1000)).max().unwrap_or(0);
    let tombstones = u64::try_from(settings.keep_tombstones.as_millis()).unwrap_or(u64::MAX);
    next.moments.note(next.committed_ms, next.lsn, longest.max(tombstones));
}

/// Runs CPU-heavy work off the async threads; in the simulation at once, as it has no other thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TablesError> + Send + 'static,
) -> Result<T, TablesError> {
    if cfg!(bigpeer_sim) {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_cancelled() => Err(TablesError::Stopped),
        Err(error) => Err(TablesError::Encoding(error.to_string())),
    }
}
