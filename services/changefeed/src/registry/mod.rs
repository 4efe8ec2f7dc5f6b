//! `Registry`: what feeds are to be, and how far each has come, in the log's metadata space.
//!
//! # Consistency
//! Entries change by compare-and-swap. A checkpoint is written only by whoever holds the feed's lease, in one commit with a
//! check of it, so that an owner that was overtaken can do no harm. What an administrator asks of a running feed (to go back,
//! to read a collection anew) is a numbered **request** in the entry; the checkpoint says which was carried out last.

mod dead;
mod journal;
mod keys;
mod retention;
mod sealed;

use std::sync::Arc;

use bigpeer_chassis::{ApiError, ErrorCode, Keyring, Name};
use bigpeer_feed_spec::FeedSpec;
use bigpeer_log::{Lease, MetaError, MetaOp, MetaWatch, TransactionLog};
use bigpeer_types::{AppId, Clock, CollectionName, IdGenerator, Lsn};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cursor::Cursor;
use crate::error::FeedError;
pub(crate) use dead::{DeadLetter, MAX_DEAD_LETTERS};
pub(crate) use journal::{Delivery, Fresh, Journal};
use keys::Key;
pub use retention::Retention;

/// The version of stored records.
const VERSION: u32 = 1;
/// How often a change is tried again when others change the same.
const ATTEMPTS: usize = 32;
const PAGE: usize = 500;
/// Most feeds of one app.
const MAX_FEEDS: usize = 200;

/// What a feed is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Tells this feed from one of the same name before it.
    pub incarnation: u64,
    /// What it is to be.
    pub spec: FeedSpec,
    /// Why it stands still, if it does.
    pub paused: Option<String>,
    /// The number of the last request.
    pub request: u64,
    /// The last request.
    pub asked: Option<Asked>,
    /// When it was made, in milliseconds since the epoch.
    pub created_ms: u64,
}

/// What an administrator asks of a feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Asked {
    /// To go on from this cursor.
    Rewind(String),
    /// To read these collections anew, between changes.
    Snapshot(Vec<CollectionName>),
}

/// How far a feed has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Which feed it is about.
    pub incarnation: u64,
    /// Counts up with every move.
    pub number: u64,
    /// Everything up to here was delivered.
    pub cursor: String,
    /// The last request that was carried out.
    pub request: u64,
    /// Events that were delivered since the feed was made.
    pub delivered: u64,
    /// When the last of them was, in milliseconds since the epoch.
    pub delivered_ms: Option<u64>,
    /// When the last transaction that was delivered had been written, by its writer's clock.
    pub written_ms: Option<u64>,
    /// When nothing was left to deliver for the last time.
    pub caught_up_ms: Option<u64>,
    /// The next one, which holds if the sink has committed its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared: Option<Box<Checkpoint>>,
}

impl Checkpoint {
    /// The cursor, read.
    ///
    /// # Errors
    /// When it is none.
    pub fn cursor(&self) -> Result<Cursor, FeedError> {
        self.cursor.parse().map_err(|_| FeedError::Records(format!("'{}' is not a cursor", self.cursor)))
    }
}

/// A record and the revision of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored<T> {
    /// What is stored.
    pub record: T,
    /// The commit that wrote it.
    pub revision: u64,
}

/// The records of feeds.
#[derive(Clone, Debug)]
pub struct Registry {
    log: Arc<dyn TransactionLog>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdGenerator>,
    /// What secrets are sealed with.
    keyring: Keyring,
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    record: T,
}

fn encode<T: Serialize>(record: &T) -> Result<Bytes, FeedError> {
    let bytes = serde_json::to_vec(&Versioned { version: VERSION, record });
    bytes.map(Bytes::from).map_err(|error| FeedError::Records(error.to_string()))
}

fn decode<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Result<T, FeedError> {
    let bad = |reason: String| FeedError::Records(format!("{} cannot be read: {reason}", String::from_utf8_lossy(key)));
    let stored: Versioned<T> = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
    if stored.version != VERSION {
        return Err(bad(format!("version {} is not known to this build", stored.version)));
    }
    Ok(stored.record)
}

