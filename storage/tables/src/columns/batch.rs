//! `TypedBatch`: typed columns of some documents, each as narrow as these documents allow.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, StringBuilder, new_null_array};
use arrow::error::ArrowError;
use bigpeer_crdt::{Object, Value};

use super::{ColumnType, Columns, Inference, build_column, transpose, widen};

/// `_id`, fields and rest of some documents: the arrays of [`Columns::typed_fields`].
#[derive(Clone, Debug)]
pub(crate) struct TypedBatch {
    pub(crate) columns: Columns,
    arrays: Vec<ArrayRef>,
    rows: usize,
}

impl TypedBatch {
    /// Infers types from the documents. `known` are columns that there are: they keep their names and places.
    pub(crate) fn infer(known: &Columns, ids: &[Value], documents: &[Object]) -> Result<Self, ArrowError> {
        let mut inference = Inference::narrow(known);
        for (id, document) in ids.iter().zip(documents) {
            inference.observe(id, document);
        }
        Self::build(inference.finish_used(), ids, documents)
    }

    /// With types that are known to hold the documents.
    pub(crate) fn build(columns: Columns, ids: &[Value], documents: &[Object]) -> Result<Self, ArrowError> {
        let ids: Vec<Option<&Value>> = ids.iter().map(Some).collect();
        let mut arrays = vec![build_column(&columns.id, &ids)?];
        let objects: Vec<Option<&Object>> = documents.iter().map(Some).collect();
        let names: Vec<&str> = columns.fields.iter().map(|(name, _)| &**name).collect();
        for ((_, kind), values) in columns.fields.iter().zip(transpose(&names, &objects)) {
            arrays.push(build_column(kind, &values)?);
        }
        if columns.rest {
            arrays.push(rest(&columns, documents));
        }
        Ok(Self { columns, arrays, rows: ids.len() })
    }

    /// From arrays that were made before: those of [`Columns::typed_fields`].
    pub(crate) fn from_arrays(columns: Columns, arrays: Vec<ArrayRef>, rows: usize) -> Self {
        Self { columns, arrays, rows }
    }

    /// The arrays of wider columns, which have all columns that these documents need.
    pub(crate) fn widened(&self, to: &Columns) -> Result<Vec<ArrayRef>, ArrowError> {
        if self.columns == *to {
            return Ok(self.arrays.clone());
        }
        let mut arrays = Vec::with_capacity(to.fields.len() + 2);
        let mut own = self.arrays.iter();
        arrays.push(own.next().map_or_else(
            || Err(ArrowError::ComputeError("a batch without ids".to_owned())),
            |ids| widen(ids, &self.columns.id, &to.id),
        )?);
        // Both are in the same order, so that one walk finds every column.
        let mut fields = self.columns.fields.iter().zip(own.by_ref()).peekable();
        for (name, kind) in &to.fields {
            match fields.next_if(|((field, _), _)| field == name) {
                Some(((_, from), array)) => arrays.push(widen(array, from, kind)?),
                None => arrays.push(new_null_array(&kind.data_type(), self.rows)),
            }
        }
        if let Some(((name, _), _)) = fields.next() {
            return Err(ArrowError::ComputeError(format!("no column for '{name}', or in another place")));
        }
        if to.rest {
            let rest = self.arrays.last().filter(|_| self.columns.rest).cloned();
            arrays.push(rest.unwrap_or_else(|| new_null_array(&ColumnType::Json.data_type(), self.rows)));
        }
        Ok(arrays)
    }
}

/// What has no column of its own, as JSON.
fn rest(columns: &Columns, documents: &[Object]) -> ArrayRef {
    let names: HashSet<&str> = columns.fields.iter().map(|(name, _)| &**name).collect();
    let mut out = StringBuilder::new();
    for document in documents {
        let rest: Object = (document.iter())
            .filter(|(name, _)| !names.contains(name))
            .map(|(name, value)| (name, value.clone()))
            .collect();
        out.append_option((!rest.is_empty()).then(|| rest.to_json().to_string()));
    }
    Arc::new(out.finish())
}

impl Columns {
    /// These columns in the order of `order`, which has them all.
    pub(crate) fn in_order_of(mut self, order: &Self) -> Self {
        let place = |name: &str| order.fields.iter().position(|(field, _)| &**field == name);
        self.fields.sort_by_cached_key(|(name, _)| place(name).unwrap_or(usize::MAX));
        self
    }

    /// These columns with the types of `wide`, which is as wide or wider.
    pub(crate) fn typed_as(mut self, wide: &Self) -> Self {
        self.id = wide.id.clone();
        let types: HashMap<&str, &ColumnType> = wide.fields.iter().map(|(name, kind)| (&**name, kind)).collect();
        for (name, kind) in &mut self.fields {
            if let Some(wider) = types.get(&**name) {
                *kind = (*wider).clone();
            }
        }
        self
    }
}
