//! A column of a batch, ready to be written value by value, in text or binary.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Float32Array, Float64Array, Int64Array,
    ListArray, PrimitiveArray, RecordBatch, StringArray,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, FieldRef, Float32Type, Float64Type, Int64Type, Schema, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use bigpeer_sql::{PgType, json_text, pg_type};
use bytes::{BufMut, BytesMut};

use crate::backend::ColumnDescription;
use crate::{binary, text};

/// What a client is told of the columns of `schema`. `formats` says which are binary: none, all alike, or each.
pub(crate) fn describe(schema: &Schema, formats: &[bool]) -> Vec<ColumnDescription> {
    let columns = schema.fields().iter().enumerate().map(|(index, field)| {
        let kind = pg_type(field);
        ColumnDescription { name: field.name().clone(), oid: kind.oid, len: kind.len, binary: format(formats, index) }
    });
    columns.collect()
}

/// Whether the value at `index` is binary.
pub(crate) fn format(formats: &[bool], index: usize) -> bool {
    match formats {
        [all] => *all,
        each => each.get(index).copied().unwrap_or_default(),
    }
}

/// A column.
pub(crate) struct Column {
    values: Values,
    nulls: Option<arrow::buffer::NullBuffer>,
    binary: bool,
}

enum Values {
    Bool(BooleanArray),
    Int(Int64Array, i16),
    Float32(Float32Array),
    Float64(Float64Array),
    Text(StringArray),
    Numeric(StringArray),
    Bytes(BinaryArray),
    Date(Date32Array),
    Time(PrimitiveArray<Time64MicrosecondType>),
    Timestamp(PrimitiveArray<TimestampMicrosecondType>, bool),
    List(ListArray, u32, Box<Column>),
}

/// The columns of `batch`, whose columns are described by `schema`.
pub(crate) fn columns(schema: &Schema, batch: &RecordBatch, formats: &[bool]) -> Result<Vec<Column>, ArrowError> {
    let columns = schema.fields().iter().zip(batch.columns()).enumerate();
    columns.map(|(index, (field, array))| Column::new(field, array, format(formats, index))).collect()
}

impl Column {
    fn new(field: &FieldRef, array: &ArrayRef, binary: bool) -> Result<Self, ArrowError> {
        let kind = pg_type(field);
        let values = values(field, kind, array, binary)?;
        Ok(Self { values, nulls: array.logical_nulls(), binary })
    }

    fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// Writes the value at `row`, or answers that there is none.
    pub(crate) fn write(&self, row: usize, out: &mut BytesMut) -> bool {
        if self.is_null(row) {
            return false;
        }
        if self.binary {
            self.write_binary(row, out)
        } else {
            self.write_text(row, out)
        }
        true
    }

    fn write_text(&self, row: usize, out: &mut BytesMut) {
        use std::fmt::Write as _;
        match &self.values {
            Values::Bool(values) => out.put_u8(if values.value(row) { b't' } else { b'f' }),
            Values::Int(values, _) => {
                let _ = write!(out, "{}", values.value(row));
            }
            Values::Float32(values) => text::float(out, values.value(row).into(), values.value(row)),
            Values::Float64(values) => text::float(out, values.value(row), values.value(row)),
            Values::Text(values) | Values::Numeric(values) => out.extend_from_slice(values.value(row).as_bytes()),
            Values::Bytes(values) => text::bytea(out, values.value(row)),
            Values::Date(values) => text::date(out, values.value(row).into()),
            Values::Time(values) => text::time(out, values.value(row)),
            Values::Timestamp(values, zoned) => text::timestamp(out, values.value(row), *zoned),
            Values::List(list, _, items) => {
                out.put_u8(b'{');
                let mut item = BytesMut::new();
                for (index, at) in range(list, row).enumerate() {
                    if index > 0 {
                        out.put_u8(b',');
                    }
                    item.clear();
                    if items.write(at, &mut item) { text::element(out, &item) } else { out.extend_from_slice(b"NULL") }
                }
                out.put_u8(b'}');
            }
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "the column's type bounds them")]
    fn write_binary(&self, row: usize, out: &mut BytesMut) {
        match &self.values {
            Values::Bool(values) => out.put_u8(values.value(row).into()),
            Values::Int(values, 2) => out.put_i16(values.value(row) as i16),
            Values::Int(values, 4) => out.put_i32(values.value(row) as i32),
            Values::Int(values, _) => out.put_i64(values.value(row)),
            Values::Float32(values) => out.put_f32(values.value(row)),
            Values::Float64(values) => out.put_f64(values.value(row)),
            Values::Text(values) => out.extend_from_slice(values.value(row).as_bytes()),
            Values::Numeric(values) => binary::numeric(out, values.value(row)),
            Values::Bytes(values) => out.extend_from_slice(values.value(row)),
            Values::Date(values) => binary::date(out, values.value(row).into()),
            Values::Time(values) => out.put_i64(values.value(row)),
            Values::Timestamp(values, _) => binary::timestamp(out, values.value(row)),
            Values::List(list, element, items) => {
                let range = range(list, row);
                out.put_i32((!range.is_empty()).into());
                out.put_i32(range.clone().any(|at| items.is_null(at)).into());
                out.put_u32(*element);
                if range.is_empty() {
                    return;
                }
                out.put_i32(i32::try_from(range.len()).unwrap_or(i32::MAX));
                out.put_i32(1);
                for at in range {
                    let start = out.len();
                    out.put_i32(-1);
                    if items.write(at, out) {
                        let length = i32::try_from(out.len() - start - 4).unwrap_or(i32::MAX);
                        if let Some(place) = out.get_mut(start..start + 4) {
                            place.copy_from_slice(&length.to_be_bytes());
                        }
                    }
                }
            }
        }
    }
}