impl From<FeedError> for ApiError {
    fn from(error: FeedError) -> Self {
        match error {
            FeedError::Records(_) => {
                tracing::warn!(%error, "records of feeds cannot be read or written");
                Self::new(ErrorCode::Unavailable, "the feeds cannot be read or changed right now; try again")
            }
            FeedError::Ahead { .. } => Self::new(ErrorCode::BadRequest, error.to_string()),
            FeedError::Gap { .. }
            | FeedError::Tables(_)
            | FeedError::Log(_)
            | FeedError::Corrupt { .. }
            | FeedError::Sink(_)
            | FeedError::Lost => Self::internal(&error),
        }
    }
}

fn no_feed(name: &Name) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("this app has no feed '{name}'"))
}

impl Registry {
    /// Over a log's metadata space.
    #[must_use]
    pub fn new(log: Arc<dyn TransactionLog>, clock: Arc<dyn Clock>, ids: Arc<dyn IdGenerator>) -> Self {
        Self { log, clock, ids, keyring: Keyring::none() }
    }

    /// The same, with secrets sealed.
    #[must_use]
    pub fn with_keyring(self, keyring: Keyring) -> Self {
        Self { keyring, ..self }
    }

    /// Told of every change of an entry.
    #[must_use]
    pub fn watch(&self) -> MetaWatch {
        self.log.metadata().watch(keys::ENTRIES.as_bytes())
    }

