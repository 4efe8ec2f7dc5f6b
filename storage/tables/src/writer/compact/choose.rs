//! What to compact: which range of keys, and which files.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use bigpeer_types::CollectionName;
use roaring::RoaringBitmap;
use ulid::Ulid;

use super::{Extent, live_bytes, share};
use crate::columns::Columns;
use crate::error::TablesError;
use crate::manifest::PublicationMode;
use crate::publish::is_fit;
use crate::segment::lookup;
use crate::snapshot::View;
use crate::version::LiveSegment;
use crate::writer::Writer;

/// Share of superseded rows, in percent, above which a part of the sorted run is rewritten although nothing new overlaps it.
const MAX_SUPERSEDED_PERCENT: u64 = 30;

/// A part of the run is rewritten when what is new in it has at least one byte for so many of its own. Less often would
/// cost space and reads, more often bytes written.
const RUN_PER_NEW: u64 = 3;

/// Rows of a file that take part.
#[derive(Clone, Debug)]
pub(super) struct Input {
    /// The file; rows that take no part are superseded in it.
    pub(super) rows: Arc<LiveSegment>,
}

/// Ranks of keys in files that were looked up already: files do not change.
pub(super) type Ranks = HashMap<(Ulid, Vec<u8>), u32>;

/// Inputs that are merged and committed together.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) inputs: Vec<Input>,
    /// Whether the outputs become part of the sorted run.
    pub(super) run: bool,
}

/// A collection's files, by what they are for a compaction.
struct Kinds {
    run: Vec<Arc<LiveSegment>>,
    /// Files of the run that hold deletions alone. They lie beside the others, and go along with what is done there.
    deletions: Vec<Arc<LiveSegment>>,
    /// What flushes wrote, as far as it was there when the compaction began.
    new: Vec<Arc<LiveSegment>>,
}

/// A range of keys, and the files of the run within it. The slices of a run are disjoint, and together are all keys.
#[derive(Debug)]
struct Slice {
    /// Keys behind this; none from the start.
    after: Option<Vec<u8>>,
    /// Keys up to and including this; none to the end.
    through: Option<Vec<u8>>,
    run: Vec<Arc<LiveSegment>>,
}

impl Input {
    fn whole(segment: &Arc<LiveSegment>) -> Self {
        Self { rows: Arc::clone(segment) }
    }

    /// Some rows of a file; none if none of them counts.
    fn part(segment: &Arc<LiveSegment>, rows: Range<u32>) -> Option<Self> {
        let mut outside = RoaringBitmap::new();
        outside.insert_range(0..rows.start);
        outside.insert_range(rows.end..segment.meta.rows);
        outside |= &*segment.meta.superseded;
        let mut part = LiveSegment::clone(segment);
        part.meta.superseded = Arc::new(outside);
        (part.meta.live_rows() > 0).then(|| Self { rows: Arc::new(part) })
    }

    /// The rows that take part.
    pub(super) fn live(&self) -> RoaringBitmap {
        let mut live = RoaringBitmap::new();
        live.insert_range(0..self.rows.meta.rows);
        live - &*self.rows.meta.superseded
    }
}

impl Writer {
    /// What to do next; nothing if there is nothing left. Only files in `known` are a reason.
    pub(super) async fn choose(
        &self,
        view: &View,
        collection: &CollectionName,
        extent: Extent,
        known: &HashSet<Ulid>,
        ranks: &mut Ranks,
    ) -> Result<Option<Job>, TablesError> {
        let kinds = Kinds::of(view.version.segments(collection), known);
        match extent {
            Extent::Minor => {
                let inputs: Vec<Input> = smallest(&kinds.new).iter().map(Input::whole).collect();
                let some = !inputs.is_empty();
                Ok(some.then(|| Job { inputs: self.within_memory(Vec::new(), inputs, Vec::new()), run: false }))
            }
            Extent::Publish(mode) => Ok(self.choose_unfit(kinds, &view.version.columns(collection), mode, known)),
            Extent::Major | Extent::Full => self.choose_slice(kinds, extent, known, ranks).await,
        }
    }

