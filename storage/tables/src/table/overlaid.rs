//! `Overlaid`: the overlay of a collection as typed columns, kept up to date.
//!
//! Documents are made into columns when a table is first asked for after they changed. What was made before stays; rows of
//! documents that changed again are marked dead, and are left out when the batches are put together.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use bigpeer_crdt::{DocId, Object, Value};
use bigpeer_types::{CollectionName, Lsn};
use bytes::Bytes;
use roaring::RoaringBitmap;

use crate::columns::{Columns, Facts, TRANSACTION, TypedBatch};
use crate::error::TablesError;
use crate::overlay::Entry;
use crate::segment::lookup;
use crate::snapshot::Snapshot;
use crate::version::Version;

/// Most rows of one part.
const PART_ROWS: usize = 8192;

/// Parts above which the small ones become one.
const MAX_PARTS: usize = 32;

/// What the overlay adds to the segments, at one LSN.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) schema: SchemaRef,
    pub(super) columns: Arc<Columns>,
    /// For each segment the rows that are not to be read.
    pub(super) excluded: Vec<Arc<RoaringBitmap>>,
    pub(super) batches: Arc<Vec<RecordBatch>>,
    pub(super) facts: Arc<Facts>,
}

/// Columns of changed documents, as of some LSN.
#[derive(Debug, Default)]
pub(super) struct Overlaid {
    /// Weak: what is cached must not keep files from being deleted.
    version: Weak<Version>,
    number: u64,
    through: Lsn,
    parts: Vec<Part>,
    /// Where the row of each document is: part and row.
    places: HashMap<DocId, (usize, u32)>,
    excluded: Vec<RoaringBitmap>,
    /// Of all documents that were ever made into parts.
    facts: Facts,
    made: Option<Arc<Made>>,
}

/// Rows that were made at one time.
#[derive(Debug)]
struct Part {
    typed: TypedBatch,
    transactions: Int64Array,
    dead: RoaringBitmap,
}

/// A changed document, and its older state.
type Changed = (DocId, Arc<Entry>, Option<Bytes>);

impl Overlaid {
    /// Whether this is at or before the snapshot, so that it can be advanced to it.
    pub(super) fn is_behind(&self, snapshot: &Snapshot) -> bool {
        let view = &snapshot.view;
        if std::ptr::eq(self.version.as_ptr(), Arc::as_ptr(&view.version)) {
            self.through <= view.lsn
        } else {
            self.number < view.version.manifest.number || self.version.strong_count() == 0
        }
    }

    /// Brings this to the snapshot. An error or a cancelled call leaves it as it was, or empty.
    pub(super) async fn advance(
        &mut self,
        snapshot: &Snapshot,
        collection: &CollectionName,
    ) -> Result<Arc<Made>, TablesError> {
        let view = &snapshot.view;
        let same = std::ptr::eq(self.version.as_ptr(), Arc::as_ptr(&view.version));
        if let Some(made) = self.made.as_ref().filter(|_| same && self.through == view.lsn) {
            return Ok(Arc::clone(made));
        }
        let segments = view.version.segments(collection);
        if !same {
            let excluded =
                segments.iter().map(|segment| &*segment.meta.superseded | &*segment.meta.tombstones).collect();
            *self = Self {
                version: Arc::downgrade(&view.version),
                number: view.version.manifest.number,
                excluded,
                ..Self::default()
            };
        }
        let since = self.through;
        let overlay = view.overlay(collection);
        let entries: Vec<(&DocId, &Arc<Entry>)> =
            overlay.entries.iter().filter(|(_, entry)| entry.lsn > since).collect();
        if entries.is_empty()
            && let Some(made) = &self.made
        {
            self.through = view.lsn;
            return Ok(Arc::clone(made));
        }
        let mut changed: Vec<Changed> = Vec::with_capacity(entries.len());
        for chunk in entries.chunks(PART_ROWS) {
            let keys: Vec<&[u8]> = chunk.iter().map(|(id, _)| id.as_key()).collect();
            let bases = lookup::find(&snapshot.context.objects, segments, &keys).await?;
            for (base, (id, entry)) in bases.into_iter().zip(chunk) {
                if let Some(base) = &base
                    && let Some(excluded) = self.excluded.get_mut(base.segment)
                {
                    excluded.insert(base.row);
                }
                changed.push(((*id).clone(), Arc::clone(entry), base.map(|base| base.state)));
            }
        }
        // Off the async threads; if this call is dropped meanwhile, the next begins anew.
        let mut work = std::mem::take(self);
        let known = view.version.columns(collection);
        let lsn = view.lsn;
        let done = tokio::task::spawn_blocking(move || work.add(changed, known, lsn).map(|made| (work, made))).await;
        let (work, made) = done.map_err(|error| TablesError::Encoding(error.to_string()))??;
        *self = work;
        Ok(made)
    }

