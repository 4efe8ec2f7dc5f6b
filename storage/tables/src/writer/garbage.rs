//! Garbage: manifests that nobody needs, and files that no manifest in use refers to.

use std::collections::HashSet;

use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use ulid::Ulid;

use super::Writer;
use crate::error::TablesError;
use crate::metrics;
use crate::paths::{self, ObjectPath};

impl Writer {
    /// Deletes manifests beyond those to keep, and segment files that neither a kept manifest nor a snapshot in this
    /// process refers to. A file that no manifest ever referred to may be another writer's, about to be committed: it is
    /// deleted only when it is old. Returns how many objects were deleted.
    ///
    /// Safe to cancel and to repeat.
    ///
    /// # Errors
    /// When object storage fails; what was deleted stays deleted.
    pub async fn collect_garbage(&self) -> Result<usize, TablesError> {
        let mut state = self.commit.lock().await;
        let mut numbers = self.shared.manifests.numbers(0).await?;
        let kept = numbers.split_off(numbers.len().saturating_sub(self.shared.settings.keep_manifests.max(1)));
        let mut used: HashSet<Ulid> = self.shared.pinned();
        for number in &kept {
            let manifest = self.shared.manifests.load(*number).await?;
            used.extend(manifest.segments().map(|(_, segment)| segment.ulid));
        }
        let mut deleted = 0;
        // Manifests go first: one that is there must find its files.
        for number in numbers {
            self.shared.manifests.delete(number).await?;
            deleted += 1;
        }
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
}
