//! Clones: an app becomes another one, as it was at some LSN, without its files being copied.
//!
//! The new app's first manifest names the files of the one that it is a clone of; what was not in segments yet is written into
//! new ones. A pin in the origin keeps those files for as long as the clone is there, and attachments are looked for in the
//! origins, too. From then on the two have nothing in common: each writes its own log and its own files. LSNs go on from
//! where they were, which is why both must be in the same log.
//!
//! **Crash safety**: a pin that ends comes first, then the clone's files and its manifest, and last the pin that does not end: only
//! then is the clone made. Of one that was broken off nothing keeps the origin's files after a day; another app may be made.

use std::sync::Arc;
use std::time::Duration;

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

/// Longest time in which a clone is made. So long the origin keeps what it needs, whatever becomes of it.
const MAKING: Duration = Duration::from_secs(24 * 3600);

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
        if manifest.number == 0 {
            let shared_files = self.make_clone(target, snapshot).await?;
            return Ok(Cloned { lsn: snapshot.lsn(), shared_files, pin: None });
        }
        let meanwhile = shared.pin_for(target, manifest).await?;
        let made = async {
            let shared_files = self.make_clone(target, snapshot).await?;
            let pin = shared.keep_for_ever(&meanwhile, manifest).await?;
            Ok(Cloned { lsn: snapshot.lsn(), shared_files, pin: Some(pin) })
        };
        let made = made.await;
        // One that was to be for ever may be there although its answer was lost.
        let given_up = made.is_err().then(|| Pin { until_ms: u64::MAX, ..meanwhile.clone() });
        for pin in std::iter::once(meanwhile).chain(given_up) {
            if let Err(error) = shared.manifests.delete_pin(&pin).await {
                tracing::debug!(%error, app = %shared.app, "a pin of a clone's making stays");
            }
        }
        made
    }

    /// Writes the clone's files, and its manifest. Returns how many files it shares.
    async fn make_clone(&self, target: &AppId, snapshot: &Snapshot) -> Result<usize, TablesError> {
        let (shared, manifest) = (&self.shared, &snapshot.view.version.manifest);
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
        Ok(shared_files)
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
    /// Keeps a manifest's files while a clone is made. As any pin it is there before it is made sure that the files are.
    async fn pin_for(&self, target: &AppId, manifest: &Manifest) -> Result<Pin, TablesError> {
        let forgotten = || TablesError::Forgotten { lsn: manifest.lsn };
        let name = PinName::new(&format!("{CLONE}{target}")).ok_or_else(forgotten)?;
        let until_ms =
            self.settings.clock.now_ms().saturating_add(u64::try_from(MAKING.as_millis()).unwrap_or(u64::MAX));
        let pin = Pin { name, until_ms };
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

    /// Keeps for ever what a pin keeps until it ends.
    async fn keep_for_ever(&self, meanwhile: &Pin, manifest: &Manifest) -> Result<Pin, TablesError> {
        let pin = Pin { until_ms: u64::MAX, ..meanwhile.clone() };
        self.manifests.put_pin(&pin, manifest).await?;
        if self.settings.clock.now_ms() < meanwhile.until_ms {
            return Ok(pin);
        }
        // It took so long that the files may be gone.
        self.manifests.delete_pin(&pin).await?;
        Err(TablesError::Forgotten { lsn: manifest.lsn })
    }
}
