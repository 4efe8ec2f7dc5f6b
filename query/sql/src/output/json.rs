//! Rows as JSON objects: one array, or one object per line. Every column is in every row, `null` where there is no value;
//! inside nested objects what is missing is left out. JSON text columns are embedded as the JSON that they are, bytes as
//! `{"$binary": base64}`, as the HTTP data API has them; floats that are not finite are `null`.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::writer::{Encoder as ValueEncoder, EncoderFactory, EncoderOptions, NullableEncoder, make_encoder};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::{Encoder, columns};

/// How values are written.
pub(super) fn options() -> EncoderOptions {
    EncoderOptions::default().with_encoder_factory(Arc::new(Values))
}

/// The encoder of both JSON formats.
pub(super) struct JsonEncoder {
    schema: SchemaRef,
    options: EncoderOptions,
    /// `"name":` of each column, escaped.
    names: Vec<Vec<u8>>,
    array: bool,
    started: bool,
}

impl JsonEncoder {
    pub(super) fn array(schema: &SchemaRef) -> Self {
        Self::new(schema, true)
    }

    pub(super) fn lines(schema: &SchemaRef) -> Self {
        Self::new(schema, false)
    }

    fn new(schema: &SchemaRef, array: bool) -> Self {
        let schema = columns::unique_names(schema);
        let name = |field: &FieldRef| format!("{}:", serde_json::Value::from(field.name().as_str())).into_bytes();
        let names = schema.fields().iter().map(name).collect();
        Self { schema, options: options(), names, array, started: false }
    }
}

impl Encoder for JsonEncoder {
    fn write(&mut self, batch: &RecordBatch) -> Result<Bytes, ArrowError> {
        let fields = self.schema.fields().iter().zip(batch.columns());
        let encoders = fields.map(|(field, column)| make_encoder(field, column.as_ref(), &self.options));
        let mut encoders = encoders.collect::<Result<Vec<_>, _>>()?;
        let mut out = Vec::with_capacity(batch.num_rows() * 32 * self.names.len().max(1));
        for row in 0..batch.num_rows() {
            if self.array {
                out.extend_from_slice(if self.started { b",\n" } else { b"[" });
                self.started = true;
            }
            for (index, (encoder, name)) in encoders.iter_mut().zip(&self.names).enumerate() {
                out.push(if index == 0 { b'{' } else { b',' });
                out.extend_from_slice(name);
                if encoder.is_null(row) {
                    out.extend_from_slice(b"null");
                } else {
                    encoder.encode(row, &mut out);
                }
            }
            out.extend_from_slice(if self.names.is_empty() { b"{}" } else { b"}" });
            if !self.array {
                out.push(b'\n');
            }
        }
        Ok(out.into())
    }

    fn finish(&mut self) -> Result<Bytes, ArrowError> {
        Ok(Bytes::from_static(match (self.array, self.started) {
            (true, true) => b"]\n",
            (true, false) => b"[]\n",
            (false, _) => b"",
        }))
    }
}

/// The values that are written otherwise than arrow does.
#[derive(Debug)]
struct Values;

impl EncoderFactory for Values {
    fn make_default_encoder<'a>(
        &self,
        field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let nulls = array.nulls().cloned();
        let encoder: Box<dyn ValueEncoder + 'a> = match array.data_type() {
            DataType::Utf8 if columns::is_json_text(field) => {
                let array = array.as_string::<i32>();
                Box::new(JsonText(move |row| array.value(row)))
            }
            DataType::LargeUtf8 if columns::is_json_text(field) => {
                let array = array.as_string::<i64>();
                Box::new(JsonText(move |row| array.value(row)))
            }
            DataType::Utf8View if columns::is_json_text(field) => {
                let array = array.as_string_view();
                Box::new(JsonText(move |row| array.value(row)))
            }
            DataType::Binary => {
                let array = array.as_binary::<i32>();
                Box::new(Binary(move |row| array.value(row)))
            }
            DataType::LargeBinary => {
                let array = array.as_binary::<i64>();
                Box::new(Binary(move |row| array.value(row)))
            }
            DataType::BinaryView => {
                let array = array.as_binary_view();
                Box::new(Binary(move |row| array.value(row)))
            }
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, nulls)))
    }
}

/// Text that is JSON already. What a query made of it may not be JSON any more: then it is a string.
struct JsonText<F>(F);

impl<'a, F: Fn(usize) -> &'a str> ValueEncoder for JsonText<F> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let text = (self.0)(row);
        if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
            out.extend_from_slice(text.trim().as_bytes());
        } else {
            out.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
        }
    }
}

struct Binary<F>(F);

impl<'a, F: Fn(usize) -> &'a [u8]> ValueEncoder for Binary<F> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"$binary\":\"");
        out.extend_from_slice(STANDARD.encode((self.0)(row)).as_bytes());
        out.extend_from_slice(b"\"}");
    }
}
