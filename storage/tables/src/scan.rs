//! Scans: a merge, in key order, of segments and overlay.
//!
//! Segments are arranged into as few chains as possible, each with keys that ascend through its files (the sorted run is
//! one chain). One row group of each chain is in memory at a time.
//!
//! **Pruning and the overlay.** A row that pruning would leave out may lie below an entry of the overlay which makes
//! it match. So rows that may have an entry are read whatever their page says.

use std::collections::VecDeque;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use bigpeer_crdt::DocId;
use bigpeer_types::CollectionName;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::ObjectStore;
use roaring::RoaringBitmap;

use crate::error::TablesError;
use crate::overlay::{Entry, Overlay};
use crate::segment::lookup::candidate_rows;
use crate::segment::prune;
use crate::segment::read::{self, RowStream, STATE_LEAVES, StateRows};
use crate::snapshot::{Scan, ScannedDocument, Snapshot};
use crate::version::LiveSegment;

/// Bytes of states in one returned batch.
const BATCH_BYTES: usize = 1 << 20;

/// Documents in one returned batch.
const BATCH_ROWS: usize = 4096;

/// Entries of the overlay that are taken out at once.
const OVERLAY_STEP: usize = 1024;

pub(crate) fn run(
    snapshot: Snapshot,
    collection: &CollectionName,
    scan: Scan,
) -> BoxStream<'static, Result<Vec<ScannedDocument>, TablesError>> {
    let segments = snapshot.view.version.segments(collection).to_vec();
    let merge = Merge::new(snapshot, collection, segments, scan);
    stream::try_unfold(merge, |mut merge| async move { Ok(merge.next_batch().await?.map(|batch| (batch, merge))) })
        .boxed()
}

/// Segments in key order, without overlay: what a compaction reads.
pub(crate) fn run_segments(
    snapshot: Snapshot,
    collection: &CollectionName,
    segments: Vec<Arc<LiveSegment>>,
) -> BoxStream<'static, Result<Vec<ScannedDocument>, TablesError>> {
    let mut merge = Merge::new(snapshot, collection, segments, Scan { deleted: true, ..Scan::default() });
    merge.overlay = Overlay::default();
    stream::try_unfold(merge, |mut merge| async move { Ok(merge.next_batch().await?.map(|batch| (batch, merge))) })
        .boxed()
}

/// A scan under way.
struct Merge {
    /// Holds on to the files.
    snapshot: Snapshot,
    scan: Scan,
    overlay: Overlay,
    /// Entries that were taken out of the overlay and not yet returned.
    entries: VecDeque<(DocId, Arc<Entry>)>,
    /// Where taking out goes on; none at the end.
    overlay_after: Option<Position>,
    chains: Vec<Chain>,
}

enum Position {
    Start,
    After(DocId),
}

impl Merge {
    fn new(snapshot: Snapshot, collection: &CollectionName, segments: Vec<Arc<LiveSegment>>, scan: Scan) -> Self {
        let overlay = snapshot.view.overlay(collection);
        let overlay_after = Some(scan.after.clone().map_or(Position::Start, Position::After));
        Self { snapshot, overlay, entries: VecDeque::new(), overlay_after, chains: chains(segments), scan }
    }

    async fn next_batch(&mut self) -> Result<Option<Vec<ScannedDocument>>, TablesError> {
        let mut out = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH_BYTES && out.len() < BATCH_ROWS {
            for chain in &mut self.chains {
                chain.fill(&self.snapshot.context.objects, &self.scan, &self.overlay).await?;
            }
            self.fill_entries();
            let Some(document) = self.step()? else { break };
            if let Some(document) = document {
                bytes += document.state.len();
                out.push(document);
            }
        }
        Ok((!out.is_empty()).then_some(out))
    }

    fn fill_entries(&mut self) {
        if !self.entries.is_empty() {
            return;
        }
        let take = |entries: &mut dyn Iterator<Item = (&DocId, &Arc<Entry>)>| {
            entries.take(OVERLAY_STEP).map(|(id, entry)| (id.clone(), Arc::clone(entry))).collect::<VecDeque<_>>()
        };
        self.entries = match &self.overlay_after {
            None => return,
            Some(Position::Start) => take(&mut self.overlay.entries.iter()),
            Some(Position::After(id)) => take(&mut self.overlay.entries.range((Excluded(id.clone()), Unbounded))),
        };
        self.overlay_after = self.entries.back().map(|(id, _)| Position::After(id.clone()));
    }

