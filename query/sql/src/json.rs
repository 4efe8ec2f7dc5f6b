//! JSON text in SQL: `json -> path` and `json ->> path` as in PostgreSQL, and functions that look into it. For columns whose
//! values are of different kinds, and for `_rest`.
//!
//! What is not there, not JSON, or of another kind than asked for is null.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanBuilder, Float64Builder, Int64Builder, ListBuilder, StringBuilder, StringViewArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use bigpeer_tables::columns::JSON_MARK;
use datafusion::common::DFSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use serde_json::Value;

/// The functions.
pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    What::ALL.into_iter().map(function).collect()
}

/// What makes `->` and `->>` functions.
pub(crate) fn planner() -> Arc<dyn ExprPlanner> {
    Arc::new(Arrows { get: function(What::Get), text: function(What::Text) })
}

fn function(what: What) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(JsonFunction { what, signature: Signature::variadic_any(Volatility::Immutable) }))
}

#[derive(Debug)]
struct Arrows {
    get: Arc<ScalarUDF>,
    text: Arc<ScalarUDF>,
}

impl ExprPlanner for Arrows {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let function = match expr.op {
            BinaryOperator::Arrow => &self.get,
            BinaryOperator::LongArrow => &self.text,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let call = ScalarFunction::new_udf(Arc::clone(function), vec![expr.left, expr.right]);
        Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
    }
}

/// What is asked of a part of a JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum What {
    Get,
    Text,
    Int,
    Float,
    Bool,
    Type,
    Length,
    Keys,
    List,
    Exists,
}

impl What {
    const ALL: [Self; 10] = [
        Self::Get,
        Self::Text,
        Self::Int,
        Self::Float,
        Self::Bool,
        Self::Type,
        Self::Length,
        Self::Keys,
        Self::List,
        Self::Exists,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Get => "json_get",
            Self::Text => "json_get_str",
            Self::Int => "json_get_int",
            Self::Float => "json_get_float",
            Self::Bool => "json_get_bool",
            Self::Type => "json_type",
            Self::Length => "json_length",
            Self::Keys => "json_keys",
            Self::List => "json_list",
            Self::Exists => "json_exists",
        }
    }

    fn data_type(self) -> DataType {
        match self {
            Self::Get | Self::Text | Self::Type => DataType::Utf8,
            Self::Int | Self::Length => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Bool | Self::Exists => DataType::Boolean,
            Self::Keys | Self::List => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
        }
    }

    /// The column of what is asked of each of `parts`; a part that is not there is none.
    fn column(self, parts: impl Iterator<Item = Option<Value>>) -> ArrayRef {
        match self {
            Self::Get => strings(parts.map(|part| part.map(|part| part.to_string()))),
            Self::Text => strings(parts.map(|part| match part? {
                Value::Null => None,
                Value::String(text) => Some(text),
                other => Some(other.to_string()),
            })),
            Self::Type => strings(parts.map(|part| part.map(|part| kind(&part).to_owned()))),
            Self::Int => {
                let mut out = Int64Builder::new();
                parts.for_each(|part| out.append_option(part.and_then(|part| part.as_i64())));
                Arc::new(out.finish())
            }
            Self::Length => {
                let mut out = Int64Builder::new();
                parts.for_each(|part| out.append_option(part.and_then(|part| length(&part))));
                Arc::new(out.finish())
            }
            Self::Float => {
                let mut out = Float64Builder::new();
                parts.for_each(|part| out.append_option(part.and_then(|part| part.as_f64())));
                Arc::new(out.finish())
            }
            Self::Bool => {
                let mut out = BooleanBuilder::new();
                parts.for_each(|part| out.append_option(part.and_then(|part| part.as_bool())));
                Arc::new(out.finish())
            }
            Self::Exists => {
                let mut out = BooleanBuilder::new();
                parts.for_each(|part| out.append_value(part.is_some()));
                Arc::new(out.finish())
            }
            Self::Keys => lists(parts.map(|part| match part? {
                Value::Object(fields) => Some(fields.into_iter().map(|(name, _)| name).collect()),
                _ => None,
            })),
            Self::List => lists(parts.map(|part| match part? {
                Value::Array(items) => Some(items.into_iter().map(|item| item.to_string()).collect()),
                _ => None,
            })),
        }
    }
}

