//! The actions of a Delta Lake log, as far as they are written here, and the schema of a published table. Names, places and
//! meanings are those of Delta's public protocol.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::columns::{self, ColumnType, Columns};
use crate::manifest::PublicationMode;

/// One line of a commit: one of these.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) commit_info: Option<CommitInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) protocol: Option<Protocol>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) meta_data: Option<MetaData>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remove: Option<Remove>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) add: Option<Add>,
}

/// What a version is of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CommitInfo {
    /// Milliseconds since the epoch.
    pub(super) timestamp: i64,
    pub(super) operation: String,
    #[serde(default)]
    pub(super) operation_parameters: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) engine_info: String,
    /// The version holds every document as it was at this LSN (`version.order`).
    pub(super) lsn: String,
    /// The manifest that it was published from.
    pub(super) manifest: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Protocol {
    pub(super) min_reader_version: i32,
    pub(super) min_writer_version: i32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) reader_features: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) writer_features: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MetaData {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) format: Format,
    pub(super) schema_string: String,
    #[serde(default)]
    pub(super) partition_columns: Vec<String>,
    #[serde(default)]
    pub(super) configuration: BTreeMap<String, String>,
    pub(super) created_time: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Format {
    pub(super) provider: String,
    #[serde(default)]
    pub(super) options: BTreeMap<String, String>,
}

/// A file that is part of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Add {
    /// Relative to the table's root.
    pub(super) path: String,
    #[serde(default)]
    pub(super) partition_values: BTreeMap<String, String>,
    pub(super) size: i64,
    pub(super) modification_time: i64,
    pub(super) data_change: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) stats: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) deletion_vector: Option<Vector>,
}

/// A file that is no part of the table any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Remove {
    pub(super) path: String,
    pub(super) deletion_timestamp: i64,
    pub(super) data_change: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) deletion_vector: Option<Vector>,
}

/// Where a deletion vector is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Vector {
    /// `u`: in a file that is named by a UUID.
    pub(super) storage_type: String,
    pub(super) path_or_inline_dv: String,
    #[serde(default)]
    pub(super) offset: i32,
    pub(super) size_in_bytes: i32,
    pub(super) cardinality: i64,
}

impl Add {
    /// What tells this state of a file from its others.
    pub(super) fn key(&self) -> String {
        match &self.deletion_vector {
            None => self.path.clone(),
            Some(vector) => format!("{} {}@{}", self.path, vector.path_or_inline_dv, vector.offset),
        }
    }
}

impl Protocol {
    pub(super) fn of(mode: PublicationMode) -> Self {
        let feature = || Some(vec!["deletionVectors".to_owned()]);
        match mode {
            PublicationMode::Compatible => {
                Self { min_reader_version: 1, min_writer_version: 2, reader_features: None, writer_features: None }
            }
            PublicationMode::DeletionVectors => Self {
                min_reader_version: 3,
                min_writer_version: 7,
                reader_features: feature(),
                writer_features: feature(),
            },
        }
    }
}

/// The properties of a table.
pub(super) fn configuration(mode: PublicationMode) -> BTreeMap<String, String> {
    match mode {
        PublicationMode::Compatible => BTreeMap::new(),
        PublicationMode::DeletionVectors => {
            BTreeMap::from([("delta.enableDeletionVectors".to_owned(), "true".to_owned())])
        }
    }
}

/// The schema of a published table: `_id`, the fields, `_rest` if there is one, `_version`. Of names that differ in case
/// only the first is published: most readers cannot tell them apart.
pub(super) fn schema_of(columns: &Columns) -> String {
    let mut names = HashSet::new();
    let mut fields = Vec::new();
    let typed = std::iter::once((columns::ID, &columns.id))
        .chain(columns.fields.iter().map(|(name, kind)| (&**name, kind)))
        .chain(columns.rest.then_some((columns::REST, &ColumnType::Json)))
        .chain(std::iter::once((columns::VERSION, &ColumnType::Int)));
    for (name, kind) in typed {
        if names.insert(name.to_lowercase()) {
            fields.push(field(name, kind));
        }
    }
    json!({"type": "struct", "fields": fields}).to_string()
}

fn field(name: &str, kind: &ColumnType) -> Value {
    json!({"name": name, "type": type_of(kind), "nullable": true, "metadata": {}})
}

fn type_of(kind: &ColumnType) -> Value {
    match kind {
        ColumnType::Null | ColumnType::Text | ColumnType::Json => json!("string"),
        ColumnType::Bool => json!("boolean"),
        ColumnType::Int => json!("long"),
        ColumnType::Decimal => json!("decimal(20,0)"),
        ColumnType::Float => json!("double"),
        ColumnType::Bytes => json!("binary"),
        ColumnType::List(element) => json!({"type": "array", "elementType": type_of(element), "containsNull": true}),
        ColumnType::Struct(fields) if fields.is_empty() => json!("string"),
        ColumnType::Struct(fields) => {
            let fields: Vec<Value> = fields.iter().map(|(name, kind)| field(name, kind)).collect();
            json!({"type": "struct", "fields": fields})
        }
    }
}
