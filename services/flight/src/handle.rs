//! Handles of statements: a statement and, once they are bound, its parameters. They go to the client and come back, so that
//! no server need remember them. Nothing in them is trusted: who brings one asks again, with its own key.

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use bigpeer_sql::Params;
use bytes::Bytes;
use prost::Message;
use tonic::Status;

use crate::status::{bad, status};

/// Most bytes of bound parameters.
const MAX_PARAMS_BYTES: usize = 1 << 20;

/// A statement as its handle has it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Handle {
    /// The SQL.
    #[prost(string, tag = "1")]
    pub(crate) query: String,
    /// One row of parameters as an Arrow IPC stream; empty when none are bound.
    #[prost(bytes = "vec", tag = "2")]
    params: Vec<u8>,
}

impl Handle {
    pub(crate) const fn new(query: String) -> Self {
        Self { query, params: Vec::new() }
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Status> {
        Self::decode(bytes).map_err(|_| bad("not a handle of a statement of this server"))
    }

    pub(crate) fn write(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    /// The statement with the only row of `batch` as its parameters.
    pub(crate) fn bind(mut self, batch: &RecordBatch) -> Result<Self, Status> {
        Params::from_batch(batch).map_err(|error| status(&error))?;
        let write = || {
            let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
            writer.write(batch)?;
            writer.into_inner()
        };
        self.params = write().map_err(|error| bad(format!("parameters: {error}")))?;
        if self.params.len() > MAX_PARAMS_BYTES {
            return Err(bad(format!("the parameters take more than {MAX_PARAMS_BYTES} bytes")));
        }
        Ok(self)
    }

    pub(crate) fn params(&self) -> Result<Params, Status> {
        if self.params.is_empty() {
            return Ok(Params::default());
        }
        let damaged = || bad("the parameters in a handle cannot be read");
        let mut batches = StreamReader::try_new(self.params.as_slice(), None).map_err(|_| damaged())?;
        let batch = batches.next().ok_or_else(damaged)?.map_err(|_| damaged())?;
        Params::from_batch(&batch).map_err(|error| status(&error))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array};
    use std::sync::Arc;

    fn batch(values: &[i64]) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        RecordBatch::try_from_iter([("1", column)]).unwrap()
    }

    #[test]
    fn a_handle_brings_the_statement_and_its_parameters_back() {
        let handle = Handle::new("SELECT $1".to_owned());
        assert_eq!(Handle::read(&handle.write()).unwrap(), handle);
        let bound = handle.clone().bind(&batch(&[7])).unwrap();
        let read = Handle::read(&bound.write()).unwrap();
        assert_eq!(read, bound);
        assert!(format!("{:?}", read.params().unwrap()).contains('7'));
        assert!(handle.bind(&batch(&[1, 2])).is_err(), "one row");
    }

    #[test]
    fn foreign_bytes_are_refused() {
        assert!(Handle::read(&[0xff; 9]).is_err());
        let damaged = Handle { query: String::new(), params: vec![1, 2, 3] };
        assert!(damaged.params().is_err());
    }
}