fn strings(values: impl Iterator<Item = Option<String>>) -> ArrayRef {
    let mut out = StringBuilder::new();
    values.for_each(|value| out.append_option(value));
    Arc::new(out.finish())
}

fn lists(values: impl Iterator<Item = Option<Vec<String>>>) -> ArrayRef {
    let mut out = ListBuilder::new(StringBuilder::new());
    for value in values {
        let there = value.is_some();
        value.into_iter().flatten().for_each(|item| out.values().append_value(item));
        out.append(there);
    }
    Arc::new(out.finish())
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn length(value: &Value) -> Option<i64> {
    let length = match value {
        Value::Array(items) => items.len(),
        Value::Object(fields) => fields.len(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
    };
    i64::try_from(length).ok()
}

/// One step of a path, for each row.
enum Step {
    Name(StringViewArray),
    Index(arrow::array::Int64Array),
}

impl Step {
    fn new(column: &ArrayRef) -> Result<Self> {
        match column.data_type() {
            DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => {
                Ok(Self::Name(cast(column, &DataType::Utf8View)?.as_string_view().clone()))
            }
            kind if kind.is_integer() => {
                Ok(Self::Index(cast(column, &DataType::Int64)?.as_primitive::<Int64Type>().clone()))
            }
            kind => Err(DataFusionError::Execution(format!(
                "a path into JSON consists of names and numbers from 0, and not of {kind}"
            ))),
        }
    }

    fn take(&self, row: usize, value: Value) -> Option<Value> {
        match (self, value) {
            (Self::Name(names), Value::Object(mut fields)) if names.is_valid(row) => fields.remove(names.value(row)),
            (Self::Index(numbers), Value::Array(mut items)) if numbers.is_valid(row) => {
                let number = numbers.value(row);
                let length = i64::try_from(items.len()).ok()?;
                // From the end, as in PostgreSQL.
                let number = if number < 0 { number.checked_add(length)? } else { number };
                let number = usize::try_from(number).ok().filter(|number| *number < items.len())?;
                Some(items.swap_remove(number))
            }
            (Self::Name(_) | Self::Index(_), _) => None,
        }
    }
}

/// One of the functions: `name(json, step, …)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonFunction {
    what: What,
    signature: Signature,
}

impl ScalarUDFImpl for JsonFunction {
    fn name(&self) -> &str {
        self.what.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types.first() {
            Some(DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Null) => {
                Ok(self.what.data_type())
            }
            other => {
                let other = other.map_or_else(|| "nothing".to_owned(), ToString::to_string);
                let name = self.name();
                Err(DataFusionError::Plan(format!(
                    "{name} looks into JSON text, and not into {other}; parts of structs and lists are reached with \
                     brackets, as in crew['pilot']"
                )))
            }
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let field = Field::new(self.name(), self.return_type(&types)?, true);
        if self.what == What::Get {
            return Ok(Arc::new(field.with_metadata([(JSON_MARK.0.to_owned(), JSON_MARK.1.to_owned())].into())));
        }
        Ok(Arc::new(field))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let Some((json, path)) = columns.split_first() else {
            return Err(DataFusionError::Execution(format!("{} takes a JSON text", self.name())));
        };
        let json = cast(json, &DataType::Utf8View)?;
        let path = path.iter().map(Step::new).collect::<Result<Vec<_>>>()?;
        let texts = json.as_string_view();
        let parts = texts.iter().enumerate().map(|(row, text)| {
            let whole = serde_json::from_str(text?).ok()?;
            path.iter().try_fold(whole, |value, step| step.take(row, value))
        });
        let column = self.what.column(parts);
        if args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_))) {
            return Ok(ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&column, 0)?));
        }
        Ok(ColumnarValue::Array(column))
    }
}
