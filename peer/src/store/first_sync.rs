//! The table `unnamed`: what was here before a first sync, and has not been named by it.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension, params};

use super::work::{Tables, Work};
use crate::{PeerError, SubscriptionId};

impl Tables<'_> {
    /// The subscriptions whose first sync has begun and is not complete.
    pub(crate) fn first_syncs(&self) -> Result<BTreeSet<SubscriptionId>, PeerError> {
        let mut query = self.connection.prepare_cached("SELECT number FROM subscriptions WHERE first_sync = 1")?;
        let numbers = query.query_map([], |row| row.get::<_, i64>(0))?;
        numbers.map(|number| Ok(SubscriptionId(number?.cast_unsigned()))).collect()
    }

    /// Whether the first state that the server sends of the document replaces what is here.
    pub(crate) fn is_stale(&self, collection: i64, id: &[u8]) -> Result<bool, PeerError> {
        let mut query =
            self.connection.prepare_cached("SELECT MAX(stale) FROM unnamed WHERE collection = ?1 AND id = ?2")?;
        let stale: Option<Option<bool>> = query.query_row(params![collection, id], |row| row.get(0)).optional()?;
        Ok(stale.flatten().unwrap_or(false))
    }

    /// What the subscription's first sync has not named: collection, key, and whether it is stale.
    pub(crate) fn unnamed(&self, subscription: SubscriptionId) -> Result<Vec<(i64, Vec<u8>, bool)>, PeerError> {
        let mut query = self.connection.prepare_cached(
            "SELECT collection, id, stale FROM unnamed WHERE subscription = ?1 ORDER BY collection, id",
        )?;
        let rows =
            query.query_map([subscription.0.cast_signed()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Work<'_> {
    /// A first sync begins. Its cursor is none until it is complete.
    pub(crate) fn begin_first_sync(&mut self, id: SubscriptionId) -> Result<(), PeerError> {
        let mut update = self.tables.connection.prepare_cached(
            "UPDATE subscriptions SET cursor = NULL, page_lsn = NULL, page_position = NULL, first_sync = 1
             WHERE number = ?1",
        )?;
        update.execute([id.0.cast_signed()])?;
        self.forget_reached(id)?;
        if let Some(status) = self.status.subscriptions.get_mut(&id) {
            status.cursor = None;
            status.caught_up = false;
        }
        Ok(())
    }

    /// A document is here before the first sync. Once stale, it stays so until it is named.
    pub(crate) fn add_unnamed(
        &mut self,
        subscription: SubscriptionId,
        collection: i64,
        id: &[u8],
        stale: bool,
    ) -> Result<(), PeerError> {
        let mut insert = self.tables.connection.prepare_cached(
            "INSERT INTO unnamed (subscription, collection, id, stale) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (collection, id, subscription) DO UPDATE SET stale = MAX(stale, excluded.stale)",
        )?;
        insert.execute(params![subscription.0.cast_signed(), collection, id, stale])?;
        Ok(())
    }

    /// The subscription's first sync has named the document.
    pub(crate) fn name(&mut self, subscription: SubscriptionId, collection: i64, id: &[u8]) -> Result<(), PeerError> {
        let mut delete = self
            .tables
            .connection
            .prepare_cached("DELETE FROM unnamed WHERE collection = ?1 AND id = ?2 AND subscription = ?3")?;
        delete.execute(params![collection, id, subscription.0.cast_signed()])?;
        Ok(())
    }

    /// The document is as the server has it: what follows is joined.
    pub(crate) fn refresh(&mut self, collection: i64, id: &[u8]) -> Result<(), PeerError> {
        let mut update =
            self.tables.connection.prepare_cached("UPDATE unnamed SET stale = 0 WHERE collection = ?1 AND id = ?2")?;
        update.execute(params![collection, id])?;
        Ok(())
    }

    /// The first sync is complete.
    pub(crate) fn end_first_sync(&mut self, id: SubscriptionId) -> Result<(), PeerError> {
        let (connection, number) = (self.tables.connection, id.0.cast_signed());
        connection.prepare_cached("UPDATE subscriptions SET first_sync = 0 WHERE number = ?1")?.execute([number])?;
        connection.prepare_cached("DELETE FROM unnamed WHERE subscription = ?1")?.execute([number])?;
        Ok(())
    }
}
