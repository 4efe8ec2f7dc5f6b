//! Clones: an app becomes another one, as it was at some LSN, without its files being copied.
//!
//! The new app's first manifest names the files of the one that it is a clone of; what was not in segments yet is written into
//! new ones. A pin in the origin keeps those files for as long as the clone is there, and attachments are looked for in the
//! origins, too. From then on the two have nothing in common: each writes its own log and its own files. LSNs go on from
//! where they were, which is why both must be in the same log.
//!
//! **Crash safety**: the pin comes first, then the clone's files, its manifest, and last, by the caller, its entry among the [`Apps`]:
//! only then is the clone made. For a day the pin keeps the origin's files whatever happens, and from then on for as long as
//! there is such an app. Who collects the origin's garbage after that day, in whatever process, gives up an app that is not
//! there: then the pin goes, and whoever is still making the app fails at its last step.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
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

/// Time in which a clone is made. So long the origin keeps what it needs, whatever becomes of it.
const MAKING: Duration = Duration::from_secs(24 * 3600);

/// The app for which a pin keeps files, if it is a clone's.
pub(crate) fn clone_of(pin: &Pin) -> Option<AppId> {
    AppId::new(pin.name.as_str().strip_prefix(CLONE)?).ok()
}

/// Says which apps there are.
#[async_trait]
pub trait Apps: fmt::Debug + Send + Sync {
    /// Whether the app is there now.
    ///
    /// # Errors
    /// Why it cannot be said.
    async fn is_there(&self, app: &AppId) -> Result<bool, String>;

    /// Sees to it that an app that is not there never will be; no clone is made of it from then on either. False if it is there,
    /// then nothing has changed. Of this and the app's making, at the same time, one has its way and the other fails.
    ///
    /// # Errors
    /// Why it cannot be said. It may have happened.
    async fn give_up(&self, app: &AppId) -> Result<bool, String>;
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
    /// Makes a new app of a snapshot of this one: from [`Self::snapshot`], [`Self::at`] or [`Self::at_pin`]. It has a day to become one of
    /// the [`Apps`]; if it does not, what was made is given up.
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
        let pin = shared.pin_for(target, manifest).await?;
        let made = self.make_clone(target, snapshot).await;
        if made.is_err()
            && let Err(error) = shared.manifests.delete_pin(&pin).await
        {
            tracing::debug!(%error, app = %shared.app, "the pin of a clone that was not made stays for a day");
        }
        Ok(Cloned { lsn: snapshot.lsn(), shared_files: made?, pin: Some(pin) })
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

    /// Whether a pin whose time is over still keeps files for a clone, or for a clone of that one. An app that is not there is
    /// given up.
    pub(crate) async fn is_kept_for_clone(&self, pin: &Pin) -> Result<bool, TablesError> {
        let Some(clone) = clone_of(pin) else { return Ok(false) };
        let Some(apps) = &self.settings.apps else { return Ok(true) };
        let mut clones = vec![clone];
        while let Some(clone) = clones.pop() {
            match apps.give_up(&clone).await {
                // What it was cloned to reads our files, too, and no more is cloned of it now.
                Ok(true) => {
                    let pins = Repository::new(clone, Arc::clone(&self.objects)).pins().await?;
                    clones.extend(pins.iter().filter_map(clone_of));
                }
                Ok(false) => return Ok(true),
                Err(reason) => {
                    tracing::debug!(app = %self.app, %clone, reason, "whether a clone is there cannot be said now");
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}
