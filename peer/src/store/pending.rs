//! The tables `unpushed`, `unpushed_changes` and `leaving`: local transactions on their way to the server, until the
//! server's own stream has come past them.

use bigpeer_crdt::{DocId, Transaction};
use bigpeer_types::{CollectionName, Lsn};
use bytes::Bytes;
use rusqlite::{OptionalExtension, params};

use super::work::{Tables, Work};
use crate::PeerError;

/// A document of a local transaction: its collection, the collection's number, and its id.
pub(crate) type ChangedDocument = (CollectionName, i64, DocId);

/// A local transaction that the server has not answered for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unpushed {
    pub(crate) seq: u64,
    /// The newest `seq` whose outcome was known when it was made.
    pub(crate) basis: u64,
    /// The transaction, encoded.
    pub(crate) payload: Bytes,
}

impl Tables<'_> {
    pub(super) fn count_unpushed(&self, acknowledged: u64) -> Result<u64, PeerError> {
        let mut query = self.connection.prepare_cached("SELECT COUNT(*) FROM unpushed WHERE seq > ?1")?;
        Ok(query.query_row([acknowledged.cast_signed()], |row| row.get::<_, i64>(0))?.cast_unsigned())
    }

    /// Unpushed transactions after `seq`, in order: at least one if there is any, then no more than `max_bytes`.
    pub(crate) fn unpushed_after(&self, seq: u64, max_bytes: usize) -> Result<Vec<Unpushed>, PeerError> {
        let mut query =
            self.connection.prepare_cached("SELECT seq, basis, payload FROM unpushed WHERE seq > ?1 ORDER BY seq")?;
        let mut rows = query.query([seq.cast_signed()])?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let payload: Vec<u8> = row.get(2)?;
            bytes += payload.len();
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push(Unpushed {
                seq: row.get::<_, i64>(0)?.cast_unsigned(),
                basis: row.get::<_, i64>(1)?.cast_unsigned(),
                payload: Bytes::from(payload),
            });
        }
        Ok(found)
    }

    /// Whether the document has local changes that are not known to stand in the log at or before `after`.
    pub(crate) fn has_changes_after(&self, after: Lsn, collection: i64, id: &[u8]) -> Result<bool, PeerError> {
        let mut query = self.connection.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM unpushed_changes JOIN unpushed USING (seq)
             WHERE collection = ?1 AND id = ?2 AND (lsn IS NULL OR lsn > ?3))",
        )?;
        Ok(query.query_row(params![collection, id, after.to_bytes().as_slice()], |row| row.get(0))?)
    }

    /// The document's deltas, oldest first, that are not known to stand in the log at or before `after`.
    pub(crate) fn deltas_after(
        &self,
        after: Lsn,
        collection: (&CollectionName, i64),
        id: &DocId,
    ) -> Result<Vec<Bytes>, PeerError> {
        let mut query = self.connection.prepare_cached(
            "SELECT payload FROM unpushed_changes JOIN unpushed USING (seq)
             WHERE collection = ?1 AND id = ?2 AND (lsn IS NULL OR lsn > ?3) ORDER BY seq",
        )?;
        let of_row = |row: &rusqlite::Row<'_>| row.get::<_, Vec<u8>>(0);
        let payloads = query.query_map(params![collection.1, id.as_key(), after.to_bytes().as_slice()], of_row)?;
        let mut deltas = Vec::new();
        for payload in payloads {
            let transaction = decode(payload?)?;
            let of_document = |change: &&bigpeer_crdt::Change| change.collection == *collection.0 && change.id == *id;
            deltas.extend(transaction.changes().iter().filter(of_document).map(|change| change.delta.clone()));
        }
        Ok(deltas)
    }

    /// Where the transaction stands in the log, or a position after it, if that is known and still needed here.
    pub(crate) fn lsn_of(&self, seq: u64) -> Result<Option<Lsn>, PeerError> {
        let mut query = self.connection.prepare_cached("SELECT lsn FROM unpushed WHERE seq = ?1")?;
        let row = query.query_row([seq.cast_signed()], |row| row.get::<_, Option<Vec<u8>>>(0)).optional()?;
        row.flatten().as_deref().map(super::subscriptions::lsn_from_blob).transpose()
    }

    /// The documents of an unpushed transaction.
    pub(crate) fn documents_of(&self, seq: u64) -> Result<Vec<ChangedDocument>, PeerError> {
        let mut query = self
            .connection
            .prepare_cached("SELECT collection, id FROM unpushed_changes WHERE seq = ?1 ORDER BY collection, id")?;
        let rows =
            query.query_map([seq.cast_signed()], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
        rows.map(|row| {
            let (number, key) = row?;
            Ok((self.collection_name(number)?, number, parse_id(&key)?))
        })
        .collect()
    }

    /// Whether any document left while it had unpushed changes.
    pub(crate) fn any_leaving(&self) -> Result<bool, PeerError> {
        let mut query = self.connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM leaving)")?;
        Ok(query.query_row([], |row| row.get(0))?)
    }

    /// Documents that left, and whose local changes all stand in the log at or before `through`.
    pub(crate) fn ready_to_leave(&self, through: Lsn) -> Result<Vec<ChangedDocument>, PeerError> {
        let mut query = self.connection.prepare_cached(
            "SELECT collection, id FROM leaving WHERE NOT EXISTS (
             SELECT 1 FROM unpushed_changes JOIN unpushed USING (seq) WHERE (lsn IS NULL OR lsn > ?1)
             AND unpushed_changes.collection = leaving.collection AND unpushed_changes.id = leaving.id)",
        )?;
        let of_row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?));
        let rows = query.query_map([through.to_bytes().as_slice()], of_row)?;
        rows.map(|row| {
            let (number, key) = row?;
            Ok((self.collection_name(number)?, number, parse_id(&key)?))
        })
        .collect()
    }
}

