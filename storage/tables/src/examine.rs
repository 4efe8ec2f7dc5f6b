//! Examination: an app's objects against its manifests, its log, its pins and its published tables. Changes nothing.
//!
//! What the app does meanwhile is not taken for damage: what seems to be missing is asked for again, by name, and looked up in
//! manifests that are still there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bigpeer_crdt::{Attachment, Document, Transaction};
use bigpeer_log::ReadError;
use bigpeer_types::{AppId, CollectionName, Lsn};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::attachments::Attachments;
use crate::cloning;
use crate::error::TablesError;
use crate::manifest::{Manifest, SegmentMeta};
use crate::past::Pin;
use crate::paths::{self, ObjectPath, PinName};
use crate::snapshot::{Scan, Snapshot};
use crate::store::DocumentStore;

/// Most findings that are told.
const MAX_FINDINGS: usize = 1000;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FindingKind {
    /// Something is referred to and is not there.
    Missing,
    /// Something is there and nothing refers to it.
    Extra,
    /// Something is not what it was written as.
    Damaged,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Of which kind.
    pub kind: FindingKind,
    /// Which object, or what else.
    pub what: String,
    /// Why.
    pub why: String,
}

/// What an examination saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Examination {
    /// The newest manifest.
    pub manifest: u64,
    /// Everything up to here was looked at.
    pub lsn: Lsn,
    /// Objects of the app.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Documents that were decoded, deleted ones included; none unless it was to be thorough.
    pub documents: u64,
    /// Attachments that documents refer to; none unless it was to be thorough.
    pub attachments: u64,
    /// What is not as it should be: at most a thousand.
    pub findings: Vec<Finding>,
}

/// A file that has to be there.
#[derive(Debug)]
struct Needed {
    size: u64,
    crc32c: u32,
    /// Who says so.
    by: String,
}

impl Examination {
    fn find(&mut self, kind: FindingKind, what: &impl ToString, why: impl Into<String>) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(Finding { kind, what: what.to_string(), why: why.into() });
        }
    }

    /// Tells of damage; anything else is a failure of the examination itself.
    fn damage(&mut self, error: TablesError) -> Result<(), TablesError> {
        let TablesError::Corrupt { path, reason } = error else { return Err(error) };
        self.find(FindingKind::Damaged, &path, reason);
        Ok(())
    }
}

impl DocumentStore {
    /// Looks whether everything is there that has to be, and nothing else. `thorough`: also whether it is what was written:
    /// checksums of files, every document, every attachment's digest; it reads everything.
    ///
    /// # Errors
    /// When object storage or the log cannot be asked. What is wrong with the data is a finding.
    pub async fn examine(&self, thorough: bool) -> Result<Examination, TablesError> {
        self.shared.refresh().await?;
        self.shared.catch_up().await?;
        let snapshot = self.snapshot();
        let mut seen = Examination {
            manifest: snapshot.view.version.manifest.number,
            lsn: snapshot.lsn(),
            ..Examination::default()
        };
        let listed = self.listed(&mut seen).await?;
        let needed = self.needed(&listed, &mut seen).await?;
        self.look_for(&needed, &listed, thorough, &mut seen).await?;
        self.look_at_tables(&needed, &listed, &mut seen).await?;
        self.look_at_log(&snapshot, &mut seen).await?;
        if thorough {
            self.look_at_documents(&snapshot, &mut seen).await?;
        }
        Ok(seen)
    }

    /// Looks whether everything that a pin keeps is there and what was written.
    ///
    /// # Errors
    /// [`TablesError::NoPin`]; when object storage cannot be asked.
    pub async fn examine_pin(&self, name: &PinName) -> Result<Examination, TablesError> {
        let snapshot = self.at_pin(name).await?;
        let manifest = &snapshot.view.version.manifest;
        let mut seen = Examination { manifest: manifest.number, lsn: snapshot.lsn(), ..Examination::default() };
        let mut needed = BTreeMap::new();
        self.need(manifest, &format!("pin {}", name.as_str()), &mut needed);
        seen.objects = needed.len() as u64;
        seen.bytes = needed.values().map(|file| file.size).sum();
        self.look_for(&needed, &BTreeMap::new(), true, &mut seen).await?;
        self.look_at_documents(&snapshot, &mut seen).await?;
        Ok(seen)
    }

