//! Compaction: small new segments and what they overlap become one sorted run, without superseded rows.
//!
//! It goes slice by slice: a range of keys, the files of the run within it, and the rows of new segments that lie in it.
//! Each slice is a commit of its own that marks these rows of the new segments as superseded; a new segment whose last row
//! has gone is dropped. So the work between commits and its memory are bounded whatever there is, what matters most is
//! done first, and a compaction that is cancelled goes on later where it was.
//!
//! Deletions are written into files of their own: readers of documents need not open them.
//!
//! It runs beside flushes. While it writes, flushes may supersede rows of its inputs; before it commits it finds those
//! rows' keys in its outputs and marks them there.

mod choose;

use std::collections::HashMap;
use std::sync::Arc;

use bigpeer_crdt::Document;
use bigpeer_types::{CollectionName, Lsn};
use futures::TryStreamExt;
use roaring::RoaringBitmap;
use ulid::Ulid;

use super::{Writer, blocking};
use crate::columns::Columns;
use crate::error::TablesError;
use crate::manifest::{Manifest, PublicationMode, SegmentMeta};
use crate::segment::SegmentFile;
use crate::segment::batch::{BATCH_ROWS, StateBatch, Types};
use crate::segment::lookup;
use crate::segment::write::{GroupLimits, SegmentWriter};
use crate::snapshot::ScannedDocument;
use crate::version::{LiveSegment, Version};
use crate::{metrics, scan};
use choose::{Input, Job, Ranks};

/// How far a compaction goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Small new segments become one new segment; the sorted run is not touched. Bounds what a read must look into, and
    /// costs little.
    Minor,
    /// Where new segments have gathered much over a part of the sorted run, or a part of it has many superseded rows, that
    /// part is written anew with what is new in it.
    Major,
    /// Only what keeps a version of a published table from being made: files with rows that do not count, if that matters
    /// in this mode, or of types that are narrower than the collection's.
    Publish(PublicationMode),
    /// Everything new becomes part of the sorted run, and every file of it that has a superseded row is written anew:
    /// afterwards there is none.
    Full,
}

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Segments that went in.
    pub inputs: usize,
    /// Segments that came out.
    pub outputs: usize,
    /// Documents written.
    pub documents: u64,
    /// Bytes of segment files written.
    pub bytes: u64,
}

impl Compacted {
    fn add(&mut self, step: Self) {
        self.inputs += step.inputs;
        self.outputs += step.outputs;
        self.documents += step.documents;
        self.bytes += step.bytes;
    }
}

/// How much a compaction of a collection would tidy up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debt {
    /// The collection.
    pub collection: CollectionName,
    /// Segments that are not part of the sorted run.
    pub new_segments: usize,
    /// Bytes of these, as far as their rows count.
    pub new_bytes: u64,
    /// Bytes of the sorted run.
    pub run_bytes: u64,
    /// Rows in files, superseded ones included.
    pub rows: u64,
    /// Superseded rows in files.
    pub superseded: u64,
}

impl Writer {
    /// What there is to compact, for each collection.
    #[must_use]
    pub fn debts(&self) -> Vec<Debt> {
        let view = self.shared.view();
        let debts = view.version.manifest.collections.iter().map(|(name, collection)| {
            let of = |run: bool| collection.segments.iter().filter(move |segment| segment.run == run);
            Debt {
                collection: name.clone(),
                new_segments: of(false).count(),
                new_bytes: of(false).map(live_bytes).sum(),
                run_bytes: of(true).map(|segment| segment.size).sum(),
                rows: collection.segments.iter().map(|segment| u64::from(segment.rows)).sum(),
                superseded: collection.segments.iter().map(|segment| segment.superseded.len()).sum(),
            }
        });
        debts.collect()
    }

