//! The tables of `peer.db`, their version, and how a connection is set up.
//!
//! A version is what one step of [`STEPS`] made of the one before. Steps that were ever released are not changed; a new
//! store goes through all of them, so that there is one way to come to each version.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::PeerError;

/// Marks the file as a peer's store ("bgpr").
const APPLICATION_ID: i64 = 0x6267_7072;

/// What makes each version of the tables out of the one before, the first out of nothing.
const STEPS: [&str; 3] = [FIRST, ATTACHMENTS_AND_REJECTIONS, REACHED];

/// The version that this code reads and writes. An older store is brought to it, a newer one is refused.
const SCHEMA_VERSION: i64 = STEPS.len() as i64;

/// WAL pages before a checkpoint: 32 MiB, so that a first sync rewrites a hot page once and not at every batch.
const CHECKPOINT_PAGES: i64 = 4096;

const FIRST: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
-- Names are stored once; documents carry the number.
CREATE TABLE collections (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
-- id: order-preserving key of the _id. state: canonical encoding of everything known, unpushed changes included.
CREATE TABLE documents (
    collection INTEGER NOT NULL, id BLOB NOT NULL, state BLOB NOT NULL,
    PRIMARY KEY (collection, id)
) WITHOUT ROWID;
-- Local transactions that the server has not answered for, or that not every cursor has passed. basis: the newest seq whose outcome was known when the transaction was made. lsn: at or after
-- where it stands in the log, once that is known.
CREATE TABLE unpushed (seq INTEGER PRIMARY KEY, basis INTEGER NOT NULL, payload BLOB NOT NULL, lsn BLOB);
-- Which documents those touch.
CREATE TABLE unpushed_changes (
    collection INTEGER NOT NULL, id BLOB NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (collection, id, seq)
) WITHOUT ROWID;
CREATE INDEX unpushed_changes_seq ON unpushed_changes (seq);
-- Documents that left while they had such changes: they go when those have come through without bringing them back.
CREATE TABLE leaving (
    collection INTEGER NOT NULL, id BLOB NOT NULL,
    PRIMARY KEY (collection, id)
) WITHOUT ROWID;
-- arguments: JSON. scope: from Subscribed. cursor: LSN up to which everything matching is in `documents`. first_sync:
-- one has begun and is not complete; page_lsn, page_position: how far it came.
CREATE TABLE subscriptions (
    number INTEGER PRIMARY KEY AUTOINCREMENT, query TEXT NOT NULL, arguments TEXT NOT NULL,
    scope INTEGER NOT NULL DEFAULT 0, cursor BLOB, page_lsn BLOB, page_position BLOB,
    first_sync INTEGER NOT NULL DEFAULT 0,
    UNIQUE (query, arguments)
);
-- Documents that were here, and matched, when a first sync began, and that it has not named. stale: the server may have
-- forgotten what happened to them; the first state that it sends replaces what is here.
CREATE TABLE unnamed (
    subscription INTEGER NOT NULL, collection INTEGER NOT NULL, id BLOB NOT NULL, stale INTEGER NOT NULL,
    PRIMARY KEY (collection, id, subscription)
) WITHOUT ROWID;
";

const ATTACHMENTS_AND_REJECTIONS: &str = "
-- Blobs in the directory `attachments`. id: SHA-256. pending: the server is not known to have it. upload: the server's
-- name for an upload under way. used: when it was last asked for, in milliseconds since the epoch.
CREATE TABLE attachments (
    id BLOB PRIMARY KEY, length INTEGER NOT NULL, pending INTEGER NOT NULL, upload TEXT, used INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX attachments_pending ON attachments (used) WHERE pending = 1;
-- Local transactions that the server rejected. documents: JSON, [collection, _id] each. dismissed: the app has taken note.
CREATE TABLE rejections (
    number INTEGER PRIMARY KEY AUTOINCREMENT, site TEXT NOT NULL, seq INTEGER NOT NULL,
    code TEXT NOT NULL, message TEXT NOT NULL, documents TEXT NOT NULL, dismissed INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX rejections_seq ON rejections (site, seq);
";

const REACHED: &str = "
-- Where a subscription that catches up is ahead of its cursor, or of its page: of the documents with keys up to the position,
-- and after the position before it, everything up to lsn is in `documents`. Greater positions have smaller LSNs.
CREATE TABLE reached (
    subscription INTEGER NOT NULL, position BLOB NOT NULL, lsn BLOB NOT NULL,
    PRIMARY KEY (subscription, position)
) WITHOUT ROWID;
";

/// Opens the file for the one writer, makes the tables when it is new, and brings them up to date when they are older.
pub(super) fn open_writer(path: &Path) -> Result<Connection, PeerError> {
    let connection = Connection::open(path)?;
    set_up(&connection)?;
    let has_tables: bool = connection.query_row("SELECT EXISTS (SELECT 1 FROM sqlite_master)", [], |row| row.get(0))?;
    let version = if has_tables { version_of(&connection, path)? } else { 0 };
    // The page size must be set before the first table; rows of a few hundred bytes want larger pages than 4 KiB.
    connection.pragma_update(None, "page_size", 8192)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "synchronous", "full")?;
    if version < SCHEMA_VERSION {
        let steps = STEPS.iter().skip(usize::try_from(version).unwrap_or(STEPS.len()));
        let steps: String = steps.copied().collect();
        // One transaction: a store is of one version or of the other.
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {steps} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        ))?;
        if version > 0 {
            tracing::info!(from = version, to = SCHEMA_VERSION, "a peer's store was brought up to date");
        }
    }
    Ok(connection)
}

/// Opens the file for reading. Every read transaction sees one consistent state.
pub(super) fn open_reader(path: &Path) -> Result<Connection, PeerError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    set_up(&connection)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn set_up(connection: &Connection) -> Result<(), PeerError> {
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "cache_size", -32 * 1024)?;
    Ok(())
}

/// The version of a store that has tables; refuses what is none of ours, or newer than this code.
fn version_of(connection: &Connection, path: &Path) -> Result<i64, PeerError> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let reason = if application != APPLICATION_ID {
        "it is a database of something else".to_owned()
    } else if version > SCHEMA_VERSION {
        format!(
            "its files have version {version}, and this bigpeer reads up to version {SCHEMA_VERSION}: a newer bigpeer has \
             opened it; use that one, or another store directory"
        )
    } else if version < 1 {
        format!("its files have version {version}, which never was")
    } else {
        return Ok(version);
    };
    Err(PeerError::NotAStore { path: path.to_owned(), reason })
}
