//! `Transaction`: an atomic set of deltas, as the bytes that its writer sent.
//!
//! # Layout
//! ```text
//! transaction := version:01 count collection…
//! collection  := length name count change…
//! change      := id length delta              ids: see `id.rs`
//! ```
//! Collections ascend by name, the changes of one by id; none is empty, none comes twice. Deltas are as `Document` writes them.

mod id;

use std::collections::BTreeMap;

use bigpeer_types::limits::{
    MAX_COLLECTION_NAME_BYTES, MAX_DOCUMENT_BYTES, MAX_TRANSACTION_BYTES, MAX_TRANSACTION_CHANGES,
};
use bigpeer_types::{CollectionName, Hlc};
use bytes::Bytes;
use thiserror::Error;

use crate::document::{Document, Writers};
use crate::error::{DecodeError, DecodeErrorKind};
use crate::id::DocId;
use crate::wire::{Reader, put_bytes, put_len};
use id::{put_id, read_id};

const VERSION: u8 = 1;
/// The least bytes of a change: an id of one byte and its length, the delta's length, a delta of three.
const LEAST_CHANGE: usize = 6;
/// The least bytes of a collection: a name of one byte and its length, the count of changes, a change.
const LEAST_COLLECTION: usize = 3 + LEAST_CHANGE;

/// A decoded view over the bytes of a transaction.
#[derive(Clone, Debug)]
pub struct Transaction {
    encoded: Bytes,
    changes: Vec<Change>,
    max_hlc: Hlc,
    writers: Writers,
}

/// One document's change in a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The collection.
    pub collection: CollectionName,
    /// The document.
    pub id: DocId,
    /// The delta's canonical bytes: a slice of the transaction's.
    pub delta: Bytes,
}

impl Transaction {
    /// Reads a transaction, and validates every delta.
    ///
    /// # Errors
    /// When the bytes are not canonical or break a limit, with the offset.
    pub fn decode(encoded: Bytes) -> Result<Self, DecodeError> {
        if encoded.len() > MAX_TRANSACTION_BYTES {
            let kind = DecodeErrorKind::TooLarge(MAX_TRANSACTION_BYTES);
            return Err(DecodeError { offset: MAX_TRANSACTION_BYTES, kind });
        }
        let mut reader = Reader::new(&encoded);
        let version = reader.byte()?;
        if version != VERSION {
            return Err(DecodeError { offset: 0, kind: DecodeErrorKind::UnknownVersion(version) });
        }
        let mut parts = Parts { whole: &encoded, changes: Vec::new(), max_hlc: Hlc::ZERO, writers: Writers::Nobody };
        let mut last: Option<CollectionName> = None;
        for _ in 0..reader.count(LEAST_COLLECTION)? {
            let name = reader.text()?;
            let name = CollectionName::new(name).map_err(|_| reader.error(DecodeErrorKind::BadCollectionName))?;
            if last.as_ref() >= Some(&name) {
                return reader.not_canonical("the collections do not ascend");
            }
            parts.collection(&mut reader, &name)?;
            last = Some(name);
        }
        reader.end()?;
        let Parts { changes, max_hlc, writers, .. } = parts;
        Ok(Self { changes, max_hlc, writers, encoded })
    }

    /// The changes, by collection and id.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The bytes.
    #[must_use]
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// The greatest reading of any stamp in it; zero if there is none.
    #[must_use]
    pub fn max_hlc(&self) -> Hlc {
        self.max_hlc
    }

    /// Whose stamps content and deletions in it bear: one site's, if an editor made it.
    #[must_use]
    pub fn writers(&self) -> Writers {
        self.writers
    }
}

/// What reading a transaction gathers.
struct Parts<'a> {
    whole: &'a Bytes,
    changes: Vec<Change>,
    max_hlc: Hlc,
    writers: Writers,
}

