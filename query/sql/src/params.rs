//! Parameters of a query: JSON values for `$1`, `$2`, … (an array) or `$name` and `:name` (an object). They are values, never
//! text that is parsed.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bigpeer_chassis::{ApiError, ErrorCode};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::metadata::ScalarAndMetadata;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::logical_expr::LogicalPlan;
use serde_json::Value;

use crate::engine::Described;
use crate::error::{api_error, statement};

/// The values of a query's parameters.
#[derive(Clone, Debug)]
pub struct Params(ParamValues);

/// One value, as doors other than HTTP have it.
#[derive(Clone, Debug, PartialEq)]
pub enum Param {
    /// NULL.
    Null,
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Text.
    Text(String),
    /// Text that is to be read as whatever type the query compares it with.
    Untyped(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// Metadata of a value that is to be read as the type that the query wants.
const UNTYPED: &str = "bigpeer.untyped";

impl Default for Params {
    fn default() -> Self {
        Self(ParamValues::List(Vec::new()))
    }
}

impl Params {
    /// From JSON: an array for `$1`, `$2`, …, an object for `$name` and `:name`, or null.
    ///
    /// # Errors
    /// `bad_request`: neither of them, or a value that SQL has no type for.
    pub fn from_json(params: Value) -> Result<Self, ApiError> {
        Ok(Self(match params {
            Value::Null => ParamValues::List(Vec::new()),
            Value::Array(values) => {
                let values =
                    values.into_iter().enumerate().map(|(index, value)| scalar(&format!("${}", index + 1), value));
                values.collect::<Result<Vec<_>, _>>()?.into()
            }
            Value::Object(values) => {
                let values = values.into_iter().map(|(name, value)| scalar(&name, value).map(|value| (name, value)));
                values.collect::<Result<Vec<_>, _>>()?.into()
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                let message = "'params' must be an array for $1, $2, … or an object for :name";
                return Err(ApiError::new(ErrorCode::BadRequest, message));
            }
        }))
    }

    /// For `$1`, `$2`, ….
    #[must_use]
    pub fn positional(values: impl IntoIterator<Item = Param>) -> Self {
        let values = values.into_iter().map(|value| match value {
            Param::Null => ScalarValue::Null.into(),
            Param::Bool(value) => ScalarValue::Boolean(Some(value)).into(),
            Param::Int(value) => ScalarValue::Int64(Some(value)).into(),
            Param::Float(value) => ScalarValue::Float64(Some(value)).into(),
            Param::Text(value) => ScalarValue::Utf8(Some(value)).into(),
            Param::Bytes(value) => ScalarValue::Binary(Some(value)).into(),
            Param::Untyped(value) => {
                let mark = std::collections::HashMap::from([(UNTYPED.to_owned(), String::new())]);
                ScalarAndMetadata::new(ScalarValue::Utf8(Some(value)), Some(mark.into()))
            }
        });
        Self(ParamValues::List(values.collect()))
    }

    /// The only row of `batch`, a column for each of `$1`, `$2`, ….
    ///
    /// # Errors
    /// `bad_request` when there is not one row, or a column is of a type without values.
    pub fn from_batch(batch: &RecordBatch) -> Result<Self, ApiError> {
        let bad = |message: String| ApiError::new(ErrorCode::BadRequest, message);
        if batch.num_rows() != 1 {
            return Err(bad(format!("a query takes one row of parameters, and here are {}", batch.num_rows())));
        }
        let values = batch.columns().iter().enumerate().map(|(index, column)| {
            let value = ScalarValue::try_from_array(column.as_ref(), 0);
            value.map(Into::into).map_err(|_| bad(format!("parameter ${}: there are no such values", index + 1)))
        });
        Ok(Self(ParamValues::List(values.collect::<Result<_, _>>()?)))
    }
}

fn scalar(name: &str, value: Value) -> Result<ScalarValue, ApiError> {
    let refuse = |what: &str| Err(ApiError::new(ErrorCode::BadRequest, format!("parameter {name}: {what}")));
    Ok(match value {
        Value::Null => ScalarValue::Null,
        Value::Bool(value) => ScalarValue::Boolean(Some(value)),
        Value::String(value) => ScalarValue::Utf8(Some(value)),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), _, _) => ScalarValue::Int64(Some(value)),
            (None, Some(value), _) => ScalarValue::UInt64(Some(value)),
            (None, None, Some(value)) => ScalarValue::Float64(Some(value)),
            (None, None, None) => return refuse("the number is out of range"),
        },
        Value::Array(values) => {
            let values = values.into_iter().map(|value| scalar(name, value)).collect::<Result<Vec<_>, _>>()?;
            let item = values.iter().map(ScalarValue::data_type).find(|item| *item != DataType::Null);
            let item = item.unwrap_or(DataType::Null);
            let same = values.into_iter().map(|value| match value {
                ScalarValue::Null => ScalarValue::try_from(&item).ok(),
                value => (value.data_type() == item).then_some(value),
            });
            let Some(values) = same.collect::<Option<Vec<_>>>() else {
                return refuse("the values of an array must be of one type");
            };
            ScalarValue::List(ScalarValue::new_list_nullable(&values, &item))
        }
        Value::Object(_) => return refuse("objects cannot be compared in SQL; pass their fields one by one"),
    })
}

