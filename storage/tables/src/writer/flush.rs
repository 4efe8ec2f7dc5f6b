//! Flush: the overlay becomes new segments, and the rows that they supersede are marked in the same manifest.
//!
//! **Crash safety**: segments are put first, under new names; then one put-if-absent of the manifest makes them, the
//! deletion vectors and the LSN true at once. Before it nothing has happened, after it everything has.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bigpeer_crdt::{DecodeError, DocId, Document};
use bigpeer_types::{CollectionName, Lsn};
use bytes::Bytes;
use roaring::RoaringBitmap;
use ulid::Ulid;

use super::{Writer, blocking};
use crate::columns::Columns;
use crate::error::TablesError;
use crate::manifest::{Manifest, SegmentMeta};
use crate::metrics;
use crate::overlay::Entry;
use crate::segment::batch::{BATCH_BYTES, BATCH_ROWS, StateBatch, Types};
use crate::segment::lookup;
use crate::segment::write::{GroupLimits, SegmentWriter};
use crate::snapshot::{ScannedDocument, View};
use crate::written::Written;

/// Entries whose older states are looked up at once.
const LOOKUP_ROWS: usize = 4096;

/// Bytes of states after which a new file is begun.
const FILE_BYTES: usize = 64 << 20;

/// What a flush did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flushed {
    /// Everything up to here is in segments now.
    pub lsn: Lsn,
    /// The manifest's number.
    pub manifest: u64,
    /// Documents written.
    pub documents: u64,
    /// Bytes of segment files written.
    pub bytes: u64,
}

/// What a flush makes of the collections.
#[derive(Debug, Default)]
struct Changes {
    superseded: HashMap<Ulid, RoaringBitmap>,
    added: BTreeMap<CollectionName, Vec<SegmentMeta>>,
    documents: u64,
    bytes: u64,
}

impl Writer {
    /// Writes everything that was applied until now into segments, and commits a manifest at that LSN. None when there is
    /// nothing new.
    ///
    /// # Errors
    /// [`TablesError::Fenced`] when another writer has taken over; others leave everything as it was.
    pub async fn flush(&self) -> Result<Option<Flushed>, TablesError> {
        let _flushing = self.flushing.lock().await;
        let mut state = self.commit.lock().await;
        let started = self.shared.settings.clock.monotonic();
        loop {
            let view = self.shared.view();
            let base = &view.version.manifest;
            if view.lsn <= base.lsn {
                return Ok(None);
            }
            let changes = self.write_overlay(&view).await?;
            let (documents, bytes) = (changes.documents, changes.bytes);
            let (lsn, written) = (view.lsn, view.written);
            if self.try_commit(&mut state, base, |next| apply(next, (lsn, written), changes)).await? {
                let seconds = self.shared.settings.clock.monotonic().saturating_sub(started).as_secs_f64();
                metrics::written(&self.shared.app, "flush", documents, bytes);
                metrics::finished(&self.shared.app, "flush", seconds);
                tracing::debug!(app = %self.shared.app, %lsn, documents, bytes, "flushed");
                return Ok(Some(Flushed { lsn, manifest: base.number + 1, documents, bytes }));
            }
        }
    }

    async fn write_overlay(&self, view: &Arc<View>) -> Result<Changes, TablesError> {
        let mut changes = Changes::default();
        for (collection, overlay) in &view.overlays {
            let columns = view.version.columns(collection);
            let wide = self.shared.settings_of(collection).publication.is_some();
            let mut file = FileBuilder::new(columns.clone(), wide, self.group_limits());
            let mut entries = overlay.entries.iter();
            loop {
                let chunk: Vec<(DocId, Arc<Entry>)> =
                    entries.by_ref().take(LOOKUP_ROWS).map(|(id, entry)| (id.clone(), Arc::clone(entry))).collect();
                let last = chunk.len() < LOOKUP_ROWS;
                let bases = self.bases(view, collection, &chunk, &mut changes).await?;
                file = blocking(move || file.push(chunk, &bases).map(|()| file)).await?;
                if last || file.bytes >= FILE_BYTES {
                    let columns = columns_so_far(&columns, changes.added.get(collection));
                    let full = std::mem::replace(&mut file, FileBuilder::new(columns, wide, self.group_limits()));
                    self.write_file(collection, full, &mut changes).await?;
                }
                if last {
                    break;
                }
            }
        }
        Ok(changes)
    }