    /// A feed's entry.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn entry(&self, app: &AppId, name: &Name) -> Result<Option<Stored<Entry>>, FeedError> {
        self.get_entry(&Key::Entry(app.clone(), name.clone())).await
    }

    /// How far a feed has come.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn checkpoint(&self, app: &AppId, name: &Name) -> Result<Option<Stored<Checkpoint>>, FeedError> {
        self.get(&Key::Checkpoint(app.clone(), name.clone())).await
    }

    /// The feeds of an app, or of all apps, in order.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn list(&self, app: Option<&AppId>) -> Result<Vec<(AppId, Name, Entry)>, FeedError> {
        let prefix = app.map_or_else(|| keys::ENTRIES.to_owned(), keys::entries_of);
        let mut out = Vec::new();
        let mut after: Option<Bytes> = None;
        loop {
            let page = self.log.metadata().range(prefix.as_bytes(), after.as_deref(), PAGE).await?;
            let full = page.len() == PAGE;
            for (key, stored) in page {
                let Some(Key::Entry(app, name)) = Key::decode(&key) else {
                    return Err(FeedError::Records(format!("{} is no key of a feed", String::from_utf8_lossy(&key))));
                };
                out.push((app, name, sealed::read(&key, &stored.value, &self.keyring)?.0));
                after = Some(key);
            }
            if !full {
                return Ok(out);
            }
        }
    }

    /// The earliest position that a feed of the app still needs, if it has feeds.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn needed(&self, app: &AppId) -> Result<Option<Lsn>, FeedError> {
        let mut needed: Option<Lsn> = None;
        for (_, name, _) in self.list(Some(app)).await? {
            let Some(stored) = self.checkpoint(app, &name).await? else { continue };
            let lsn = stored.record.cursor()?.position.whole();
            needed = Some(needed.map_or(lsn, |needed| needed.min(lsn)));
        }
        Ok(needed)
    }

    /// Makes a feed that starts at `start`, or changes one; answers the entry and whether it is new. A change does not move
    /// the feed.
    ///
    /// # Errors
    /// When the spec cannot work, or the log does not take it.
    pub async fn put(
        &self,
        app: &AppId,
        name: &Name,
        spec: FeedSpec,
        start: &Cursor,
    ) -> Result<(Entry, bool), ApiError> {
        spec.check().map_err(|reason| ApiError::new(ErrorCode::BadRequest, reason))?;
        let key = Key::Entry(app.clone(), name.clone());
        for _ in 0..ATTEMPTS {
            let old: Option<Stored<Entry>> = self.get_entry(&key).await?;
            let mut spec = spec.clone();
            let kept = spec.keep_secrets(old.as_ref().map(|old| &old.record.spec));
            kept.map_err(|reason| ApiError::new(ErrorCode::BadRequest, reason))?;
            let entry = match &old {
                Some(old) => Entry { spec, ..old.record.clone() },
                None => Entry {
                    incarnation: self.ids.next_u64(),
                    spec,
                    paused: None,
                    request: 0,
                    asked: None,
                    created_ms: self.clock.now_ms(),
                },
            };
            if old.as_ref().is_some_and(|old| old.record == entry) {
                return Ok((entry, false));
            }
            let mut ops = vec![MetaOp::Check { key: key.encode(), revision: old.as_ref().map(|old| old.revision) }];
            ops.push(MetaOp::Put { key: key.encode(), value: self.encode_entry(&key, &entry)? });
            if old.is_none() {
                if self.list(Some(app)).await?.len() >= MAX_FEEDS {
                    let message = format!("an app has at most {MAX_FEEDS} feeds; delete one that is not needed");
                    return Err(ApiError::new(ErrorCode::Conflict, message));
                }
                let checkpoint =
                    Checkpoint { incarnation: entry.incarnation, cursor: start.to_string(), ..Checkpoint::default() };
                let at = Key::Checkpoint(app.clone(), name.clone());
                ops.push(MetaOp::Put { key: at.encode(), value: encode(&checkpoint)? });
            }
            if self.commit(ops).await? {
                return Ok((entry, old.is_none()));
            }
        }
        Err(ApiError::new(ErrorCode::Conflict, "others are changing the same feed; try again"))
    }

    /// Changes an entry.
    async fn change(
        &self,
        app: &AppId,
        name: &Name,
        change: impl Fn(&mut Entry) + Send + Sync,
    ) -> Result<Entry, ApiError> {
        let key = Key::Entry(app.clone(), name.clone());
        for _ in 0..ATTEMPTS {
            let old: Stored<Entry> = self.get_entry(&key).await?.ok_or_else(|| no_feed(name))?;
            let mut entry = old.record.clone();
            change(&mut entry);
            if entry == old.record {
                return Ok(entry);
            }
            let ops = vec![
                MetaOp::Check { key: key.encode(), revision: Some(old.revision) },
                MetaOp::Put { key: key.encode(), value: self.encode_entry(&key, &entry)? },
            ];
            if self.commit(ops).await? {
                return Ok(entry);
            }
        }
        Err(ApiError::new(ErrorCode::Conflict, "others are changing the same feed; try again"))
    }

    /// Lets a feed stand still, and says why.
    ///
    /// # Errors
    /// When there is no such feed, or the log does not take it.
    pub async fn pause(&self, app: &AppId, name: &Name, reason: &str) -> Result<Entry, ApiError> {
        self.change(app, name, |entry| entry.paused = entry.paused.take().or_else(|| Some(reason.to_owned()))).await
    }

    /// Lets a feed go on.
    ///
    /// # Errors
    /// When there is no such feed, or the log does not take it.
    pub async fn resume(&self, app: &AppId, name: &Name) -> Result<Entry, ApiError> {
        self.change(app, name, |entry| entry.paused = None).await
    }

    /// Asks a feed for something; it is done when the checkpoint has the request's number.
    ///
    /// # Errors
    /// When there is no such feed, or the log does not take it.
    pub async fn ask(&self, app: &AppId, name: &Name, asked: Asked) -> Result<Entry, ApiError> {
        self.change(app, name, |entry| {
            entry.request += 1;
            entry.asked = Some(asked.clone());
        })
        .await
    }

    /// Deletes a feed, with everything that is kept of it.
    ///
    /// # Errors
    /// When the log does not take it.
    pub async fn delete(&self, app: &AppId, name: &Name) -> Result<(), ApiError> {
        let entry = Key::Entry(app.clone(), name.clone()).encode();
        let checkpoint = Key::Checkpoint(app.clone(), name.clone()).encode();
        let ops = vec![MetaOp::Delete { key: entry }, MetaOp::Delete { key: checkpoint }];
        self.log.metadata().commit(ops).await.map_err(FeedError::from)?;
        self.discard_all(app, name).await?;
        self.forget_deliveries(app, name).await?;
        Ok(())
    }

    /// Moves a feed, if the lease still holds, the feed still is the one of `incarnation`, and its checkpoint still is the one
    /// of `revision`; and does `besides`, or neither. Answers the new checkpoint's revision.
    ///
    /// # Errors
    /// [`FeedError::Lost`]; when it is not known whether it moved, the same call again tells.
    pub(crate) async fn advance(
        &self,
        (app, name): (&AppId, &Name),
        lease: &Lease,
        revision: u64,
        checkpoint: &Checkpoint,
        besides: &[MetaOp],
    ) -> Result<u64, FeedError> {
        let key = Key::Entry(app.clone(), name.clone());
        let at = Key::Checkpoint(app.clone(), name.clone());
        for _ in 0..ATTEMPTS {
            let entry: Stored<Entry> = self.get_entry(&key).await?.ok_or(FeedError::Lost)?;
            if entry.record.incarnation != checkpoint.incarnation {
                return Err(FeedError::Lost);
            }
            let mut ops = vec![
                lease.check(),
                MetaOp::Check { key: key.encode(), revision: Some(entry.revision) },
                MetaOp::Check { key: at.encode(), revision: Some(revision) },
                MetaOp::Put { key: at.encode(), value: encode(checkpoint)? },
            ];
            ops.extend_from_slice(besides);
            match self.log.metadata().commit(ops).await {
                Ok(revision) => return Ok(revision),
                // The entry was changed meanwhile, which does not matter.
                Err(MetaError::Conflict { key: which }) if which == key.encode() => {}
                // It may have moved when that was not known.
                Err(MetaError::Conflict { key: which }) if which == at.encode() => {
                    let stored: Option<Stored<Checkpoint>> = self.get(&at).await?;
                    let ours = stored.filter(|stored| stored.record == *checkpoint).ok_or(FeedError::Lost)?;
                    return Ok(ours.revision);
                }
                Err(MetaError::Conflict { .. }) => return Err(FeedError::Lost),
                Err(error) => return Err(error.into()),
            }
        }
        Err(FeedError::Records("others keep changing the feed".to_owned()))
    }

    async fn get_entry(&self, key: &Key) -> Result<Option<Stored<Entry>>, FeedError> {
        let bytes = key.encode();
        let stored = self.log.metadata().get(&bytes).await?;
        let read = |stored: bigpeer_log::Versioned| {
            let (record, _) = sealed::read(&bytes, &stored.value, &self.keyring)?;
            Ok(Stored { record, revision: stored.revision })
        };
        stored.map(read).transpose()
    }

    fn encode_entry(&self, key: &Key, entry: &Entry) -> Result<Bytes, FeedError> {
        sealed::encode(&key.encode(), entry, &self.keyring, self.ids.as_ref())
    }

    async fn get<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<Stored<T>>, FeedError> {
        let bytes = key.encode();
        let stored = self.log.metadata().get(&bytes).await?;
        let read = |stored: bigpeer_log::Versioned| {
            Ok(Stored { record: decode(&bytes, &stored.value)?, revision: stored.revision })
        };
        stored.map(read).transpose()
    }

    /// Whether the commit happened; not, when a check failed, or it is not known.
    async fn commit(&self, ops: Vec<MetaOp>) -> Result<bool, FeedError> {
        match self.log.metadata().commit(ops).await {
            Ok(_) => Ok(true),
            Err(MetaError::Conflict { .. } | MetaError::Unknown { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