    async fn listed(&self, seen: &mut Examination) -> Result<BTreeMap<Path, u64>, TablesError> {
        let root = paths::app_root(&self.shared.app);
        let objects = self.shared.objects.list(Some(&root));
        let objects: BTreeMap<Path, u64> = objects
            .map_ok(|object| (object.location, object.size))
            .try_collect()
            .await
            .map_err(|error| TablesError::objects(&root, error))?;
        seen.objects = objects.len() as u64;
        seen.bytes = objects.values().sum();
        Ok(objects)
    }

    fn need(&self, manifest: &Manifest, by: &str, needed: &mut BTreeMap<Path, Needed>) {
        for (name, meta) in manifest.segments() {
            let path = self.path_of(name, meta);
            let need = || Needed { size: meta.size, crc32c: meta.crc32c, by: by.to_owned() };
            needed.entry(path).or_insert_with(need);
        }
    }

    fn path_of(&self, collection: &CollectionName, meta: &SegmentMeta) -> Path {
        let home = meta.home.as_ref().unwrap_or(&self.shared.app).clone();
        ObjectPath::Segment(home, collection.clone(), meta.ulid).to_path()
    }

    /// The files that manifests and pins name.
    async fn needed(
        &self,
        listed: &BTreeMap<Path, u64>,
        seen: &mut Examination,
    ) -> Result<BTreeMap<Path, Needed>, TablesError> {
        let mut needed = BTreeMap::new();
        let mut numbers = BTreeSet::from([seen.manifest]);
        numbers.remove(&0);
        numbers.extend(listed.keys().filter_map(|path| match ObjectPath::parse(path) {
            Some(ObjectPath::Manifest(_, number)) => Some(number),
            Some(_) | None => None,
        }));
        // The newest first: who needs a file is told by the newest that does.
        for number in numbers.iter().rev() {
            match self.shared.manifests.find(*number).await {
                Ok(Some(manifest)) => self.need(&manifest, &format!("manifest {number}"), &mut needed),
                Ok(None) if *number == seen.manifest => {
                    let path = ObjectPath::Manifest(self.shared.app.clone(), *number).to_path();
                    seen.find(FindingKind::Missing, &path, "the newest manifest that is known is gone");
                }
                // Collected meanwhile.
                Ok(None) => {}
                Err(error) => seen.damage(error)?,
            }
        }
        let now = self.shared.settings.clock.now_ms();
        for pin in self.shared.manifests.pins().await? {
            if pin.until_ms <= now && !self.is_for_clone(&pin, seen).await {
                continue;
            }
            match self.shared.manifests.load_pin(&pin).await {
                Ok(Some(manifest)) => self.need(&manifest, &format!("pin {}", pin.name.as_str()), &mut needed),
                Ok(None) => {}
                Err(error) => seen.damage(error)?,
            }
        }
        Ok(needed)
    }

    /// Whether a pin whose time is over is for a clone; tells when there is no such app.
    async fn is_for_clone(&self, pin: &Pin, seen: &mut Examination) -> bool {
        let Some(clone) = cloning::clone_of(pin) else { return false };
        if let Some(apps) = &self.shared.settings.apps
            && apps.is_there(&clone).await == Ok(false)
        {
            let why = "it keeps files for a clone that is not there; a collection of garbage deletes it, unless there are \
                       clones of that";
            seen.find(FindingKind::Extra, &self.shared.manifests.pin_path(pin), why);
        }
        true
    }