    /// Merges segments of a collection. None when there is nothing to gain, or when another writer's commit came between.
    ///
    /// Memory is bounded by [`crate::TablesSettings::compaction_bytes`]. **Cancellation**: what was committed stays, the
    /// rest is as it was.
    ///
    /// # Errors
    /// [`TablesError::Fenced`] when another writer has taken over; others leave everything as after the last commit.
    pub async fn compact(&self, collection: &CollectionName, extent: Extent) -> Result<Option<Compacted>, TablesError> {
        let _one = self.compaction.lock().await;
        let started = self.shared.settings.clock.monotonic();
        let mut view = self.shared.view();
        // What comes while this works is for the next one.
        let known = view.version.segments(collection).iter().map(|segment| segment.meta.ulid).collect();
        let mut ranks = Ranks::new();
        let mut done = Compacted::default();
        let kind = if matches!(extent, Extent::Publish(_)) { "publication" } else { "compaction" };
        while let Some(job) = self.choose(&view, collection, extent, &known, &mut ranks).await? {
            let (outputs, forgotten) = self.merge(collection, &view, &job).await?;
            let step = Compacted {
                inputs: job.inputs.len(),
                outputs: outputs.len(),
                documents: outputs.iter().map(|segment| u64::from(segment.rows)).sum(),
                bytes: outputs.iter().map(|segment| segment.size).sum(),
            };
            if !self.replace(collection, &job.inputs, outputs, forgotten).await? {
                break;
            }
            done.add(step);
            metrics::written(&self.shared.app, kind, step.documents, step.bytes);
            if extent == Extent::Minor {
                break;
            }
            view = self.shared.view();
        }
        if done.inputs == 0 {
            return Ok(None);
        }
        let seconds = self.shared.settings.clock.monotonic().saturating_sub(started).as_secs_f64();
        metrics::finished(&self.shared.app, kind, seconds);
        metrics::rows(&self.shared.app, self.shared.view().version.manifest.segments().map(|(_, segment)| segment));
        tracing::debug!(app = %self.shared.app, %collection, ?done, "compacted");
        Ok(Some(done))
    }

    /// Writes the rows of the inputs into new files. Deletions whose time is over are left out: up to which LSN is told.
    async fn merge(
        &self,
        collection: &CollectionName,
        view: &Arc<crate::snapshot::View>,
        job: &Job,
    ) -> Result<(Vec<SegmentMeta>, Lsn), TablesError> {
        let horizon = self.deletions_kept_after(&view.version);
        let segments: Vec<Arc<LiveSegment>> = job.inputs.iter().map(|input| Arc::clone(&input.rows)).collect();
        let columns = columns_of(&view.version, collection, &segments);
        let published = self.shared.settings_of(collection).publication.is_some();
        let columns = Arc::new(if published { columns.typed_as(&view.version.columns(collection)) } else { columns });
        let snapshot = self.shared.snapshot(Arc::clone(view));
        let mut rows = scan::run_segments(snapshot, collection, segments);
        let mut outputs = Vec::new();
        let mut writer = Pair::new(&columns, horizon, self.group_limits())?;
        let mut forgotten = Lsn::ZERO;
        let settings = &self.shared.settings;
        while let Some(mut rest) = rows.try_next().await? {
            while !rest.is_empty() {
                let room = (settings.segment_bytes.max(1) as u64).saturating_sub(writer.state_bytes());
                if room == 0 || writer.file_bytes() >= settings.compaction_bytes / 4 {
                    let next = Pair::new(&columns, horizon, self.group_limits())?;
                    let full = std::mem::replace(&mut writer, next);
                    forgotten = forgotten.max(full.forgotten);
                    self.finish_files(collection, full, job.run, &mut outputs).await?;
                    continue;
                }
                let later = rest.split_off(rows_within(&rest, room));
                let (now, types) = (std::mem::replace(&mut rest, later), Arc::clone(&columns));
                writer = blocking(move || writer.write(now, &types).map(|()| writer)).await?;
            }
        }
        forgotten = forgotten.max(writer.forgotten);
        self.finish_files(collection, writer, job.run, &mut outputs).await?;
        Ok((outputs, forgotten))
    }

