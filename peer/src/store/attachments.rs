//! The table `attachments`: which blobs are in the store's directory, and which of them the server still has to get.

use rusqlite::{OptionalExtension, params};

use super::work::{Tables, Work};
use crate::PeerError;

/// A blob that the server is not known to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PendingAttachment {
    pub(crate) id: [u8; 32],
    /// In bytes.
    pub(crate) length: u64,
    /// The server's name for an upload that was begun.
    pub(crate) upload: Option<String>,
}

impl Tables<'_> {
    /// How many blobs the server is not known to have.
    pub(crate) fn count_pending_attachments(&self) -> Result<u64, PeerError> {
        let mut query = self.connection.prepare_cached("SELECT COUNT(*) FROM attachments WHERE pending = 1")?;
        Ok(query.query_row([], |row| row.get::<_, i64>(0))?.cast_unsigned())
    }

    /// The one of them that has waited longest.
    pub(crate) fn next_pending_attachment(&self) -> Result<Option<PendingAttachment>, PeerError> {
        let mut query = self
            .connection
            .prepare_cached("SELECT id, length, upload FROM attachments WHERE pending = 1 ORDER BY used, id LIMIT 1")?;
        let row = query.query_row([], |row| {
            Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?, row.get::<_, Option<String>>(2)?))
        });
        let Some((id, length, upload)) = row.optional()? else { return Ok(None) };
        Ok(Some(PendingAttachment { id: parse_id(&id)?, length: length.cast_unsigned(), upload }))
    }

    /// All blobs, least recently used first: id, length, whether the server still has to get it.
    pub(crate) fn attachments(&self) -> Result<Vec<([u8; 32], u64, bool)>, PeerError> {
        let mut query =
            self.connection.prepare_cached("SELECT id, length, pending FROM attachments ORDER BY used, id")?;
        let of_row =
            |row: &rusqlite::Row<'_>| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?, row.get::<_, bool>(2)?));
        let rows = query.query_map([], of_row)?;
        rows.map(|row| {
            let (id, length, pending) = row?;
            Ok((parse_id(&id)?, length.cast_unsigned(), pending))
        })
        .collect()
    }

    /// Whether the blob is here.
    pub(crate) fn has_attachment(&self, id: [u8; 32]) -> Result<bool, PeerError> {
        let mut query = self.connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM attachments WHERE id = ?1)")?;
        Ok(query.query_row([id.as_slice()], |row| row.get(0))?)
    }
}

impl Work<'_> {
    /// A blob is in the directory. One that the server has to get stays so until the server has it.
    pub(crate) fn put_attachment(
        &mut self,
        id: [u8; 32],
        length: u64,
        pending: bool,
        now_ms: u64,
    ) -> Result<(), PeerError> {
        let mut put = self.tables.connection.prepare_cached(
            "INSERT INTO attachments (id, length, pending, used) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (id) DO UPDATE SET pending = MAX(pending, excluded.pending), used = excluded.used",
        )?;
        put.execute(params![id.as_slice(), length.cast_signed(), pending, now_ms.cast_signed()])?;
        self.count_uploads()
    }

    /// The blob was asked for.
    pub(crate) fn use_attachment(&mut self, id: [u8; 32], now_ms: u64) -> Result<(), PeerError> {
        let mut update = self.tables.connection.prepare_cached("UPDATE attachments SET used = ?2 WHERE id = ?1")?;
        update.execute(params![id.as_slice(), now_ms.cast_signed()])?;
        Ok(())
    }

    /// An upload of it was begun, or came to nothing.
    pub(crate) fn set_upload(&mut self, id: [u8; 32], upload: Option<&str>) -> Result<(), PeerError> {
        let mut update = self.tables.connection.prepare_cached("UPDATE attachments SET upload = ?2 WHERE id = ?1")?;
        update.execute(params![id.as_slice(), upload])?;
        Ok(())
    }

    /// The server has it, or will never take it.
    pub(crate) fn end_upload(&mut self, id: [u8; 32]) -> Result<(), PeerError> {
        let mut update =
            self.tables.connection.prepare_cached("UPDATE attachments SET pending = 0, upload = NULL WHERE id = ?1")?;
        update.execute([id.as_slice()])?;
        self.count_uploads()
    }

    /// The blob is not to be here any more.
    pub(crate) fn remove_attachment(&mut self, id: [u8; 32]) -> Result<(), PeerError> {
        self.tables.connection.prepare_cached("DELETE FROM attachments WHERE id = ?1")?.execute([id.as_slice()])?;
        self.count_uploads()
    }

    fn count_uploads(&mut self) -> Result<(), PeerError> {
        self.status.uploads = self.tables.count_pending_attachments()?;
        Ok(())
    }
}

fn parse_id(bytes: &[u8]) -> Result<[u8; 32], PeerError> {
    bytes.try_into().map_err(|_| PeerError::Damaged("an attachment's id of another length".to_owned()))
}
