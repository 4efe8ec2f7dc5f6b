//! Reading rows of a segment: only the pages that hold them.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use bigpeer_types::Lsn;
use bytes::Bytes;
use object_store::ObjectStore;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use parquet::arrow::async_reader::{ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use roaring::RoaringBitmap;

use super::{CRDT_COLUMN, Footer, KEY_COLUMN, ORDER_COLUMN, ObjectReader, SegmentFile, VERSION_COLUMN};
use crate::error::TablesError;

/// A stream of selected rows of a file.
pub(crate) type RowStream = ParquetRecordBatchStream<ObjectReader>;

/// Streams the given rows, some columns of them.
pub(crate) fn stream(
    objects: &Arc<dyn ObjectStore>,
    file: &SegmentFile,
    footer: &Footer,
    leaves: &[usize],
    rows: &RoaringBitmap,
    batch_rows: usize,
) -> Result<RowStream, TablesError> {
    let (groups, selection) = select(footer, rows);
    let schema = footer.reader.parquet_schema();
    if leaves.iter().any(|leaf| *leaf >= schema.num_columns()) {
        return Err(TablesError::corrupt(&file.path, "too few columns"));
    }
    let mask = ProjectionMask::leaves(schema, leaves.iter().copied());
    ParquetRecordBatchStreamBuilder::new_with_metadata(file.reader(objects), footer.reader.clone())
        .with_projection(mask)
        .with_row_groups(groups)
        .with_row_selection(selection)
        .with_batch_size(batch_rows)
        .build()
        .map_err(|error| file.error(error))
}

/// The row groups that have selected rows, and which rows of these are selected.
fn select(footer: &Footer, rows: &RoaringBitmap) -> (Vec<usize>, RowSelection) {
    let mut groups = Vec::new();
    let mut selectors: Vec<RowSelector> = Vec::new();
    for (at, group) in footer.groups.iter().enumerate() {
        let mut selected = rows.range(group.rows.clone());
        let mut next = group.rows.start;
        while let Some(range) = selected.next_range() {
            selectors.push(RowSelector::skip((range.start() - next) as usize));
            selectors.push(RowSelector::select((range.end() - range.start() + 1) as usize));
            next = range.end() + 1;
        }
        if next > group.rows.start {
            selectors.push(RowSelector::skip((group.rows.end - next) as usize));
            groups.push(at);
        }
    }
    (groups, RowSelection::from(selectors))
}

/// The columns of [`StateRows`].
pub(crate) const STATE_LEAVES: [usize; 4] = [KEY_COLUMN, VERSION_COLUMN, ORDER_COLUMN, CRDT_COLUMN];

/// Decoded rows: keys, LSNs and states.
#[derive(Debug)]
pub(crate) struct StateRows {
    keys: BinaryArray,
    versions: Int64Array,
    orders: Int64Array,
    states: BinaryArray,
    /// The bytes of `states`, shared.
    bytes: Bytes,
}

impl StateRows {
    /// From a batch of [`STATE_LEAVES`].
    pub(crate) fn new(file: &SegmentFile, batch: &RecordBatch) -> Result<Self, TablesError> {
        let columns = (|| {
            let keys = batch.columns().first()?.as_binary_opt::<i32>()?.clone();
            let versions = batch.columns().get(1)?.as_primitive_opt::<Int64Type>()?.clone();
            let orders = batch.columns().get(2)?.as_primitive_opt::<Int64Type>()?.clone();
            let states = batch.columns().get(3)?.as_binary_opt::<i32>()?.clone();
            let whole = [keys.null_count(), versions.null_count(), orders.null_count(), states.null_count()];
            (whole == [0; 4]).then_some((keys, versions, orders, states))
        })();
        let (keys, versions, orders, states) =
            columns.ok_or_else(|| TablesError::corrupt(&file.path, "columns of other types than expected"))?;
        let bytes = Bytes::from_owner(Owner(states.values().clone()));
        Ok(Self { keys, versions, orders, states, bytes })
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn key(&self, at: usize) -> &[u8] {
        self.keys.value(at)
    }

    pub(crate) fn lsn(&self, at: usize) -> Lsn {
        let version = u64::try_from(self.versions.value(at)).unwrap_or(0);
        Lsn::new(version, u32::try_from(self.orders.value(at)).unwrap_or(0))
    }

    /// The state, without copying it: it keeps the whole batch in memory.
    pub(crate) fn state(&self, at: usize) -> Bytes {
        let offsets = self.states.value_offsets();
        let offset = |at: usize| offsets.get(at).and_then(|offset| usize::try_from(*offset).ok()).unwrap_or(0);
        self.bytes.slice(offset(at)..offset(at + 1))
    }
}

struct Owner(arrow::buffer::Buffer);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}