    async fn choose_slice(
        &self,
        kinds: Kinds,
        extent: Extent,
        known: &HashSet<Ulid>,
        ranks: &mut Ranks,
    ) -> Result<Option<Job>, TablesError> {
        let Kinds { run, deletions, new } = kinds;
        let worn =
            |segment: &&Arc<LiveSegment>| known.contains(&segment.meta.ulid) && !segment.meta.superseded.is_empty();
        let worn: Vec<Arc<LiveSegment>> = deletions.iter().filter(worn).cloned().collect();
        let mut best: Option<(u64, Job)> = None;
        for slice in slices(run, self.shared.settings.segment_bytes as u64) {
            let new = self.rows_in(&slice, &new, ranks).await?;
            let Some(urgency) = urgency(&slice, &new, extent, known) else {
                // Of the documents there is nothing to do; deletions that do not count any more go by themselves.
                if extent == Extent::Full && best.is_none() {
                    let inputs = self.rows_in(&slice, &worn, ranks).await?;
                    best = (!inputs.is_empty()).then_some((0, Job { inputs, run: true }));
                }
                continue;
            };
            if best.as_ref().is_none_or(|(most, _)| urgency > *most || *most == 0) {
                let run = slice.run.iter().map(Input::whole).collect();
                let deletions = self.rows_in(&slice, &deletions, ranks).await?;
                best = Some((urgency, Job { inputs: self.within_memory(run, new, deletions), run: true }));
            }
        }
        Ok(best.map(|(_, job)| job))
    }

    /// Files that keep a version of a published table from being made: new ones among themselves, then parts of the run.
    fn choose_unfit(
        &self,
        kinds: Kinds,
        columns: &Columns,
        mode: PublicationMode,
        known: &HashSet<Ulid>,
    ) -> Option<Job> {
        let unfit = |segment: &&Arc<LiveSegment>| !is_fit(&segment.meta, columns, mode);
        let new: Vec<Input> = kinds.new.iter().filter(unfit).map(Input::whole).collect();
        if !new.is_empty() {
            return Some(Job { inputs: self.within_memory(Vec::new(), new, Vec::new()), run: false });
        }
        let slices = slices(kinds.run, self.shared.settings.segment_bytes as u64);
        let due = slices
            .into_iter()
            .find(|slice| slice.run.iter().filter(unfit).any(|segment| known.contains(&segment.meta.ulid)));
        due.map(|slice| Job { inputs: slice.run.iter().map(Input::whole).collect(), run: true })
    }

    /// The rows of files that lie in a slice.
    async fn rows_in(
        &self,
        slice: &Slice,
        files: &[Arc<LiveSegment>],
        ranks: &mut Ranks,
    ) -> Result<Vec<Input>, TablesError> {
        let mut inputs = Vec::new();
        for segment in files {
            let meta = &segment.meta;
            let start = match &slice.after {
                Some(after) if meta.max_key <= *after => continue,
                Some(after) if meta.min_key <= *after => self.rank(segment, after, ranks).await?,
                Some(_) | None => 0,
            };
            let end = match &slice.through {
                Some(through) if meta.min_key > *through => continue,
                Some(through) if meta.max_key > *through => self.rank(segment, through, ranks).await?,
                Some(_) | None => meta.rows,
            };
            inputs.extend(Input::part(segment, start..end));
        }
        Ok(inputs)
    }

    /// How many rows of a file have keys up to and including `key`.
    async fn rank(&self, segment: &LiveSegment, key: &[u8], ranks: &mut Ranks) -> Result<u32, TablesError> {
        if let Some(rank) = ranks.get(&(segment.meta.ulid, key.to_vec())) {
            return Ok(*rank);
        }
        let rank = lookup::rank(&self.shared.objects, &segment.file, key).await?;
        ranks.insert((segment.meta.ulid, key.to_vec()), rank);
        Ok(rank)
    }

    /// All of the run's files, and as many others as memory has room for: those with most rows first. One other at least,
    /// two where there is no run, so that there is progress. Of those that may go along whatever there is room for then.
    fn within_memory(&self, run: Vec<Input>, mut others: Vec<Input>, along: Vec<Input>) -> Vec<Input> {
        let settings = &self.shared.settings;
        let group = settings.row_group_bytes as u64;
        // Of each file one row group is in memory, of the run's files one at a time. The other half is for the output.
        let needs = |input: &Input| group.min(input.rows.meta.state_bytes).min(2 * input.live_bytes());
        others.sort_by_key(|input| std::cmp::Reverse(input.live_bytes()));
        let least = if run.is_empty() { 2 } else { 1 };
        let mut room = (settings.compaction_bytes / 2).saturating_sub(run.iter().map(needs).max().unwrap_or(0));
        let mut inputs = run;
        for (at, input) in others.into_iter().enumerate() {
            let need = needs(&input);
            if at >= least && need > room {
                break;
            }
            room = room.saturating_sub(need);
            inputs.push(input);
        }
        for input in along {
            let need = needs(&input);
            if need <= room {
                room -= need;
                inputs.push(input);
            }
        }
        inputs
    }
}

