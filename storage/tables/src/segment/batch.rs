//! `StateBatch`: documents as the columns of a segment, before their place in a file is known.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray, BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use bigpeer_crdt::{Document, Object, Value};
use bigpeer_types::Lsn;

use crate::columns::{Columns, Facts, TypedBatch};
use crate::error::TablesError;
use crate::snapshot::ScannedDocument;

/// Most rows of a batch: few enough that decoded documents stay in the processor's cache.
pub(crate) const BATCH_ROWS: usize = 1024;

/// Bytes of states above which a batch is not made larger.
pub(crate) const BATCH_BYTES: usize = 4 << 20;

/// Documents in key order, as columns.
#[derive(Debug)]
pub(crate) struct StateBatch {
    keys: BinaryArray,
    versions: Int64Array,
    orders: Int64Array,
    deleted: BooleanArray,
    states: BinaryArray,
    pub(crate) typed: TypedBatch,
    pub(crate) facts: Facts,
    /// Rows that readers do not see.
    pub(crate) tombstones: Vec<u32>,
    pub(crate) state_bytes: usize,
    /// The least and the most recent change.
    pub(crate) lsns: (Lsn, Lsn),
}

/// What the types of a batch's columns are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Types<'a> {
    /// As narrow as its documents allow; these columns are known.
    Infer(&'a Columns),
    /// These: they hold the documents.
    Given(&'a Columns),
}

impl StateBatch {
    /// From encoded states, and the same decoded.
    pub(crate) fn new(rows: &[ScannedDocument], documents: &[Document], types: Types<'_>) -> Result<Self, TablesError> {
        let versions = rows.iter().map(|row| i64::try_from(row.lsn.version)).collect::<Result<Int64Array, _>>();
        let visible: Vec<bool> = documents.iter().map(Document::is_visible).collect();
        let ids: Vec<Value> = rows.iter().map(|row| row.id.to_value()).collect();
        let objects: Vec<Object> = documents.iter().map(Document::to_object).collect();
        let mut facts = Facts::default();
        documents.iter().zip(&objects).for_each(|(document, object)| facts.observe(document, object));
        let lsns = rows.iter().map(|row| row.lsn);
        Ok(Self {
            keys: BinaryArray::from_iter_values(rows.iter().map(|row| row.id.as_key())),
            versions: versions.map_err(|_| TablesError::Encoding("an LSN's version is above 2^63".to_owned()))?,
            orders: rows.iter().map(|row| i64::from(row.lsn.order)).collect(),
            deleted: visible.iter().map(|visible| Some(!visible)).collect(),
            states: BinaryArray::from_iter_values(rows.iter().map(|row| &row.state)),
            typed: match types {
                Types::Infer(known) => TypedBatch::infer(known, &ids, &objects)?,
                Types::Given(columns) => TypedBatch::build(columns.clone(), &ids, &objects)?,
            },
            facts,
            tombstones: visible.iter().zip(0..).filter(|(visible, _)| !**visible).map(|(_, row)| row).collect(),
            state_bytes: rows.iter().map(|row| row.state.len()).sum(),
            lsns: (lsns.clone().min().unwrap_or(Lsn::ZERO), lsns.max().unwrap_or(Lsn::ZERO)),
        })
    }

    pub(crate) fn rows(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn first_key(&self) -> Option<&[u8]> {
        self.keys.iter().next().flatten()
    }

    pub(crate) fn last_key(&self) -> Option<&[u8]> {
        self.keys.iter().next_back().flatten()
    }

    /// The rows of a file with `columns`, which hold the documents.
    pub(crate) fn to_record_batch(&self, schema: &SchemaRef, columns: &Columns) -> Result<RecordBatch, TablesError> {
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(self.keys.clone()),
            Arc::new(self.versions.clone()),
            Arc::new(self.orders.clone()),
            Arc::new(self.deleted.clone()),
            Arc::new(self.states.clone()),
        ];
        arrays.extend(self.typed.widened(columns)?);
        Ok(RecordBatch::try_new(Arc::clone(schema), arrays)?)
    }
}
