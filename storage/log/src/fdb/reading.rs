//! Reading entries: ranges that go on where the last one ended, in transactions that may grow too old.
//!
//! # Consistency
//! Each transaction reads the trim point together with the entries: what it sees after a position that is not below the
//! trim point is all that there is. Entries of one version become visible together, because a read version is either
//! before it or not; so a version is whole when something after it was seen, or nothing more is there.

use bigpeer_types::{AppId, Lsn, SiteId};

use super::cluster::Transaction;
use super::core::{Core, Trouble};
use super::keys::{AppSpace, SiteState, after_all, next};
use super::pack::Unpacker;
use super::view::lsn_or_zero;
use crate::{LogEntry, ReadBatch, ReadError};

/// Most bytes asked for at once.
const MOST_BYTES: usize = 1024 * 1024;
/// Least bytes asked for at once: one row at least is answered anyway.
const LEAST_BYTES: usize = 4 * 1024;

/// What a read has found so far.
struct Reading {
    after: Lsn,
    max_bytes: usize,
    entries: Vec<LogEntry>,
    payload_bytes: usize,
}

impl Reading {
    /// Takes entries of one version; answers whether there is room for more.
    fn take(&mut self, found: Vec<LogEntry>) -> bool {
        let found: Vec<_> = found.into_iter().filter(|entry| entry.lsn > self.after).collect();
        let Some(first) = found.first() else { return true };
        let bytes: usize = found.iter().map(|entry| entry.payload.len()).sum();
        let starts_version = self.entries.last().is_some_and(|last| last.lsn.version != first.lsn.version);
        if starts_version && self.payload_bytes + bytes > self.max_bytes {
            return false;
        }
        self.payload_bytes += bytes;
        self.entries.extend(found);
        true
    }

    /// After the last entry that was taken.
    fn position(&self) -> Lsn {
        self.entries.last().map_or(self.after, |last| last.lsn)
    }

    fn batch(self) -> ReadBatch {
        let through = self.position();
        ReadBatch { entries: self.entries, through }
    }
}

/// See `TransactionLog::read`.
pub(crate) async fn read(core: &Core, app: &AppId, after: Lsn, max_bytes: usize) -> Result<ReadBatch, ReadError> {
    let mut reading = Reading { after, max_bytes, entries: Vec::new(), payload_bytes: 0 };
    let mut tries = core.tries();
    loop {
        let transaction = tries.begin().map_err(Trouble::from)?;
        let trouble = match read_in(core, &*transaction, app, &mut reading).await {
            Ok(Some(trimmed)) => return Err(ReadError::Trimmed { kept_after: trimmed }),
            Ok(None) => return Ok(reading.batch()),
            Err(trouble) => trouble,
        };
        tries.troubled(transaction, trouble).await?;
    }
}

/// Reads on in one transaction. Answers the trim point if the read's position is below it.
async fn read_in(
    core: &Core,
    transaction: &dyn Transaction,
    app: &AppId,
    reading: &mut Reading,
) -> Result<Option<Lsn>, Trouble> {
    let Some(number) = core.number_in(transaction, app).await? else { return Ok(None) };
    let app = core.space.app(number);
    let end = after_all(app.all_entries());
    let mut begin = app.entries_after(reading.position());
    let trimmed_key = app.trimmed();
    let wanted = |reading: &Reading| {
        // A little more than is needed, so that it is seen that a version has ended.
        let missing = reading.max_bytes.saturating_sub(reading.payload_bytes);
        missing.saturating_add(missing / 4).clamp(LEAST_BYTES, MOST_BYTES)
    };
    let first = transaction.range(&begin, &end, wanted(reading));
    let (trimmed, mut page) = futures::try_join!(transaction.get(&trimmed_key), first)?;
    let trimmed = lsn_or_zero(trimmed.as_deref(), "the trim point")?;
    if reading.after < trimmed {
        return Ok(Some(trimmed));
    }
    let mut unpacker = Unpacker::default();
    loop {
        for (key, value) in &page.rows {
            let (last, chunk) = app.entries_chunk(key).ok_or(Trouble::Damage("the key of an entry"))?;
            let found = unpacker.add(last, chunk, value).ok_or(Trouble::Damage("an entry"))?;
            if !reading.take(found) {
                return Ok(None);
            }
        }
        let Some((last, _)) = page.rows.last().filter(|_| page.more) else { break };
        begin = next(last);
        page = transaction.range(&begin, &end, wanted(reading)).await?;
    }
    if unpacker.is_open() { Err(Trouble::Damage("an entry")) } else { Ok(None) }
}

/// One of an app's positions.
pub(crate) async fn position(core: &Core, app: &AppId, key: fn(&AppSpace) -> Vec<u8>) -> Result<Lsn, ReadError> {
    let value = value(core, app, key).await?;
    Ok(lsn_or_zero(value.as_deref(), "a position")?)
}

/// See `TransactionLog::last_seq`.
pub(crate) async fn last_seq(core: &Core, app: &AppId, site: SiteId) -> Result<u64, ReadError> {
    let Some(value) = value(core, app, |app| app.site(site)).await? else { return Ok(0) };
    let state = SiteState::decode(&value).ok_or(Trouble::Damage("a site's last entry"))?;
    Ok(state.seq)
}

/// One of an app's values.
async fn value(
    core: &Core,
    app: &AppId,
    key: impl Fn(&AppSpace) -> Vec<u8> + Send + Sync,
) -> Result<Option<bytes::Bytes>, Trouble> {
    let mut tries = core.tries();
    loop {
        let transaction = tries.begin()?;
        let read = async {
            match core.number_in(&*transaction, app).await? {
                Some(number) => Ok(transaction.get(&key(&core.space.app(number))).await?),
                None => Ok(None),
            }
        };
        match read.await {
            Ok(value) => return Ok(value),
            Err(trouble) => tries.troubled(transaction, trouble).await?,
        }
    }
}
