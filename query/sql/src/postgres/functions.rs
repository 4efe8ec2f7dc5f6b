//! Functions of PostgreSQL that clients ask with: what each is in an app, as SQL that the planner knows. Nearly all are
//! constants: there is one schema to search, everything in it is visible, and nothing has a definition.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};

use super::catalog::{OWNER, oid_of};
use super::types::ALL;

/// What the server says it is. Clients take it apart.
pub(crate) const VERSION: &str = concat!("PostgreSQL 16.0 (bigpeer ", env!("CARGO_PKG_VERSION"), ")");

/// Parameters of the server that can be asked for.
pub(super) const SETTINGS: [(&str, &str); 12] = [
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("default_transaction_isolation", "repeatable read"),
    ("default_transaction_read_only", "on"),
    ("integer_datetimes", "on"),
    ("IntervalStyle", "postgres"),
    ("max_identifier_length", "63"),
    ("search_path", "public"),
    ("server_encoding", "UTF8"),
    ("server_version", "16.0"),
    ("server_version_num", "160000"),
    ("standard_conforming_strings", "on"),
];

/// `text` as a literal of SQL.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Whether `word`, reserved in PostgreSQL, is a function without parentheses that the parser takes for a column.
pub(super) fn is_bare(word: &str) -> bool {
    ["current_schema", "current_role"].iter().any(|bare| word.eq_ignore_ascii_case(bare))
}

/// What the function `name`, in lower case and without its schema, is for the arguments, each as SQL; none for functions
/// that the planner knows, or nobody.
pub(super) fn sql(app: &str, name: &str, arguments: &[String]) -> Option<String> {
    let first = arguments.first().map(String::as_str);
    let yes = || "TRUE".to_owned();
    Some(match name {
        "version" => quoted(VERSION),
        "current_database" | "current_catalog" => quoted(app),
        "current_schema" => quoted("public"),
        "current_schemas" => {
            if first.is_some_and(|all| all.eq_ignore_ascii_case("true")) {
                "['pg_catalog', 'public']".to_owned()
            } else {
                "['public']".to_owned()
            }
        }
        "current_user" | "session_user" | "user" | "current_role" | "pg_get_userbyid" => quoted(OWNER),
        "pg_backend_pid" | "pg_my_temp_schema" | "txid_current" => "CAST(0 AS BIGINT)".to_owned(),
        "pg_is_in_recovery" | "pg_is_other_temp_schema" => "FALSE".to_owned(),
        "pg_table_is_visible" | "pg_type_is_visible" | "pg_function_is_visible" | "pg_opclass_is_visible" => yes(),
        "has_table_privilege" | "has_any_column_privilege" | "has_column_privilege" => privilege(arguments),
        "has_schema_privilege" | "has_database_privilege" => privilege(arguments),
        "has_function_privilege" | "has_sequence_privilege" => "FALSE".to_owned(),
        "pg_encoding_to_char" => quoted("UTF8"),
        // Access lists are null, and no arrays.
        "array_to_string" if first?.ends_with("acl") => "CAST(NULL AS VARCHAR)".to_owned(),
        "quote_ident" => first?.to_owned(),
        "set_config" => arguments.get(1)?.clone(),
        "current_setting" => setting(first?),
        "to_regclass" => regclass(first?),
        "to_regtype" => regtype(first?),
        "format_type" => format_type(first?),
        "obj_description"
        | "col_description"
        | "shobj_description"
        | "pg_get_expr"
        | "pg_get_constraintdef"
        | "pg_get_indexdef"
        | "pg_get_viewdef"
        | "pg_get_partkeydef"
        | "pg_get_serial_sequence"
        | "pg_get_triggerdef"
        | "pg_get_ruledef"
        | "pg_get_functiondef"
        | "pg_get_function_arguments"
        | "pg_get_function_result"
        | "pg_get_function_identity_arguments"
        | "pg_tablespace_location"
        | "pg_size_pretty"
        | "inet_server_addr"
        | "pg_get_statisticsobjdef_columns" => "CAST(NULL AS VARCHAR)".to_owned(),
        "pg_relation_size"
        | "pg_table_size"
        | "pg_total_relation_size"
        | "pg_indexes_size"
        | "pg_database_size"
        | "pg_relation_filenode"
        | "inet_server_port" => "CAST(NULL AS BIGINT)".to_owned(),
        _ => return None,
    })
}

