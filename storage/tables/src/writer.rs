//! `Writer`: turns the overlay into segments and commits manifests. One owner at a time per app.
//!
//! A second writer takes a later epoch, and the first finds out at its next commit: every commit is a put-if-absent of the
//! next manifest number, and whoever meets a manifest of an epoch at or above its own, by another writer, stops.

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
use crate::manifest::{Committed, Manifest, SegmentMeta};
use crate::paths::ObjectPath;
use crate::segment::write::GroupLimits;
use crate::store::Shared;

/// Writes one app's segments and manifests.
///
/// Nothing that it does blocks readers or the tail. **Cancellation**: dropping a call loses nothing; files that it had
/// written and not committed are garbage, and are collected later.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    epoch: u64,
    /// Tells writers of one epoch apart.
    id: u64,
    /// Held from reading the manifest that a change starts from until the change is committed.
    commit: Mutex<CommitState>,
    /// Held for a compaction: one at a time.
    compaction: Mutex<()>,
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
        Ok(Self { shared, epoch, id, commit: Mutex::default(), compaction: Mutex::default() })
    }

    /// The number that fences earlier writers.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
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

    fn group_limits(&self) -> GroupLimits {
        let settings = &self.shared.settings;
        GroupLimits { rows: settings.row_group_rows, bytes: settings.row_group_bytes }
    }

    fn new_ulid(&self) -> Ulid {
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
