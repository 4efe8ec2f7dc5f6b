//! How the rows of a segment file are cut into pieces of work, and which of them each piece leaves out.

use std::ops::Range;
use std::sync::Arc;

use bigpeer_tables::SegmentPart;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::FileGroup;
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use object_store::path::Path;
use parquet::arrow::arrow_reader::RowSelection;
use roaring::RoaringBitmap;

use crate::files::FileFacts;

/// Pieces per thread: enough that threads end at about the same time, few enough that opening them costs nothing.
const PIECES_PER_THREAD: u64 = 3;

/// Pieces hold a multiple of this many rows where they can: as many as a page of a column has, so that hardly a page is
/// decoded twice.
const PAGE_ROWS: u32 = 8192;

/// A segment file of a snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) path: Path,
    pub(crate) size: u64,
    /// Rows that must not be seen: superseded, deleted, or newer in memory.
    pub(crate) excluded: Arc<RoaringBitmap>,
    pub(crate) facts: Arc<FileFacts>,
    /// Finds rows by id; none in tests of this file.
    pub(crate) part: Option<SegmentPart>,
}

impl Segment {
    pub(crate) fn rows(&self) -> u64 {
        self.facts.row_groups.iter().map(|rows| u64::from(*rows)).sum()
    }

    /// The rows `rows` of this file, as a file to scan; none if no row is left.
    fn piece(&self, rows: Range<u32>) -> Option<PartitionedFile> {
        let mut file = PartitionedFile::new(self.path.as_ref(), self.size);
        file.statistics = Some(Arc::clone(&self.facts.statistics));
        file = file.with_extension(Arc::clone(&self.facts));
        // A range over the whole file tells DataFusion that the file was cut already.
        file = file.with_range(0, i64::try_from(self.size).unwrap_or(i64::MAX));
        if rows.start == 0 && u64::from(rows.end) >= self.rows() && self.excluded.is_empty() {
            return Some(file);
        }
        let mut plan = ParquetAccessPlan::new_none(self.facts.row_groups.len());
        let mut first = 0_u32;
        let mut anything = false;
        for (index, count) in self.facts.row_groups.iter().enumerate() {
            let group = first..first.saturating_add(*count);
            let access = access(&self.excluded, &group, &rows);
            anything |= access != RowGroupAccess::Skip;
            plan.set(index, access);
            first = group.end;
        }
        anything.then(|| file.with_extension(plan))
    }
}

/// How to read those of the rows `wanted` of a file that are in its row group `group`, without the excluded ones.
fn access(excluded: &RoaringBitmap, group: &Range<u32>, wanted: &Range<u32>) -> RowGroupAccess {
    let rows = group.start.max(wanted.start)..group.end.min(wanted.end);
    if rows.is_empty() {
        return RowGroupAccess::Skip;
    }
    let gone = excluded.range_cardinality(rows.clone());
    if gone == 0 && rows == *group {
        return RowGroupAccess::Scan;
    }
    if gone >= u64::from(rows.end - rows.start) {
        return RowGroupAccess::Skip;
    }
    let mut kept = Vec::new();
    let mut next = rows.start;
    for row in excluded.range(rows.clone()) {
        if row > next {
            kept.push((next - group.start) as usize..(row - group.start) as usize);
        }
        next = row.saturating_add(1);
    }
    if next < rows.end {
        kept.push((next - group.start) as usize..(rows.end - group.start) as usize);
    }
    let total = (group.end - group.start) as usize;
    RowGroupAccess::Selection(RowSelection::from_consecutive_ranges(kept.into_iter(), total))
}

/// The segments as pieces of about the same number of rows, dealt out to `threads` groups. Row groups are cut where that
/// evens out the work: there are too few of them for that in most tables.
pub(crate) fn pieces(segments: &[Segment], threads: usize) -> Vec<FileGroup> {
    cut(segments, threads.max(1), PAGE_ROWS)
}

