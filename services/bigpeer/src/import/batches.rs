//! Rows become transactions. Which rows a transaction holds follows from the files and the options alone, so that the
//! n-th transaction of a resumed import is the n-th of the broken one.

use bigpeer_crdt::{DocId, Document, Editor, Object, ObjectMode, TransactionBuilder, Value};
use bigpeer_types::{CollectionName, HlcClock};
use bytes::Bytes;

use super::rows::{Row, RowError};

/// Rows in a transaction: enough to make its costs small beside the rows' own.
const BATCH_ROWS: usize = 500;
/// A transaction is closed early when its rows' values weigh this many bytes, well below the limit of a transaction.
const BATCH_WEIGHT: usize = 1 << 20;

/// How documents get their ids.
#[derive(Clone, Debug)]
pub(super) enum Ids {
    /// The value of one field, or an object of several.
    Fields(Vec<String>),
    /// From the hash of the file's content and the row's number: the same at every attempt.
    Generated { content: u128 },
}

impl Ids {
    /// The id of the `number`-th row of its file.
    fn id(&self, fields: &Object, number: u64) -> Result<DocId, String> {
        let value = match self {
            Self::Generated { content } => {
                let hash = xxhash_rust::xxh3::xxh3_128_with_seed(&content.to_le_bytes(), number);
                Value::from(format!("{hash:032x}"))
            }
            // The fields stay in the document, too: queries and joins name them as the file does.
            Self::Fields(names) => {
                let part = |name: &String| {
                    let value = fields.get(name).cloned();
                    value.ok_or_else(|| format!("the id field '{name}' is absent or null"))
                };
                match names.as_slice() {
                    [name] => part(name)?,
                    several => {
                        let parts = several.iter().map(|name| Ok((name.as_str(), part(name)?)));
                        Value::Object(parts.collect::<Result<Object, String>>()?)
                    }
                }
            }
        };
        DocId::from_value(&value).map_err(|error| error.to_string())
    }
}

/// A transaction's rows, not yet encoded.
#[derive(Debug, Default)]
pub(super) struct Batch {
    rows: Vec<(DocId, Object)>,
    weight: usize,
}

impl Batch {
    /// How many rows it holds.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether the next row goes into another transaction.
    pub(super) fn is_full(&self) -> bool {
        self.rows.len() >= BATCH_ROWS || self.weight >= BATCH_WEIGHT
    }

    /// Adds a row.
    pub(super) fn add(&mut self, row: Row, number: u64, ids: &Ids) -> Result<(), RowError> {
        let Row { place, mut fields } = row;
        let bad = |problem: &str, fields: &Object| RowError::Row {
            place: place.clone(),
            problem: problem.to_owned(),
            text: Value::Object(fields.clone()).to_json().to_string(),
        };
        if fields.contains_key("_id") && !matches!(ids, Ids::Fields(names) if names.as_slice() == ["_id"]) {
            return Err(bad("the row has a field '_id'; pass --id _id to use it as the document's id", &fields));
        }
        let id = ids.id(&fields, number).map_err(|problem| bad(&problem, &fields))?;
        fields.remove("_id");
        self.weight += fields.heap_bytes();
        self.rows.push((id, fields));
        Ok(())
    }

    /// The transaction's bytes: each row a document that is inserted, or merged into the one that is there.
    pub(super) fn encode(self, collection: &CollectionName, clock: &mut HlcClock) -> Result<Bytes, String> {
        let mut transaction = TransactionBuilder::new();
        let empty = Document::new();
        for (id, fields) in self.rows {
            let mut editor = Editor::new(&empty, clock);
            editor.insert(&fields, ObjectMode::Map).map_err(|error| format!("document {id:?}: {error}"))?;
            if let Some(delta) = editor.finish() {
                transaction.change(collection, &id, &delta);
            }
        }
        transaction.finish().map_err(|error| error.to_string())
    }
}
