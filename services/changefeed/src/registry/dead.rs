//! Dead letters: events that a receiver would not take, kept until somebody delivers them again or discards them. They are
//! few, and bounded: when there is no room for another, the feed waits.
//!
//! # Consistency
//! How many there are is a number of its own, which changes in the commits that bring and take letters. Feeds of before have
//! none: their letters are counted when the number is first needed.

use bigpeer_chassis::Name;
use bigpeer_log::{MetaError, MetaOp};
use bigpeer_types::AppId;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::keys::{self, Key};
use super::{ATTEMPTS, PAGE, Registry, Stored, encode};
use crate::error::FeedError;

/// Most dead letters of one feed.
pub(crate) const MAX_DEAD_LETTERS: usize = 1000;
/// Bytes of what was to be sent in one value of the metadata space.
const PART_BYTES: usize = 60 * 1024;
/// Values in one commit.
const PARTS_PER_COMMIT: usize = 12;
/// Values that are read to be forgotten.
const FORGOTTEN_AT_ONCE: usize = 64;
/// Most ids of events that a letter names; its body has all.
const NAMED_EVENTS: usize = 10;

/// Why an event was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeadLetter {
    /// Its own id.
    pub(crate) id: String,
    /// What receivers tell a repetition by. Letters of before have none.
    #[serde(default)]
    pub(crate) event_id: String,
    /// The events, by their ids; of many the first few.
    pub(crate) events: Vec<String>,
    /// How many events. Letters of before say nothing, and name all.
    #[serde(default)]
    pub(crate) count: usize,
    /// What the receiver answered last.
    pub(crate) reason: String,
    /// How often it was tried.
    pub(crate) attempts: u32,
    /// When it was given up, in milliseconds since the epoch.
    pub(crate) at_ms: u64,
    /// Bytes of what was to be sent.
    pub(crate) bytes: usize,
}

impl DeadLetter {
    /// A letter of the events of these ids, which has no id of its own yet.
    pub(crate) fn new<'a>(
        event_id: &str,
        events: impl ExactSizeIterator<Item = &'a str>,
        (reason, attempts): (&str, u32),
        at_ms: u64,
    ) -> Self {
        Self {
            id: String::new(),
            event_id: event_id.to_owned(),
            count: events.len(),
            events: events.take(NAMED_EVENTS).map(str::to_owned).collect(),
            reason: reason.chars().take(500).collect(),
            attempts,
            at_ms,
            bytes: 0,
        }
    }

    /// The same, of a letter of before, too.
    fn whole(mut self) -> Self {
        if self.count == 0 {
            self.count = self.events.len();
            self.event_id = match self.events.as_slice() {
                [first, .., last] => format!("{first}..{last}"),
                events => events.concat(),
            };
            self.events.truncate(NAMED_EVENTS);
        }
        self
    }
}

/// How many dead letters there are.
#[derive(Serialize, Deserialize)]
struct Count {
    letters: usize,
}

