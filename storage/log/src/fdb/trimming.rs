//! Giving up entries, and forgetting which keys were written long ago.

use bigpeer_types::{AppId, Lsn};
use futures::future::try_join_all;

use super::cluster::{CommitFailure, Conflicts, Transaction};
use super::core::{Core, Trouble};
use super::keys::{AppSpace, decode_lsn, next};
use super::view::lsn_or_zero;
use crate::{ConflictKey, ReadError};

/// Bytes of lists of written keys that are forgotten in one transaction, at 8 bytes a key.
const FORGET_BYTES: usize = 16 * 1024;

/// See `TransactionLog::trim`.
pub(crate) async fn trim(core: &Core, app: &AppId, through: Lsn) -> Result<(), ReadError> {
    let Some((space, head)) = move_trim_point(core, app, through).await? else { return Ok(()) };
    // What is left of this is done at the next trim.
    if let Err(trouble) = forget(core, &space, head).await {
        tracing::warn!(%app, reason = trouble.reason(), "old writes could not be forgotten");
    }
    Ok(())
}

/// Answers the app and its head; `None`: nothing was ever appended.
async fn move_trim_point(core: &Core, app: &AppId, through: Lsn) -> Result<Option<(AppSpace, Lsn)>, Trouble> {
    let mut tries = core.tries();
    loop {
        let transaction = tries.begin()?;
        let prepared = async {
            let Some(number) = core.number_in(&*transaction, app).await? else { return Ok(None) };
            let space = core.space.app(number);
            let (head, trimmed) = (space.head(), space.trimmed());
            let (head, trimmed) = futures::try_join!(transaction.get(&head), transaction.get(&trimmed))?;
            let head = lsn_or_zero(head.as_deref(), "the head")?;
            let trimmed = lsn_or_zero(trimmed.as_deref(), "the trim point")?;
            let through = through.min(head);
            if through <= trimmed {
                return Ok(Some((space, head, false)));
            }
            transaction.depend_on(&space.trimmed(), &next(&space.trimmed()))?;
            transaction.set(&space.trimmed(), &through.to_bytes(), Conflicts::Yes);
            transaction.clear_range(&space.all_entries(), &space.entries_after(through));
            Ok(Some((space, head, true)))
        };
        match prepared.await {
            Ok(None) => return Ok(None),
            Ok(Some((space, head, false))) => return Ok(Some((space, head))),
            Ok(Some((space, head, true))) => match transaction.commit().await {
                Ok(_) => return Ok(Some((space, head))),
                // Whether it happened is seen by looking again.
                Err(CommitFailure { code, again }) => tries.failed(code, again).await?,
            },
            Err(trouble) => tries.troubled(transaction, trouble).await?,
        }
    }
}

/// Forgets which keys were written before the memory of conflict checks begins, a piece at a time.
async fn forget(core: &Core, space: &AppSpace, head: Lsn) -> Result<(), Trouble> {
    // Versions pass at about a million a second.
    let memory = u64::try_from(core.settings.conflict_memory.as_micros()).unwrap_or(u64::MAX);
    let Some(before) = head.version.checked_sub(memory) else { return Ok(()) };
    let mut tries = core.tries();
    loop {
        let transaction = tries.begin()?;
        match forget_piece(&*transaction, space, before).await {
            Ok(more) => match transaction.commit().await {
                Ok(_) if !more => return Ok(()),
                Ok(_) => tries = core.tries(),
                Err(CommitFailure { code, again }) => tries.failed(code, again).await?,
            },
            Err(trouble) => tries.troubled(transaction, trouble).await?,
        }
    }
}

/// Forgets the oldest writes of versions up to `before`. Answers whether there may be more.
async fn forget_piece(transaction: &dyn Transaction, space: &AppSpace, before: u64) -> Result<bool, Trouble> {
    let (begin, end) = (space.writes_from(0), space.writes_from(before.saturating_add(1)));
    let page = transaction.range(&begin, &end, FORGET_BYTES).await?;
    let Some((last, _)) = page.rows.last() else { return Ok(false) };
    let forgotten = space.writes_lsn(last).ok_or(Trouble::Damage("the key of a list of writes"))?;
    let keys: Vec<_> = page
        .rows
        .iter()
        .flat_map(|(_, list)| list.as_chunks::<8>().0)
        .map(|key| space.written(ConflictKey(u64::from_be_bytes(*key))))
        .collect();
    let values = try_join_all(keys.iter().map(|key| transaction.get(key))).await?;
    for (key, value) in keys.iter().zip(values) {
        let Some(value) = value else { continue };
        if decode_lsn(&value).ok_or(Trouble::Damage("when a key was written"))? <= forgotten {
            transaction.depend_on(key, &next(key))?;
            transaction.clear(key, Conflicts::Yes);
        }
    }
    let after_last = next(last);
    transaction.clear_range(&begin, &after_last);
    let known = transaction.get(&space.forgotten()).await?;
    let known = lsn_or_zero(known.as_deref(), "up to where writes are forgotten")?;
    transaction.depend_on(&space.forgotten(), &next(&space.forgotten()))?;
    transaction.set(&space.forgotten(), &known.max(forgotten).to_bytes(), Conflicts::Yes);
    Ok(page.more)
}
