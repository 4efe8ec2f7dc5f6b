//! Attachments that nothing refers to: marked first, deleted later, if it is still so.
//!
//! What refers to an attachment: the state of a document that holds it, visible or deleted (a later change may bring it back), as
//! it is now, as a pin keeps it, or in a clone. A mark is an object of its own, so that whoever collects next goes on with it, and it is
//! acted upon only some time after it was made. What is to be deleted is condemned first, and looked at once more after that: see
//! [`crate::attachments`] for why nothing that is uploaded meanwhile is lost. What is spared then is as any other blob, but for its
//! name: it is not stored under that again.
//!
//! **Layout** of a mark: 8 bytes `bpgarbg` and a format (1), the crc32c of the rest, and JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use bigpeer_crdt::Document;
use bigpeer_types::{AppId, Lsn};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};

use super::Writer;
use crate::attachments::Attachments;
use crate::cloning;
use crate::error::TablesError;
use crate::manifest::{Manifest, Repository};
use crate::metrics;
use crate::overlay::Overlays;
use crate::paths::{self, ObjectPath};
use crate::snapshot::{Scan, Snapshot, View};
use crate::version::Version;
use crate::written::Written;

/// Attachments that are deleted after one look at what documents hold.
const DELETED_AT_ONCE: usize = 16;

const MAGIC: &[u8; 8] = b"bpgarbg\x01";

/// Blobs by their digests: their generations that are there, and when each was written, in milliseconds since the epoch.
type Found = BTreeMap<[u8; 32], BTreeMap<u32, i64>>;

/// Attachments that nothing referred to.
#[derive(Debug)]
struct Mark {
    /// When everything up to here was applied.
    lsn: Lsn,
    found: Found,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    lsn: Lsn,
    /// By their names.
    found: BTreeMap<String, i64>,
}

impl Mark {
    fn encode(&self) -> Result<Vec<u8>, TablesError> {
        let mut found = BTreeMap::new();
        for (sha256, generations) in &self.found {
            for (generation, written) in generations {
                found.insert(paths::blob_name(*sha256, *generation), *written);
            }
        }
        let body = Body { lsn: self.lsn, found };
        let body = serde_json::to_vec(&body).map_err(|error| TablesError::Encoding(error.to_string()))?;
        Ok([MAGIC.as_slice(), &crc32c::crc32c(&body).to_le_bytes(), &body].concat())
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let (magic, rest) = bytes.split_first_chunk::<8>().ok_or("too short")?;
        let (crc, body) = rest.split_first_chunk::<4>().ok_or("too short")?;
        if magic != MAGIC || crc32c::crc32c(body).to_le_bytes() != *crc {
            return Err("not a mark of a known format, or damaged".to_owned());
        }
        let Body { lsn, found: named } = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let mut found = Found::new();
        for (name, written) in named {
            let (sha256, generation) = paths::parse_blob_name(&name).ok_or("a name that is no blob's")?;
            found.entry(sha256).or_default().insert(generation, written);
        }
        Ok(Self { lsn, found })
    }
}

impl Writer {
    /// Looks for attachments that nothing refers to: marks them, or deletes those that were marked some time ago and are
    /// still referred to by nothing. Returns how many were deleted. Reads every document, if there is an attachment old
    /// enough.
    ///
    /// Safe to cancel, to repeat, and beside other collectors.
    ///
    /// # Errors
    /// When object storage fails; what was deleted stays deleted.
    pub async fn collect_attachments(&self) -> Result<usize, TablesError> {
        let marks = self.list(&paths::garbage(&self.shared.app)).await?;
        let first = marks.iter().filter_map(|object| match ObjectPath::parse(&object.location) {
            Some(ObjectPath::Garbage(_, ulid)) => Some((ulid, object.location.clone())),
            Some(_) | None => None,
        });
        match first.min() {
            None => self.mark_unheld().await.map(|()| 0),
            Some((ulid, _)) if ulid.timestamp_ms() > self.ago(self.shared.settings.garbage_delay) => Ok(0),
            Some((_, path)) => self.sweep(&path).await,
        }
    }

    async fn mark_unheld(&self) -> Result<(), TablesError> {
        let old = i64::try_from(self.ago(self.shared.settings.attachment_age)).unwrap_or(i64::MAX);
        let mut found = Found::new();
        for object in self.list(&paths::attachments(&self.shared.app)).await? {
            let written = object.last_modified.timestamp_millis();
            if let Some(ObjectPath::Attachment(_, sha256, generation)) = ObjectPath::parse(&object.location)
                && written <= old
            {
                found.entry(sha256).or_default().insert(generation, written);
            }
        }
        if found.is_empty() {
            return Ok(());
        }
        let snapshot = self.shared.snapshot(self.shared.view());
        leave_out_held(&snapshot, None, &mut found).await?;
        if found.is_empty() {
            return Ok(());
        }
        let path = ObjectPath::Garbage(self.shared.app.clone(), self.new_ulid()).to_path();
        let bytes = Mark { lsn: snapshot.lsn(), found }.encode()?;
        let put = self.shared.objects.put(&path, PutPayload::from(Bytes::from(bytes))).await;
        put.map(drop).map_err(|error| TablesError::objects(&path, error))
    }

