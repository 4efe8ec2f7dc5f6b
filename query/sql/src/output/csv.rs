//! Rows as comma-separated values: a header line, empty fields for null, nested values as JSON text.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::csv::WriterBuilder;
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;

use super::{Encoder, columns};

pub(super) struct CsvEncoder {
    schema: SchemaRef,
    header_written: bool,
}

impl CsvEncoder {
    pub(super) fn new(schema: &SchemaRef) -> Self {
        Self { schema: columns::unique_names(schema), header_written: false }
    }

    fn flat(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let (mut fields, mut flat) = (Vec::<FieldRef>::new(), Vec::new());
        for (field, column) in self.schema.fields().iter().zip(batch.columns()) {
            if columns::is_nested(field.data_type()) {
                flat.push(columns::to_json_text(field, column.as_ref())?);
                fields.push(Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8)));
            } else {
                flat.push(Arc::clone(column));
                fields.push(Arc::clone(field));
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), flat, &options)
    }

    fn encode(&mut self, batch: &RecordBatch) -> Result<Bytes, ArrowError> {
        let mut out = Vec::new();
        WriterBuilder::new().with_header(!self.header_written).build(&mut out).write(&self.flat(batch)?)?;
        self.header_written = true;
        Ok(out.into())
    }
}

impl Encoder for CsvEncoder {
    fn write(&mut self, batch: &RecordBatch) -> Result<Bytes, ArrowError> {
        self.encode(batch)
    }

    fn finish(&mut self) -> Result<Bytes, ArrowError> {
        if self.header_written {
            return Ok(Bytes::new());
        }
        self.encode(&RecordBatch::new_empty(Arc::clone(&self.schema)))
    }
}
