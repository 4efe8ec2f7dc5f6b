//! Answers in every format, read back.
use std::io::Cursor;
use std::sync::Arc;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray,
    StringViewArray, StructArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int64Type, Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use bigpeer_tables::columns::JSON_MARK;
use serde_json::{Value, json};

use super::*;

fn sample() -> RecordBatch {
    let inner = Fields::from(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)]);
    let nested = StructArray::new(
        inner.clone(),
        vec![
            Arc::new(Int64Array::from(vec![Some(1), None, None])) as ArrayRef,
            Arc::new(StringArray::from(vec![Some("x"), None, None])),
        ],
        Some(vec![true, true, false].into()),
    );
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
    let json = Field::new("mixed", DataType::Utf8View, true)
        .with_metadata([(JSON_MARK.0.to_owned(), JSON_MARK.1.to_owned())].into());
    let schema = Schema::new(vec![
        Field::new("int", DataType::Int64, true),
        Field::new("float", DataType::Float64, true),
        Field::new("text", DataType::Utf8View, true),
        Field::new("flag", DataType::Boolean, true),
        json,
        Field::new("nested", DataType::Struct(inner), true),
        Field::new("list", list.data_type().clone(), true),
        Field::new("bytes", DataType::Binary, true),
        Field::new("int", DataType::Int64, true),
    ]);
    RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(Int64Array::from(vec![Some(i64::MAX), None, Some(-1)])),
            Arc::new(Float64Array::from(vec![Some(0.1), None, Some(f64::NAN)])),
            Arc::new(StringViewArray::from(vec![Some("comma, \"quote\"\nline"), None, Some("ü")])),
            Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
            Arc::new(StringViewArray::from(vec![Some(r#"{"k":[1]}"#), Some("\"s\""), None])),
            Arc::new(nested),
            Arc::new(list),
            Arc::new(BinaryArray::from_opt_vec(vec![Some(b"\x00\xff".as_slice()), None, Some(b"")])),
            Arc::new(Int64Array::from(vec![7, 8, 9])),
        ],
    )
    .unwrap()
}

/// The bytes of all of `batches`.
fn encode(format: Format, schema: &SchemaRef, batches: &[RecordBatch]) -> Vec<u8> {
    let mut encoder = format.encoder(schema).unwrap();
    let mut bytes = Vec::new();
    for batch in batches {
        bytes.extend_from_slice(&encoder.write(batch).unwrap());
    }
    bytes.extend_from_slice(&encoder.finish().unwrap());
    bytes
}

fn twice() -> (SchemaRef, Vec<RecordBatch>) {
    let batch = sample();
    (batch.schema(), vec![batch.clone(), batch])
}

fn expected_rows() -> Value {
    json!([
        {"int": i64::MAX, "float": 0.1, "text": "comma, \"quote\"\nline", "flag": true, "mixed": {"k": [1]},
         "nested": {"a": 1, "b": "x"}, "list": [1, null], "bytes": {"$binary": "AP8="}, "int_1": 7},
        {"int": null, "float": null, "text": null, "flag": null, "mixed": "s", "nested": {}, "list": null,
         "bytes": null, "int_1": 8},
        {"int": -1, "float": null, "text": "ü", "flag": false, "mixed": null, "nested": null, "list": [],
         "bytes": {"$binary": ""}, "int_1": 9},
    ])
}

#[test]
fn json_is_one_array_of_whole_rows() {
    let (schema, batches) = twice();
    let rows: Value = serde_json::from_slice(&encode(Format::Json, &schema, &batches)).unwrap();
    let expected = expected_rows();
    let doubled: Vec<_> = [expected.as_array().unwrap().clone(), expected.as_array().unwrap().clone()].concat();
    assert_eq!(rows, Value::Array(doubled));
    let nothing: Value = serde_json::from_slice(&encode(Format::Json, &schema, &[])).unwrap();
    assert_eq!(nothing, json!([]));
}

#[test]
fn ndjson_is_a_row_per_line() {
    let (schema, batches) = twice();
    let text = String::from_utf8(encode(Format::Ndjson, &schema, &batches)).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(Value::Array(rows[..3].to_vec()), expected_rows());
    assert_eq!((rows.len(), encode(Format::Ndjson, &schema, &[]).len()), (6, 0));
}

#[test]
fn csv_has_one_header_and_json_where_values_are_nested() {
    let (schema, batches) = twice();
    let text = encode(Format::Csv, &schema, &batches);
    let format = arrow::csv::reader::Format::default().with_header(true);
    let (inferred, rows) = format.infer_schema(Cursor::new(&text), None).unwrap();
    assert_eq!(rows, 6);
    let names: Vec<_> = inferred.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["int", "float", "text", "flag", "mixed", "nested", "list", "bytes", "int_1"]);
    let texts =
        Arc::new(Schema::new(names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect::<Vec<_>>()));
    let reader = arrow::csv::ReaderBuilder::new(texts).with_header(true).build(Cursor::new(&text)).unwrap();
    let read: Vec<_> = reader.map(Result::unwrap).collect();
    let read = concat_batches(&read[0].schema(), &read).unwrap();
    let cell = |column: &str, row: usize| read.column_by_name(column).unwrap().as_string::<i32>().value(row).to_owned();
    assert_eq!(cell("text", 3), "comma, \"quote\"\nline");
    assert_eq!((cell("nested", 0), cell("list", 0)), (r#"{"a":1,"b":"x"}"#.to_owned(), "[1,null]".to_owned()));
    assert_eq!((cell("mixed", 0), cell("bytes", 0)), (r#"{"k":[1]}"#.to_owned(), r#"{"$binary":"AP8="}"#.to_owned()));
    let header = encode(Format::Csv, &schema, &[]);
    assert_eq!(header, b"int,float,text,flag,mixed,nested,list,bytes,int_1\n");
}

/// Whether `read` is what was written, twice, with types that every reader knows.
fn check_columns(read: &RecordBatch) {
    assert_eq!(read.num_rows(), 6);
    assert_eq!(read.schema().field(2).data_type(), &DataType::Utf8);
    assert_eq!(read.column(0).as_primitive::<Int64Type>().value(3), i64::MAX);
    assert!(read.column(0).is_null(4) && read.column(1).as_primitive::<Float64Type>().value(5).is_nan());
    assert_eq!(read.column(2).as_string::<i32>().value(5), "ü");
    assert_eq!(read.column(4).as_string::<i32>().value(3), r#"{"k":[1]}"#);
    assert_eq!(read.column(5).as_struct().column(0).as_primitive::<Int64Type>().value(3), 1);
    assert_eq!(read.column(6).as_list::<i32>().value(3).len(), 2);
    assert_eq!(read.column(7).as_binary::<i32>().value(3), b"\x00\xff");
    assert_eq!(read.schema().field(8).name(), "int_1");
}

#[test]
fn arrow_streams_are_read_back() {
    let (schema, batches) = twice();
    let bytes = encode(Format::Arrow, &schema, &batches);
    let reader = StreamReader::try_new(Cursor::new(&bytes), None).unwrap();
    let (schema_read, read): (_, Vec<_>) = (reader.schema(), reader.map(Result::unwrap).collect());
    check_columns(&concat_batches(&schema_read, &read).unwrap());
    let empty = encode(Format::Arrow, &schema, &[]);
    assert_eq!(StreamReader::try_new(Cursor::new(&empty), None).unwrap().count(), 0);
}

#[test]
fn parquet_files_are_read_back() {
    let (schema, batches) = twice();
    let bytes = Bytes::from(encode(Format::Parquet, &schema, &batches));
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    assert!(reader.metadata().file_metadata().key_value_metadata().is_none(), "no Arrow schema inside");
    let reader = reader.build().unwrap();
    let read: Vec<_> = reader.map(Result::unwrap).collect();
    check_columns(&concat_batches(&read[0].schema(), &read).unwrap());
    let empty = Bytes::from(encode(Format::Parquet, &schema, &[]));
    assert_eq!(ParquetRecordBatchReaderBuilder::try_new(empty).unwrap().build().unwrap().count(), 0);
}

#[test]
fn a_json_column_that_a_query_made_into_something_else_stays_valid_json() {
    let json =
        Field::new("x", DataType::Utf8, true).with_metadata([(JSON_MARK.0.to_owned(), JSON_MARK.1.to_owned())].into());
    let schema = Arc::new(Schema::new(vec![json]));
    let column = Arc::new(StringArray::from(vec!["{\"broken\": ", "3"]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![column]).unwrap();
    let rows: Value = serde_json::from_slice(&encode(Format::Json, &schema, &[batch])).unwrap();
    assert_eq!(rows, json!([{"x": "{\"broken\": "}, {"x": 3}]));
}

#[test]
fn accept_picks_the_first_format_that_there_is() {
    let from = |text: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, axum::http::HeaderValue::from_static(text));
        Format::from_accept(&headers)
    };
    assert_eq!(from("text/html, text/csv;q=0.5, application/json"), Some(Format::Csv));
    assert_eq!(from("*/*"), None);
    assert_eq!(Format::from_accept(&HeaderMap::new()), None);
    for format in Format::ALL {
        assert_eq!(Format::from_name(format.as_str()), Some(format));
    }
}
