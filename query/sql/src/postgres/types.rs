//! The types that PostgreSQL's clients know, for columns of answers and of tables.

use arrow::datatypes::{DataType, Field};
use bigpeer_tables::columns::JSON_MARK;

/// A type of PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PgType {
    /// Its number.
    pub oid: u32,
    /// Its name in `pg_type`.
    pub name: &'static str,
    /// Its name in SQL.
    pub sql: &'static str,
    /// Bytes of a value; -1 when that varies.
    pub len: i16,
    /// Of an array the number of its elements' type, otherwise 0.
    pub element: u32,
    /// What kind of type it is to PostgreSQL, a letter.
    pub category: char,
}

const fn scalar(oid: u32, name: &'static str, sql: &'static str, len: i16, category: char) -> PgType {
    PgType { oid, name, sql, len, element: 0, category }
}

const fn array(oid: u32, name: &'static str, sql: &'static str, element: u32) -> PgType {
    PgType { oid, name, sql, len: -1, element, category: 'A' }
}

/// Text, and whatever has no type of its own.
pub(super) const TEXT: PgType = scalar(25, "text", "text", -1, 'S');
const JSON: PgType = scalar(114, "json", "json", -1, 'U');

/// Every type that a column may have, and those that clients ask about by name.
pub(super) const ALL: [PgType; 32] = [
    scalar(16, "bool", "boolean", 1, 'B'),
    scalar(17, "bytea", "bytea", -1, 'U'),
    scalar(18, "char", "\"char\"", 1, 'Z'),
    scalar(19, "name", "name", 64, 'S'),
    scalar(20, "int8", "bigint", 8, 'N'),
    scalar(21, "int2", "smallint", 2, 'N'),
    scalar(23, "int4", "integer", 4, 'N'),
    TEXT,
    scalar(26, "oid", "oid", 4, 'N'),
    JSON,
    scalar(700, "float4", "real", 4, 'N'),
    scalar(701, "float8", "double precision", 8, 'N'),
    scalar(1042, "bpchar", "character", -1, 'S'),
    scalar(1043, "varchar", "character varying", -1, 'S'),
    scalar(1082, "date", "date", 4, 'D'),
    scalar(1083, "time", "time without time zone", 8, 'D'),
    scalar(1114, "timestamp", "timestamp without time zone", 8, 'D'),
    scalar(1184, "timestamptz", "timestamp with time zone", 8, 'D'),
    scalar(1186, "interval", "interval", 16, 'T'),
    scalar(1700, "numeric", "numeric", -1, 'N'),
    scalar(2950, "uuid", "uuid", 16, 'U'),
    scalar(3802, "jsonb", "jsonb", -1, 'U'),
    array(1000, "_bool", "boolean[]", 16),
    array(1001, "_bytea", "bytea[]", 17),
    array(1005, "_int2", "smallint[]", 21),
    array(1007, "_int4", "integer[]", 23),
    array(1009, "_text", "text[]", 25),
    array(1016, "_int8", "bigint[]", 20),
    array(1021, "_float4", "real[]", 700),
    array(1022, "_float8", "double precision[]", 701),
    array(1231, "_numeric", "numeric[]", 1700),
    array(199, "_json", "json[]", 114),
];

/// The type of this number.
pub(super) fn of(oid: u32) -> PgType {
    ALL.into_iter().find(|known| known.oid == oid).unwrap_or(TEXT)
}

/// The type of this name, in `pg_type` or in SQL.
pub(super) fn named(name: &str) -> Option<PgType> {
    ALL.into_iter().find(|known| known.name.eq_ignore_ascii_case(name) || known.sql.eq_ignore_ascii_case(name))
}

/// The type as which a column goes to a client of PostgreSQL: numbers, times and text as they are, lists of them as arrays,
/// what is nested or mixed as JSON.
#[must_use]
pub fn pg_type(field: &Field) -> PgType {
    if field.metadata().get(JSON_MARK.0).is_some_and(|mark| mark == JSON_MARK.1) {
        return JSON;
    }
    match field.data_type() {
        DataType::Boolean => of(16),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => of(21),
        DataType::Int32 | DataType::UInt16 => of(23),
        DataType::Int64 | DataType::UInt32 => of(20),
        DataType::UInt64
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => of(1700),
        DataType::Float16 | DataType::Float32 => of(700),
        DataType::Float64 => of(701),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => of(17),
        DataType::Date32 | DataType::Date64 => of(1082),
        DataType::Timestamp(_, None) => of(1114),
        DataType::Timestamp(_, Some(_)) => of(1184),
        DataType::Time32(_) | DataType::Time64(_) => of(1083),
        DataType::List(item) | DataType::LargeList(item) => {
            let element = pg_type(item).oid;
            ALL.into_iter().find(|known| known.element == element).unwrap_or(JSON)
        }
        DataType::Struct(_) | DataType::Map(..) | DataType::FixedSizeList(..) | DataType::Union(..) => JSON,
        _ => TEXT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn columns_have_types_that_clients_know() {
        let list = |item| DataType::List(Arc::new(Field::new("item", item, true)));
        for (kind, name) in [
            (DataType::Int64, "int8"),
            (DataType::Utf8View, "text"),
            (DataType::Float64, "float8"),
            (DataType::Decimal128(20, 0), "numeric"),
            (DataType::Null, "text"),
            (list(DataType::Int64), "_int8"),
            (list(DataType::Utf8), "_text"),
            (list(list(DataType::Utf8)), "json"),
            (DataType::Struct(arrow::datatypes::Fields::empty()), "json"),
        ] {
            assert_eq!(pg_type(&Field::new("x", kind.clone(), true)).name, name, "{kind}");
        }
        let json = Field::new("x", DataType::Utf8View, true);
        let json = json.with_metadata([(JSON_MARK.0.to_owned(), JSON_MARK.1.to_owned())].into());
        assert_eq!(pg_type(&json).name, "json");
    }

    #[test]
    fn numbers_are_distinct() {
        let mut oids: Vec<u32> = ALL.iter().map(|known| known.oid).collect();
        oids.sort_unstable();
        oids.dedup();
        assert_eq!(oids.len(), ALL.len());
    }
}
