//! The metadata space: one transaction a commit, revisions from versionstamps, and a list of changes that other processes
//! follow.
//!
//! # Consistency
//! A value's revision is the version of its commit. Several commits may share a version, but not two that write the same
//! key: each depends on the keys that it writes. So a key's revisions increase with every write, and a commit that begins
//! after another was acknowledged has a greater one.
//!
//! # Layout
//! A change is `nonce: u64 | 0` when it changed so many keys that all may have changed, or
//! `nonce: u64 | 1 | (length: u16 | key)*`, numbers big-endian.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::cluster::{CommitFailure, Conflicts, ErrorCode, Stamp, Transaction};
use super::core::{Core, Trouble};
use super::keys::{after_all, next};
use crate::{MetaError, MetaOp, Versioned};

/// How long changes are kept for those who follow, in versions ("microseconds").
pub(crate) const KEPT_VERSIONS: u64 = 600_000_000;
/// A change that lists more bytes of keys than this says that all may have changed.
const LIST_BYTES: usize = 32 * 1024;
/// Bytes of a range that are asked for at once.
const PAGE_BYTES: usize = 256 * 1024;

/// What a commit changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) nonce: u64,
    /// `None`: any key may have changed.
    pub(crate) keys: Option<Vec<Bytes>>,
}

impl Change {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = self.nonce.to_be_bytes().to_vec();
        let size = |keys: &[Bytes]| keys.iter().map(|key| key.len() + 2).sum::<usize>();
        let Some(keys) = self.keys.as_deref().filter(|keys| size(keys) <= LIST_BYTES) else {
            out.push(0);
            return out;
        };
        out.push(1);
        for key in keys {
            out.extend_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes());
            out.extend_from_slice(key);
        }
        out
    }

    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        let (nonce, rest) = value.split_first_chunk::<8>()?;
        let nonce = u64::from_be_bytes(*nonce);
        let (format, mut rest) = rest.split_first()?;
        if *format == 0 {
            return Some(Self { nonce, keys: None });
        }
        let mut keys = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<2>() {
            let (key, after) = after.split_at_checked(u16::from_be_bytes(*length).into())?;
            keys.push(Bytes::copy_from_slice(key));
            rest = after;
        }
        (*format == 1 && rest.is_empty()).then_some(Self { nonce, keys: Some(keys) })
    }
}

fn decode(value: &Bytes) -> Result<Versioned, Trouble> {
    let stamp = value.first_chunk::<{ Stamp::BYTES }>().ok_or(Trouble::Damage("a metadata value"))?;
    Ok(Versioned { value: value.slice(Stamp::BYTES..), revision: Stamp::from_bytes(*stamp).version })
}

/// See `Metadata::get`.
pub(crate) async fn get(core: &Core, key: &[u8]) -> Result<Option<Versioned>, Trouble> {
    let key = core.space.metadata(key);
    let mut tries = core.tries();
    loop {
        let transaction = tries.begin()?;
        match transaction.get(&key).await {
            Ok(value) => return value.as_ref().map(decode).transpose(),
            Err(code) => tries.failed(code, transaction.on_error(code)).await?,
        }
    }
}

