//! The table `documents`: states by collection and id.

use std::ops::ControlFlow;

use bigpeer_types::CollectionName;
use bytes::Bytes;
use rusqlite::{OptionalExtension, params};

use super::work::{Tables, Work};
use crate::PeerError;

impl Tables<'_> {
    /// The encoded state of a document.
    pub(crate) fn document(&self, collection: i64, id: &[u8]) -> Result<Option<Vec<u8>>, PeerError> {
        let mut query =
            self.connection.prepare_cached("SELECT state FROM documents WHERE collection = ?1 AND id = ?2")?;
        Ok(query.query_row(params![collection, id], |row| row.get(0)).optional()?)
    }

    /// Calls `visit` with the id key and the encoded state of every document of the collection, in key order, until it
    /// breaks.
    pub(crate) fn scan_documents(
        &self,
        collection: i64,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, PeerError>,
    ) -> Result<(), PeerError> {
        let mut query =
            self.connection.prepare_cached("SELECT id, state FROM documents WHERE collection = ?1 ORDER BY id")?;
        let mut rows = query.query([collection])?;
        while let Some(row) = rows.next()? {
            let (id, state) = (row.get_ref(0)?.as_blob(), row.get_ref(1)?.as_blob());
            let (Ok(id), Ok(state)) = (id, state) else {
                return Err(PeerError::Damaged("a document that is not bytes".to_owned()));
            };
            if visit(id, state)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Tables<'_> {
    /// The keys of all documents of a collection, and how many they are; only that, if they are more than `at_most`.
    pub(crate) fn keys(&self, collection: &str, at_most: u32) -> Result<(Vec<Bytes>, u32), PeerError> {
        let name = CollectionName::new(collection).map_err(|error| PeerError::Protocol(error.to_string()))?;
        let Some(number) = self.collection_number(&name)? else { return Ok((Vec::new(), 0)) };
        let mut count = self.connection.prepare_cached("SELECT COUNT(*) FROM documents WHERE collection = ?1")?;
        let count: u32 = count.query_row([number], |row| row.get(0))?;
        if count > at_most {
            return Ok((Vec::new(), count));
        }
        let mut query = self.connection.prepare_cached("SELECT id FROM documents WHERE collection = ?1 ORDER BY id")?;
        let keys = query.query_map([number], |row| row.get::<_, Vec<u8>>(0))?;
        Ok((keys.map(|key| key.map(Bytes::from)).collect::<Result<_, _>>()?, count))
    }
}

impl Work<'_> {
    /// Stores a document that is not there; says whether it was not.
    pub(crate) fn insert_document(&mut self, collection: i64, id: &[u8], state: &[u8]) -> Result<bool, PeerError> {
        let mut insert = self.tables.connection.prepare_cached(
            "INSERT INTO documents (collection, id, state) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        )?;
        Ok(insert.execute(params![collection, id, state])? == 1)
    }

    /// Stores a document's state in place of what was there.
    pub(crate) fn put_document(&mut self, collection: i64, id: &[u8], state: &[u8]) -> Result<(), PeerError> {
        let mut put = self.tables.connection.prepare_cached(
            "INSERT INTO documents (collection, id, state) VALUES (?1, ?2, ?3)
             ON CONFLICT (collection, id) DO UPDATE SET state = excluded.state",
        )?;
        put.execute(params![collection, id, state])?;
        Ok(())
    }

    /// Removes a document from this store (a CRDT deletion is a state, and stays).
    pub(crate) fn remove_document(&mut self, collection: i64, id: &[u8]) -> Result<(), PeerError> {
        let mut delete =
            self.tables.connection.prepare_cached("DELETE FROM documents WHERE collection = ?1 AND id = ?2")?;
        delete.execute(params![collection, id])?;
        Ok(())
    }
}
