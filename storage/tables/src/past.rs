//! The past: an app as it was at an LSN, and pins that keep what would be collected.
//!
//! What is still known: the state at every manifest that is kept, and at every LSN that the log reaches from one.
//!
//! A pin is a copy of a manifest under a name of its own, with a time at which it ends; a backup, or a reader in another
//! process that takes long. **Consistency**: garbage is collected in the order manifests, pins, files. Whoever pins, here
//! or in memory, first says so and then looks whether the manifest is still there: if it is, the collector that deletes it
//! later sees the pin before it deletes files.

use std::sync::Arc;
use std::time::Duration;

use bigpeer_log::ReadError;
use bigpeer_types::Lsn;

use crate::error::TablesError;
use crate::manifest::Manifest;
use crate::overlay::{self, Overlays};
use crate::paths::PinName;
use crate::snapshot::{Snapshot, View};
use crate::store::{DocumentStore, Shared};
use crate::version::Version;
use crate::written::Written;

/// A state that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Its name, unique in the app.
    pub name: PinName,
    /// When it ends, in milliseconds since the epoch. One for a clone stays after that for as long as the clone.
    pub until_ms: u64,
}

impl DocumentStore {
    /// The app as it was when everything up to `lsn` was applied, and nothing after it. Waits until that is so, if it is
    /// not yet; put a timeout around it. It reads the log behind the last manifest before `lsn`.
    ///
    /// # Errors
    /// [`TablesError::Forgotten`] when that is no longer kept; others when log or object storage fail.
    pub async fn at(&self, lsn: Lsn) -> Result<Snapshot, TablesError> {
        self.wait_for(lsn).await?;
        let shared = &self.shared;
        let view = shared.view();
        if view.lsn == lsn {
            return Ok(shared.snapshot(view));
        }
        let version = if view.version.manifest.lsn <= lsn {
            Arc::clone(&view.version)
        } else {
            match shared.manifest_before(lsn).await? {
                Some(manifest) => shared.open_kept(manifest, &view.version, lsn).await?,
                None => Arc::new(Version::new(&shared.app, Manifest::empty(), None)),
            }
        };
        let overlays = shared.fold(version.manifest.lsn, lsn).await?;
        Ok(shared.snapshot(Arc::new(View { lsn, version, overlays, written: Written::ZERO })))
    }

    /// As [`Self::at`], when everything up to this transaction id was applied.
    ///
    /// # Errors
    /// As [`Self::at`].
    pub async fn at_transaction(&self, version: u64) -> Result<Snapshot, TablesError> {
        self.wait_for_version(version).await?;
        let now = self.applied();
        // Of a transaction that is not the newest everything is known: nothing else has its id any more.
        self.at(if now.version == version { now } else { Lsn::new(version, u32::MAX) }).await
    }

    /// Keeps the state of the newest manifest, for `time` from now, whatever is flushed, compacted and collected, here
    /// or in other processes. Returns the pin and its LSN. The same name again is another pin.
    ///
    /// # Errors
    /// When object storage fails. [`TablesError::Forgotten`] when nothing was flushed yet, or the manifest was collected
    /// meanwhile: try again.
    pub async fn pin(&self, name: PinName, time: Duration) -> Result<(Pin, Lsn), TablesError> {
        let shared = &self.shared;
        shared.refresh().await?;
        let view = shared.view();
        let manifest = &view.version.manifest;
        let now = shared.settings.clock.now_ms();
        let until_ms = now.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let pin = Pin { name, until_ms };
        if manifest.number == 0 {
            return Err(TablesError::Forgotten { lsn: manifest.lsn });
        }
        shared.manifests.put_pin(&pin, manifest).await?;
        if !shared.manifests.exists(manifest.number).await? {
            shared.manifests.delete_pin(&pin).await?;
            return Err(TablesError::Forgotten { lsn: manifest.lsn });
        }
        Ok((pin, manifest.lsn))
    }

    /// Ends a pin, whatever its time. One that is gone is fine.
    ///
    /// # Errors
    /// When object storage fails.
    pub async fn unpin(&self, name: &PinName) -> Result<(), TablesError> {
        for pin in self.shared.manifests.pins().await? {
            if pin.name == *name {
                self.shared.manifests.delete_pin(&pin).await?;
            }
        }
        Ok(())
    }

    /// The pins that there are, in the order in which they end.
    ///
    /// # Errors
    /// When object storage fails.
    pub async fn pins(&self) -> Result<Vec<Pin>, TablesError> {
        let now = self.shared.settings.clock.now_ms();
        Ok(self.shared.manifests.pins().await?.into_iter().filter(|pin| pin.until_ms > now).collect())
    }

    /// The state that a pin keeps; of several with this name the one that ends last.
    ///
    /// # Errors
    /// [`TablesError::NoPin`] when there is none.
    pub async fn at_pin(&self, name: &PinName) -> Result<Snapshot, TablesError> {
        let shared = &self.shared;
        let none = || TablesError::NoPin { name: name.as_str().to_owned() };
        let pin = self.pins().await?.into_iter().rfind(|pin| pin.name == *name).ok_or_else(none)?;
        let manifest = shared.manifests.load_pin(&pin).await?.ok_or_else(none)?;
        let lsn = manifest.lsn;
        let version = shared.open_version(manifest, &shared.view().version);
        Ok(shared.snapshot(Arc::new(View { lsn, version, overlays: Overlays::new(), written: Written::ZERO })))
    }
}

impl Shared {
    /// The last manifest that is kept whose LSN is not after `lsn`.
    async fn manifest_before(&self, lsn: Lsn) -> Result<Option<Manifest>, TablesError> {
        let numbers = self.manifests.numbers(0).await?;
        let (mut from, mut to) = (0, numbers.len());
        let mut best = None;
        while let Some(number) = (from < to).then(|| numbers.get(usize::midpoint(from, to))).flatten() {
            let middle = usize::midpoint(from, to);
            match self.manifests.find(*number).await? {
                Some(manifest) if manifest.lsn > lsn => to = middle,
                found => {
                    // What is gone was older than what is not.
                    from = middle + 1;
                    best = found.or(best);
                }
            }
        }
        Ok(best)
    }

    /// Opens an old manifest, if it is still kept.
    async fn open_kept(&self, manifest: Manifest, like: &Version, lsn: Lsn) -> Result<Arc<Version>, TablesError> {
        let number = manifest.number;
        let version = self.open_version(manifest, like);
        if self.manifests.exists(number).await? { Ok(version) } else { Err(TablesError::Forgotten { lsn }) }
    }

    /// What the log holds after `after` and up to `through`.
    async fn fold(&self, after: Lsn, through: Lsn) -> Result<Overlays, TablesError> {
        let mut overlays = Overlays::new();
        let mut at = after;
        while at < through {
            let batch = match self.log.read(&self.app, at, self.settings.read_bytes).await {
                Ok(batch) => batch,
                Err(ReadError::Trimmed { .. }) => return Err(TablesError::Forgotten { lsn: through }),
                Err(error) => return Err(error.into()),
            };
            if batch.through <= at {
                break;
            }
            for entry in batch.entries.into_iter().filter(|entry| entry.lsn <= through) {
                overlay::apply_entry(&mut overlays, entry.lsn, entry.payload)?;
            }
            // As in the overlay of the present: there would have been a flush, and a manifest nearer to this.
            if overlay::bytes(&overlays) > 2 * self.settings.max_overlay_bytes {
                return Err(TablesError::Forgotten { lsn: through });
            }
            at = batch.through;
        }
        Ok(overlays)
    }
}
