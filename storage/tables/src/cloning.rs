//! Clones: an app becomes another one, as it was at some LSN, without its files being copied.
//!
//! The new app's first manifest names the files of the one that it is a clone of; what was not in segments yet is written into
//! new ones. A pin in the origin keeps those files for as long as the clone is there, and attachments are looked for in the
//! origins, too. From then on the two have nothing in common: each writes its own log and its own files. LSNs go on from
//! where they were, which is why both must be in the same log.
//!
//! **Crash safety**: the pin comes first, the manifest last. A clone that was broken off has no manifest, and may be made again.

use std::sync::Arc;

use bigpeer_types::{AppId, Lsn};

use crate::error::TablesError;
use crate::manifest::{Manifest, Repository};
use crate::past::Pin;
use crate::paths::PinName;
use crate::snapshot::{Snapshot, View};
use crate::store::{DocumentStore, Shared};
use crate::version::Version;
use crate::writer::Writer;
use crate::written::Written;

/// What the names of pins begin with that keep files for a clone; its id follows.
const CLONE: &str = "clone-";

/// The app for which a pin keeps files, if it is a clone's.
pub(crate) fn clone_of(pin: &Pin) -> Option<AppId> {
    AppId::new(pin.name.as_str().strip_prefix(CLONE)?).ok()
}

/// What became an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cloned {
    /// The new app holds everything up to here, and nothing after it.
    pub lsn: Lsn,
    /// Files of the origin that the new app reads.
    pub shared_files: usize,
    /// The pin in the origin that keeps these.
    pub pin: Option<Pin>,
}

impl DocumentStore {
    /// Makes a new app of a snapshot of this one: from [`Self::snapshot`], [`Self::at`] or [`Self::at_pin`].
    ///
    /// # Errors
    /// [`TablesError::NotEmpty`] when the new app was written to; [`TablesError::Forgotten`] when the snapshot's files are kept
    /// by nothing but this process; others when object storage fails: try again.
    pub async fn clone_as(&self, target: &AppId, snapshot: &Snapshot) -> Result<Cloned, TablesError> {
        let shared = &self.shared;
        if Repository::new(target.clone(), Arc::clone(&shared.objects)).newest(0).await?.is_some() {
            return Err(TablesError::NotEmpty { app: target.clone() });
        }
        let manifest = &snapshot.view.version.manifest;
        let pin = if manifest.number > 0 { Some(shared.pin_for(target, manifest).await?) } else { None };
        let base = first_manifest(&shared.app, manifest);
        let shared_files = base.segments().count();
        let view = View {
            lsn: snapshot.lsn(),
            version: Arc::new(Version::new(target, base, None)),
            overlays: snapshot.view.overlays.clone(),
            // What was written to another app.
            written: Written::ZERO,
        };
        let clone = Shared::new(
            target.clone(),
            Arc::clone(&shared.objects),
            Arc::clone(&shared.log),
            shared.settings.clone(),
            view,
        );
        let writer = Writer::first(clone);
        writer.flush().await?;
        if !writer.commit_first().await? {
            return Err(TablesError::NotEmpty { app: target.clone() });
        }
        Ok(Cloned { lsn: snapshot.lsn(), shared_files, pin })
    }

    /// Where attachments may be: this app, and those that it is a clone of.
    #[must_use]
    pub fn attachment_homes(&self) -> Vec<AppId> {
        let view = self.shared.view();
        let origins = view.version.manifest.origins.iter().rev().cloned();
        std::iter::once(self.shared.app.clone()).chain(origins).collect()
    }
}

/// The manifest that a clone starts from; it is never stored as it is.
fn first_manifest(origin: &AppId, manifest: &Manifest) -> Manifest {
    let mut base = Manifest { number: 0, epoch: 0, writer: 0, written: Written::ZERO, ..manifest.clone() };
    base.origins.push(origin.clone());
    for collection in base.collections.values_mut() {
        // Its table, if it is to have one, is its own.
        collection.settings.publication = None;
        for segment in &mut collection.segments {
            segment.home.get_or_insert_with(|| origin.clone());
        }
    }
    base
}

impl Shared {
    /// Keeps a manifest's files for a clone, for ever. As any pin it is there before it is made sure that the files are.
    async fn pin_for(&self, target: &AppId, manifest: &Manifest) -> Result<Pin, TablesError> {
        let forgotten = || TablesError::Forgotten { lsn: manifest.lsn };
        let name = PinName::new(&format!("{CLONE}{target}")).ok_or_else(forgotten)?;
        let pin = Pin { name, until_ms: u64::MAX };
        self.manifests.put_pin(&pin, manifest).await?;
        if self.manifests.exists(manifest.number).await? {
            return Ok(pin);
        }
        for other in self.manifests.pins().await?.into_iter().filter(|other| other.name != pin.name) {
            if self.manifests.load_pin(&other).await?.is_some_and(|kept| kept.number == manifest.number) {
                return Ok(pin);
            }
        }
        self.manifests.delete_pin(&pin).await?;
        Err(forgotten())
    }
}