    /// The next document in key order: none at the end, an inner none if it is to be left out.
    #[allow(clippy::option_option, reason = "the end, or a document that is left out")]
    fn step(&mut self) -> Result<Option<Option<ScannedDocument>>, TablesError> {
        let first = (self.chains.iter().enumerate()).filter_map(|(at, chain)| chain.key().map(|key| (key, at))).min();
        let entry_key = self.entries.front().map(|(id, _)| id.as_key());
        let (row, with_entry) = match (first, entry_key) {
            (None, None) => return Ok(None),
            (Some((key, at)), Some(entry)) => match key.cmp(entry) {
                std::cmp::Ordering::Less => (Some(at), false),
                std::cmp::Ordering::Equal => (Some(at), true),
                std::cmp::Ordering::Greater => (None, true),
            },
            (Some((_, at)), None) => (Some(at), false),
            (None, Some(_)) => (None, true),
        };
        let row = match row.and_then(|at| self.chains.get_mut(at)) {
            Some(chain) => chain.take()?,
            None => None,
        };
        let entry = if with_entry { self.entries.pop_front() } else { None };
        self.document(row, entry).map(Some)
    }

    fn document(
        &self,
        row: Option<Row>,
        entry: Option<(DocId, Arc<Entry>)>,
    ) -> Result<Option<ScannedDocument>, TablesError> {
        let since = self.scan.changed_since;
        let until = self.scan.unchanged_since;
        let Some((id, entry)) = entry else {
            return Ok(row
                .filter(|row| self.scan.deleted || !row.tombstone)
                .map(|row| row.document)
                .filter(|document| since.is_none_or(|since| document.lsn > since))
                .filter(|document| until.is_none_or(|until| document.lsn <= until))
                .filter(|document| self.scan.after.as_ref().is_none_or(|after| document.id > *after)));
        };
        if since.is_some_and(|since| entry.lsn <= since) || until.is_some_and(|until| entry.lsn > until) {
            return Ok(None);
        }
        let base = row.as_ref().map(|row| &*row.document.state);
        let damaged = |error: bigpeer_crdt::DecodeError| TablesError::corrupt(&format!("document {id:?}"), error);
        let state = if self.scan.deleted {
            entry.encoded(base).map_err(damaged)?
        } else {
            let document = entry.document(base).map_err(damaged)?;
            if !document.is_visible() {
                return Ok(None);
            }
            entry.encoded_as(base.is_some(), &document)
        };
        Ok(Some(ScannedDocument { lsn: entry.lsn, state, id }))
    }
}

/// Files whose keys ascend from one to the next.
struct Chain {
    segments: VecDeque<Arc<LiveSegment>>,
    open: Option<Open>,
}

/// The file that a chain is in.
struct Open {
    segment: Arc<LiveSegment>,
    /// Numbers of the rows that the stream gives.
    numbers: roaring::bitmap::IntoIter,
    stream: RowStream,
    rows: Option<StateRows>,
    at: usize,
}

/// A row of a segment.
struct Row {
    document: ScannedDocument,
    tombstone: bool,
}

/// Arranges segments into chains of disjoint, ascending key ranges.
fn chains(mut segments: Vec<Arc<LiveSegment>>) -> Vec<Chain> {
    segments.sort_by(|a, b| a.meta.min_key.cmp(&b.meta.min_key));
    let mut chains: Vec<Chain> = Vec::new();
    for segment in segments {
        let free = chains
            .iter_mut()
            .find(|chain| chain.segments.back().is_some_and(|last| last.meta.max_key < segment.meta.min_key));
        match free {
            Some(chain) => chain.segments.push_back(segment),
            None => chains.push(Chain { segments: VecDeque::from([segment]), open: None }),
        }
    }
    chains
}

impl Chain {
    /// Makes the next row available, unless the chain is at its end.
    async fn fill(
        &mut self,
        objects: &Arc<dyn ObjectStore>,
        scan: &Scan,
        overlay: &Overlay,
    ) -> Result<(), TablesError> {
        loop {
            if let Some(open) = &mut self.open {
                if open.rows.as_ref().is_some_and(|rows| open.at < rows.len()) {
                    return Ok(());
                }
                match open.stream.try_next().await.map_err(|error| open.segment.file.error(error))? {
                    Some(batch) => {
                        open.rows = Some(StateRows::new(&open.segment.file, &batch)?);
                        open.at = 0;
                    }
                    None => self.open = None,
                }
            } else {
                let Some(segment) = self.segments.pop_front() else { return Ok(()) };
                self.open = Open::new(objects, segment, scan, overlay).await?;
            }
        }
    }