    /// Deletions up to here need not be remembered any more.
    fn deletions_kept_after(&self, version: &Version) -> Lsn {
        let settings = &self.shared.settings;
        let keep_ms = u64::try_from(settings.keep_tombstones.as_millis()).unwrap_or(u64::MAX);
        version.manifest.moments.before(settings.clock.now_ms(), keep_ms)
    }

    /// Drops the files of deletions whose time is over, of all collections. Returns how many. Whoever has seen nothing since
    /// has to start anew: see [`crate::Snapshot::forgotten`].
    ///
    /// # Errors
    /// As [`Self::compact`].
    pub async fn forget_deletions(&self) -> Result<usize, TablesError> {
        let mut state = self.commit.lock().await;
        loop {
            let view = self.shared.view();
            let horizon = self.deletions_kept_after(&view.version);
            let is_over = |segment: &SegmentMeta| segment.is_graveyard() && segment.max_lsn <= horizon;
            let over = view.version.manifest.segments().filter(|(_, segment)| is_over(segment)).count();
            if over == 0 {
                return Ok(0);
            }
            let change = |next: &mut Manifest| {
                for collection in next.collections.values_mut() {
                    let latest =
                        collection.segments.iter().filter(|segment| is_over(segment)).map(|segment| segment.max_lsn);
                    collection.forgotten = latest.max().unwrap_or(Lsn::ZERO).max(collection.forgotten);
                    collection.segments.retain(|segment| !is_over(segment));
                }
            };
            if self.try_commit(&mut state, &view.version.manifest, change).await? {
                return Ok(over);
            }
        }
    }

    async fn finish_files(
        &self,
        collection: &CollectionName,
        files: Pair,
        run: bool,
        outputs: &mut Vec<SegmentMeta>,
    ) -> Result<(), TablesError> {
        for writer in [files.documents, files.deletions] {
            let ulid = self.new_ulid();
            if let Some((file, meta)) = blocking(move || writer.finish(ulid, run)).await? {
                self.put_segment(collection, &meta, file).await?;
                outputs.push(meta);
            }
        }
        Ok(())
    }

    /// Commits outputs in place of the inputs' rows. False when another writer's commit came between.
    async fn replace(
        &self,
        collection: &CollectionName,
        inputs: &[Input],
        mut outputs: Vec<SegmentMeta>,
        forgotten: Lsn,
    ) -> Result<bool, TablesError> {
        let mut state = self.commit.lock().await;
        let view = self.shared.view();
        let base = &view.version.manifest;
        let current = view.version.segments(collection);
        let mut stale: Vec<Vec<u8>> = Vec::new();
        for input in inputs {
            // A file that is gone: every row was superseded meanwhile, or another writer has compacted.
            let now = current.iter().find(|segment| segment.meta.ulid == input.rows.meta.ulid);
            let newly = match now {
                Some(now) => &input.live() & &*now.meta.superseded,
                None => input.live(),
            };
            stale.extend(lookup::keys_of(&self.shared.objects, &input.rows.file, &newly).await?);
        }
        stale.sort();
        self.mark(collection, &mut outputs, &stale).await?;
        outputs.retain(|segment| segment.live_rows() > 0);
        let taken: HashMap<Ulid, RoaringBitmap> =
            inputs.iter().map(|input| (input.rows.meta.ulid, input.live())).collect();
        self.try_commit(&mut state, base, |next| {
            let slot = next.collections.entry(collection.clone()).or_default();
            for segment in &mut slot.segments {
                if let Some(rows) = taken.get(&segment.ulid) {
                    let superseded = Arc::make_mut(&mut segment.superseded);
                    *superseded |= rows;
                    superseded.optimize();
                }
            }
            slot.forgotten = slot.forgotten.max(forgotten);
            slot.segments.retain(|segment| segment.live_rows() > 0);
            slot.segments.splice(0..0, outputs);
        })
        .await
    }