/// The items of the list at `row`.
fn range(list: &ListArray, row: usize) -> std::ops::Range<usize> {
    let offset = |at: usize| list.value_offsets().get(at).and_then(|offset| usize::try_from(*offset).ok());
    offset(row).unwrap_or_default()..offset(row + 1).unwrap_or_default()
}

fn values(field: &FieldRef, kind: PgType, array: &ArrayRef, binary: bool) -> Result<Values, ArrowError> {
    let text = || Ok::<_, ArrowError>(cast(array, &DataType::Utf8)?.as_string::<i32>().clone());
    Ok(match kind.name {
        "bool" => Values::Bool(array.as_boolean().clone()),
        "int2" | "int4" | "int8" => {
            Values::Int(cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone(), kind.len)
        }
        "float4" => Values::Float32(cast(array, &DataType::Float32)?.as_primitive::<Float32Type>().clone()),
        "float8" => Values::Float64(array.as_primitive::<Float64Type>().clone()),
        "numeric" => Values::Numeric(text()?),
        "bytea" => Values::Bytes(cast(array, &DataType::Binary)?.as_binary::<i32>().clone()),
        "date" => Values::Date(cast(array, &DataType::Date32)?.as_primitive::<Date32Type>().clone()),
        "time" => {
            let times = cast(array, &DataType::Time64(TimeUnit::Microsecond))?;
            Values::Time(times.as_primitive::<Time64MicrosecondType>().clone())
        }
        "timestamp" | "timestamptz" => {
            let zone = match array.data_type() {
                DataType::Timestamp(_, zone) => zone.clone(),
                _ => None,
            };
            let zoned = zone.is_some();
            let times = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
            Values::Timestamp(times.as_primitive::<TimestampMicrosecondType>().clone(), zoned)
        }
        "json" if array.data_type().is_nested() => {
            Values::Text(json_text(field, array.as_ref())?.as_string::<i32>().clone())
        }
        _ if kind.element != 0 => {
            let item = match array.data_type() {
                DataType::List(item) | DataType::LargeList(item) => item.clone(),
                other => return Err(ArrowError::CastError(format!("{other} is not a list"))),
            };
            let list = cast(array, &DataType::List(item.clone()))?.as_list::<i32>().clone();
            let items = Column::new(&item, list.values(), binary)?;
            Values::List(list, kind.element, Box::new(items))
        }
        _ => Values::Text(text()?),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use arrow::array::{Decimal128Array, TimestampMillisecondArray};
    use arrow::datatypes::Field;
    use std::sync::Arc;

    fn shown(array: ArrayRef, binary: bool) -> Vec<Option<Vec<u8>>> {
        let field = Arc::new(Field::new("x", array.data_type().clone(), true));
        let column = Column::new(&field, &array, binary).unwrap();
        (0..array.len())
            .map(|row| {
                let mut out = BytesMut::new();
                column.write(row, &mut out).then(|| out.to_vec())
            })
            .collect()
    }

    fn texts(array: ArrayRef) -> Vec<Option<String>> {
        shown(array, false).into_iter().map(|value| value.map(|bytes| String::from_utf8(bytes).unwrap())).collect()
    }

    #[test]
    fn values_are_written_in_text() {
        let some = |texts: &[&str]| texts.iter().map(|text| Some((*text).to_owned())).collect::<Vec<_>>();
        assert_eq!(texts(Arc::new(BooleanArray::from(vec![true, false]))), some(&["t", "f"]));
        assert_eq!(texts(Arc::new(Int64Array::from(vec![Some(-7), None]))), [Some("-7".to_owned()), None]);
        assert_eq!(texts(Arc::new(Float64Array::from(vec![1.5, f64::NAN]))), some(&["1.5", "NaN"]));
        let decimal = Decimal128Array::from(vec![123_456]).with_precision_and_scale(10, 2).unwrap();
        assert_eq!(texts(Arc::new(decimal)), some(&["1234.56"]));
        let time = TimestampMillisecondArray::from(vec![1_500]).with_timezone("UTC");
        assert_eq!(texts(Arc::new(time)), some(&["1970-01-01 00:00:01.5+00"]));
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1), None]), None]);
        assert_eq!(texts(Arc::new(list)), [Some("{1,NULL}".to_owned()), None]);
        let object = arrow::array::StructArray::from(vec![(
            Arc::new(Field::new("a", DataType::Int64, true)),
            Arc::new(Int64Array::from(vec![1])) as ArrayRef,
        )]);
        assert_eq!(texts(Arc::new(object)), some(&["{\"a\":1}"]));
        assert_eq!(texts(Arc::new(arrow::array::NullArray::new(1))), [None]);
    }

    #[test]
    fn values_are_written_in_binary() {
        assert_eq!(shown(Arc::new(Int64Array::from(vec![1])), true), [Some(vec![0, 0, 0, 0, 0, 0, 0, 1])]);
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1)])]);
        let expected =
            [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(shown(Arc::new(list), true), [Some(expected.to_vec())]);
    }
}
