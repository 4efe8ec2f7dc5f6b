//! Compaction: small new segments and what they overlap become one sorted run, without superseded rows.
//!
//! It runs beside flushes. While it writes, flushes may supersede rows of its inputs; before it commits it finds those
//! rows' keys in its outputs and marks them there.

use std::collections::HashSet;
use std::sync::Arc;

use bigpeer_types::CollectionName;
use futures::TryStreamExt;
use roaring::RoaringBitmap;
use ulid::Ulid;

use super::{Writer, blocking};
use crate::columns::Columns;
use crate::error::TablesError;
use crate::manifest::SegmentMeta;
use crate::segment::SegmentFile;
use crate::segment::batch::{BATCH_ROWS, StateBatch, Types};
use crate::segment::lookup;
use crate::segment::write::SegmentWriter;
use crate::version::{LiveSegment, Version};
use crate::{metrics, scan};

/// Share of superseded rows, in percent, above which a file of the sorted run is rewritten although nothing new overlaps it.
const MAX_SUPERSEDED_PERCENT: u64 = 30;

/// How far a compaction goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Small new segments become one new segment; the sorted run is not touched. Bounds what a read must look into, and
    /// costs little.
    Minor,
    /// All new segments, the files of the sorted run that they overlap, and files with many superseded rows become part of
    /// the sorted run.
    Major,
    /// As [`Self::Major`], with every file that has a superseded row: afterwards there is none.
    Full,
}