impl Registry {
    /// Keeps what could not be delivered. Answers whether there was room.
    pub(crate) async fn bury(
        &self,
        (app, name): (&AppId, &Name),
        mut letter: DeadLetter,
        body: &Bytes,
    ) -> Result<bool, FeedError> {
        if self.dead_count(app, name).await?.0 >= MAX_DEAD_LETTERS {
            return Ok(false);
        }
        letter.id = format!("{:013}-{:016x}", letter.at_ms, self.ids.next_u64());
        letter.bytes = body.len();
        let mut ops = Vec::new();
        for (part, chunk) in (0..).zip(body.chunks(PART_BYTES)) {
            let key = Key::DeadBody(app.clone(), name.clone(), letter.id.clone(), part).encode();
            ops.push(MetaOp::Put { key, value: Bytes::copy_from_slice(chunk) });
            if ops.len() == PARTS_PER_COMMIT {
                self.log.metadata().commit(std::mem::take(&mut ops)).await?;
            }
        }
        // Last: a letter is there when all of it is.
        let key = Key::DeadLetter(app.clone(), name.clone(), letter.id.clone()).encode();
        ops.push(MetaOp::Check { key: key.clone(), revision: None });
        ops.push(MetaOp::Put { key: key.clone(), value: encode(&letter)? });
        for _ in 0..ATTEMPTS {
            let (letters, revision) = self.dead_count(app, name).await?;
            if letters >= MAX_DEAD_LETTERS {
                self.forget(&keys::dead_bodies_of(app, name, &letter.id)).await?;
                return Ok(false);
            }
            let with_count = [ops.clone(), self.count_ops((app, name), revision, letters + 1)?].concat();
            match self.log.metadata().commit(with_count).await {
                Ok(_) => return Ok(true),
                // When that was not known: it was kept by the attempt before.
                Err(MetaError::Conflict { key: which }) if which == key => return Ok(true),
                Err(MetaError::Conflict { .. } | MetaError::Unknown { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(FeedError::Records("others keep changing the feed's dead letters".to_owned()))
    }

    /// How many dead letters there are, and the revision of that number.
    async fn dead_count(&self, app: &AppId, name: &Name) -> Result<(usize, Option<u64>), FeedError> {
        match self.get::<Count>(&Key::DeadCount(app.clone(), name.clone())).await? {
            Some(stored) => Ok((stored.record.letters, Some(stored.revision))),
            None => Ok((self.dead_letters(app, name, None, MAX_DEAD_LETTERS).await?.len(), None)),
        }
    }

    /// How many dead letters a feed has.
    pub(crate) async fn count_dead_letters(&self, app: &AppId, name: &Name) -> Result<usize, FeedError> {
        Ok(self.dead_count(app, name).await?.0)
    }

    fn count_ops(
        &self,
        (app, name): (&AppId, &Name),
        revision: Option<u64>,
        letters: usize,
    ) -> Result<Vec<MetaOp>, FeedError> {
        let key = Key::DeadCount(app.clone(), name.clone()).encode();
        let value = encode(&Count { letters })?;
        Ok(vec![MetaOp::Check { key: key.clone(), revision }, MetaOp::Put { key, value }])
    }

    /// Dead letters of a feed, the oldest first, from behind the one of id `after` on.
    pub(crate) async fn dead_letters(
        &self,
        app: &AppId,
        name: &Name,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, FeedError> {
        let prefix = keys::dead_letters_of(app, name);
        let mut after = after.map(|id| Bytes::from(format!("{prefix}{id}")));
        let mut out = Vec::new();
        loop {
            let want = PAGE.min(limit - out.len());
            let page = self.log.metadata().range(prefix.as_bytes(), after.as_deref(), want).await?;
            let full = page.len() == want;
            for (key, stored) in page {
                out.push(super::decode::<DeadLetter>(&key, &stored.value)?.whole());
                after = Some(key);
            }
            if !full || out.len() >= limit {
                return Ok(out);
            }
        }
    }

    /// A dead letter, and what was to be sent.
    pub(crate) async fn dead_letter(
        &self,
        app: &AppId,
        name: &Name,
        id: &str,
    ) -> Result<Option<(DeadLetter, Bytes)>, FeedError> {
        let Some(id) = keys::letter(id) else { return Ok(None) };
        let key = Key::DeadLetter(app.clone(), name.clone(), id.clone());
        let Some(Stored { record, .. }) = self.get::<DeadLetter>(&key).await? else { return Ok(None) };
        let parts =
            self.log.metadata().range(keys::dead_bodies_of(app, name, &id).as_bytes(), None, usize::MAX).await?;
        let body: Vec<u8> = parts.iter().flat_map(|(_, part)| part.value.iter().copied()).collect();
        if body.len() != record.bytes {
            return Err(FeedError::Records(format!("the dead letter {id} is not whole")));
        }
        Ok(Some((record.whole(), body.into())))
    }

    /// Forgets a dead letter. Answers whether it was there.
    pub(crate) async fn discard(&self, app: &AppId, name: &Name, id: &str) -> Result<bool, FeedError> {
        let Some(id) = keys::letter(id) else { return Ok(false) };
        let key = Key::DeadLetter(app.clone(), name.clone(), id.clone()).encode();
        let parts =
            self.log.metadata().range(keys::dead_bodies_of(app, name, &id).as_bytes(), None, usize::MAX).await?;
        for _ in 0..ATTEMPTS {
            let Some(stored) = self.log.metadata().get(&key).await? else { return Ok(false) };
            let (letters, revision) = self.dead_count(app, name).await?;
            let mut ops = self.count_ops((app, name), revision, letters.saturating_sub(1))?;
            ops.push(MetaOp::Check { key: key.clone(), revision: Some(stored.revision) });
            ops.push(MetaOp::Delete { key: key.clone() });
            ops.extend(parts.iter().map(|(key, _)| MetaOp::Delete { key: key.clone() }));
            if self.commit(ops).await? {
                return Ok(true);
            }
        }
        Err(FeedError::Records("others keep changing the feed's dead letters".to_owned()))
    }

    /// Forgets all dead letters of a feed that is gone.
    pub(super) async fn discard_all(&self, app: &AppId, name: &Name) -> Result<(), FeedError> {
        while let Some(letter) = self.dead_letters(app, name, None, 1).await?.pop() {
            self.discard(app, name, &letter.id).await?;
        }
        let key = Key::DeadCount(app.clone(), name.clone()).encode();
        self.log.metadata().commit(vec![MetaOp::Delete { key }]).await?;
        Ok(())
    }

    /// Forgets every key that starts with `prefix`.
    pub(super) async fn forget(&self, prefix: &str) -> Result<(), FeedError> {
        loop {
            let page = self.log.metadata().range(prefix.as_bytes(), None, FORGOTTEN_AT_ONCE).await?;
            if page.is_empty() {
                return Ok(());
            }
            let ops = page.into_iter().map(|(key, _)| MetaOp::Delete { key }).collect();
            self.log.metadata().commit(ops).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use bigpeer_log::{MemoryLog, TransactionLog};
    use bigpeer_types::{ManualClock, RandomIds};

    fn world() -> (Arc<MemoryLog>, Registry, AppId, Name) {
        let log = Arc::new(MemoryLog::new());
        let registry = Registry::new(Arc::clone(&log) as _, Arc::new(ManualClock::new(1)), Arc::new(RandomIds));
        (log, registry, AppId::new("a").unwrap(), "f".parse().unwrap())
    }

    fn letter(at_ms: u64) -> DeadLetter {
        DeadLetter::new("1.0:0", ["1.0:0"].into_iter(), ("it answered 400", 3), at_ms)
    }

    async fn keys(log: &MemoryLog) -> Vec<String> {
        let all = log.metadata().range(b"", None, usize::MAX).await.unwrap();
        all.iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect()
    }

    #[tokio::test]
    async fn letters_are_counted_whoever_brings_and_takes_them() {
        let (log, registry, app, name) = world();
        let body = Bytes::from(vec![b'x'; 3 * PART_BYTES + 1]);
        let bury = |at| registry.bury((&app, &name), letter(at), &body);
        assert!(futures::future::join_all((0..8).map(bury)).await.into_iter().all(|kept| kept.unwrap()));
        let letters = registry.dead_letters(&app, &name, None, 100).await.unwrap();
        assert_eq!((letters.len(), registry.count_dead_letters(&app, &name).await.unwrap()), (8, 8));
        assert_eq!(registry.dead_letter(&app, &name, &letters[3].id).await.unwrap().unwrap().1, body);
        // Each twice: only one of the two takes it.
        let discard = |number: usize| registry.discard(&app, &name, &letters[number / 2].id);
        let taken = futures::future::join_all((0..6).map(discard)).await;
        assert_eq!(taken.into_iter().filter(|taken| *taken.as_ref().unwrap()).count(), 3);
        assert_eq!(registry.count_dead_letters(&app, &name).await.unwrap(), 5);
        registry.discard_all(&app, &name).await.unwrap();
        assert_eq!(keys(&log).await, Vec::<String>::new());
    }

    #[tokio::test]
    async fn letters_of_before_are_counted_once_and_say_what_they_said() {
        let (log, registry, app, name) = world();
        let old = r#"{"version": 1, "id": "0000000000007-1", "events": ["7.0:0", "7.0:1", "7.0:2"], "reason": "it answered 400",
            "attempts": 10, "atMs": 7, "bytes": 2}"#;
        let id = "0000000000007-1".to_owned();
        let put = |key: Key, value: &'static str| MetaOp::Put { key: key.encode(), value: value.into() };
        let ops = vec![
            put(Key::DeadLetter(app.clone(), name.clone(), id.clone()), old),
            put(Key::DeadBody(app.clone(), name.clone(), id.clone(), 0), "[]"),
        ];
        log.metadata().commit(ops).await.unwrap();
        assert_eq!(registry.count_dead_letters(&app, &name).await.unwrap(), 1);
        let (found, body) = registry.dead_letter(&app, &name, &id).await.unwrap().unwrap();
        assert_eq!((found.count, found.event_id.as_str(), &body[..]), (3, "7.0:0..7.0:2", &b"[]"[..]));
        registry.bury((&app, &name), letter(8), &Bytes::from_static(b"{}")).await.unwrap();
        assert_eq!(registry.count_dead_letters(&app, &name).await.unwrap(), 2);
        assert!(registry.discard(&app, &name, &id).await.unwrap());
        assert_eq!(registry.count_dead_letters(&app, &name).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn when_there_is_no_room_nothing_is_kept() {
        let (log, registry, app, name) = world();
        let ops = registry.count_ops((&app, &name), None, MAX_DEAD_LETTERS).unwrap();
        log.metadata().commit(ops).await.unwrap();
        let before = keys(&log).await;
        assert!(!registry.bury((&app, &name), letter(1), &Bytes::from_static(b"{}")).await.unwrap());
        assert_eq!(keys(&log).await, before);
    }
}