impl Parts<'_> {
    fn collection(&mut self, reader: &mut Reader<'_>, collection: &CollectionName) -> Result<(), DecodeError> {
        let count = reader.count(LEAST_CHANGE)?;
        if count == 0 {
            return reader.not_canonical("a collection has no changes");
        }
        if self.changes.len() + count > MAX_TRANSACTION_CHANGES {
            return Err(reader.error(DecodeErrorKind::TooMany(MAX_TRANSACTION_CHANGES)));
        }
        self.changes.reserve_exact(count);
        let first = self.changes.len();
        for _ in 0..count {
            let id = read_id(reader)?;
            if self.changes.get(first..).and_then(<[Change]>::last).is_some_and(|last| last.id >= id) {
                return reader.not_canonical("the ids do not ascend");
            }
            let delta = self.delta(reader)?;
            self.changes.push(Change { collection: collection.clone(), id, delta });
        }
        Ok(())
    }

    fn delta(&mut self, reader: &mut Reader<'_>) -> Result<Bytes, DecodeError> {
        let delta = reader.len_bytes()?;
        if delta.len() > MAX_DOCUMENT_BYTES {
            return Err(reader.error(DecodeErrorKind::TooLarge(MAX_DOCUMENT_BYTES)));
        }
        let start = reader.offset() - delta.len();
        let header = Document::validate_encoded(delta)
            .map_err(|error| DecodeError { offset: start + error.offset, kind: error.kind })?;
        self.max_hlc = self.max_hlc.max(header.max_hlc);
        self.writers = self.writers.with(header.writers);
        Ok(self.whole.slice(start..start + delta.len()))
    }
}

/// A transaction over a limit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TransactionTooLarge {
    /// Too many bytes.
    #[error("the transaction has {0} bytes, more than the allowed {MAX_TRANSACTION_BYTES}")]
    Bytes(usize),
    /// Too many changes.
    #[error("the transaction has {0} changes, more than the allowed {MAX_TRANSACTION_CHANGES}")]
    Changes(usize),
    /// One delta has too many bytes.
    #[error("a document's change has {0} bytes, more than the allowed {MAX_DOCUMENT_BYTES}")]
    Document(usize),
}

/// Collects the changes of a transaction.
#[derive(Debug, Default)]
pub struct TransactionBuilder {
    collections: BTreeMap<CollectionName, BTreeMap<DocId, Vec<u8>>>,
    changes: usize,
    bytes: usize,
}

impl TransactionBuilder {
    /// Without changes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a delta. Deltas of the same document are joined.
    pub fn change(&mut self, collection: &CollectionName, id: &DocId, delta: &Document) {
        let changes = match self.collections.get_mut(collection) {
            Some(changes) => changes,
            None => self.collections.entry(collection.clone()).or_default(),
        };
        let mut encoded = Vec::with_capacity(64);
        delta.encode_into(&mut encoded);
        if let Some(before) = changes.get(id) {
            let mut joined = delta.clone();
            // What this builder encoded decodes.
            let done = joined.join_encoded(before);
            debug_assert_eq!(done, Ok(()));
            encoded.clear();
            joined.encode_into(&mut encoded);
        }
        let len = encoded.len();
        match changes.insert(id.clone(), encoded) {
            Some(before) => self.bytes = self.bytes.saturating_sub(before.len()) + len,
            None => {
                self.changes += 1;
                self.bytes += len + id.as_key().len() + 4;
            }
        }
    }

    /// How many documents are changed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes
    }

    /// Whether no document is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes == 0
    }

    /// About how many bytes the transaction will have, to end one before it is too large.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        let names = self.collections.len() * (MAX_COLLECTION_NAME_BYTES + 4);
        self.bytes + names + 4
    }

    /// The canonical bytes.
    ///
    /// # Errors
    /// Over a limit.
    pub fn finish(self) -> Result<Bytes, TransactionTooLarge> {
        if self.changes > MAX_TRANSACTION_CHANGES {
            return Err(TransactionTooLarge::Changes(self.changes));
        }
        let mut out = Vec::with_capacity(self.encoded_bytes());
        out.push(VERSION);
        put_len(&mut out, self.collections.len());
        for (name, changes) in &self.collections {
            put_bytes(&mut out, name.as_str().as_bytes());
            put_len(&mut out, changes.len());
            for (id, delta) in changes {
                if delta.len() > MAX_DOCUMENT_BYTES {
                    return Err(TransactionTooLarge::Document(delta.len()));
                }
                put_id(&mut out, id);
                put_bytes(&mut out, delta);
            }
        }
        if out.len() > MAX_TRANSACTION_BYTES { Err(TransactionTooLarge::Bytes(out.len())) } else { Ok(out.into()) }
    }
}
