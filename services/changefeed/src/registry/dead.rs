//! Dead letters: events that a receiver would not take, kept until somebody delivers them again or discards them. They are
//! few, and bounded: when there is no room for another, the feed waits.

use bigpeer_chassis::Name;
use bigpeer_log::MetaOp;
use bigpeer_types::AppId;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::keys::{self, Key};
use super::{PAGE, Registry, Stored, encode};
use crate::error::FeedError;

/// Most dead letters of one feed.
pub(crate) const MAX_DEAD_LETTERS: usize = 1000;
/// Bytes of what was to be sent in one value of the metadata space.
const PART_BYTES: usize = 60 * 1024;
/// Values in one commit.
const PARTS_PER_COMMIT: usize = 12;

/// Why an event was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeadLetter {
    /// Its own id.
    pub(crate) id: String,
    /// The events, by their ids.
    pub(crate) events: Vec<String>,
    /// What the receiver answered last.
    pub(crate) reason: String,
    /// How often it was tried.
    pub(crate) attempts: u32,
    /// When it was given up, in milliseconds since the epoch.
    pub(crate) at_ms: u64,
    /// Bytes of what was to be sent.
    pub(crate) bytes: usize,
}

impl Registry {
    /// Keeps what could not be delivered. Answers whether there was room.
    pub(crate) async fn bury(
        &self,
        (app, name): (&AppId, &Name),
        mut letter: DeadLetter,
        body: &Bytes,
    ) -> Result<bool, FeedError> {
        if self.dead_letters(app, name, None, MAX_DEAD_LETTERS).await?.len() >= MAX_DEAD_LETTERS {
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
        ops.push(MetaOp::Put { key, value: encode(&letter)? });
        self.log.metadata().commit(ops).await?;
        Ok(true)
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
                out.push(super::decode(&key, &stored.value)?);
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
        Ok(Some((record, body.into())))
    }

    /// Forgets a dead letter.
    pub(crate) async fn discard(&self, app: &AppId, name: &Name, id: &str) -> Result<(), FeedError> {
        let Some(id) = keys::letter(id) else { return Ok(()) };
        let parts =
            self.log.metadata().range(keys::dead_bodies_of(app, name, &id).as_bytes(), None, usize::MAX).await?;
        let mut ops = vec![MetaOp::Delete { key: Key::DeadLetter(app.clone(), name.clone(), id).encode() }];
        ops.extend(parts.into_iter().map(|(key, _)| MetaOp::Delete { key }));
        self.log.metadata().commit(ops).await?;
        Ok(())
    }
}
