//! The audit log: what was asked of the admin API, by whom, from where, and what came of it. Never what was in it.
//!
//! # Consistency
//! An entry of a change is written before the change is tried, and again with its outcome before that is answered: what has
//! no `status` may have happened. Ids are in order of time, as the clocks of the processes have it.
//!
//! # Limits
//! Entries are kept for [`KEPT_MS`], [`MAX_ENTRIES`] at most. Where there are more, the oldest go of whom there are most of:
//! nobody can drown what others did in noise of their own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bigpeer_log::MetaOp;
use bigpeer_types::AppId;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::keys::{Key, Name};
use super::records;
use super::{ATTEMPTS, Catalogue, CatalogueError};

/// How long an entry is kept, in milliseconds.
const KEPT_MS: u64 = 90 * 24 * 3600 * 1000;
/// Most entries that are kept.
pub(crate) const MAX_ENTRIES: usize = 10_000;
/// After how many entries of this process it is looked whether there are too many.
const TRIM_EVERY: u64 = 128;
/// Refusals of callers that nobody knows which are written in a minute; of the others it is said how many there were.
const MAX_STRANGERS_A_MINUTE: u64 = 60;
const PAGE: usize = 500;

/// An entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When it was asked, in milliseconds since the epoch.
    pub at: u64,
    /// Who asked; none: nobody that is known.
    pub by: Option<AuditCaller>,
    /// What the caller's secret begins with.
    pub prefix: Option<String>,
    /// The request's method.
    pub method: String,
    /// The request's path.
    pub path: String,
    /// Whose resource it is, as far as that is known.
    pub tenant: Option<Name>,
    /// The app that it is of, as far as that is known.
    pub app: Option<AppId>,
    /// The answer's status; none: it may have happened.
    pub status: Option<u16>,
    /// Names of the fields that were given, when that was accepted.
    #[serde(default)]
    pub fields: Vec<String>,
    /// The other end of the connection.
    pub from: Option<String>,
    /// The request's id.
    pub request_id: Option<String>,
    /// Refusals of unknown callers before this one that are not written down.
    #[serde(default)]
    pub omitted: u64,
}

/// Who asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditCaller {
    /// An admin token of this name.
    Token(Name),
    /// An API key.
    Key {
        /// Its app.
        app: AppId,
        /// Its name there.
        name: Name,
    },
}

/// Which entries are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Of this tenant only.
    pub tenant: Option<Name>,
    /// Of this app only.
    pub app: Option<AppId>,
    /// From this moment on, in milliseconds since the epoch.
    pub since_ms: Option<u64>,
    /// Before this moment.
    pub until_ms: Option<u64>,
    /// Behind this entry.
    pub after: Option<String>,
    /// So many at most.
    pub limit: usize,
}

/// What this process keeps in mind to write entries.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    written: AtomicU64,
    strangers: Mutex<Strangers>,
    trimming: tokio::sync::Mutex<()>,
}

/// Refusals of unknown callers in the minute.
#[derive(Debug, Default)]
struct Strangers {
    minute: u64,
    written: u64,
    omitted: u64,
}

impl Strangers {
    /// Whether one more is written down, and how many were not before it.
    fn enter(&mut self, minute: u64) -> Option<u64> {
        if self.minute != minute {
            (self.minute, self.written) = (minute, 0);
        }
        if self.written >= MAX_STRANGERS_A_MINUTE {
            self.omitted += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.omitted))
    }
}

impl Catalogue {
    /// Writes an entry. Answers its id.
    ///
    /// # Errors
    /// When the log does not take it.
    pub async fn audit(&self, entry: &AuditEntry) -> Result<String, CatalogueError> {
        let id = format!("{:013}-{:016x}", entry.at, self.ids.next_u64());
        self.audit_as(&id, entry).await?;
        if self.audit.written.fetch_add(1, Ordering::Relaxed).is_multiple_of(TRIM_EVERY) {
            self.trim_audit_log(MAX_ENTRIES).await?;
        }
        Ok(id)
    }

