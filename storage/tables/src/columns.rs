//! Typed columns: which columns a collection has, and how each is stored.
//!
//! Types are inferred from documents and only ever widen: `Null` < everything < `Json`, `Int` < `Decimal` < `Float`,
//! lists and structs by their parts. What has no common type but `Json` is stored as JSON text. A column's type in a
//! table is the widest of its segments'; [`widen`] turns what a segment holds into that.
//!
//! Typed columns are for SQL and pruning. They may lose what JSON and Parquet cannot say (an integer beyond 2^53 in a
//! `Float` column, `null` against a missing field); [`Facts`] says of which columns that may be so, and the document itself
//! is always exact in `_crdt`.

mod batch;
mod build;
mod facts;
mod infer;
mod json;
mod widen;

pub(crate) use batch::TypedBatch;
use build::{build_column, transpose};
pub use facts::{FACTS_KEY, Facts, Traits};
use infer::Inference;
pub use widen::widen;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use serde::{Deserialize, Serialize};

/// Most columns for top-level fields. Fields beyond it are kept, as JSON, in the column [`REST`].
pub const MAX_COLUMNS: usize = 512;

/// Most fields of a struct column, at each level. A map with more distinct keys is stored as JSON text.
pub const MAX_STRUCT_FIELDS: usize = 64;

/// Deepest nesting of struct columns. What is deeper is stored as JSON text.
pub const MAX_STRUCT_DEPTH: usize = 6;

/// Most leaf columns of a collection, counting through structs. Above it the largest structs become JSON text.
pub const MAX_LEAVES: usize = 2048;

/// Columns of a segment that are not fields: the order-preserving key of the `_id`.
pub const KEY: &str = "_key";
/// Version of the LSN of the last change.
pub const VERSION: &str = "_version";
/// Order of the LSN of the last change.
pub const ORDER: &str = "_order";
/// Whether readers do not see the document.
pub const DELETED: &str = "_deleted";
/// The full CRDT state.
pub const CRDT: &str = "_crdt";
/// The document's `_id`, typed.
pub const ID: &str = "_id";
/// Fields without a column of their own, as one JSON object.
pub const REST: &str = "_rest";
/// In a table's schema, the transaction id of the last change: [`VERSION`] of the segments.
pub const TRANSACTION: &str = "_transaction";

/// Field metadata that marks a column of JSON text.
pub const JSON_MARK: (&str, &str) = ("bigpeer.type", "json");

/// Names that a field of a document cannot take as a column. Compared without case, because many readers do.
const RESERVED: [&str; 8] = [KEY, VERSION, ORDER, DELETED, CRDT, ID, REST, TRANSACTION];

/// How values of one field are stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// Only ever null. Stored as an empty text column.
    Null,
    /// Booleans.
    Bool,
    /// 64-bit signed integers.
    Int,
    /// Integers of which some are above `i64::MAX`: decimals of 20 digits.
    Decimal,
    /// 64-bit floats.
    Float,
    /// Text.
    Text,
    /// Bytes.
    Bytes,
    /// Arrays whose elements have one scalar type.
    List(Box<ColumnType>),
    /// Maps; fields sorted by name. Without fields it is stored as text.
    Struct(Vec<(Box<str>, ColumnType)>),
    /// JSON text.
    Json,
}

impl ColumnType {
    /// The type in Arrow, as Parquet gives it back without an embedded Arrow schema.
    #[must_use]
    pub fn data_type(&self) -> DataType {
        match self {
            Self::Null | Self::Text | Self::Json => DataType::Utf8,
            Self::Bool => DataType::Boolean,
            Self::Int => DataType::Int64,
            Self::Decimal => DataType::Decimal128(20, 0),
            Self::Float => DataType::Float64,
            Self::Bytes => DataType::Binary,
            Self::List(element) => DataType::List(list_field(element)),
            Self::Struct(fields) if fields.is_empty() => DataType::Utf8,
            Self::Struct(fields) => DataType::Struct(struct_fields(fields)),
        }
    }

    /// The Arrow field of a column of this type; JSON text is marked by metadata. Fields within it are not marked: what
    /// is read from a file has no marks either, and must be of the same type.
    #[must_use]
    pub fn field(&self, name: &str) -> Field {
        let field = Field::new(name, self.data_type(), true);
        if *self == Self::Json {
            return field.with_metadata([(JSON_MARK.0.to_owned(), JSON_MARK.1.to_owned())].into());
        }
        field
    }

    /// How many leaf columns this is.
    fn leaves(&self) -> usize {
        match self {
            Self::Struct(fields) => fields.iter().map(|(_, kind)| kind.leaves()).sum::<usize>().max(1),
            Self::Null
            | Self::Bool
            | Self::Int
            | Self::Decimal
            | Self::Float
            | Self::Text
            | Self::Bytes
            | Self::List(_)
            | Self::Json => 1,
        }
    }
}

pub(crate) fn list_field(element: &ColumnType) -> FieldRef {
    Arc::new(Field::new("element", element.data_type(), true))
}

pub(crate) fn struct_fields(fields: &[(Box<str>, ColumnType)]) -> Fields {
    fields.iter().map(|(name, kind)| Field::new(&**name, kind.data_type(), true)).collect()
}

/// The columns of a segment, or of a whole collection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Columns {
    /// The type of [`ID`].
    pub id: ColumnType,
    /// Columns of top-level fields, in their order: a column never moves, new ones come last.
    pub fields: Vec<(Box<str>, ColumnType)>,
    /// Whether there is a column [`REST`].
    pub rest: bool,
}

impl Default for Columns {
    fn default() -> Self {
        Self { id: ColumnType::Null, fields: Vec::new(), rest: false }
    }
}

impl Columns {
    /// The type of a top-level field's column.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ColumnType> {
        self.fields.iter().find(|(field, _)| &**field == name).map(|(_, kind)| kind)
    }

    /// The Arrow fields: [`ID`], the fields, and [`REST`] if there is one.
    #[must_use]
    pub fn typed_fields(&self) -> Vec<Field> {
        let mut fields = vec![self.id.field(ID)];
        fields.extend(self.fields.iter().map(|(name, kind)| kind.field(name)));
        if self.rest {
            fields.push(ColumnType::Json.field(REST));
        }
        fields
    }
}

/// Whether a field may have a column of its own name.
fn is_column_name(name: &str) -> bool {
    !name.is_empty() && !RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name))
}
