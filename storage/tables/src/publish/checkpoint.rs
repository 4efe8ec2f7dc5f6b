//! Checkpoints: what all commits up to one make of a table, as Parquet with a column for each kind of action.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow::json::{LineDelimitedWriter, ReaderBuilder};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::actions::Line;
use crate::error::TablesError;

/// The checkpoint of these actions.
pub(super) fn encode(lines: &[Line]) -> Result<Vec<u8>, TablesError> {
    let schema = Arc::new(schema());
    let mut decoder = ReaderBuilder::new(Arc::clone(&schema)).with_batch_size(lines.len().max(1)).build_decoder()?;
    decoder.serialize(lines)?;
    let failed = |error: parquet::errors::ParquetError| TablesError::Encoding(error.to_string());
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), schema, options).map_err(failed)?;
    if let Some(batch) = decoder.flush()? {
        writer.write(&batch).map_err(failed)?;
    }
    writer.into_inner().map_err(failed)
}

/// The actions of a checkpoint.
pub(super) fn decode(bytes: Bytes) -> Result<Vec<Line>, String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(ParquetRecordBatchReaderBuilder::build);
    let mut text = LineDelimitedWriter::new(Vec::new());
    for batch in reader.map_err(|error| error.to_string())? {
        let batch = batch.map_err(|error| error.to_string())?;
        text.write(&batch).map_err(|error| error.to_string())?;
    }
    text.finish().map_err(|error| error.to_string())?;
    let text = text.into_inner();
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(serde_json::from_slice);
    lines.collect::<Result<Vec<Line>, _>>().map_err(|error| error.to_string())
}

fn schema() -> Schema {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let long = |name: &str| Field::new(name, DataType::Int64, true);
    let int = |name: &str| Field::new(name, DataType::Int32, true);
    let yes = |name: &str| Field::new(name, DataType::Boolean, true);
    let texts = |name: &str| Field::new(name, DataType::List(Arc::new(text("element"))), true);
    let map = |name: &str| {
        let entry = Fields::from(vec![Field::new("key", DataType::Utf8, false), text("value")]);
        let entries = Field::new("key_value", DataType::Struct(entry), false);
        Field::new(name, DataType::Map(Arc::new(entries), false), true)
    };
    let group = |name: &str, fields: Vec<Field>| Field::new(name, DataType::Struct(Fields::from(fields)), true);
    let vector = || {
        group(
            "deletionVector",
            vec![text("storageType"), text("pathOrInlineDv"), int("offset"), int("sizeInBytes"), long("cardinality")],
        )
    };
    Schema::new(vec![
        group(
            "protocol",
            vec![int("minReaderVersion"), int("minWriterVersion"), texts("readerFeatures"), texts("writerFeatures")],
        ),
        group(
            "metaData",
            vec![
                text("id"),
                text("name"),
                group("format", vec![text("provider"), map("options")]),
                text("schemaString"),
                texts("partitionColumns"),
                map("configuration"),
                long("createdTime"),
            ],
        ),
        group(
            "add",
            vec![
                text("path"),
                map("partitionValues"),
                long("size"),
                long("modificationTime"),
                yes("dataChange"),
                text("stats"),
                vector(),
            ],
        ),
        group("remove", vec![text("path"), long("deletionTimestamp"), yes("dataChange"), vector()]),
    ])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::actions::{Add, Format, MetaData, Protocol, Remove, Vector};
    use super::*;
    use crate::manifest::PublicationMode;

    #[test]
    fn actions_come_back_from_a_checkpoint() {
        let vector = Vector {
            storage_type: "u".into(),
            path_or_inline_dv: "HelloWorldHelloWorld".into(),
            offset: 1,
            size_in_bytes: 34,
            cardinality: 3,
        };
        let add = Add {
            path: "segments/x.parquet".into(),
            size: 7,
            modification_time: 8,
            data_change: true,
            stats: Some(r#"{"numRecords":9}"#.into()),
            ..Add::default()
        };
        let meta = MetaData {
            id: "an id".into(),
            name: "a \"name\"\n".into(),
            format: Format { provider: "parquet".into(), ..Format::default() },
            schema_string: "{}".into(),
            configuration: BTreeMap::from([("a".into(), "b".into())]),
            ..MetaData::default()
        };
        let remove = Remove { path: "y".into(), deletion_timestamp: 4, data_change: false, deletion_vector: None };
        let lines = vec![
            Line { protocol: Some(Protocol::of(PublicationMode::DeletionVectors)), ..Line::default() },
            Line { protocol: Some(Protocol::of(PublicationMode::Compatible)), ..Line::default() },
            Line { meta_data: Some(meta), ..Line::default() },
            Line { add: Some(add.clone()), ..Line::default() },
            Line { add: Some(Add { deletion_vector: Some(vector), ..add }), ..Line::default() },
            Line { remove: Some(remove), ..Line::default() },
        ];
        assert_eq!(decode(encode(&lines).unwrap().into()).unwrap(), lines);
        assert!(decode(Bytes::from_static(b"PAR1 no")).is_err());
    }
}
