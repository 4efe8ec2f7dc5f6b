//! Parameters of a query: JSON values for `$1`, `$2`, … (an array) or `$name` and `:name` (an object). They are values, never
//! text that is parsed.

use bigpeer_chassis::{ApiError, ErrorCode};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::logical_expr::LogicalPlan;
use serde_json::Value;

use crate::error::{api_error, statement};

/// The parameters that `params` holds.
///
/// # Errors
/// `bad_request`: neither array nor object, or a value that SQL has no type for.
pub(crate) fn parse(params: Value) -> Result<ParamValues, ApiError> {
    match params {
        Value::Null => Ok(ParamValues::List(Vec::new())),
        Value::Array(values) => {
            let values = values.into_iter().enumerate().map(|(index, value)| scalar(&format!("${}", index + 1), value));
            Ok(values.collect::<Result<Vec<_>, _>>()?.into())
        }
        Value::Object(values) => {
            let values = values.into_iter().map(|(name, value)| scalar(&name, value).map(|value| (name, value)));
            Ok(values.collect::<Result<Vec<_>, _>>()?.into())
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let message = "'params' must be an array for $1, $2, … or an object for :name";
            Err(ApiError::new(ErrorCode::BadRequest, message))
        }
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
/// `invalid_statement`, naming the first placeholder without a value.
pub(crate) fn replace(plan: LogicalPlan, params: &ParamValues) -> Result<LogicalPlan, ApiError> {
    let names = plan.get_parameter_names().map_err(|error| api_error(&error))?;
    if names.is_empty() {
        return Ok(plan);
    }
    let mut names: Vec<_> = names.into_iter().collect();
    names.sort();
    if let Some(missing) = names.iter().find(|name| params.get_placeholders_with_values(name).is_err()) {
        return Err(statement(&format!("there is no value for the parameter {missing}; pass it in 'params'")));
    }
    plan.replace_params_with_values(params).map_err(|error| api_error(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_values_become_sql_values() {
        let values = parse(json!([1, 18_446_744_073_709_551_615_u64, 1.5, "x", true, null, [1, null]])).unwrap();
        let get = |index: usize| values.get_placeholders_with_values(&format!("${index}")).unwrap().value;
        assert_eq!(get(1), ScalarValue::Int64(Some(1)));
        assert_eq!(get(2), ScalarValue::UInt64(Some(u64::MAX)));
        assert_eq!(get(3), ScalarValue::Float64(Some(1.5)));
        assert_eq!(get(4), ScalarValue::from("x"));
        assert_eq!(get(5), ScalarValue::Boolean(Some(true)));
        assert_eq!(get(6), ScalarValue::Null);
        assert_eq!(get(7).to_string(), "[1, ]");
        let named = parse(json!({"carrier": "UA"})).unwrap();
        assert_eq!(named.get_placeholders_with_values(":carrier").unwrap().value, ScalarValue::from("UA"));
    }

    #[test]
    fn what_sql_has_no_type_for_is_refused_by_name() {
        for (params, name) in [(json!([1, {"a": 1}]), "$2"), (json!({"x": [1, "a"]}), "x"), (json!(3), "params")] {
            let error = parse(params).unwrap_err();
            assert_eq!(error.code, ErrorCode::BadRequest);
            assert!(error.message.contains(name), "{}", error.message);
        }
    }
}