    /// The older states of documents, and which rows they are in.
    async fn bases(
        &self,
        view: &View,
        collection: &CollectionName,
        chunk: &[(DocId, Arc<Entry>)],
        changes: &mut Changes,
    ) -> Result<Vec<Option<Bytes>>, TablesError> {
        let segments = view.version.segments(collection);
        let keys: Vec<&[u8]> = chunk.iter().map(|(id, _)| id.as_key()).collect();
        let bases = lookup::find(&self.shared.objects, segments, &keys).await?;
        for base in bases.iter().flatten() {
            if let Some(segment) = segments.get(base.segment) {
                changes.superseded.entry(segment.meta.ulid).or_default().insert(base.row);
            }
        }
        Ok(bases.into_iter().map(|base| base.map(|base| base.state)).collect())
    }

    async fn write_file(
        &self,
        collection: &CollectionName,
        file: FileBuilder,
        changes: &mut Changes,
    ) -> Result<(), TablesError> {
        let ulid = self.new_ulid();
        let Some((bytes, meta)) = blocking(move || file.finish(ulid)).await? else { return Ok(()) };
        self.put_segment(collection, &meta, bytes).await?;
        changes.documents += u64::from(meta.rows);
        changes.bytes += meta.size;
        changes.added.entry(collection.clone()).or_default().push(meta);
        Ok(())
    }
}

/// The columns of a collection and of segments that are not committed yet.
fn columns_so_far(columns: &Columns, added: Option<&Vec<SegmentMeta>>) -> Columns {
    added.into_iter().flatten().fold(columns.clone(), |columns, segment| columns.join(&segment.columns))
}

fn apply(next: &mut Manifest, upto: (Lsn, Written), changes: Changes) {
    (next.lsn, next.written) = upto;
    for collection in next.collections.values_mut() {
        for segment in &mut collection.segments {
            if let Some(rows) = changes.superseded.get(&segment.ulid) {
                *Arc::make_mut(&mut segment.superseded) |= rows;
            }
        }
        // A file without live rows is of no use to anybody.
        collection.segments.retain(|segment| segment.live_rows() > 0);
    }
    for (name, added) in changes.added {
        let collection = next.collections.entry(name).or_default();
        collection.columns = columns_so_far(&collection.columns, Some(&added));
        collection.segments.extend(added);
    }
}

/// Collects the documents of one file, and the columns that they need.
struct FileBuilder {
    /// The columns that there are, and those of the batches.
    known: Columns,
    /// Whether the file is to have the types of all of these, not of its own documents alone: others read it, too.
    wide: bool,
    limits: GroupLimits,
    batches: Vec<StateBatch>,
    bytes: usize,
}

impl FileBuilder {
    fn new(known: Columns, wide: bool, limits: GroupLimits) -> Self {
        Self { known, wide, limits, batches: Vec::new(), bytes: 0 }
    }

    /// Adds documents: changes, and the older states that they change.
    fn push(&mut self, entries: Vec<(DocId, Arc<Entry>)>, bases: &[Option<Bytes>]) -> Result<(), TablesError> {
        let mut rows = Vec::new();
        let mut documents = Vec::new();
        let mut bytes = 0;
        for ((id, entry), base) in entries.into_iter().zip(bases) {
            let damaged = |error: DecodeError| TablesError::corrupt(&format!("document {id:?}"), error);
            let document = entry.document(base.as_deref()).map_err(damaged)?;
            let state = entry.encoded_as(base.is_some(), &document);
            bytes += state.len();
            documents.push(document);
            rows.push(ScannedDocument { id, lsn: entry.lsn, state });
            if bytes >= BATCH_BYTES || rows.len() >= BATCH_ROWS {
                self.push_batch(&std::mem::take(&mut rows), &std::mem::take(&mut documents))?;
                bytes = 0;
            }
        }
        self.push_batch(&rows, &documents)
    }

    fn push_batch(&mut self, rows: &[ScannedDocument], documents: &[Document]) -> Result<(), TablesError> {
        if rows.is_empty() {
            return Ok(());
        }
        let batch = StateBatch::new(rows, documents, Types::Infer(&self.known))?;
        self.known = std::mem::take(&mut self.known).join(&batch.typed.columns);
        self.bytes += batch.state_bytes;
        self.batches.push(batch);
        Ok(())
    }

    fn finish(self, ulid: Ulid) -> Result<Option<(Vec<u8>, SegmentMeta)>, TablesError> {
        let needed = self.batches.iter().fold(Columns::default(), |all, batch| all.join(&batch.typed.columns));
        let needed = if self.wide { needed.typed_as(&self.known) } else { needed };
        let mut writer = SegmentWriter::new(Arc::new(needed.in_order_of(&self.known)), self.limits)?;
        for batch in self.batches {
            writer.write(&batch)?;
        }
        writer.finish(ulid, false)
    }
}
