//! Point lookups in batch: key range → bloom filter → page of keys → the pages of the rows found.

use std::sync::Arc;

use arrow::array::AsArray;
use bigpeer_types::Lsn;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::ObjectStore;
use roaring::RoaringBitmap;

use super::read::{self, STATE_LEAVES, StateRows};
use super::{Footer, KEY_COLUMN, SegmentFile};
use crate::error::TablesError;
use crate::version::LiveSegment;

/// Rows that one decoding step handles.
const BATCH_ROWS: usize = 1024;

/// A document's state in a segment.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Which of the segments.
    pub(crate) segment: usize,
    /// Which row of it.
    pub(crate) row: u32,
    pub(crate) lsn: Lsn,
    pub(crate) state: Bytes,
}

/// Finds documents by sorted keys: for each key its live row's state, if it has one.
pub(crate) async fn find(
    objects: &Arc<dyn ObjectStore>,
    segments: &[Arc<LiveSegment>],
    keys: &[&[u8]],
) -> Result<Vec<Option<Found>>, TablesError> {
    let mut found = vec![None; keys.len()];
    let mut missing: Vec<usize> = (0..keys.len()).collect();
    // New segments first: what was written last is asked for most.
    for (number, segment) in segments.iter().enumerate().rev() {
        if missing.is_empty() {
            break;
        }
        let wanted: Vec<&[u8]> = missing.iter().filter_map(|at| keys.get(*at).copied()).collect();
        let rows = live_rows(objects, segment, &wanted).await?;
        if rows.is_empty() {
            continue;
        }
        let rows_only = rows.iter().map(|(_, row)| *row).collect();
        let states = states(objects, &segment.file, number, rows_only).await?;
        for ((at, _), state) in rows.iter().zip(states) {
            if let Some(slot) = missing.get(*at).and_then(|at| found.get_mut(*at)) {
                *slot = Some(state);
            }
        }
        missing.retain(|at| found.get(*at).is_some_and(Option::is_none));
    }
    Ok(found)
}

/// Of sorted keys those that have a live row in the segment: index of the key, and row, both ascending.
pub(crate) async fn live_rows(
    objects: &Arc<dyn ObjectStore>,
    segment: &LiveSegment,
    keys: &[&[u8]],
) -> Result<Vec<(usize, u32)>, TablesError> {
    let mut rows = rows(objects, segment, keys).await?;
    rows.retain(|(_, row)| !segment.meta.superseded.contains(*row));
    Ok(rows)
}

/// As [`live_rows`], superseded rows included.
async fn rows(
    objects: &Arc<dyn ObjectStore>,
    segment: &LiveSegment,
    keys: &[&[u8]],
) -> Result<Vec<(usize, u32)>, TablesError> {
    let from = keys.partition_point(|key| *key < segment.meta.min_key.as_slice());
    let to = keys.partition_point(|key| *key <= segment.meta.max_key.as_slice());
    let Some(wanted) = keys.get(from..to).filter(|wanted| !wanted.is_empty()) else { return Ok(Vec::new()) };
    let footer = segment.file.footer(objects).await?;
    let candidates = candidate_rows(&footer, wanted.iter().copied());
    if candidates.is_empty() {
        return Ok(Vec::new());
    }
    let mut stream = read::stream(objects, &segment.file, &footer, &[KEY_COLUMN], &candidates, BATCH_ROWS)?;
    let mut numbers = candidates.iter();
    let mut out = Vec::new();
    let mut next = wanted.iter().zip(from..).peekable();
    while let Some(batch) = stream.try_next().await.map_err(|error| segment.file.error(error))? {
        let found = batch.columns().first().and_then(|keys| keys.as_binary_opt::<i32>());
        let found = found.ok_or_else(|| TablesError::corrupt(&segment.file.path, "no keys"))?;
        for (key, row) in found.iter().flatten().zip(&mut numbers) {
            while next.next_if(|(wanted, _)| **wanted < key).is_some() {}
            if let Some((_, at)) = next.next_if(|(wanted, _)| **wanted == key) {
                out.push((at, row));
                // The same key may be asked for twice.
                while let Some((_, at)) = next.next_if(|(wanted, _)| **wanted == key) {
                    out.push((at, row));
                }
            }
        }
    }
    Ok(out)
}

/// Rows of the pages that may hold one of the sorted keys.
pub(crate) fn candidate_rows<'a>(footer: &Footer, keys: impl Iterator<Item = &'a [u8]>) -> RoaringBitmap {
    let mut rows = RoaringBitmap::new();
    let mut last = None;
    for key in keys {
        for page in footer.pages_of(key) {
            if last != Some(page.rows.start) {
                rows.insert_range(page.rows.clone());
                last = Some(page.rows.start);
            }
        }
    }
    rows
}

/// The states of ascending rows; a row that is named twice is returned twice.
async fn states(
    objects: &Arc<dyn ObjectStore>,
    file: &SegmentFile,
    segment: usize,
    rows: Vec<u32>,
) -> Result<Vec<Found>, TablesError> {
    let footer = file.footer(objects).await?;
    let selected: RoaringBitmap = rows.iter().copied().collect();
    let mut stream = read::stream(objects, file, &footer, &STATE_LEAVES, &selected, BATCH_ROWS)?;
    let mut out = Vec::with_capacity(rows.len());
    let mut numbers = selected.iter();
    let mut wanted = rows.iter().peekable();
    while let Some(batch) = stream.try_next().await.map_err(|error| file.error(error))? {
        let batch = StateRows::new(file, &batch)?;
        for (at, row) in (0..batch.len()).zip(&mut numbers) {
            // Copied: a document must not keep a megabyte of its neighbours in memory.
            let state = Bytes::copy_from_slice(&batch.state(at));
            let found = Found { segment, row, lsn: batch.lsn(at), state };
            while wanted.next_if(|wanted| **wanted == row).is_some() {
                out.push(found.clone());
            }
        }
    }
    if out.len() == rows.len() { Ok(out) } else { Err(TablesError::corrupt(&file.path, "rows are missing")) }
}

/// How many rows of a file have keys up to and including `key`.
pub(crate) async fn rank(objects: &Arc<dyn ObjectStore>, file: &SegmentFile, key: &[u8]) -> Result<u32, TablesError> {
    let footer = file.footer(objects).await?;
    let (sure, unsure) = footer.rows_around(key);
    let mut rows = RoaringBitmap::new();
    rows.insert_range(sure..unsure);
    let keys = keys_of(objects, file, &rows).await?;
    let before = keys.partition_point(|row| row.as_slice() <= key);
    Ok(sure + u32::try_from(before).unwrap_or(u32::MAX))
}

/// The keys of rows, in order of the rows.
pub(crate) async fn keys_of(
    objects: &Arc<dyn ObjectStore>,
    file: &SegmentFile,
    rows: &RoaringBitmap,
) -> Result<Vec<Vec<u8>>, TablesError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let footer = file.footer(objects).await?;
    let mut stream = read::stream(objects, file, &footer, &[KEY_COLUMN], rows, BATCH_ROWS)?;
    let mut out = Vec::new();
    while let Some(batch) = stream.try_next().await.map_err(|error| file.error(error))? {
        let keys = batch.columns().first().and_then(|keys| keys.as_binary_opt::<i32>());
        let keys = keys.ok_or_else(|| TablesError::corrupt(&file.path, "no keys"))?;
        out.extend(keys.iter().flatten().map(<[u8]>::to_vec));
    }
    if out.len() as u64 == rows.len() { Ok(out) } else { Err(TablesError::corrupt(&file.path, "rows are missing")) }
}
