//! The formats in which rows leave: how each is named, and an encoder that turns record batches into bytes piece by piece,
//! holding no more than one batch (Parquet: one row group).

mod columns;
mod csv;
mod ipc;
mod json;
mod parquet;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use bytes::Bytes;
use serde::Deserialize;

/// The columns of an answer as every reader of Arrow knows them: no views, unique names.
#[must_use]
pub fn plain_schema(schema: &SchemaRef) -> SchemaRef {
    columns::plain_schema(schema)
}

/// A nested column as JSON text, one value per row.
///
/// # Errors
/// When it holds what JSON cannot say.
pub fn json_text(
    field: &arrow::datatypes::FieldRef,
    column: &dyn arrow::array::Array,
) -> Result<arrow::array::ArrayRef, ArrowError> {
    columns::to_json_text(field, column)
}

/// The rows of `batch` in the types of `schema`, a [`plain_schema`].
///
/// # Errors
/// When they cannot be.
pub fn plain_batch(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    columns::to_schema(batch, schema)
}

/// How the rows of an answer are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON array of row objects.
    #[default]
    Json,
    /// One JSON object per line.
    Ndjson,
    /// Comma-separated values with a header line (RFC 4180).
    Csv,
    /// An Arrow IPC stream.
    Arrow,
    /// A Parquet file.
    Parquet,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 5] = [Self::Json, Self::Ndjson, Self::Csv, Self::Arrow, Self::Parquet];

    /// The name in requests and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Arrow => "arrow",
            Self::Parquet => "parquet",
        }
    }

    /// The `Content-Type` of an answer.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }

    /// The format of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == name)
    }

    /// The first format that `Accept` asks for and that there is. Weights are not looked at: clients list what they
    /// want first. None when the header is missing or names nothing that we have.
    #[must_use]
    pub fn from_accept(headers: &HeaderMap) -> Option<Self> {
        let wanted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        wanted.flat_map(|value| value.split(',')).find_map(|part| {
            match part.split(';').next().unwrap_or_default().trim() {
                "application/json" => Some(Self::Json),
                "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Some(Self::Ndjson),
                "text/csv" => Some(Self::Csv),
                "application/vnd.apache.arrow.stream" => Some(Self::Arrow),
                "application/vnd.apache.parquet" => Some(Self::Parquet),
                _ => None,
            }
        })
    }

    /// An encoder for rows of `schema`.
    ///
    /// # Errors
    /// When the format cannot hold a column's type.
    pub(crate) fn encoder(self, schema: &SchemaRef) -> Result<Box<dyn Encoder>, ArrowError> {
        Ok(match self {
            Self::Json => Box::new(json::JsonEncoder::array(schema)),
            Self::Ndjson => Box::new(json::JsonEncoder::lines(schema)),
            Self::Csv => Box::new(csv::CsvEncoder::new(schema)),
            Self::Arrow => Box::new(ipc::IpcEncoder::new(schema)?),
            Self::Parquet => Box::new(parquet::ParquetEncoder::new(schema)?),
        })
    }
}

/// Turns batches into bytes. Pieces may be empty, when bytes are held back.
pub(crate) trait Encoder: Send {
    /// The bytes that `batch` makes ready.
    fn write(&mut self, batch: &RecordBatch) -> Result<Bytes, ArrowError>;

    /// The last bytes. Without them the answer is recognizably incomplete, in every format but CSV and NDJSON.
    fn finish(&mut self) -> Result<Bytes, ArrowError>;
}

#[cfg(test)]
mod tests;