/// `plan` with its placeholders replaced by `params`.
///
/// # Errors
/// `invalid_statement`, naming the first placeholder without a value, or with one that cannot be read as its type.
pub(crate) fn replace(plan: LogicalPlan, Params(params): &Params) -> Result<LogicalPlan, ApiError> {
    let mut types: Vec<_> = plan.get_parameter_types().map_err(|error| api_error(&error))?.into_iter().collect();
    if types.is_empty() {
        return Ok(plan);
    }
    types.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut values = Vec::with_capacity(types.len());
    for (name, kind) in types {
        let Ok(value) = params.get_placeholders_with_values(&name) else {
            return Err(statement(&format!("there is no value for the parameter {name}; pass it in 'params'")));
        };
        let untyped = value.metadata().is_some_and(|metadata| metadata.inner().contains_key(UNTYPED));
        let value = match kind.filter(|_| untyped) {
            None => value.value,
            Some(kind) => value
                .value
                .cast_to(&kind)
                .map_err(|_| statement(&format!("parameter {name}: {} cannot be read as {kind}", value.value)))?,
        };
        // Replacing looks names up without their first character.
        values.push((name.chars().skip(1).collect::<String>(), value));
    }
    plan.replace_params_with_values(&values.into()).map_err(|error| api_error(&error))
}

/// What `plan` answers and needs.
pub(crate) fn describe(plan: &LogicalPlan) -> Result<Described, ApiError> {
    let types = plan.get_parameter_types().map_err(|error| api_error(&error))?;
    let mut parameters: Vec<_> = types.into_iter().collect();
    // $2 before $10.
    parameters.sort_by_key(|(name, _)| (name.len(), name.clone()));
    Ok(Described { schema: Arc::clone(plan.schema().inner()), parameters })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_values_become_sql_values() {
        let Params(values) =
            Params::from_json(json!([1, 18_446_744_073_709_551_615_u64, 1.5, "x", true, null, [1, null]])).unwrap();
        let get = |index: usize| values.get_placeholders_with_values(&format!("${index}")).unwrap().value;
        assert_eq!(get(1), ScalarValue::Int64(Some(1)));
        assert_eq!(get(2), ScalarValue::UInt64(Some(u64::MAX)));
        assert_eq!(get(3), ScalarValue::Float64(Some(1.5)));
        assert_eq!(get(4), ScalarValue::from("x"));
        assert_eq!(get(5), ScalarValue::Boolean(Some(true)));
        assert_eq!(get(6), ScalarValue::Null);
        assert_eq!(get(7).to_string(), "[1, ]");
        let Params(named) = Params::from_json(json!({"carrier": "UA"})).unwrap();
        assert_eq!(named.get_placeholders_with_values(":carrier").unwrap().value, ScalarValue::from("UA"));
    }

    #[test]
    fn what_sql_has_no_type_for_is_refused_by_name() {
        for (params, name) in [(json!([1, {"a": 1}]), "$2"), (json!({"x": [1, "a"]}), "x"), (json!(3), "params")] {
            let error = Params::from_json(params).unwrap_err();
            assert_eq!(error.code, ErrorCode::BadRequest);
            assert!(error.message.contains(name), "{}", error.message);
        }
    }
}