    /// Writes an entry anew: with what came of it.
    ///
    /// # Errors
    /// When the log does not take it.
    pub async fn audit_as(&self, id: &str, entry: &AuditEntry) -> Result<(), CatalogueError> {
        let (key, value) = (Key::Audit(id.to_owned()).encode(), records::encode(entry)?);
        // Whatever became of a commit that is not known, writing it again is the same.
        for _ in 0..ATTEMPTS {
            if self.commit(vec![MetaOp::Put { key: key.clone(), value: value.clone() }]).await? {
                return Ok(());
            }
        }
        Err(CatalogueError::Busy)
    }

    /// Writes that a caller whom nobody knows was refused: not more often than the log can bear.
    ///
    /// # Errors
    /// When the log does not take it.
    pub async fn audit_stranger(&self, mut entry: AuditEntry) -> Result<(), CatalogueError> {
        let room = self.audit.strangers.lock().unwrap_or_else(PoisonError::into_inner).enter(entry.at / 60_000);
        let Some(omitted) = room else { return Ok(()) };
        entry.omitted = omitted;
        self.audit(&entry).await.map(drop)
    }

    /// The entries asked for, the oldest first, with their ids; and whether there may be more behind the last.
    ///
    /// # Errors
    /// When the log does not answer.
    pub async fn audit_log(&self, query: &AuditQuery) -> Result<(Vec<(String, AuditEntry)>, bool), CatalogueError> {
        let oldest = self.clock.now_ms().saturating_sub(KEPT_MS);
        // Sorts before every id of its moment.
        let since = format!("{:013}", query.since_ms.unwrap_or_default().max(oldest));
        let first = query.after.as_ref().map_or(since.as_str(), |after| since.as_str().max(after.as_str()));
        let mut after = Key::Audit(first.to_owned()).encode();
        let mut found = Vec::new();
        loop {
            let page = self.log.metadata().range(Key::AUDIT.as_bytes(), Some(&after), PAGE).await?;
            for (bytes, value) in &page {
                let Some(key) = Key::decode(bytes) else { continue };
                let entry: AuditEntry = records::decode(&key, &value.value)?;
                if query.until_ms.is_some_and(|until| entry.at >= until) {
                    return Ok((found, false));
                }
                let of_tenant = query.tenant.as_ref().is_none_or(|tenant| entry.tenant.as_ref() == Some(tenant));
                let of_app = query.app.as_ref().is_none_or(|app| entry.app.as_ref() == Some(app));
                let Key::Audit(id) = key else { continue };
                if of_tenant && of_app {
                    if found.len() == query.limit {
                        return Ok((found, true));
                    }
                    found.push((id, entry));
                }
            }
            match page.last() {
                Some((last, _)) if page.len() == PAGE => after = last.clone(),
                Some(_) | None => return Ok((found, false)),
            }
        }
    }

    /// Removes what is too old, and what is too much.
    pub(crate) async fn trim_audit_log(&self, most: usize) -> Result<(), CatalogueError> {
        // Who comes while somebody does it need not do it again.
        let Ok(_one_at_a_time) = self.audit.trimming.try_lock() else { return Ok(()) };
        let oldest = self.clock.now_ms().saturating_sub(KEPT_MS);
        // By whose they are: the oldest first.
        let mut groups: BTreeMap<(bool, Option<Name>), VecDeque<Bytes>> = BTreeMap::new();
        let (mut going, mut total, mut after) = (Vec::new(), 0_usize, None::<Bytes>);
        loop {
            let page = self.log.metadata().range(Key::AUDIT.as_bytes(), after.as_deref(), PAGE).await?;
            for (bytes, value) in &page {
                let Some(key) = Key::decode(bytes) else { continue };
                let entry: AuditEntry = records::decode(&key, &value.value)?;
                if entry.at < oldest {
                    going.push(bytes.clone());
                } else {
                    groups.entry((entry.by.is_some(), entry.tenant)).or_default().push_back(bytes.clone());
                    total += 1;
                }
            }
            match page.last() {
                Some((last, _)) if page.len() == PAGE => after = Some(last.clone()),
                Some(_) | None => break,
            }
        }
        while total > most {
            let Some(largest) = groups.values_mut().max_by_key(|group| group.len()) else { break };
            going.extend(largest.pop_front());
            total -= 1;
        }
        for part in going.chunks(PAGE) {
            let ops = part.iter().map(|key| MetaOp::Delete { key: key.clone() }).collect();
            self.log.metadata().commit(ops).await?;
        }
        Ok(())
    }
}