    /// Marks rows of new files as superseded, by sorted keys.
    async fn mark(
        &self,
        collection: &CollectionName,
        outputs: &mut [SegmentMeta],
        keys: &[Vec<u8>],
    ) -> Result<(), TablesError> {
        if keys.is_empty() {
            return Ok(());
        }
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        for output in outputs {
            let file = Arc::new(SegmentFile::new(&self.shared.app, collection, output));
            let segment = LiveSegment { meta: output.clone(), file };
            let rows = lookup::live_rows(&self.shared.objects, &segment, &keys).await?;
            output.superseded = Arc::new(rows.into_iter().map(|(_, row)| row).collect());
        }
        Ok(())
    }
}

/// Two files that are written together: of documents, and of deletions alone.
struct Pair {
    documents: SegmentWriter,
    deletions: SegmentWriter,
    /// Deletions up to here are left out.
    horizon: Lsn,
    /// The last one that was.
    forgotten: Lsn,
}

impl Pair {
    fn new(columns: &Arc<Columns>, horizon: Lsn, limits: GroupLimits) -> Result<Self, TablesError> {
        let writer = || SegmentWriter::new(Arc::clone(columns), limits);
        Ok(Self { documents: writer()?, deletions: writer()?, horizon, forgotten: Lsn::ZERO })
    }

    /// Bytes of states in the larger one.
    fn state_bytes(&self) -> u64 {
        self.documents.state_bytes().max(self.deletions.state_bytes())
    }

    fn file_bytes(&self) -> u64 {
        self.documents.file_bytes() + self.deletions.file_bytes()
    }

    fn write(&mut self, rows: Vec<ScannedDocument>, columns: &Columns) -> Result<(), TablesError> {
        let mut rows = rows.into_iter().peekable();
        while rows.peek().is_some() {
            let (mut seen, mut gone) = (Rows::default(), Rows::default());
            for row in rows.by_ref().take(BATCH_ROWS) {
                let document = Document::decode(&row.state)
                    .map_err(|error| TablesError::Encoding(format!("the state of {:?}: {error}", row.id)))?;
                if row.lsn <= self.horizon && !document.is_visible() {
                    self.forgotten = self.forgotten.max(row.lsn);
                    continue;
                }
                let side = if document.is_visible() { &mut seen } else { &mut gone };
                side.rows.push(row);
                side.documents.push(document);
            }
            for (side, writer) in [(seen, &mut self.documents), (gone, &mut self.deletions)] {
                if !side.rows.is_empty() {
                    writer.write(&StateBatch::new(&side.rows, &side.documents, Types::Given(columns))?)?;
                }
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Rows {
    rows: Vec<ScannedDocument>,
    documents: Vec<Document>,
}

/// How many documents fit into some bytes; one at least.
fn rows_within(rows: &[ScannedDocument], bytes: u64) -> usize {
    let mut taken = 0;
    let fitting = rows.iter().take_while(|row| {
        let fits = taken < bytes;
        taken += row.state.len() as u64;
        fits
    });
    fitting.count().max(1)
}

/// Bytes of a file, as far as its rows count.
fn live_bytes(segment: &SegmentMeta) -> u64 {
    share(segment, segment.live_rows())
}

/// Bytes that some rows of a file take, about.
fn share(segment: &SegmentMeta, rows: u64) -> u64 {
    let bytes = u128::from(segment.size) * u128::from(rows) / u128::from(segment.rows.max(1));
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// The columns that hold what the inputs hold, in the collection's order.
fn columns_of(version: &Version, collection: &CollectionName, inputs: &[Arc<LiveSegment>]) -> Columns {
    let all = inputs.iter().fold(Columns::default(), |columns, input| columns.join(&input.meta.columns));
    all.in_order_of(&version.columns(collection))
}
