//! What happens to columns before they are written: names made unique, string views made plain for readers that do not
//! know them, nested values made JSON text where a format is flat.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use bigpeer_tables::columns::JSON_MARK;

/// Whether `field` holds JSON as text: values of mixed types, one JSON value each.
pub(super) fn is_json_text(field: &Field) -> bool {
    field.metadata().get(JSON_MARK.0).is_some_and(|mark| mark == JSON_MARK.1)
}

/// `schema` with names that are unique: the second `x` is `x_1`, or the first free name after it.
pub(super) fn unique_names(schema: &Schema) -> SchemaRef {
    let mut taken: BTreeSet<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let mut seen = BTreeSet::new();
    let fields: Vec<FieldRef> = schema
        .fields()
        .iter()
        .map(|field| {
            if seen.insert(field.name().clone()) {
                return Arc::clone(field);
            }
            let name = (1_usize..).map(|n| format!("{}_{n}", field.name())).find(|name| !taken.contains(name));
            let name = name.unwrap_or_default();
            taken.insert(name.clone());
            Arc::new(field.as_ref().clone().with_name(name))
        })
        .collect();
    Arc::new(Schema::new(fields))
}

/// The type as every reader knows it: views become plain, at every depth.
fn plain_type(data_type: &DataType) -> DataType {
    let plain = |field: &FieldRef| Arc::new(field.as_ref().clone().with_data_type(plain_type(field.data_type())));
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(item) => DataType::List(plain(item)),
        DataType::LargeList(item) => DataType::LargeList(plain(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain).collect::<Fields>()),
        other => other.clone(),
    }
}

/// `schema` with [`plain_type`]s and unique names; every column nullable, since that is what queries promise.
pub(super) fn plain_schema(schema: &Schema) -> SchemaRef {
    let plain =
        |field: &FieldRef| field.as_ref().clone().with_data_type(plain_type(field.data_type())).with_nullable(true);
    Arc::new(Schema::new(unique_names(schema).fields().iter().map(plain).collect::<Vec<_>>()))
}

/// The rows of `batch` in the types of `schema`.
pub(super) fn to_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        if column.data_type() == field.data_type() { Ok(Arc::clone(column)) } else { cast(column, field.data_type()) }
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

/// Whether a flat format needs this type as JSON text.
pub(super) fn is_nested(data_type: &DataType) -> bool {
    data_type.is_nested() || matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

/// A nested column as JSON text, one value per row.
pub(super) fn to_json_text(field: &FieldRef, column: &dyn Array) -> Result<ArrayRef, ArrowError> {
    let options = super::json::options();
    let mut encoder = arrow::json::writer::make_encoder(field, column, &options)?;
    let (mut text, mut out) = (Vec::new(), StringBuilder::new());
    for row in 0..column.len() {
        if encoder.is_null(row) {
            out.append_null();
        } else {
            text.clear();
            encoder.encode(row, &mut text);
            let text = std::str::from_utf8(&text).map_err(|error| ArrowError::JsonError(error.to_string()))?;
            out.append_value(text);
        }
    }
    Ok(Arc::new(out.finish()))
}
