//! Published tables: a collection as a Delta Lake table over its own segments, for readers that know nothing of bigpeer.
//!
//! A version of the table holds every visible document once, as it was at one LSN, which its commit names. Nothing is
//! copied: what differs between the two modes is which files a version may be made from.
//! - **compatible**: only files in which every row is a visible document, stored with the collection's own types. Files
//!   that are not so are written anew first, beside flushes; when flushes come too fast for that, they wait for the rest of it,
//!   as long as the overlay has room.
//! - **deletion vectors**: only the types must fit; rows that do not count are named in deletion vectors.
//!
//! Files of deletions alone are no part of a table.
//!
//! # Consistency
//! A version is made from one manifest, which must still be there when the version is committed; versions of a table never
//! go back to an earlier manifest. Files that a version names, or named within the time for which manifests are kept, are
//! not collected.

mod actions;
mod checkpoint;
mod log;
mod vectors;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use bigpeer_types::{CollectionName, Lsn};
use roaring::RoaringBitmap;
use ulid::Ulid;

use crate::columns::Columns;
use crate::error::TablesError;
use crate::manifest::{PublicationMode, SegmentMeta};
use crate::overlay;
use crate::snapshot::View;
use crate::store::{DocumentStore, Shared};
use crate::writer::{Extent, Writer};
use actions::{Add, CommitInfo, Format, Line, MetaData, Protocol, Remove, Vector};
pub(crate) use log::DeltaLog;
use log::Table;
use vectors::VectorFile;

/// How often a version is tried to be committed while others commit theirs.
const ATTEMPTS: usize = 8;

/// A version of a published table.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedTable {
    /// Its number.
    pub version: u64,
    /// The documents are as of here.
    pub lsn: Lsn,
    /// The manifest that it was made from.
    pub manifest: u64,
    /// When it was committed, in milliseconds since the epoch.
    pub committed_ms: u64,
    /// Its files, and the rows of them that do not count.
    pub files: Vec<(Ulid, RoaringBitmap)>,
}

/// Logs of published tables, as far as they are known.
pub(crate) type DeltaLogs = Mutex<BTreeMap<CollectionName, Arc<tokio::sync::Mutex<DeltaLog>>>>;

/// Whether a file may be part of a version: nothing of it has to be written anew.
pub(crate) fn is_fit(segment: &SegmentMeta, columns: &Columns, mode: PublicationMode) -> bool {
    if segment.is_graveyard() {
        return true;
    }
    // Of a clone: a table's files lie below its root.
    if segment.home.is_some() {
        return false;
    }
    let rows = match mode {
        PublicationMode::Compatible => segment.superseded.is_empty() && segment.tombstones.is_empty(),
        PublicationMode::DeletionVectors => true,
    };
    rows && *segment.columns == Columns::clone(&segment.columns).typed_as(columns)
}

/// A file as a version is to have it.
struct Wanted {
    size: u64,
    rows: u32,
    created_ms: u64,
    excluded: RoaringBitmap,
}

fn path_of(ulid: Ulid) -> String {
    format!("segments/{ulid}.parquet")
}

