//! Entries at rest: what a feed is to be holds secrets of its receiver, so it is sealed as a whole.
//!
//! # Layout
//! Version 2 is the entry with its spec sealed for the entry's key; version 1, which had it in the clear, is still read.

use bigpeer_chassis::{Keyring, Sealed};
use bigpeer_feed_spec::FeedSpec;
use bigpeer_log::MetaOp;
use bigpeer_types::IdGenerator;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::keys::Key;
use super::{Asked, Entry, Registry, decode};
use crate::error::FeedError;

const VERSION: u32 = 2;

#[derive(Serialize, Deserialize)]
struct SealedEntry {
    version: u32,
    incarnation: u64,
    spec: Sealed,
    paused: Option<String>,
    request: u64,
    asked: Option<Asked>,
    created_ms: u64,
}

#[derive(Deserialize)]
struct AnyVersion {
    version: u32,
}

fn bad(key: &[u8], reason: impl std::fmt::Display) -> FeedError {
    FeedError::Records(format!("{} cannot be read: {reason}", String::from_utf8_lossy(key)))
}

/// The bytes of an entry that stands under `key`.
pub(super) fn encode(key: &[u8], entry: &Entry, keyring: &Keyring, ids: &dyn IdGenerator) -> Result<Bytes, FeedError> {
    let spec = serde_json::to_vec(&entry.spec).map_err(|error| FeedError::Records(error.to_string()))?;
    let spec = keyring.seal(&String::from_utf8_lossy(key), &spec, ids);
    let sealed = SealedEntry {
        version: VERSION,
        incarnation: entry.incarnation,
        spec: spec.map_err(|error| FeedError::Records(error.to_string()))?,
        paused: entry.paused.clone(),
        request: entry.request,
        asked: entry.asked.clone(),
        created_ms: entry.created_ms,
    };
    serde_json::to_vec(&sealed).map(Bytes::from).map_err(|error| FeedError::Records(error.to_string()))
}

/// The entry under `key`, and whether it is stored as it would be now.
pub(super) fn read(key: &[u8], bytes: &[u8], keyring: &Keyring) -> Result<(Entry, bool), FeedError> {
    let version: AnyVersion = serde_json::from_slice(bytes).map_err(|error| bad(key, error))?;
    if version.version != VERSION {
        return Ok((decode(key, bytes)?, false));
    }
    let stored: SealedEntry = serde_json::from_slice(bytes).map_err(|error| bad(key, error))?;
    let spec = keyring.open(&String::from_utf8_lossy(key), &stored.spec).map_err(|error| bad(key, error))?;
    // Not what is wrong with it: it holds secrets.
    let spec: FeedSpec = serde_json::from_slice(&spec).map_err(|_| bad(key, "what was sealed is no feed"))?;
    let entry = Entry {
        incarnation: stored.incarnation,
        spec,
        paused: stored.paused,
        request: stored.request,
        asked: stored.asked,
        created_ms: stored.created_ms,
    };
    Ok((entry, keyring.is_current(&stored.spec)))
}

impl Registry {
    /// Seals every entry anew that the newest master key did not seal. Answers how many changed.
    ///
    /// # Errors
    /// When the log does not answer, or something was sealed with a key that is not there.
    pub async fn reseal(&self) -> Result<usize, FeedError> {
        let mut changed = 0;
        for (app, name, _) in self.list(None).await? {
            let key = Key::Entry(app, name).encode();
            let Some(stored) = self.log.metadata().get(&key).await? else { continue };
            let (entry, is_current) = read(&key, &stored.value, &self.keyring)?;
            if is_current {
                continue;
            }
            let ops = vec![
                MetaOp::Check { key: key.clone(), revision: Some(stored.revision) },
                MetaOp::Put { key: key.clone(), value: encode(&key, &entry, &self.keyring, self.ids.as_ref())? },
            ];
            // Whoever changed it meanwhile sealed it, too.
            changed += usize::from(self.commit(ops).await?);
        }
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bigpeer_log::{MemoryLog, TransactionLog};
    use bigpeer_types::{AppId, ManualClock, RandomIds};

    use super::*;
    use crate::cursor::Cursor;

    #[tokio::test]
    async fn secrets_of_feeds_are_sealed_and_entries_of_before_are_read_and_rewritten() {
        let log = Arc::new(MemoryLog::new());
        let clock = Arc::new(ManualClock::new(1));
        let master = Keyring::parse(&Keyring::generate(&RandomIds)).unwrap();
        let registry = Registry::new(Arc::clone(&log) as _, clock, Arc::new(RandomIds)).with_keyring(master);
        let (app, name) = (AppId::new("a").unwrap(), "f".parse().unwrap());
        let spec: FeedSpec = serde_json::from_str(
            r#"{"owner": "k", "sources": [{"collection": "cars"}],
                "sink": {"type": "webhook", "url": "https://example.com", "secrets": ["a secret of the receiver"]}}"#,
        )
        .unwrap();
        let start = Cursor::after(bigpeer_types::Lsn::ZERO);
        let (entry, _) = registry.put(&app, &name, spec, &start).await.unwrap();
        let text = |log: Arc<MemoryLog>| async move {
            let all = log.metadata().range(b"", None, 100).await.unwrap();
            all.iter().map(|(_, stored)| String::from_utf8_lossy(&stored.value).into_owned()).collect::<String>()
        };
        assert!(!text(Arc::clone(&log)).await.contains("a secret"));
        assert_eq!(registry.entry(&app, &name).await.unwrap().unwrap().record, entry);
        assert_eq!(registry.reseal().await.unwrap(), 0);

        // As it was stored before entries were sealed.
        let key = Key::Entry(app.clone(), name.clone()).encode();
        let value = super::super::encode(&entry).unwrap();
        log.metadata().commit(vec![MetaOp::Put { key, value }]).await.unwrap();
        assert!(text(Arc::clone(&log)).await.contains("a secret"));
        assert_eq!(registry.entry(&app, &name).await.unwrap().unwrap().record, entry);
        assert_eq!(registry.reseal().await.unwrap(), 1);
        assert!(!text(Arc::clone(&log)).await.contains("a secret"));
        assert_eq!(registry.list(None).await.unwrap(), [(app, name, entry)]);
    }
}
