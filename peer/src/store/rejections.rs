//! The table `rejections`: what the server rejected, and whether the app has taken note.

use bigpeer_crdt::{DocId, Value};
use bigpeer_types::{CollectionName, SiteId};
use rusqlite::params;

use super::pending::ChangedDocument;
use super::work::{Tables, Work};
use crate::{PeerError, Rejection};

/// Rejections kept; the oldest go first. An app that never looks must not fill the disk.
const MOST: i64 = 10_000;

const COLUMNS: &str = "number, seq, code, message, documents";

impl Tables<'_> {
    /// How many the app has not taken note of.
    pub(crate) fn count_rejections(&self) -> Result<u64, PeerError> {
        let mut query = self.connection.prepare_cached("SELECT COUNT(*) FROM rejections WHERE dismissed = 0")?;
        Ok(query.query_row([], |row| row.get::<_, i64>(0))?.cast_unsigned())
    }

    /// Those that the app has not taken note of, oldest first.
    pub(crate) fn rejections(&self) -> Result<Vec<Rejection>, PeerError> {
        let mut query = self
            .connection
            .prepare_cached(&format!("SELECT {COLUMNS} FROM rejections WHERE dismissed = 0 ORDER BY number"))?;
        let mut rows = query.query([])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(from_row(row)?);
        }
        Ok(found)
    }

    /// That of one transaction of `site`, also when it was taken note of.
    pub(crate) fn rejection_of(&self, site: SiteId, seq: u64) -> Result<Option<Rejection>, PeerError> {
        let mut query = self
            .connection
            .prepare_cached(&format!("SELECT {COLUMNS} FROM rejections WHERE site = ?1 AND seq = ?2 LIMIT 1"))?;
        let mut rows = query.query(params![site.to_string(), seq.cast_signed()])?;
        rows.next()?.map(from_row).transpose()
    }
}

impl Work<'_> {
    /// Keeps a rejection.
    pub(crate) fn add_rejection(
        &mut self,
        (seq, code, message): (u64, &str, &str),
        documents: &[ChangedDocument],
    ) -> Result<(), PeerError> {
        let site = self.status.site.ok_or(PeerError::NoSite)?;
        let documents: serde_json::Value = documents
            .iter()
            .map(|(collection, _, id)| serde_json::json!([collection.as_str(), id.to_value().to_json()]))
            .collect();
        let connection = self.tables.connection;
        connection
            .prepare_cached("INSERT INTO rejections (site, seq, code, message, documents) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![site.to_string(), seq.cast_signed(), code, message, documents.to_string()])?;
        let newest = connection.last_insert_rowid();
        connection.prepare_cached("DELETE FROM rejections WHERE number <= ?1")?.execute([newest - MOST])?;
        self.status.rejections = self.tables.count_rejections()?;
        Ok(())
    }

    /// The app has taken note; says whether there was something to take note of.
    pub(crate) fn dismiss_rejection(&mut self, number: u64) -> Result<bool, PeerError> {
        let mut update = self
            .tables
            .connection
            .prepare_cached("UPDATE rejections SET dismissed = 1 WHERE number = ?1 AND dismissed = 0")?;
        let noted = update.execute([number.cast_signed()])? > 0;
        self.status.rejections = self.tables.count_rejections()?;
        Ok(noted)
    }
}

fn from_row(row: &rusqlite::Row<'_>) -> Result<Rejection, PeerError> {
    let documents: String = row.get(4)?;
    let documents: Vec<(String, serde_json::Value)> =
        serde_json::from_str(&documents).map_err(|error| PeerError::Damaged(format!("a rejection: {error}")))?;
    let documents = documents.into_iter().map(|(collection, id)| document(&collection, id));
    Ok(Rejection {
        number: row.get::<_, i64>(0)?.cast_unsigned(),
        seq: row.get::<_, i64>(1)?.cast_unsigned(),
        code: row.get(2)?,
        message: row.get(3)?,
        documents: documents.collect::<Result<_, _>>()?,
    })
}

fn document(collection: &str, id: serde_json::Value) -> Result<(CollectionName, DocId), PeerError> {
    let damaged = |error: String| PeerError::Damaged(format!("a rejection: {error}"));
    let collection = CollectionName::new(collection).map_err(|error| damaged(error.to_string()))?;
    let id = Value::from_json(id).map_err(|error| damaged(error.to_string()))?;
    Ok((collection, DocId::from_value(&id).map_err(|error| damaged(error.to_string()))?))
}
