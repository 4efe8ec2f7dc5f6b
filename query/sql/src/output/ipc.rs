//! Rows as an Arrow IPC stream, with plain strings: older readers do not know views.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;

use super::{Encoder, columns};

pub(super) struct IpcEncoder {
    schema: SchemaRef,
    writer: StreamWriter<Vec<u8>>,
}

impl IpcEncoder {
    pub(super) fn new(schema: &SchemaRef) -> Result<Self, ArrowError> {
        let schema = columns::plain_schema(schema);
        let writer = StreamWriter::try_new(Vec::new(), &schema)?;
        Ok(Self { schema, writer })
    }
}

impl Encoder for IpcEncoder {
    fn write(&mut self, batch: &RecordBatch) -> Result<Bytes, ArrowError> {
        self.writer.write(&columns::to_schema(batch, &self.schema)?)?;
        Ok(std::mem::take(self.writer.get_mut()).into())
    }

    fn finish(&mut self) -> Result<Bytes, ArrowError> {
        self.writer.finish()?;
        Ok(std::mem::take(self.writer.get_mut()).into())
    }
}