/// Everything may be read, and nothing else done.
fn privilege(arguments: &[String]) -> String {
    let asked = arguments.last().map(|asked| asked.to_ascii_uppercase()).unwrap_or_default();
    let reads = ["SELECT", "USAGE", "CONNECT"].iter().any(|reads| asked.contains(reads));
    if reads { "TRUE".to_owned() } else { "FALSE".to_owned() }
}

fn setting(name: &str) -> String {
    let name = name.trim_matches('\'');
    let known = SETTINGS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    known.map_or_else(|| "CAST(NULL AS VARCHAR)".to_owned(), |(_, value)| quoted(value))
}

/// The number of the table that a text names: as it is, qualified, or quoted. Numbers and other expressions stay.
pub(super) fn regclass(argument: &str) -> String {
    if argument.starts_with('$') {
        return format!("{NUMBER_OF}(CAST({argument} AS VARCHAR))");
    }
    let Some(text) = argument.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')) else {
        return format!("CAST({argument} AS BIGINT)");
    };
    format!("CAST({} AS BIGINT)", number_of(&text.replace("''", "'")))
}

/// The function that is what [`regclass`] is, for a value that is not known yet.
const NUMBER_OF: &str = "bigpeer_regclass";

/// Functions that the planner has for clients of PostgreSQL only.
pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    let number = |args: &[ColumnarValue]| {
        let columns = ColumnarValue::values_to_arrays(args)?;
        let names = columns.iter().filter_map(|column| column.as_string_opt::<i32>()).flatten();
        let numbers: ArrayRef = Arc::new(names.map(|name| name.map(number_of)).collect::<Int64Array>());
        match args {
            [ColumnarValue::Scalar(_)] => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&numbers, 0)?)),
            _ => Ok(ColumnarValue::Array(numbers)),
        }
    };
    let number = create_udf(NUMBER_OF, vec![DataType::Utf8], DataType::Int64, Volatility::Immutable, Arc::new(number));
    vec![Arc::new(number)]
}

/// The number of the table of this name; of a number itself.
fn number_of(name: &str) -> i64 {
    if let Ok(number) = name.parse() {
        return number;
    }
    let name = name.strip_prefix("public.").or_else(|| name.strip_prefix("\"public\".")).unwrap_or(name);
    let name = name.strip_prefix("pg_catalog.").unwrap_or(name);
    let name = match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(name) => name.replace("\"\"", "\""),
        None => name.to_owned(),
    };
    oid_of(&name)
}

/// The number of the type that an expression names; none when there is no such type.
fn regtype(name: &str) -> String {
    let cases: String = ALL.iter().map(|known| format!(" WHEN {} THEN {}", quoted(known.name), known.oid)).collect();
    format!("CAST(CASE CAST({name} AS VARCHAR){cases} END AS BIGINT)")
}

fn format_type(oid: &str) -> String {
    let cases: String = ALL.iter().map(|known| format!(" WHEN {} THEN {}", known.oid, quoted(known.sql))).collect();
    format!("CASE CAST({oid} AS BIGINT){cases} ELSE '???' END")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_texts_become_numbers_whatever_their_form() {
        let number = format!("CAST({} AS BIGINT)", oid_of("flights"));
        for form in ["'flights'", "'public.flights'", "'\"flights\"'", "'public.\"flights\"'"] {
            assert_eq!(regclass(form), number, "{form}");
        }
        assert_eq!(regclass("'17'"), "CAST(17 AS BIGINT)");
        assert_eq!(regclass("c.oid"), "CAST(c.oid AS BIGINT)");
        assert_eq!(regclass("$1"), "bigpeer_regclass(CAST($1 AS VARCHAR))");
        assert_eq!(number_of("public.\"flights\""), number_of("flights"));
    }

    #[test]
    fn values_are_quoted() {
        assert_eq!(sql("o'app", "current_database", &[]).unwrap(), "'o''app'");
        assert_eq!(sql("a", "current_setting", &["'Server_Version'".to_owned()]).unwrap(), "'16.0'");
        assert_eq!(sql("a", "lower", &["x".to_owned()]), None);
        assert_eq!(sql("a", "has_table_privilege", &["'t'".to_owned(), "'INSERT'".to_owned()]).unwrap(), "FALSE");
    }
}