impl Kinds {
    fn of(segments: &[Arc<LiveSegment>], known: &HashSet<Ulid>) -> Self {
        let (run, new): (Vec<_>, Vec<_>) = segments.iter().cloned().partition(|segment| segment.meta.run);
        let (deletions, run) = run.into_iter().partition(|segment| segment.meta.is_graveyard());
        let new = new.into_iter().filter(|segment| known.contains(&segment.meta.ulid)).collect();
        Self { run, deletions, new }
    }
}

impl Input {
    fn live_bytes(&self) -> u64 {
        live_bytes(&self.rows.meta)
    }
}

/// How much a slice is worth, if it is to be done at all.
fn urgency(slice: &Slice, new: &[Input], extent: Extent, known: &HashSet<Ulid>) -> Option<u64> {
    let run_bytes: u64 = slice.run.iter().map(|segment| segment.meta.size).sum();
    let new_bytes: u64 = new.iter().map(Input::live_bytes).sum();
    let reason = slice.run.iter().filter(|segment| known.contains(&segment.meta.ulid));
    let (rows, superseded) = reason.fold((0, 0), |(rows, superseded), segment| {
        (rows + u64::from(segment.meta.rows), superseded + segment.meta.superseded.len())
    });
    let due = match extent {
        Extent::Full => !new.is_empty() || superseded > 0,
        Extent::Major | Extent::Minor | Extent::Publish(_) => {
            (!new.is_empty() && new_bytes.saturating_mul(RUN_PER_NEW) >= run_bytes)
                || superseded * 100 > rows * MAX_SUPERSEDED_PERCENT
        }
    };
    let gain = new_bytes
        .saturating_add(slice.run.iter().map(|segment| share(&segment.meta, segment.meta.superseded.len())).sum());
    due.then(|| gain.saturating_mul(1000) / run_bytes.max(1))
}

/// Cuts the run into slices of whole files, each of about `target` bytes of states. Small neighbours become one file.
fn slices(mut run: Vec<Arc<LiveSegment>>, target: u64) -> Vec<Slice> {
    run.sort_by(|a, b| a.meta.min_key.cmp(&b.meta.min_key));
    let mut slices: Vec<Slice> = Vec::new();
    let mut bytes = 0;
    for segment in run {
        let size = share_of_states(&segment);
        match slices.last_mut() {
            Some(slice) if bytes + size <= target => {
                bytes += size;
                slice.through = Some(segment.meta.max_key.clone());
                slice.run.push(segment);
            }
            last => {
                bytes = size;
                let after = last.and_then(|slice| slice.through.clone());
                slices.push(Slice { after, through: Some(segment.meta.max_key.clone()), run: vec![segment] });
            }
        }
    }
    // What comes behind the run joins its last part while that is small; else it is a part of its own, so that keys that
    // only ever grow are written once.
    match slices.last_mut() {
        Some(last) if bytes * 2 <= target => last.through = None,
        last => {
            let after = last.and_then(|slice| slice.through.clone());
            slices.push(Slice { after, through: None, run: Vec::new() });
        }
    }
    slices
}

fn share_of_states(segment: &LiveSegment) -> u64 {
    let bytes = u128::from(segment.meta.state_bytes) * u128::from(segment.meta.live_rows());
    u64::try_from(bytes / u128::from(segment.meta.rows.max(1))).unwrap_or(u64::MAX)
}

/// The smallest segments, as long as the next is not much larger than those before it together: a large one is not
/// rewritten for the sake of small ones. None when there are fewer than two.
fn smallest(new: &[Arc<LiveSegment>]) -> Vec<Arc<LiveSegment>> {
    let mut by_size: Vec<&Arc<LiveSegment>> = new.iter().collect();
    by_size.sort_by_key(|segment| live_bytes(&segment.meta));
    let mut sum = 0;
    let chosen = by_size.into_iter().take_while(|segment| {
        let bytes = live_bytes(&segment.meta);
        let near = sum == 0 || bytes <= 2 * sum;
        sum += bytes;
        near
    });
    let chosen: Vec<Arc<LiveSegment>> = chosen.cloned().collect();
    if chosen.len() < 2 { Vec::new() } else { chosen }
}
