//! The tables `subscriptions` and `unnamed`.

use std::collections::BTreeMap;

use bigpeer_types::Lsn;
use bytes::Bytes;
use rusqlite::{OptionalExtension, Row, params};

use super::work::{Tables, Work};
use crate::PeerError;
use crate::status::{SubscriptionId, SubscriptionStatus};

/// A subscription as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredSubscription {
    pub(crate) id: SubscriptionId,
    /// DQL.
    pub(crate) query: String,
    /// A JSON object.
    pub(crate) arguments: String,
    /// Names the permissions and the query that its documents were sent under; the server's word.
    pub(crate) scope: u64,
    /// Everything matching up to here is in the store.
    pub(crate) cursor: Option<Lsn>,
    /// How far an unfinished first sync came: its snapshot, and the last key.
    pub(crate) page: Option<(Lsn, Bytes)>,
    /// A first sync (or a resynchronization, which is one) has begun and is not complete.
    pub(crate) first_sync: bool,
}

const COLUMNS: &str = "number, query, arguments, scope, cursor, page_lsn, page_position, first_sync";

impl Tables<'_> {
    /// All subscriptions, oldest first.
    pub(crate) fn subscriptions(&self) -> Result<Vec<StoredSubscription>, PeerError> {
        let sql = format!("SELECT {COLUMNS} FROM subscriptions ORDER BY number");
        let mut query = self.connection.prepare_cached(&sql)?;
        let mut rows = query.query([])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(from_row(row)?);
        }
        Ok(found)
    }

    /// One subscription.
    pub(crate) fn subscription(&self, id: SubscriptionId) -> Result<Option<StoredSubscription>, PeerError> {
        let sql = format!("SELECT {COLUMNS} FROM subscriptions WHERE number = ?1");
        let mut query = self.connection.prepare_cached(&sql)?;
        let mut rows = query.query([id.0.cast_signed()])?;
        rows.next()?.map(from_row).transpose()
    }

    pub(super) fn stored_subscription_status(&self) -> Result<BTreeMap<SubscriptionId, SubscriptionStatus>, PeerError> {
        let status = |stored: StoredSubscription| {
            let StoredSubscription { id, query, cursor, .. } = stored;
            (id, SubscriptionStatus { query, cursor, caught_up: false, refused: None })
        };
        Ok(self.subscriptions()?.into_iter().map(status).collect())
    }
}

impl Work<'_> {
    /// Adds a subscription, or finds the one with the same query and arguments; says whether it is new.
    pub(crate) fn add_subscription(
        &mut self,
        query: &str,
        arguments: &str,
    ) -> Result<(SubscriptionId, bool), PeerError> {
        let connection = self.tables.connection;
        let known: Option<i64> = connection
            .prepare_cached("SELECT number FROM subscriptions WHERE query = ?1 AND arguments = ?2")?
            .query_row(params![query, arguments], |row| row.get(0))
            .optional()?;
        if let Some(number) = known {
            return Ok((SubscriptionId(number.cast_unsigned()), false));
        }
        connection
            .prepare_cached("INSERT INTO subscriptions (query, arguments) VALUES (?1, ?2)")?
            .execute(params![query, arguments])?;
        let id = SubscriptionId(connection.last_insert_rowid().cast_unsigned());
        let status = SubscriptionStatus { query: query.to_owned(), cursor: None, caught_up: false, refused: None };
        self.status.subscriptions.insert(id, status);
        Ok((id, true))
    }

    /// Removes a subscription; its documents stay.
    pub(crate) fn remove_subscription(&mut self, id: SubscriptionId) -> Result<(), PeerError> {
        let connection = self.tables.connection;
        let number = id.0.cast_signed();
        if connection.prepare_cached("DELETE FROM subscriptions WHERE number = ?1")?.execute([number])? == 0 {
            return Err(PeerError::NoSubscription(id.0));
        }
        connection.prepare_cached("DELETE FROM unnamed WHERE subscription = ?1")?.execute([number])?;
        self.forget_reached(id)?;
        self.status.subscriptions.remove(&id);
        Ok(())
    }

    /// Moves the cursor; what stood about an unfinished first sync is forgotten. A cursor never goes back.
    pub(crate) fn set_cursor(&mut self, id: SubscriptionId, cursor: Lsn) -> Result<(), PeerError> {
        let mut update = self.tables.connection.prepare_cached(
            "UPDATE subscriptions SET cursor = ?2, page_lsn = NULL, page_position = NULL
             WHERE number = ?1 AND (cursor IS NULL OR cursor < ?2)",
        )?;
        update.execute(params![id.0.cast_signed(), cursor.to_bytes().as_slice()])?;
        if let Some(status) = self.status.subscriptions.get_mut(&id) {
            status.cursor = status.cursor.max(Some(cursor));
        }
        Ok(())
    }

    /// Keeps how far an unfinished first sync came.
    pub(crate) fn set_page(&mut self, id: SubscriptionId, snapshot: Lsn, position: &[u8]) -> Result<(), PeerError> {
        let mut update = self
            .tables
            .connection
            .prepare_cached("UPDATE subscriptions SET page_lsn = ?2, page_position = ?3 WHERE number = ?1")?;
        update.execute(params![id.0.cast_signed(), snapshot.to_bytes().as_slice(), position])?;
        self.forget_reached_up_to(id, position)
    }

    /// The server opened the subscription under this scope.
    pub(crate) fn set_scope(&mut self, id: SubscriptionId, scope: u64) -> Result<(), PeerError> {
        let mut update =
            self.tables.connection.prepare_cached("UPDATE subscriptions SET scope = ?2 WHERE number = ?1")?;
        update.execute(params![id.0.cast_signed(), scope.cast_signed()])?;
        Ok(())
    }
}

pub(super) fn lsn_from_blob(bytes: &[u8]) -> Result<Lsn, PeerError> {
    let bytes = bytes.try_into().map_err(|_| PeerError::Damaged("an LSN of another length".to_owned()))?;
    Ok(Lsn::from_bytes(bytes))
}

fn from_row(row: &Row<'_>) -> Result<StoredSubscription, PeerError> {
    let (cursor, page_lsn): (Option<Vec<u8>>, Option<Vec<u8>>) = (row.get(4)?, row.get(5)?);
    let position: Option<Vec<u8>> = row.get(6)?;
    let page = match (page_lsn, position) {
        (Some(lsn), Some(position)) => Some((lsn_from_blob(&lsn)?, Bytes::from(position))),
        (Some(_), None) | (None, Some(_) | None) => None,
    };
    Ok(StoredSubscription {
        id: SubscriptionId(row.get::<_, i64>(0)?.cast_unsigned()),
        query: row.get(1)?,
        arguments: row.get(2)?,
        scope: row.get::<_, i64>(3)?.cast_unsigned(),
        cursor: cursor.as_deref().map(lsn_from_blob).transpose()?,
        page,
        first_sync: row.get(7)?,
    })
}