fn ulid_of(path: &str) -> Option<Ulid> {
    Ulid::from_string(path.strip_prefix("segments/")?.strip_suffix(".parquet")?).ok()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Writer {
    /// Publishes a collection as its settings say, from the newest manifest. None when it is not to be published, there was never
    /// anything in it, nothing has changed since the last version, or a version cannot be made now: then a later call goes on.
    ///
    /// **Cancellation**: a version is there or not; files that were written anew stay.
    ///
    /// # Errors
    /// When object storage fails; [`TablesError::Fenced`] when another writer has taken over.
    pub async fn publish(&self, collection: &CollectionName) -> Result<Option<PublishedTable>, TablesError> {
        let Some(publication) = self.shared.settings_of(collection).publication else { return Ok(None) };
        let mode = publication.mode;
        self.check_owner(&self.shared.view().version.manifest)?;
        let view = match self.fit_view(collection, mode) {
            Some(view) => view,
            None => match self.make_fit(collection, mode).await? {
                Some(view) => view,
                None => return Ok(None),
            },
        };
        let log = self.delta_log(collection);
        let mut log = log.lock().await;
        let published = self.commit_version(&mut log, collection, mode, &view).await;
        if published.is_err() {
            *log = self.shared.delta_log(collection);
        }
        published
    }

    /// What is known of a collection's published versions. Whoever reads or writes them holds this one, and no other's.
    pub(crate) fn delta_log(&self, collection: &CollectionName) -> Arc<tokio::sync::Mutex<DeltaLog>> {
        let mut logs = self.delta_logs.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(tokio::sync::Mutex::new(self.shared.delta_log(collection)));
        Arc::clone(logs.entry(collection.clone()).or_insert_with(new))
    }

    /// The newest view, if all of the collection's files are fit.
    fn fit_view(&self, collection: &CollectionName, mode: PublicationMode) -> Option<Arc<View>> {
        let view = self.shared.view();
        let columns = view.version.columns(collection);
        let fit = view.version.segments(collection).iter().all(|segment| is_fit(&segment.meta, &columns, mode));
        fit.then_some(view)
    }

    /// Writes anew what has to be: first beside flushes, which may spoil it, then with flushes waiting, if need be.
    async fn make_fit(
        &self,
        collection: &CollectionName,
        mode: PublicationMode,
    ) -> Result<Option<Arc<View>>, TablesError> {
        self.compact(collection, Extent::Publish(mode)).await?;
        if let Some(view) = self.fit_view(collection, mode) {
            return Ok(Some(view));
        }
        let _no_flush = self.flushing.lock().await;
        let most = self.shared.settings.max_overlay_bytes / 2;
        let mut published = self.shared.published.subscribe();
        let full = async { published.wait_for(|now| overlay::bytes(&now.view.overlays) > most).await.is_ok() };
        tokio::select! {
            done = self.compact(collection, Extent::Publish(mode)) => done.map(|_| self.fit_view(collection, mode)),
            _ = full => {
                tracing::debug!(app = %self.shared.app, %collection, "a version is put off: flushes cannot wait");
                Ok(None)
            }
        }
    }

    async fn commit_version(
        &self,
        log: &mut DeltaLog,
        collection: &CollectionName,
        mode: PublicationMode,
        view: &View,
    ) -> Result<Option<PublishedTable>, TablesError> {
        let manifest = &view.version.manifest;
        let wanted = wanted_files(view, collection, mode);
        let schema = actions::schema_of(&view.version.columns(collection));
        for _ in 0..ATTEMPTS {
            log.advance().await?;
            if log.table.as_ref().is_some_and(|table| table.manifest > manifest.number) {
                return Ok(None);
            }
            let known = log.table.clone();
            let mut vectors = VectorFile::new(self.new_ulid().0);
            let mut lines = self.changes(known.as_ref(), collection, mode, &schema);
            lines.extend(files(known.as_ref(), &wanted, &mut vectors, self.now_ms())?);
            if known.is_some() && lines.is_empty() {
                return Ok(None);
            }
            // A first version without a document would have columns of no type.
            if known.is_none() && wanted.is_empty() {
                return Ok(None);
            }
            if known.is_none() {
                log.clear().await?;
            }
            lines.insert(0, self.commit_info(manifest.lsn, manifest.number));
            if !vectors.is_empty() {
                let (uuid, bytes) = vectors.finish();
                log.put_vectors(uuid, bytes).await?;
            }
            // The files must be kept by a manifest until the version keeps them.
            if manifest.number > 0 && !self.shared.manifests.exists(manifest.number).await? {
                return Ok(None);
            }
            if !log.commit(lines).await? {
                continue;
            }
            let Some(table) = &log.table else { return Ok(None) };
            let files = wanted.into_iter().filter_map(|(path, file)| Some((ulid_of(&path)?, file.excluded)));
            let published = table.head(files.collect());
            let keep_ms = u64::try_from(self.shared.settings.keep_for.as_millis()).unwrap_or(u64::MAX);
            if let Err(error) =
                log.checkpoint(signed(self.shared.settings.clock.now_ms().saturating_sub(keep_ms))).await
            {
                tracing::warn!(app = %self.shared.app, %collection, %error, "a published table has no checkpoint yet");
            }
            return Ok(Some(published));
        }
        Ok(None)
    }

    fn now_ms(&self) -> i64 {
        signed(self.shared.settings.clock.now_ms())
    }

    fn commit_info(&self, lsn: Lsn, manifest: u64) -> Line {
        let info = CommitInfo {
            timestamp: self.now_ms(),
            operation: "WRITE".to_owned(),
            operation_parameters: BTreeMap::new(),
            engine_info: concat!("bigpeer ", env!("CARGO_PKG_VERSION")).to_owned(),
            lsn: lsn.to_string(),
            manifest,
        };
        Line { commit_info: Some(info), ..Line::default() }
    }

    /// What has changed of the table besides its files.
    fn changes(
        &self,
        known: Option<&Table>,
        collection: &CollectionName,
        mode: PublicationMode,
        schema: &str,
    ) -> Vec<Line> {
        let mut lines = Vec::new();
        let protocol = Protocol::of(mode);
        if known.is_none_or(|known| known.protocol != protocol) {
            lines.push(Line { protocol: Some(protocol), ..Line::default() });
        }
        let configuration = actions::configuration(mode);
        let same = |known: &Table| known.meta.schema_string == schema && known.meta.configuration == configuration;
        if !known.is_some_and(same) {
            let meta = match known {
                Some(known) => MetaData { schema_string: schema.to_owned(), configuration, ..known.meta.clone() },
                None => MetaData {
                    id: self.shared.settings.ids.uuid(),
                    name: collection.to_string(),
                    format: Format { provider: "parquet".to_owned(), options: BTreeMap::new() },
                    schema_string: schema.to_owned(),
                    partition_columns: Vec::new(),
                    configuration,
                    created_time: self.now_ms(),
                },
            };
            lines.push(Line { meta_data: Some(meta), ..Line::default() });
        }
        lines
    }
}

/// The files of a version made from a manifest.
fn wanted_files(view: &View, collection: &CollectionName, mode: PublicationMode) -> BTreeMap<String, Wanted> {
    let segments = view.version.segments(collection).iter().map(|segment| &segment.meta);
    let files = segments.filter(|meta| !meta.is_graveyard()).filter_map(|meta| {
        let excluded = match mode {
            PublicationMode::Compatible => RoaringBitmap::new(),
            PublicationMode::DeletionVectors => &*meta.superseded | &*meta.tombstones,
        };
        let wanted = Wanted { size: meta.size, rows: meta.rows, created_ms: meta.ulid.timestamp_ms(), excluded };
        (wanted.excluded.len() < u64::from(meta.rows)).then(|| (path_of(meta.ulid), wanted))
    });
    files.collect()
}

/// What turns the known version's files into those that are wanted.
fn files(
    known: Option<&Table>,
    wanted: &BTreeMap<String, Wanted>,
    vectors: &mut VectorFile,
    now_ms: i64,
) -> Result<Vec<Line>, TablesError> {
    let none = BTreeMap::new();
    let known = known.map_or(&none, |known| &known.files);
    // A file's vector only ever grows: as many rows are the same rows.
    let rows_of = |add: &Add| add.deletion_vector.as_ref().map_or(0, |vector| vector.cardinality);
    let same =
        |path: &str, wanted: &Wanted| known.get(path).is_some_and(|add| rows_of(add) == signed(wanted.excluded.len()));
    let mut lines = Vec::new();
    for (path, add) in known {
        if !wanted.get(path).is_some_and(|wanted| same(path, wanted)) {
            let deletion_vector = add.deletion_vector.clone();
            let remove = Remove { path: path.clone(), deletion_timestamp: now_ms, data_change: true, deletion_vector };
            lines.push(Line { remove: Some(remove), ..Line::default() });
        }
    }
    for (path, file) in wanted {
        if same(path, file) {
            continue;
        }
        let deletion_vector = if file.excluded.is_empty() { None } else { Some(vectors.push(&file.excluded)?) };
        let add = Add {
            path: path.clone(),
            partition_values: BTreeMap::new(),
            size: signed(file.size),
            modification_time: signed(file.created_ms),
            data_change: true,
            stats: Some(format!(r#"{{"numRecords":{}}}"#, file.rows)),
            deletion_vector,
        };
        lines.push(Line { add: Some(add), ..Line::default() });
    }
    Ok(lines)
}

impl Table {
    fn head(&self, files: Vec<(Ulid, RoaringBitmap)>) -> PublishedTable {
        PublishedTable {
            version: self.version,
            lsn: self.lsn,
            manifest: self.manifest,
            committed_ms: u64::try_from(self.committed_ms).unwrap_or(0),
            files,
        }
    }
}

impl DocumentStore {
    /// The newest version of a published table, as an outside reader finds it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn published(&self, collection: &CollectionName) -> Result<Option<PublishedTable>, TablesError> {
        let mut log = self.shared.delta_log(collection);
        log.advance().await?;
        let Some(table) = &log.table else { return Ok(None) };
        let mut files = Vec::new();
        for (path, add) in &table.files {
            let damaged = |what: &str| TablesError::corrupt(&format!("a published table of '{collection}'"), what);
            let ulid = ulid_of(path).ok_or_else(|| damaged("a file that is no segment"))?;
            let excluded = match &add.deletion_vector {
                None => RoaringBitmap::new(),
                Some(vector) => read_vector(&log, vector).await?,
            };
            files.push((ulid, excluded));
        }
        Ok(Some(table.head(files)))
    }
}

async fn read_vector(log: &DeltaLog, vector: &Vector) -> Result<RoaringBitmap, TablesError> {
    let unknown = || TablesError::corrupt(&"a published table", "a deletion vector of a kind that is not known");
    let (path, bytes) = log.vectors(vectors::file_of(vector).ok_or_else(unknown)?).await?;
    vectors::read(&bytes, vector).ok_or_else(|| TablesError::corrupt(&path, "not the deletion vector that is named"))
}

impl Shared {
    pub(crate) fn delta_log(&self, collection: &CollectionName) -> DeltaLog {
        DeltaLog::new(self.app.clone(), collection.clone(), Arc::clone(&self.objects))
    }
}

/// What the log of a published table keeps from being collected.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) segments: HashSet<Ulid>,
    pub(crate) vectors: HashSet<u128>,
    /// Commits and checkpoints before this version are of no use any more.
    pub(crate) first_version: u64,
}

impl DeltaLog {
    /// What has to be kept for the newest version, and for readers of those that were the newest since `since_ms`.
    pub(crate) async fn kept(&mut self, since_ms: u64) -> Result<Kept, TablesError> {
        self.advance().await?;
        let Some(table) = &self.table else { return Ok(Kept::default()) };
        let removed = table.removed.values().filter(|(at, _)| *at >= signed(since_ms)).map(|(_, add)| add);
        let mut kept = Kept::default();
        for add in table.files.values().chain(removed) {
            kept.segments.extend(ulid_of(&add.path));
            kept.vectors.extend(add.deletion_vector.as_ref().and_then(vectors::file_of));
        }
        let settled = table.checkpoints.iter().rev().find(|(_, at)| *at < signed(since_ms));
        kept.first_version = settled.map_or(0, |(version, _)| *version);
        Ok(kept)
    }
}