/// What a compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// How much a compaction of a collection would tidy up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debt {
    /// The collection.
    pub collection: CollectionName,
    /// Segments that are not part of the sorted run.
    pub new_segments: usize,
    /// Bytes of these.
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
            let bytes_of = |run: bool| {
                collection.segments.iter().filter(|segment| segment.run == run).map(|segment| segment.size).sum()
            };
            Debt {
                collection: name.clone(),
                new_segments: collection.segments.iter().filter(|segment| !segment.run).count(),
                new_bytes: bytes_of(false),
                run_bytes: bytes_of(true),
                rows: collection.segments.iter().map(|segment| u64::from(segment.rows)).sum(),
                superseded: collection.segments.iter().map(|segment| segment.superseded.len()).sum(),
            }
        });
        debts.collect()
    }

    /// Merges segments of a collection. None when there is nothing to gain, or when another writer's commit came between.
    ///
    /// Memory is bounded by one row group of each input and one output file.
    ///
    /// # Errors
    /// [`TablesError::Fenced`] when another writer has taken over; others leave everything as it was.
    pub async fn compact(&self, collection: &CollectionName, extent: Extent) -> Result<Option<Compacted>, TablesError> {
        let _one = self.compaction.lock().await;
        let started = self.shared.settings.clock.monotonic();
        let view = self.shared.view();
        let (inputs, kept) = choose(view.version.segments(collection), extent);
        if inputs.is_empty() {
            return Ok(None);
        }
        let outputs = self.merge(collection, &view, &inputs, &kept, extent != Extent::Minor).await?;
        let done = Compacted {
            inputs: inputs.len(),
            outputs: outputs.len(),
            documents: outputs.iter().map(|segment| u64::from(segment.rows)).sum(),
            bytes: outputs.iter().map(|segment| segment.size).sum(),
        };
        if !self.replace(collection, &inputs, outputs).await? {
            return Ok(None);
        }
        let seconds = self.shared.settings.clock.monotonic().saturating_sub(started).as_secs_f64();
        metrics::committed(&self.shared.app, "compaction", seconds, done.documents, done.bytes);
        tracing::debug!(app = %self.shared.app, %collection, ?done, "compacted");
        Ok(Some(done))
    }

    /// Writes the live rows of the inputs into new files.
    async fn merge(
        &self,
        collection: &CollectionName,
        view: &Arc<crate::snapshot::View>,
        inputs: &[Arc<LiveSegment>],
        kept: &[Arc<LiveSegment>],
        run: bool,
    ) -> Result<Vec<SegmentMeta>, TablesError> {
        let columns = Arc::new(columns_of(&view.version, collection, inputs));
        // No output reaches over a file that stays, so that the run has disjoint key ranges.
        let mut cuts = kept.iter().map(|segment| segment.meta.min_key.clone()).collect::<Vec<_>>();
        cuts.sort();
        let mut cuts = cuts.into_iter().peekable();
        let snapshot = self.shared.snapshot(Arc::clone(view));
        let mut rows = scan::run_segments(snapshot, collection, inputs.to_vec());
        let mut outputs = Vec::new();
        let mut writer = SegmentWriter::new(Arc::clone(&columns), self.group_limits())?;
        while let Some(batch) = rows.try_next().await? {
            let mut rest = batch;
            while let Some(first) = rest.first() {
                let mut cut = writer.state_bytes() >= self.shared.settings.segment_bytes as u64;
                while cuts.next_if(|at| at.as_slice() < first.id.as_key()).is_some() {
                    cut = true;
                }
                if cut {
                    let new = SegmentWriter::new(Arc::clone(&columns), self.group_limits())?;
                    let full = std::mem::replace(&mut writer, new);
                    self.finish_file(collection, full, run, &mut outputs).await?;
                }
                let until = cuts.peek().map(|until| rest.partition_point(|row| row.id.as_key() <= until.as_slice()));
                let later = rest.split_off(until.unwrap_or(rest.len()));
                let (now, types) = (std::mem::replace(&mut rest, later), Arc::clone(&columns));
                writer = blocking(move || {
                    for rows in now.chunks(BATCH_ROWS) {
                        writer.write(&StateBatch::decode(rows, Types::Given(&types))?)?;
                    }
                    Ok(writer)
                })
                .await?;
            }
        }
        self.finish_file(collection, writer, run, &mut outputs).await?;
        Ok(outputs)
    }

    async fn finish_file(
        &self,
        collection: &CollectionName,
        writer: SegmentWriter,
        run: bool,
        outputs: &mut Vec<SegmentMeta>,
    ) -> Result<(), TablesError> {
        let ulid = self.new_ulid();
        if let Some((file, meta)) = blocking(move || writer.finish(ulid, run)).await? {
            self.put_segment(collection, &meta, file).await?;
            outputs.push(meta);
        }
        Ok(())
    }

    /// Commits outputs in place of inputs. False when an input is gone.
    async fn replace(
        &self,
        collection: &CollectionName,
        inputs: &[Arc<LiveSegment>],
        mut outputs: Vec<SegmentMeta>,
    ) -> Result<bool, TablesError> {
        let mut state = self.commit.lock().await;
        let view = self.shared.view();
        let base = &view.version.manifest;
        let current = view.version.segments(collection);
        let mut stale: Vec<Vec<u8>> = Vec::new();
        for input in inputs {
            match current.iter().find(|segment| segment.meta.ulid == input.meta.ulid) {
                Some(now) => {
                    let newly: RoaringBitmap = &*now.meta.superseded - &*input.meta.superseded;
                    stale.extend(lookup::keys_of(&self.shared.objects, &input.file, &newly).await?);
                }
                // Every row was superseded meanwhile, or another writer has compacted.
                None => stale.extend(self.live_keys(input).await?),
            }
        }
        stale.sort();
        self.mark(collection, &mut outputs, &stale).await?;
        outputs.retain(|segment| segment.live_rows() > 0);
        let gone: HashSet<Ulid> = inputs.iter().map(|segment| segment.meta.ulid).collect();
        self.try_commit(&mut state, base, |next| {
            let slot = next.collections.entry(collection.clone()).or_default();
            slot.segments.retain(|segment| !gone.contains(&segment.ulid));
            slot.segments.splice(0..0, outputs);
        })
        .await
    }

    /// The keys that an input had when the compaction read it.
    async fn live_keys(&self, input: &LiveSegment) -> Result<Vec<Vec<u8>>, TablesError> {
        let mut live = RoaringBitmap::new();
        live.insert_range(0..input.meta.rows);
        live -= &*input.meta.superseded;
        lookup::keys_of(&self.shared.objects, &input.file, &live).await
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

/// Which segments to merge, and which files of the run stay.
fn choose(segments: &[Arc<LiveSegment>], extent: Extent) -> (Vec<Arc<LiveSegment>>, Vec<Arc<LiveSegment>>) {
    let new: Vec<&Arc<LiveSegment>> = segments.iter().filter(|segment| !segment.meta.run).collect();
    if extent == Extent::Minor {
        return (smallest(&new), Vec::new());
    }
    let overlaps = |segment: &LiveSegment| {
        new.iter().any(|new| new.meta.min_key <= segment.meta.max_key && segment.meta.min_key <= new.meta.max_key)
    };
    let worn = |segment: &LiveSegment| {
        let percent = if extent == Extent::Full { 0 } else { MAX_SUPERSEDED_PERCENT };
        segment.meta.superseded.len() * 100 > u64::from(segment.meta.rows) * percent
    };
    let (inputs, kept) =
        segments.iter().cloned().partition(|segment| !segment.meta.run || overlaps(segment) || worn(segment));
    (inputs, kept)
}

/// The smallest segments, as long as the next is not much larger than those before it together: a large one is not
/// rewritten for the sake of small ones. None when there are fewer than two.
fn smallest(new: &[&Arc<LiveSegment>]) -> Vec<Arc<LiveSegment>> {
    let mut by_size: Vec<&Arc<LiveSegment>> = new.to_vec();
    by_size.sort_by_key(|segment| segment.meta.size);
    let mut sum = 0;
    let chosen = by_size.into_iter().take_while(|segment| {
        let near = sum == 0 || segment.meta.size <= 2 * sum;
        sum += segment.meta.size;
        near
    });
    let chosen: Vec<Arc<LiveSegment>> = chosen.cloned().collect();
    if chosen.len() < 2 { Vec::new() } else { chosen }
}

/// The columns that hold what the inputs hold, in the collection's order.
fn columns_of(version: &Version, collection: &CollectionName, inputs: &[Arc<LiveSegment>]) -> Columns {
    let all = inputs.iter().fold(Columns::default(), |columns, input| columns.join(&input.meta.columns));
    all.in_order_of(&version.columns(collection))
}
