//! Rows as a Parquet file, one row group at a time: what is held back is at most one of them.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::{Encoder, columns};

/// A row group is written out when its encoded bytes pass this.
const ROW_GROUP_BYTES: usize = 16 * 1024 * 1024;

pub(super) struct ParquetEncoder {
    schema: SchemaRef,
    writer: ArrowWriter<Vec<u8>>,
}

impl ParquetEncoder {
    pub(super) fn new(schema: &SchemaRef) -> Result<Self, ArrowError> {
        let schema = columns::plain_schema(schema);
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            .set_created_by("bigpeer".to_owned())
            .build();
        // The Arrow schema is left out: some readers fail to filter by what it says (docs/decisions).
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(Vec::new(), schema.clone(), options)?;
        Ok(Self { schema, writer })
    }

    fn take(&mut self) -> Bytes {
        std::mem::take(self.writer.inner_mut()).into()
    }
}

impl Encoder for ParquetEncoder {
    fn write(&mut self, batch: &RecordBatch) -> Result<Bytes, ArrowError> {
        self.writer.write(&columns::to_schema(batch, &self.schema)?)?;
        if self.writer.in_progress_size() >= ROW_GROUP_BYTES {
            self.writer.flush()?;
        }
        Ok(self.take())
    }

    fn finish(&mut self) -> Result<Bytes, ArrowError> {
        self.writer.finish()?;
        Ok(self.take())
    }
}