    /// Adds changed documents, which makes this the state at `lsn`.
    fn add(&mut self, changed: Vec<Changed>, columns: Columns, lsn: Lsn) -> Result<Arc<Made>, TablesError> {
        let mut columns = self.parts.iter().fold(columns, |columns, part| columns.join(&part.typed.columns));
        let mut changed = changed.into_iter().peekable();
        while changed.peek().is_some() {
            let number = self.parts.len();
            let mut ids: Vec<Value> = Vec::new();
            let mut documents: Vec<Object> = Vec::new();
            let mut transactions = Vec::new();
            for (id, entry, base) in changed.by_ref().take(PART_ROWS) {
                let document = entry
                    .document(base.as_deref())
                    .map_err(|error| TablesError::corrupt(&format!("document {id:?}"), error))?;
                let row = u32::try_from(ids.len()).unwrap_or(u32::MAX);
                let old = if document.is_visible() {
                    ids.push(id.to_value());
                    let object = document.to_object();
                    self.facts.observe(&document, &object);
                    documents.push(object);
                    transactions.push(i64::try_from(entry.lsn.version).unwrap_or(i64::MAX));
                    self.places.insert(id, (number, row))
                } else {
                    self.places.remove(&id)
                };
                if let Some((part, row)) = old
                    && let Some(part) = self.parts.get_mut(part)
                {
                    part.dead.insert(row);
                }
            }
            let typed = TypedBatch::infer(&columns, &ids, &documents)?;
            columns = columns.join(&typed.columns);
            self.parts.push(Part { typed, transactions: transactions.into(), dead: RoaringBitmap::new() });
        }
        self.through = lsn;
        let made = Arc::new(self.put_together(columns)?);
        self.made = Some(Arc::clone(&made));
        Ok(made)
    }

    fn put_together(&mut self, columns: Columns) -> Result<Made, TablesError> {
        let schema = Arc::new(table_schema(&columns));
        let mut batches = Vec::new();
        let mut small: Vec<(usize, RecordBatch)> = Vec::new();
        for (number, part) in self.parts.iter().enumerate() {
            let mut arrays: Vec<ArrayRef> = part.typed.widened(&columns)?;
            arrays.push(Arc::new(part.transactions.clone()));
            let mut batch = RecordBatch::try_new(Arc::clone(&schema), arrays)?;
            if !part.dead.is_empty() {
                let live: BooleanArray =
                    (0..).take(batch.num_rows()).map(|row| Some(!part.dead.contains(row))).collect();
                batch = filter_record_batch(&batch, &live)?;
            }
            if batch.num_rows() >= PART_ROWS / 2 { batches.push(batch) } else { small.push((number, batch)) }
        }
        if small.iter().any(|(_, batch)| batch.num_rows() > 0) {
            let all = concat_batches(&schema, small.iter().map(|(_, batch)| batch))?;
            if self.parts.len() > MAX_PARTS {
                self.merge(&small, &all, &columns)?;
            }
            batches.push(all);
        }
        Ok(Made {
            schema,
            columns: Arc::new(columns),
            excluded: self.excluded.iter().cloned().map(Arc::new).collect(),
            batches: Arc::new(batches),
            facts: Arc::new(self.facts.clone()),
        })
    }
}

impl Overlaid {
    /// Puts the small parts' live rows, which are `all`, into one part in their place.
    fn merge(
        &mut self,
        small: &[(usize, RecordBatch)],
        all: &RecordBatch,
        columns: &Columns,
    ) -> Result<(), TablesError> {
        let mut arrays = all.columns().to_vec();
        let transactions = arrays.pop().and_then(|array| array.as_primitive_opt::<Int64Type>().cloned());
        let transactions =
            transactions.ok_or_else(|| TablesError::Encoding("a batch without its last column".into()))?;
        // Where each small part's rows begin in the new part.
        let mut starts: HashMap<usize, u32> = HashMap::with_capacity(small.len());
        let mut rows = 0;
        for (number, batch) in small {
            starts.insert(*number, rows);
            rows = rows.saturating_add(u32::try_from(batch.num_rows()).unwrap_or(u32::MAX));
        }
        let merged = self.parts.len() - small.len();
        let mut kept = 0..merged;
        let numbers: Vec<usize> = (0..self.parts.len())
            .map(|number| if starts.contains_key(&number) { merged } else { kept.next().unwrap_or(merged) })
            .collect();
        #[allow(clippy::iter_over_hash_type, reason = "each place is changed by itself")]
        for (part, row) in self.places.values_mut() {
            if let (Some(start), Some(old)) = (starts.get(part), self.parts.get(*part)) {
                let dead = u32::try_from(old.dead.rank(*row)).unwrap_or(u32::MAX);
                *row = start + row.saturating_sub(dead);
            }
            *part = numbers.get(*part).copied().unwrap_or(merged);
        }
        let old = std::mem::take(&mut self.parts);
        let large = old.into_iter().enumerate().filter(|(number, _)| !starts.contains_key(number));
        self.parts = large.map(|(_, part)| part).collect();
        let typed = TypedBatch::from_arrays(columns.clone(), arrays, all.num_rows());
        self.parts.push(Part { typed, transactions, dead: RoaringBitmap::new() });
        Ok(())
    }
}

fn table_schema(columns: &Columns) -> Schema {
    let mut fields = columns.typed_fields();
    fields.push(Field::new(TRANSACTION, DataType::Int64, false));
    Schema::new(fields)
}