/// See `Metadata::range`.
pub(crate) async fn range(
    core: &Core,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<(Bytes, Versioned)>, Trouble> {
    let prefix = core.space.metadata(prefix);
    let begin = match after.map(|after| next(&core.space.metadata(after))) {
        Some(after) if after > prefix => after,
        Some(_) | None => prefix.clone(),
    };
    let end = after_all(prefix);
    let mut tries = core.tries();
    loop {
        let transaction = tries.begin()?;
        match range_in(core, &*transaction, begin.clone(), &end, limit).await {
            Ok(rows) => return Ok(rows),
            Err(trouble) => tries.troubled(transaction, trouble).await?,
        }
    }
}

async fn range_in(
    core: &Core,
    transaction: &dyn Transaction,
    mut begin: Vec<u8>,
    end: &[u8],
    limit: usize,
) -> Result<Vec<(Bytes, Versioned)>, Trouble> {
    let mut found = Vec::new();
    while found.len() < limit && begin[..] < *end {
        let page = transaction.range(&begin, end, PAGE_BYTES).await?;
        for (key, value) in page.rows.iter().take(limit - found.len()) {
            let name = core.space.metadata_name(key).ok_or(Trouble::Damage("a metadata key"))?;
            found.push((Bytes::copy_from_slice(name), decode(value)?));
        }
        match page.rows.last() {
            Some((last, _)) if page.more => begin = next(last),
            Some(_) | None => break,
        }
    }
    Ok(found)
}

/// See `Metadata::commit`.
pub(crate) async fn commit(core: &Core, ops: &[MetaOp]) -> Result<u64, MetaError> {
    let mut tries = core.tries();
    let mut unknown = Unknown::default();
    loop {
        let transaction = tries.begin().map_err(|code| unknown.give_up(code.into()))?;
        let trouble = match prepare(core, &*transaction, ops, &mut unknown).await {
            Ok(Prepared::Happened(revision)) => {
                tell(core, ops, revision);
                return Ok(revision);
            }
            Ok(Prepared::Conflict(key)) => return Err(MetaError::Conflict { key }),
            Ok(Prepared::Ready { nonce, version }) => match transaction.commit().await {
                Ok(stamp) => {
                    tell(core, ops, stamp.version);
                    return Ok(stamp.version);
                }
                Err(CommitFailure { code, again }) => {
                    if code.may_have_committed() {
                        unknown.add(nonce, version);
                    }
                    tries.failed(code, again).await.map_err(|code| unknown.give_up(code.into()))?;
                    continue;
                }
            },
            Err(trouble) => trouble,
        };
        tries.troubled(transaction, trouble).await.map_err(|trouble| unknown.give_up(trouble))?;
    }
}

/// Tries of which it is not known whether they happened.
#[derive(Debug, Default)]
struct Unknown {
    nonces: Vec<u64>,
    /// None of them happened at or before this version.
    after: Option<u64>,
}

impl Unknown {
    fn add(&mut self, nonce: u64, version: u64) {
        self.nonces.push(nonce);
        self.after.get_or_insert(version);
    }

    fn give_up(&self, trouble: Trouble) -> MetaError {
        let reason = trouble.reason();
        if self.nonces.is_empty() { MetaError::Unavailable { reason } } else { MetaError::Unknown { reason } }
    }
}

enum Prepared {
    /// An earlier try did happen.
    Happened(u64),
    /// The first check that does not hold.
    Conflict(Bytes),
    /// All is in the transaction.
    Ready { nonce: u64, version: u64 },
}

async fn prepare(
    core: &Core,
    transaction: &dyn Transaction,
    ops: &[MetaOp],
    unknown: &mut Unknown,
) -> Result<Prepared, Trouble> {
    let version = transaction.read_version().await?;
    if let Some(after) = unknown.after {
        let changes = changes(core, transaction, Stamp { version: after, batch: u16::MAX }).await?;
        if let Some((stamp, _)) = changes.iter().find(|(_, change)| unknown.nonces.contains(&change.nonce)) {
            return Ok(Prepared::Happened(stamp.version));
        }
    }
    let mut last = BTreeMap::new();
    for op in ops {
        let key = core.space.metadata(op.key());
        transaction.depend_on(&key, &next(&key))?;
        match op {
            MetaOp::Check { key: name, revision } => {
                let found = transaction.get(&key).await?.as_ref().map(decode).transpose()?;
                if found.map(|found| found.revision) != *revision {
                    return Ok(Prepared::Conflict(name.clone()));
                }
            }
            MetaOp::Put { value, .. } => drop(last.insert(op.key(), Some(value))),
            MetaOp::Delete { .. } => drop(last.insert(op.key(), None)),
        }
    }
    let nonce = core.settings.ids.next_u64();
    for (name, value) in &last {
        let key = core.space.metadata(name);
        match value {
            Some(value) => {
                let value = [&Stamp::default().to_bytes(), &value[..]].concat();
                transaction.set_stamped_value(&key, &value, Conflicts::Yes);
            }
            None => transaction.clear(&key, Conflicts::Yes),
        }
    }
    let keys = last.into_keys().cloned().collect();
    let change = core.space.new_change();
    transaction.set_stamped_key(&change.key, change.at, &Change { nonce, keys: Some(keys) }.encode());
    transaction.set_stamped_value(&core.space.last_change(), &Stamp::default().to_bytes(), Conflicts::No);
    let oldest = Stamp { version: version.saturating_sub(KEPT_VERSIONS), batch: 0 };
    transaction.clear_range(&core.space.change(Stamp::default()), &core.space.change(oldest));
    Ok(Prepared::Ready { nonce, version })
}

/// Tells those who watch in this process.
fn tell(core: &Core, ops: &[MetaOp], revision: u64) {
    let written = ops.iter().filter(|op| !matches!(op, MetaOp::Check { .. })).map(MetaOp::key);
    core.watchers.committed(written, revision);
}

/// The changes after a stamp, oldest first.
pub(crate) async fn changes(
    core: &Core,
    transaction: &dyn Transaction,
    after: Stamp,
) -> Result<Vec<(Stamp, Change)>, Trouble> {
    let (mut begin, end) = (next(&core.space.change(after)), core.space.after_changes());
    let mut found = Vec::new();
    loop {
        let page = transaction.range(&begin, &end, PAGE_BYTES).await?;
        for (key, value) in &page.rows {
            let stamp = core.space.change_stamp(key).ok_or(Trouble::Damage("the key of a metadata change"))?;
            found.push((stamp, Change::decode(value).ok_or(Trouble::Damage("a metadata change"))?));
        }
        match page.rows.last() {
            Some((last, _)) if page.more => begin = next(last),
            Some(_) | None => return Ok(found),
        }
    }
}

/// The stamp of the last change, and what ends when there is another.
pub(crate) async fn look(core: &Core, seen: Option<Stamp>) -> Result<Look, Trouble> {
    let mut tries = core.tries();
    loop {
        let transaction = tries.begin()?;
        match look_in(core, &*transaction, seen).await {
            Ok((last, changes)) => {
                let fired = transaction.watch(&core.space.last_change());
                match transaction.commit().await {
                    Ok(_) => return Ok(Look { last, changes, fired }),
                    Err(CommitFailure { code, again }) => tries.failed(code, again).await?,
                }
            }
            Err(trouble) => tries.troubled(transaction, trouble).await?,
        }
    }
}

/// What one look found.
pub(crate) struct Look {
    pub(crate) last: Stamp,
    /// What changed since the last look; `None`: anything may have.
    pub(crate) changes: Option<Vec<Change>>,
    pub(crate) fired: super::cluster::Answer<()>,
}

async fn look_in(
    core: &Core,
    transaction: &dyn Transaction,
    seen: Option<Stamp>,
) -> Result<(Stamp, Option<Vec<Change>>), Trouble> {
    let last = transaction.get(&core.space.last_change()).await?;
    let last = match last {
        Some(last) => Stamp::from_bytes(last[..].try_into().map_err(|_| Trouble::Damage("the last metadata change"))?),
        None => Stamp::default(),
    };
    let Some(seen) = seen.filter(|seen| *seen < last) else { return Ok((last, Some(Vec::new()))) };
    // Half of what is kept: nobody's clock has to agree on when it ends.
    if seen.version + KEPT_VERSIONS / 2 < transaction.read_version().await? {
        return Ok((last, None));
    }
    let changes = changes(core, transaction, seen).await?;
    Ok((last, Some(changes.into_iter().map(|(_, change)| change).collect())))
}

/// After so long the cluster is asked again without its watch having fired.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Tells those who watch in this process what others commit, until the log is closed.
pub(crate) async fn run(core: std::sync::Arc<Core>, mut seen: Stamp) {
    let mut closed = core.closed.subscribe();
    loop {
        let looked = tokio::select! {
            looked = look(&core, Some(seen)) => looked,
            _ = closed.wait_for(|closed| *closed) => return,
        };
        let fired = match looked {
            Ok(Look { last, changes, fired }) => {
                seen = last;
                match changes {
                    Some(changes) => {
                        for change in changes {
                            match change.keys {
                                Some(keys) => core.watchers.committed(keys.iter(), last.version),
                                None => core.watchers.all(last.version),
                            }
                        }
                    }
                    None => core.watchers.all(last.version),
                }
                fired
            }
            Err(trouble) => {
                tracing::warn!(reason = trouble.reason(), "changes of metadata cannot be watched; trying again");
                core.watchers.all(seen.version);
                Box::pin(tokio_pause())
            }
        };
        tokio::select! {
            // An error too is a reason to look again.
            _ = fired => {}
            _ = closed.wait_for(|closed| *closed) => return,
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// Before trying again what has been tried for long.
async fn tokio_pause() -> Result<(), ErrorCode> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn changes_are_read_back(nonce in any::<u64>(), keys in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..20)) {
            let change = Change { nonce, keys: Some(keys.into_iter().map(Bytes::from).collect()) };
            let encoded = change.encode();
            prop_assert_eq!(Change::decode(&encoded), Some(change));
            prop_assert!(encoded.len() < 10 || Change::decode(&encoded[..encoded.len() - 1]).is_none());
        }
    }

    #[test]
    fn very_many_keys_are_any_key() {
        let keys = vec![Bytes::from(vec![1; 1000]); 1000];
        let change = Change { nonce: 7, keys: Some(keys) };
        assert_eq!(Change::decode(&change.encode()), Some(Change { nonce: 7, keys: None }));
    }
}
