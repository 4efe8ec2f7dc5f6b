//! Parquet: columns become fields, nulls are absent; dates and times become ISO 8601 text, decimals text.

use std::fs::File;
use std::path::Path;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, LargeListArray, ListArray, RecordBatch, StructArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, UInt64Type};
use arrow::error::ArrowError;
use bigpeer_crdt::{Object, Value};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::rows::{Place, Row, RowError, file_error};

fn open(file: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, RowError> {
    let opened = File::open(file).map_err(|cause| file_error(file, cause))?;
    ParquetRecordBatchReaderBuilder::try_new(opened).map_err(|cause| file_error(file, cause))
}

/// How many rows the file has.
pub(super) fn examine(file: &Path) -> Result<u64, RowError> {
    let rows = open(file)?.metadata().file_metadata().num_rows();
    u64::try_from(rows).map_err(|_| file_error(file, "its footer counts a negative number of rows"))
}

/// The rows of the file.
pub(super) fn rows(file: &Path) -> Result<impl Iterator<Item = Result<Row, RowError>> + '_, RowError> {
    let reader = open(file)?.build().map_err(|cause| file_error(file, cause))?;
    let mut line = 0;
    Ok(reader.flat_map(move |batch| {
        let converted = batch.and_then(|batch| objects(&batch));
        let rows: Vec<Result<Row, RowError>> = match converted {
            Err(cause) => vec![Err(file_error(file, cause))],
            Ok(objects) => objects
                .into_iter()
                .map(|fields| {
                    line += 1;
                    Ok(Row { place: Place { file: file.to_owned(), line }, fields })
                })
                .collect(),
        };
        rows
    }))
}

/// A batch as one object a row.
fn objects(batch: &RecordBatch) -> Result<Vec<Object>, ArrowError> {
    let mut rows = vec![Object::new(); batch.num_rows()];
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        for (row, value) in rows.iter_mut().zip(values(column)?) {
            if let Some(value) = value {
                row.insert(field.name().as_str(), value);
            }
        }
    }
    Ok(rows)
}

/// A column's values; none where it is null.
fn values(column: &ArrayRef) -> Result<Vec<Option<Value>>, ArrowError> {
    use DataType::{
        Binary, BinaryView, Boolean, FixedSizeBinary, FixedSizeList, Float16, Float32, Float64, Int8, Int16, Int32,
        Int64, LargeBinary, LargeList, List, Null, Struct, UInt8, UInt16, UInt32, UInt64,
    };
    Ok(match column.data_type() {
        Null => vec![None; column.len()],
        Boolean => {
            let booleans: &BooleanArray = column.as_boolean();
            booleans.iter().map(|value| value.map(Value::Bool)).collect()
        }
        Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 => {
            let numbers = cast(column, &Int64)?;
            numbers.as_primitive::<Int64Type>().iter().map(|value| value.map(Value::Int)).collect()
        }
        UInt64 => column.as_primitive::<UInt64Type>().iter().map(|value| value.map(Value::from)).collect(),
        Float16 | Float32 | Float64 => {
            let numbers = cast(column, &Float64)?;
            numbers.as_primitive::<Float64Type>().iter().map(|value| value.map(Value::Float)).collect()
        }
        Binary | BinaryView | LargeBinary | FixedSizeBinary(_) => {
            let binary = cast(column, &LargeBinary)?;
            binary.as_binary::<i64>().iter().map(|value| value.map(|bytes| Value::Bytes(bytes.into()))).collect()
        }
        Struct(_) => structs(column.as_struct())?,
        List(_) => {
            let lists: &ListArray = column.as_list();
            lists.iter().map(|items| items.map(|items| list(&items)).transpose()).collect::<Result<_, _>>()?
        }
        LargeList(_) => {
            let lists: &LargeListArray = column.as_list();
            lists.iter().map(|items| items.map(|items| list(&items)).transpose()).collect::<Result<_, _>>()?
        }
        FixedSizeList(..) => {
            let lists: &FixedSizeListArray = column.as_fixed_size_list();
            lists.iter().map(|items| items.map(|items| list(&items)).transpose()).collect::<Result<_, _>>()?
        }
        // Text of every layout, dictionaries, dates, times, decimals: what Arrow writes as text.
        _ => {
            let texts = cast(column, &DataType::LargeUtf8)?;
            texts.as_string::<i64>().iter().map(|value| value.map(Value::from)).collect()
        }
    })
}

fn list(items: &ArrayRef) -> Result<Value, ArrowError> {
    Ok(Value::Array(values(items)?.into_iter().map(|value| value.unwrap_or(Value::Null)).collect()))
}

fn structs(array: &StructArray) -> Result<Vec<Option<Value>>, ArrowError> {
    let mut rows = vec![Object::new(); array.len()];
    for (field, column) in array.fields().iter().zip(array.columns()) {
        for (row, value) in rows.iter_mut().zip(values(column)?) {
            if let Some(value) = value {
                row.insert(field.name().as_str(), value);
            }
        }
    }
    Ok(rows.into_iter().enumerate().map(|(at, row)| array.is_valid(at).then_some(Value::Object(row))).collect())
}
