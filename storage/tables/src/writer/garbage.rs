//! Garbage: manifests that nobody needs, and files that no manifest in use refers to.

use std::collections::HashSet;
use std::collections::btree_map::Entry;
use std::sync::PoisonError;

use bigpeer_types::Lsn;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use ulid::Ulid;

use super::{CommitState, Writer};
use crate::error::TablesError;
use crate::manifest::Manifest;
use crate::metrics;
use crate::paths::{self, ObjectPath};

impl Writer {
    /// Deletes manifests beyond those to keep, pins whose time is over, and segment files that neither a kept manifest, nor
    /// a pin, nor a snapshot in this process refers to. A file that no manifest ever referred to may be another writer's, about to be committed: it is
    /// deleted only when it is old. Returns how many objects were deleted.
    ///
    /// Safe to cancel and to repeat.
    ///
    /// # Errors
    /// When object storage fails; what was deleted stays deleted.
    pub async fn collect_garbage(&self) -> Result<usize, TablesError> {
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
        used.extend(self.shared.pinned());
        let settings = &self.shared.settings;
        let age_ms = u64::try_from(settings.orphan_age.as_millis()).unwrap_or(u64::MAX);
        let old = settings.clock.now_ms().saturating_sub(age_ms);
        let prefix = paths::tables(&self.shared.app);
        let list = self.shared.objects.list(Some(&prefix));
        let objects: Vec<_> = list.try_collect().await.map_err(|error| TablesError::objects(&prefix, error))?;
        for object in objects {
            let Some(ObjectPath::Segment(_, _, ulid)) = ObjectPath::parse(&object.location) else { continue };
            if used.contains(&ulid) || !(state.retired.contains(&ulid) || ulid.timestamp_ms() < old) {
                continue;
            }
            match self.shared.objects.delete(&object.location).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(TablesError::objects(&object.location, error)),
            }
            state.retired.remove(&ulid);
            deleted += 1;
        }
        metrics::collected(&self.shared.app, deleted);
        Ok(deleted)
    }

    /// The manifests that nobody needs, ascending, and the files of the others.
    async fn manifests_to_forget(&self, state: &mut CommitState) -> Result<(Vec<u64>, HashSet<Ulid>), TablesError> {
        let settings = &self.shared.settings;
        let keep_ms = u64::try_from(settings.keep_for.as_millis()).unwrap_or(u64::MAX);
        let since = settings.clock.now_ms().saturating_sub(keep_ms);
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

    /// Adds the files of pins, and deletes pins whose time is over. Returns how many.
    async fn pinned_files(&self, used: &mut HashSet<Ulid>) -> Result<usize, TablesError> {
        let now = self.shared.settings.clock.now_ms();
        let mut deleted = 0;
        for pin in self.shared.manifests.pins().await? {
            if pin.until_ms <= now {
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