impl Work<'_> {
    /// Adds a local transaction with the next sequence number, which it answers.
    pub(crate) fn add_unpushed(&mut self, payload: &Bytes) -> Result<u64, PeerError> {
        let seq = self.status.committed + 1;
        let transaction = decode(payload.to_vec())?;
        let connection = self.tables.connection;
        connection
            .prepare_cached("INSERT INTO unpushed (seq, basis, payload) VALUES (?1, ?2, ?3)")?
            .execute(params![seq.cast_signed(), self.status.acknowledged.cast_signed(), payload.as_ref()])?;
        for change in transaction.changes() {
            let number = self.number_of(&change.collection)?;
            connection
                .prepare_cached("INSERT INTO unpushed_changes (collection, id, seq) VALUES (?1, ?2, ?3)")?
                .execute(params![number, change.id.as_key(), seq.cast_signed()])?;
        }
        self.status.unpushed += 1;
        self.set_committed(seq)?;
        Ok(seq)
    }

    /// The server answers for everything up to `seq`, which stands in the log at or before `lsn`: nothing of it needs to be
    /// pushed again.
    pub(crate) fn acknowledge(&mut self, seq: u64, lsn: Option<Lsn>) -> Result<(), PeerError> {
        self.set_acknowledged(seq, lsn)?;
        self.status.unpushed = self.tables.count_unpushed(self.status.acknowledged)?;
        if let Some(lsn) = lsn {
            self.tables
                .connection
                .prepare_cached("UPDATE unpushed SET lsn = ?2 WHERE seq <= ?1 AND lsn IS NULL")?
                .execute(params![seq.cast_signed(), lsn.to_bytes().as_slice()])?;
        }
        self.forget_passed()
    }

    /// Drops transactions that the server answers for and that every subscription's cursor has passed. Until then they are
    /// needed: what the server sends of earlier positions does not know of them, and of a peer's own changes it sends
    /// nothing.
    pub(crate) fn forget_passed(&mut self) -> Result<(), PeerError> {
        let awaited = self.status.subscriptions.values().filter(|subscription| subscription.refused.is_none());
        // A subscription without a cursor has passed nothing; without subscriptions nothing is sent.
        let passed = awaited.map(|subscription| subscription.cursor.unwrap_or(Lsn::ZERO)).min().unwrap_or(Lsn::MAX);
        let connection = self.tables.connection;
        let newest: Option<i64> = connection
            .prepare_cached("SELECT MAX(seq) FROM unpushed WHERE seq <= ?1 AND lsn <= ?2")?
            .query_row(params![self.status.acknowledged.cast_signed(), passed.to_bytes().as_slice()], |row| {
                row.get(0)
            })?;
        if let Some(newest) = newest {
            connection.prepare_cached("DELETE FROM unpushed_changes WHERE seq <= ?1")?.execute([newest])?;
            connection.prepare_cached("DELETE FROM unpushed WHERE seq <= ?1")?.execute([newest])?;
        }
        Ok(())
    }

    /// The server rejected this one transaction: its changes are no part of any document any more.
    pub(crate) fn forget_rejected(&mut self, seq: u64) -> Result<(), PeerError> {
        let connection = self.tables.connection;
        connection.prepare_cached("DELETE FROM unpushed WHERE seq = ?1")?.execute([seq.cast_signed()])?;
        connection.prepare_cached("DELETE FROM unpushed_changes WHERE seq = ?1")?.execute([seq.cast_signed()])?;
        // Outcomes come in order, so everything before it is answered for, too.
        self.acknowledge(seq, None)
    }

    /// Remembers that the document is to be removed when its changes have come through.
    pub(crate) fn mark_leaving(&mut self, collection: i64, id: &[u8]) -> Result<(), PeerError> {
        let mut insert = self
            .tables
            .connection
            .prepare_cached("INSERT INTO leaving (collection, id) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?;
        insert.execute(params![collection, id])?;
        Ok(())
    }

    /// The document is back, or gone.
    pub(crate) fn unmark_leaving(&mut self, collection: i64, id: &[u8]) -> Result<(), PeerError> {
        let mut delete =
            self.tables.connection.prepare_cached("DELETE FROM leaving WHERE collection = ?1 AND id = ?2")?;
        delete.execute(params![collection, id])?;
        Ok(())
    }
}

pub(super) fn parse_id(key: &[u8]) -> Result<DocId, PeerError> {
    DocId::from_key(key).map_err(|error| PeerError::Damaged(error.to_string()))
}

fn decode(payload: Vec<u8>) -> Result<Transaction, PeerError> {
    Transaction::decode(Bytes::from(payload)).map_err(|error| PeerError::Damaged(format!("a transaction: {error}")))
}