    /// Whether the files are there, and if so as they should be.
    async fn look_for(
        &self,
        needed: &BTreeMap<Path, Needed>,
        listed: &BTreeMap<Path, u64>,
        thorough: bool,
        seen: &mut Examination,
    ) -> Result<(), TablesError> {
        for (path, file) in needed {
            let size = match listed.get(path) {
                Some(size) => Some(*size),
                None => self.size_of(path).await?,
            };
            match size {
                None if self.is_still_needed(file).await? => {
                    seen.find(FindingKind::Missing, path, format!("{} names it", file.by));
                }
                None => {}
                Some(size) if size != file.size => {
                    let why = format!("{size} bytes instead of the {} that {} says", file.size, file.by);
                    seen.find(FindingKind::Damaged, path, why);
                }
                Some(_) if thorough => {
                    let found = self.checksum(path).await?;
                    if found.is_some_and(|found| found != file.crc32c) {
                        let why = format!("its checksum is not the one that {} says", file.by);
                        seen.find(FindingKind::Damaged, path, why);
                    }
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// What was needed by a manifest that was collected meanwhile may be gone.
    async fn is_still_needed(&self, file: &Needed) -> Result<bool, TablesError> {
        match file.by.strip_prefix("manifest ").and_then(|number| number.parse().ok()) {
            Some(number) => self.shared.manifests.exists(number).await,
            None => Ok(true),
        }
    }

    async fn size_of(&self, path: &Path) -> Result<Option<u64>, TablesError> {
        match self.shared.objects.head(path).await {
            Ok(found) => Ok(Some(found.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(TablesError::objects(path, error)),
        }
    }

    async fn checksum(&self, path: &Path) -> Result<Option<u32>, TablesError> {
        let read = async {
            let mut body = self.shared.objects.get(path).await?.into_stream();
            let mut crc = 0;
            while let Some(bytes) = body.try_next().await? {
                crc = crc32c::crc32c_append(crc, &bytes);
            }
            Ok(crc)
        };
        match read.await {
            Ok(crc) => Ok(Some(crc)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(TablesError::objects(path, error)),
        }
    }

    /// Published tables, and objects that nothing needs.
    async fn look_at_tables(
        &self,
        needed: &BTreeMap<Path, Needed>,
        listed: &BTreeMap<Path, u64>,
        seen: &mut Examination,
    ) -> Result<(), TablesError> {
        let mut published = BTreeSet::new();
        for (name, settings) in self.collection_settings() {
            if settings.publication.is_none() {
                continue;
            }
            let table = match self.published(&name).await {
                Ok(Some(table)) => table,
                Ok(None) => continue,
                Err(error) => {
                    seen.damage(error)?;
                    continue;
                }
            };
            for (ulid, _) in &table.files {
                let path = ObjectPath::Segment(self.shared.app.clone(), name.clone(), *ulid).to_path();
                if !listed.contains_key(&path) && self.size_of(&path).await?.is_none() {
                    let why = format!("version {} of the published table '{name}' names it", table.version);
                    seen.find(FindingKind::Missing, &path, why);
                }
                published.insert(path);
            }
        }
        let settings = &self.shared.settings;
        let grace = u64::try_from(settings.orphan_age.max(settings.keep_for).as_millis()).unwrap_or(u64::MAX);
        let old = settings.clock.now_ms().saturating_sub(grace.saturating_mul(2));
        for path in listed.keys() {
            match ObjectPath::parse(path) {
                None => seen.find(FindingKind::Extra, path, "not an object of bigpeer"),
                // What is younger waits for its turn.
                Some(ObjectPath::Segment(_, _, ulid))
                    if !needed.contains_key(path) && !published.contains(path) && ulid.timestamp_ms() < old =>
                {
                    seen.find(FindingKind::Extra, path, "nothing names it; a collection of garbage deletes it");
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Whether the log goes on where the manifest ends, and can be read.
    async fn look_at_log(&self, snapshot: &Snapshot, seen: &mut Examination) -> Result<(), TablesError> {
        let (log, app) = (&self.shared.log, &self.shared.app);
        let mut at = snapshot.view.version.manifest.lsn;
        loop {
            let batch = match log.read(app, at, self.shared.settings.read_bytes).await {
                Ok(batch) => batch,
                Err(ReadError::Trimmed { kept_after }) => {
                    let why = format!("it begins after {kept_after}, and the newest manifest ends at {at}");
                    seen.find(FindingKind::Missing, &"the transaction log", why);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            };
            if batch.entries.is_empty() {
                return Ok(());
            }
            for entry in batch.entries {
                if let Err(error) = Transaction::decode(entry.payload) {
                    let what = format!("the transaction at {}", entry.lsn);
                    seen.find(FindingKind::Damaged, &what, error.to_string());
                }
            }
            at = batch.through;
        }
    }

    /// Every document, and every attachment that one holds.
    async fn look_at_documents(&self, snapshot: &Snapshot, seen: &mut Examination) -> Result<(), TablesError> {
        let mut held: BTreeMap<[u8; 32], (u64, String)> = BTreeMap::new();
        for collection in snapshot.collections() {
            let mut batches = snapshot.scan(&collection, Scan { deleted: true, ..Scan::default() });
            loop {
                let batch = match batches.try_next().await {
                    Ok(Some(batch)) => batch,
                    Ok(None) => break,
                    Err(error) if is_absent(&error) => {
                        // It was found missing already.
                        break;
                    }
                    Err(error) => {
                        seen.damage(error)?;
                        break;
                    }
                };
                for row in batch {
                    seen.documents += 1;
                    let name = || format!("document {:?} of '{collection}'", row.id);
                    match Document::decode(&row.state) {
                        Ok(document) => {
                            for Attachment { sha256, length, .. } in document.held_attachments() {
                                held.entry(*sha256).or_insert_with(|| (*length, name()));
                            }
                        }
                        Err(error) => seen.find(FindingKind::Damaged, &name(), error.to_string()),
                    }
                }
            }
        }
        seen.attachments = held.len() as u64;
        let homes = self.attachment_homes();
        for (sha256, (length, by)) in held {
            self.look_at_attachment(sha256, length, &by, &homes, seen).await?;
        }
        Ok(())
    }

    async fn look_at_attachment(
        &self,
        sha256: [u8; 32],
        length: u64,
        by: &str,
        homes: &[AppId],
        seen: &mut Examination,
    ) -> Result<(), TablesError> {
        for home in homes {
            let attachments = Attachments::new(home.clone(), Arc::clone(&self.shared.objects));
            // What goes while it is read was stored again elsewhere, or nothing holds it any more.
            for _ in 0..2 {
                let found = attachments.find(sha256).await;
                let Some(found) = found.map_err(|error| TablesError::objects(&paths::attachments(home), error))? else {
                    break;
                };
                match self.digest(&found.location).await {
                    Ok(read) => {
                        if read != (sha256, length) {
                            seen.find(FindingKind::Damaged, &found.location, format!("not what {by} holds"));
                        }
                        return Ok(());
                    }
                    Err(Error::NotFound { .. }) => {}
                    Err(error) => return Err(TablesError::objects(&found.location, error)),
                }
            }
        }
        let path = ObjectPath::Attachment(self.shared.app.clone(), sha256, 0).to_path();
        seen.find(FindingKind::Missing, &path, format!("{by} holds it; its writer may not have uploaded it yet"));
        Ok(())
    }

    async fn digest(&self, path: &Path) -> Result<([u8; 32], u64), Error> {
        let mut body = self.shared.objects.get(path).await?.into_stream();
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        while let Some(part) = body.try_next().await? {
            hash.update(&part);
            bytes += part.len() as u64;
        }
        Ok((hash.finalize().into(), bytes))
    }
}

fn is_absent(error: &TablesError) -> bool {
    matches!(error, TablesError::Objects { source, .. } if matches!(**source, Error::NotFound { .. }))
}