    fn key(&self) -> Option<&[u8]> {
        let open = self.open.as_ref()?;
        open.rows.as_ref().filter(|rows| open.at < rows.len()).map(|rows| rows.key(open.at))
    }

    fn take(&mut self) -> Result<Option<Row>, TablesError> {
        let Some(open) = &mut self.open else { return Ok(None) };
        let (Some(rows), Some(number)) = (&open.rows, open.numbers.next()) else { return Ok(None) };
        let key = rows.key(open.at);
        let id = DocId::from_key(key).map_err(|error| TablesError::corrupt(&open.segment.file.path, error))?;
        let document = ScannedDocument { id, lsn: rows.lsn(open.at), state: rows.state(open.at) };
        open.at += 1;
        Ok(Some(Row { document, tombstone: open.segment.meta.tombstones.contains(number) }))
    }
}

impl Open {
    /// Opens a segment, unless none of its rows is wanted.
    async fn new(
        objects: &Arc<dyn ObjectStore>,
        segment: Arc<LiveSegment>,
        scan: &Scan,
        overlay: &Overlay,
    ) -> Result<Option<Self>, TablesError> {
        let rows = wanted_rows(objects, &segment, scan, overlay).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let footer = segment.file.footer(objects).await?;
        let average = segment.meta.state_bytes / u64::from(segment.meta.rows.max(1));
        let batch_rows = (BATCH_BYTES as u64 / average.max(1)).clamp(16, 2048);
        let batch_rows = usize::try_from(batch_rows).unwrap_or(16);
        let stream = read::stream(objects, &segment.file, &footer, &STATE_LEAVES, &rows, batch_rows)?;
        Ok(Some(Self { segment, numbers: rows.into_iter(), stream, rows: None, at: 0 }))
    }
}

/// The rows of a segment that a scan must read.
async fn wanted_rows(
    objects: &Arc<dyn ObjectStore>,
    segment: &LiveSegment,
    scan: &Scan,
    overlay: &Overlay,
) -> Result<RoaringBitmap, TablesError> {
    let meta = &segment.meta;
    if scan.after.as_ref().is_some_and(|after| meta.max_key.as_slice() <= after.as_key()) {
        return Ok(RoaringBitmap::new());
    }
    let mut live = RoaringBitmap::new();
    live.insert_range(0..meta.rows);
    live -= &*meta.superseded;
    let mut wanted = live.clone();
    if !scan.deleted {
        wanted -= &*meta.tombstones;
    }
    if scan.unchanged_since.is_some_and(|until| meta.min_lsn > until) {
        return Ok(RoaringBitmap::new());
    }
    if let Some(since) = scan.changed_since {
        if meta.max_lsn <= since {
            wanted.clear();
        } else if meta.min_lsn <= since {
            wanted &= prune::changed_since(&*segment.file.footer(objects).await?, since);
        }
    }
    if !scan.conditions.is_empty() && !wanted.is_empty() {
        let footer = segment.file.footer(objects).await?;
        if let Some(matching) = prune::matching(&footer, &meta.columns, &scan.conditions) {
            wanted &= matching;
        }
    }
    if wanted.len() < live.len() && !overlay.entries.is_empty() {
        let keys = entries_within(overlay, segment, scan);
        if !keys.is_empty() {
            let footer = segment.file.footer(objects).await?;
            wanted |= candidate_rows(&footer, keys.iter().map(DocId::as_key)) & live;
        }
    }
    if let Some(after) = &scan.after {
        wanted.remove_range(..segment.file.footer(objects).await?.rows_through(after.as_key()));
    }
    Ok(wanted)
}

/// Entries of the overlay that a segment may have a row for, and that the scan may return.
fn entries_within(overlay: &Overlay, segment: &LiveSegment, scan: &Scan) -> Vec<DocId> {
    let entries = match DocId::from_key(&segment.meta.min_key) {
        Ok(from) => overlay.entries.range(from..),
        // Not an id: a damaged manifest. Take every entry; reading will tell.
        Err(_) => overlay.entries.range::<_, DocId>(..),
    };
    entries
        .take_while(|(id, _)| id.as_key() <= segment.meta.max_key.as_slice())
        .filter(|(_, entry)| scan.changed_since.is_none_or(|since| entry.lsn > since))
        .map(|(id, _)| id.clone())
        .collect()
}
