//! Garbage: manifests that nobody needs, and files that no manifest in use refers to.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::sync::PoisonError;
use std::time::Duration;

use bigpeer_types::{CollectionName, Lsn};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use ulid::Ulid;

use super::{CommitState, Writer};
use crate::error::TablesError;
use crate::manifest::Manifest;
use crate::metrics;
use crate::paths::{self, ObjectPath};
use crate::publish::Kept;

impl Writer {
    /// Deletes manifests beyond those to keep, pins whose time is over, and files that neither a kept manifest, nor a pin, nor
    /// a version of a published table, nor a snapshot in this process refers to. A file that no manifest ever referred to may
    /// be another writer's, about to be committed: it is deleted only when it is old. Returns how many objects were deleted.
    ///
    /// Safe to cancel, to repeat, and beside other collectors.
    ///
    /// # Errors
    /// When object storage fails; what was deleted stays deleted.
    pub async fn collect_garbage(&self) -> Result<usize, TablesError> {
        // What is published now decides, not what was when this writer looked last.
        self.shared.refresh().await?;
        let mut state = self.commit.lock().await;
        let (old_manifests, mut used) = self.manifests_to_forget(&mut state).await?;
        let mut deleted = 0;
        // Manifests go first, the oldest first: one that is there must find its files.
        for number in old_manifests {
            self.shared.manifests.delete(number).await?;
            state.known.remove(&number);
            deleted += 1;
        }
        // After the manifests: see `past` about the order.
        deleted += self.pinned_files(&mut used).await?;
        let published = self.published(&mut used).await?;
        used.extend(self.shared.pinned());
        let prefix = paths::tables(&self.shared.app);
        let list = self.shared.objects.list(Some(&prefix));
        let mut objects: Vec<_> = list.try_collect().await.map_err(|error| TablesError::objects(&prefix, error))?;
        // The last first: what is left of a log that is given up is a shorter one, until nothing is.
        objects.sort_by(|a, b| b.location.cmp(&a.location));
        for object in objects {
            let Some(path) = ObjectPath::parse(&object.location) else { continue };
            if !self.is_garbage(&path, &state, &used, &published) {
                continue;
            }
            match self.shared.objects.delete(&object.location).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(TablesError::objects(&object.location, error)),
            }
            if let ObjectPath::Segment(_, _, ulid) = path {
                state.retired.remove(&ulid);
            }
            deleted += 1;
        }
        metrics::collected(&self.shared.app, deleted);
        Ok(deleted)
    }

    /// What published tables need, and the segments among `used`.
    async fn published(&self, used: &mut HashSet<Ulid>) -> Result<BTreeMap<CollectionName, Kept>, TablesError> {
        let view = self.shared.view();
        let since = self.ago(self.shared.settings.keep_for);
        let mut all = BTreeMap::new();
        for (name, collection) in &view.version.manifest.collections {
            if collection.settings.publication.is_none() {
                self.delta_logs.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
                continue;
            }
            let log = self.delta_log(name);
            let mut log = log.lock().await;
            match log.kept(since).await {
                Ok(kept) => {
                    used.extend(kept.segments.iter().copied());
                    all.insert(name.clone(), kept);
                }
                Err(error) => {
                    *log = self.shared.delta_log(name);
                    return Err(error);
                }
            }
        }
        Ok(all)
    }

    fn is_garbage(
        &self,
        path: &ObjectPath,
        state: &CommitState,
        used: &HashSet<Ulid>,
        published: &BTreeMap<CollectionName, Kept>,
    ) -> bool {
        let old = self.ago(self.shared.settings.orphan_age);
        // A writer that was replaced without knowing must not give up what its successor publishes.
        let unpublished = || self.shared.view().version.manifest.epoch <= self.epoch;
        match path {
            ObjectPath::Segment(_, _, ulid) => {
                !used.contains(ulid) && (state.retired.contains(ulid) || ulid.timestamp_ms() < old)
            }
            ObjectPath::DeltaCommit(_, name, version) | ObjectPath::DeltaCheckpoint(_, name, version) => {
                published.get(name).map_or_else(unpublished, |kept| *version < kept.first_version)
            }
            ObjectPath::DeltaLastCheckpoint(_, name) => !published.contains_key(name) && unpublished(),
            ObjectPath::DeletionVectors(_, name, uuid) => match published.get(name) {
                Some(kept) => !kept.vectors.contains(uuid) && Ulid(*uuid).timestamp_ms() < old,
                None => unpublished(),
            },
            ObjectPath::Manifest(..)
            | ObjectPath::Pin(..)
            | ObjectPath::Attachment(..)
            | ObjectPath::Condemned(..)
            | ObjectPath::Garbage(..)
            | ObjectPath::Upload(..)
            | ObjectPath::UploadPart(..) => false,
        }
    }

    /// Milliseconds since the epoch, some time ago.
    pub(super) fn ago(&self, time: Duration) -> u64 {
        self.shared.settings.clock.now_ms().saturating_sub(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    /// The manifests that nobody needs, ascending, and the files of the others.
    async fn manifests_to_forget(&self, state: &mut CommitState) -> Result<(Vec<u64>, HashSet<Ulid>), TablesError> {
        let settings = &self.shared.settings;
        let since = self.ago(settings.keep_for);
        let numbers = self.shared.manifests.numbers(0).await?;
        let mut used = HashSet::new();
        let mut kept = 0;
        let mut forget = Vec::new();
        let mut successor = None;
        let needed = *self.shared.keep_from.lock().unwrap_or_else(PoisonError::into_inner);
        for number in numbers.into_iter().rev() {
            // Below one that can be forgotten all can: what it was until is before its time, too.
            if !forget.is_empty() {
                forget.push(number);
                continue;
            }
            let known = match state.known.entry(number) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(slot) => match self.shared.manifests.find(number).await? {
                    Some(manifest) => slot.insert(Known::new(&manifest)),
                    // A list that is behind.
                    None => continue,
                },
            };
            // A manifest is what was true until the next one was committed.
            let replaced = successor.replace((known.committed_ms, known.lsn));
            let is_needed = replaced.is_some_and(|(at, lsn)| at > since || needed.is_some_and(|needed| lsn > needed));
            if kept < settings.keep_manifests.max(1) || is_needed {
                used.extend(known.segments.iter().copied());
                kept += 1;
            } else {
                forget.push(number);
            }
        }
        forget.reverse();
        Ok((forget, used))
    }

    /// Adds the files of pins, and deletes pins whose time is over, unless there is a clone for which they are. Returns how many.
    async fn pinned_files(&self, used: &mut HashSet<Ulid>) -> Result<usize, TablesError> {
        let now = self.shared.settings.clock.now_ms();
        let mut deleted = 0;
        for pin in self.shared.manifests.pins().await? {
            if pin.until_ms <= now && !self.shared.is_kept_for_clone(&pin).await? {
                self.shared.manifests.delete_pin(&pin).await?;
                deleted += 1;
            } else if let Some(manifest) = self.shared.manifests.load_pin(&pin).await? {
                used.extend(manifest.segments().map(|(_, segment)| segment.ulid));
            }
        }
        Ok(deleted)
    }
}

/// What the collector remembers of a manifest.
#[derive(Debug)]
pub(super) struct Known {
    committed_ms: u64,
    lsn: Lsn,
    segments: Vec<Ulid>,
}

impl Known {
    fn new(manifest: &Manifest) -> Self {
        let segments = manifest.segments().map(|(_, segment)| segment.ulid).collect();
        Self { committed_ms: manifest.committed_ms, lsn: manifest.lsn, segments }
    }
}
