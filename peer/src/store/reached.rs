//! The table `reached`: where a catch-up that is under way, or was broken off, is ahead of the subscription's cursor.

use bigpeer_protocol::limits::MAX_REACHED;
use bigpeer_types::Lsn;
use bytes::Bytes;
use rusqlite::params;

use super::subscriptions::lsn_from_blob;
use super::work::{Tables, Work};
use crate::{PeerError, SubscriptionId};

impl Tables<'_> {
    /// Where the subscription is ahead, by ascending keys.
    pub(crate) fn reached(&self, id: SubscriptionId) -> Result<Vec<(Bytes, Lsn)>, PeerError> {
        let mut query = self
            .connection
            .prepare_cached("SELECT position, lsn FROM reached WHERE subscription = ?1 ORDER BY position")?;
        let rows = query.query_map([id.0.cast_signed()], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut reached = Vec::new();
        for row in rows {
            let (position, lsn): (Vec<u8>, Vec<u8>) = row?;
            reached.push((Bytes::from(position), lsn_from_blob(&lsn)?));
        }
        Ok(reached)
    }
}

impl Work<'_> {
    /// What has changed up to `lsn` is here, of the documents up to this key.
    pub(crate) fn reach(&mut self, id: SubscriptionId, position: &[u8], lsn: Lsn) -> Result<(), PeerError> {
        // Of these it knows less.
        self.forget_reached_up_to(id, position)?;
        let (connection, number) = (self.tables.connection, id.0.cast_signed());
        connection
            .prepare_cached("INSERT INTO reached (subscription, position, lsn) VALUES (?1, ?2, ?3)")?
            .execute(params![number, position, lsn.to_bytes().as_slice()])?;
        let reached = self.tables.reached(id)?;
        if reached.len() <= MAX_REACHED {
            return Ok(());
        }
        // The newest is where this attempt is, and the others were hard to come by as well: what the second says of its few
        // documents is forgotten; they are as old as those that follow.
        let Some((second, _)) = reached.get(1) else { return Ok(()) };
        connection
            .prepare_cached("DELETE FROM reached WHERE subscription = ?1 AND position = ?2")?
            .execute(params![number, &**second])?;
        Ok(())
    }

    /// The subscription is not ahead any more with documents up to this key: all of them are as its page says.
    pub(crate) fn forget_reached_up_to(&mut self, id: SubscriptionId, position: &[u8]) -> Result<(), PeerError> {
        let mut delete =
            self.tables.connection.prepare_cached("DELETE FROM reached WHERE subscription = ?1 AND position <= ?2")?;
        delete.execute(params![id.0.cast_signed(), position])?;
        Ok(())
    }

    /// A page as of `lsn` comes: what is here of its documents is not ahead of that any more. A gateway that does not know how far
    /// another one came may be behind it, and drop what was not there yet.
    pub(crate) fn forget_reached_after(&mut self, id: SubscriptionId, lsn: Lsn) -> Result<(), PeerError> {
        let mut delete =
            self.tables.connection.prepare_cached("DELETE FROM reached WHERE subscription = ?1 AND lsn > ?2")?;
        delete.execute(params![id.0.cast_signed(), lsn.to_bytes().as_slice()])?;
        Ok(())
    }

    /// The subscription is not ahead any more.
    pub(crate) fn forget_reached(&mut self, id: SubscriptionId) -> Result<(), PeerError> {
        let mut delete = self.tables.connection.prepare_cached("DELETE FROM reached WHERE subscription = ?1")?;
        delete.execute([id.0.cast_signed()])?;
        Ok(())
    }
}