    async fn sweep(&self, path: &Path) -> Result<usize, TablesError> {
        let read = async { self.shared.objects.get(path).await?.bytes().await };
        let bytes = match read.await {
            Ok(bytes) => bytes,
            // Another collector was here.
            Err(Error::NotFound { .. }) => return Ok(0),
            Err(error) => return Err(TablesError::objects(path, error)),
        };
        let Mark { lsn, mut found } = Mark::decode(&bytes).map_err(|reason| TablesError::corrupt(path, reason))?;
        // This process may be behind those that write.
        self.shared.catch_up().await?;
        let now = self.shared.snapshot(self.shared.view());
        leave_out_held(&now, Some(lsn), &mut found).await?;
        self.leave_out_kept(lsn, &mut found).await?;
        let attachments = Attachments::new(self.shared.app.clone(), Arc::clone(&self.shared.objects));
        let (mut deleted, mut seen) = (0, now.lsn());
        while !found.is_empty() {
            let few: Vec<[u8; 32]> = found.keys().take(DELETED_AT_ONCE).copied().collect();
            for sha256 in &few {
                for generation in found.get(sha256).into_iter().flat_map(BTreeMap::keys) {
                    let condemned = attachments.condemn(*sha256, *generation).await;
                    condemned.map_err(|error| TablesError::objects(path, error))?;
                }
            }
            // All of that took its time. What documents hold since then is looked at once more.
            self.shared.catch_up().await?;
            let now = self.shared.snapshot(self.shared.view());
            leave_out_held(&now, Some(seen), &mut found).await?;
            seen = now.lsn();
            for sha256 in few {
                for (generation, written) in found.remove(&sha256).into_iter().flatten() {
                    deleted += usize::from(self.delete_attachment(sha256, generation, written).await?);
                }
            }
        }
        self.shared.objects.delete(path).await.or_else(absent).map_err(|error| TablesError::objects(path, error))?;
        metrics::collected(&self.shared.app, deleted);
        Ok(deleted)
    }

    /// Leaves out what pins keep, and what clones of this app, and clones of these, hold.
    async fn leave_out_kept(&self, since: Lsn, found: &mut Found) -> Result<(), TablesError> {
        let mut apps = vec![self.shared.app.clone()];
        while let Some(app) = apps.pop() {
            let manifests = Repository::new(app.clone(), Arc::clone(&self.shared.objects));
            for pin in manifests.pins().await? {
                if let Some(manifest) = manifests.load_pin(&pin).await? {
                    let since = Some(since).filter(|since| app == self.shared.app && manifest.lsn >= *since);
                    leave_out_held(&self.snapshot_of(&app, manifest), since, found).await?;
                }
                if let Some(clone) = cloning::clone_of(&pin) {
                    if let Some(manifest) =
                        Repository::new(clone.clone(), Arc::clone(&self.shared.objects)).newest(0).await?
                    {
                        leave_out_held(&self.snapshot_of(&clone, manifest), None, found).await?;
                    }
                    apps.push(clone);
                }
            }
        }
        Ok(())
    }

    fn snapshot_of(&self, app: &AppId, manifest: Manifest) -> Snapshot {
        let lsn = manifest.lsn;
        let version = Arc::new(Version::new(app, manifest, None));
        self.shared.snapshot(Arc::new(View { lsn, version, overlays: Overlays::new(), written: Written::ZERO }))
    }

    /// Deletes a blob that was condemned, unless it was stored again between being marked and that.
    async fn delete_attachment(&self, sha256: [u8; 32], generation: u32, written: i64) -> Result<bool, TablesError> {
        let path = ObjectPath::Attachment(self.shared.app.clone(), sha256, generation).to_path();
        match self.shared.objects.head(&path).await {
            Ok(object) if object.last_modified.timestamp_millis() == written => {}
            Ok(_) | Err(Error::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(TablesError::objects(&path, error)),
        }
        let deleted = self.shared.objects.delete(&path).await.or_else(absent);
        deleted.map(|()| true).map_err(|error| TablesError::objects(&path, error))
    }

    async fn list(&self, prefix: &Path) -> Result<Vec<ObjectMeta>, TablesError> {
        let listed = self.shared.objects.list(Some(prefix)).try_collect().await;
        listed.map_err(|error| TablesError::objects(prefix, error))
    }
}

fn absent(error: Error) -> Result<(), Error> {
    if matches!(error, Error::NotFound { .. }) { Ok(()) } else { Err(error) }
}

/// Leaves out what some document holds, of those that have changed since.
async fn leave_out_held(snapshot: &Snapshot, since: Option<Lsn>, found: &mut Found) -> Result<(), TablesError> {
    for collection in snapshot.collections() {
        let scan = Scan { changed_since: since, deleted: true, ..Scan::default() };
        let mut batches = snapshot.scan(&collection, scan);
        while let Some(batch) = batches.try_next().await? {
            if found.is_empty() {
                return Ok(());
            }
            for row in batch {
                let damaged = |error| TablesError::corrupt(&format!("document {:?}", row.id), error);
                for held in Document::decode(&row.state).map_err(damaged)?.held_attachments() {
                    found.remove(&held.sha256);
                }
            }
        }
    }
    Ok(())
}