fn cut(segments: &[Segment], threads: usize, page_rows: u32) -> Vec<FileGroup> {
    let rows: u64 = segments.iter().map(Segment::rows).sum();
    let target = rows.div_ceil(threads as u64 * PIECES_PER_THREAD);
    let target = u32::try_from(target.next_multiple_of(page_rows.into())).unwrap_or(u32::MAX).max(page_rows);
    let mut files = Vec::new();
    for segment in segments {
        let end = u32::try_from(segment.rows()).unwrap_or(u32::MAX);
        let mut first = 0_u32;
        while first < end {
            let next = first.saturating_add(target).min(end);
            files.extend(segment.piece(first..next));
            first = next;
        }
    }
    let mut dealt: Vec<Vec<PartitionedFile>> = vec![Vec::new(); threads.min(files.len())];
    let places = dealt.len();
    for (index, file) in files.into_iter().enumerate() {
        if let Some(place) = dealt.get_mut(index % places.max(1)) {
            place.push(file);
        }
    }
    dealt.into_iter().map(FileGroup::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use parquet::arrow::ArrowWriter;
    use proptest::prelude::*;

    fn segment(row_groups: Vec<u32>, excluded: RoaringBitmap) -> Segment {
        let batch = |rows: u32| {
            let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..i64::from(rows)));
            RecordBatch::try_from_iter([("x", column)]).unwrap()
        };
        let mut writer = ArrowWriter::try_new(Vec::new(), batch(0).schema(), None).unwrap();
        for rows in row_groups {
            writer.write(&batch(rows)).unwrap();
            writer.flush().unwrap();
        }
        let facts = Arc::new(FileFacts::new(Arc::new(writer.finish().unwrap())).unwrap());
        Segment { path: Path::from("a"), size: 10, excluded: Arc::new(excluded), facts, part: None }
    }

    /// The rows that the pieces would read, in order.
    fn read(segment: &Segment, threads: usize, page_rows: u32) -> Vec<u32> {
        let mut rows = Vec::new();
        for file in cut(std::slice::from_ref(segment), threads, page_rows).iter().flat_map(FileGroup::iter) {
            let all = ParquetAccessPlan::new_all(segment.facts.row_groups.len());
            let plan = file.extension::<ParquetAccessPlan>().unwrap_or(&all);
            let mut first = 0;
            for (access, count) in plan.inner().iter().zip(&segment.facts.row_groups) {
                match access {
                    RowGroupAccess::Skip => {}
                    RowGroupAccess::Scan => rows.extend(first..first + count),
                    RowGroupAccess::Selection(selection) => {
                        let mut at = first;
                        for selector in selection.iter() {
                            let end = at + u32::try_from(selector.row_count).unwrap();
                            if !selector.skip {
                                rows.extend(at..end);
                            }
                            at = end;
                        }
                        assert_eq!(at, first + count, "a selection covers its row group");
                    }
                }
                first += count;
            }
        }
        rows.sort_unstable();
        rows
    }

    proptest! {
        #[test]
        fn every_row_is_read_once_unless_it_is_excluded(
            row_groups in prop::collection::vec(1_u32..50, 1..8),
            gone in prop::collection::vec(0_u32..400, 0..200),
            threads in 1_usize..5,
            page_rows in 1_u32..64,
        ) {
            let total: u32 = row_groups.iter().sum();
            let excluded: RoaringBitmap = gone.into_iter().filter(|row| *row < total).collect();
            let expected: Vec<u32> = (0..total).filter(|row| !excluded.contains(*row)).collect();
            prop_assert_eq!(read(&segment(row_groups, excluded), threads, page_rows), expected);
        }
    }

    #[test]
    fn the_work_is_even_whatever_the_row_groups_are() {
        let segment = segment(vec![400, 400, 250], RoaringBitmap::new());
        let groups = cut(&[segment], 2, 5);
        let rows = |file: &PartitionedFile| -> usize {
            let plan = file.extension::<ParquetAccessPlan>().unwrap();
            let read = plan.inner().iter().zip([400, 400, 250]).map(|(access, all)| match access {
                RowGroupAccess::Skip => 0,
                RowGroupAccess::Scan => all,
                RowGroupAccess::Selection(selection) => selection.row_count(),
            });
            read.sum()
        };
        let dealt: Vec<Vec<usize>> = groups.iter().map(|group| group.iter().map(rows).collect()).collect();
        assert_eq!(dealt, [[175; 3], [175; 3]]);
    }

    #[test]
    fn a_whole_file_without_excluded_rows_needs_no_plan_and_whole_row_groups_no_selection() {
        let segment = segment(vec![10, 10, 10], RoaringBitmap::new());
        for file in cut(std::slice::from_ref(&segment), 1, 30).iter().flat_map(FileGroup::iter) {
            assert!(file.extension::<ParquetAccessPlan>().is_none());
        }
        let groups = cut(&[segment], 2, 10);
        assert_eq!(groups.len(), 2);
        for file in groups.iter().flat_map(FileGroup::iter) {
            let plan = file.extension::<ParquetAccessPlan>().unwrap();
            assert!(plan.inner().iter().all(|access| !matches!(access, RowGroupAccess::Selection(_))));
        }
    }
}
