//! When API keys and admin tokens were used last, to the minute: noted in memory with each use, written now and then.
//!
//! # Consistency
//! What is written may be some minutes old, and less than nothing depends on it. Each process writes what it saw; of two the
//! later writer wins.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bigpeer_log::MetaOp;
use bigpeer_types::AppId;
use bytes::Bytes;

use super::keys::{Key, Name};
use super::records::{self, LastUse};
use super::{Catalogue, CatalogueError};

/// A use is noted to the minute.
const MINUTE_MS: u64 = 60_000;
/// Most records in one commit, and in one reading.
const PAGE: usize = 500;

/// When something was used last, in milliseconds since the epoch; 0: not that anybody knew.
#[derive(Debug, Default)]
pub(crate) struct Use(AtomicU64);

impl Use {
    /// Notes a use. Costs next to nothing when the minute has one.
    pub(crate) fn note(&self, now_ms: u64) {
        let minute = now_ms - now_ms % MINUTE_MS;
        if self.0.load(Ordering::Relaxed) < minute {
            self.0.fetch_max(minute, Ordering::Relaxed);
        }
    }

    fn at(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What this process wrote last, by key.
#[derive(Debug, Default)]
pub(super) struct Written(Mutex<BTreeMap<Bytes, u64>>);

impl Catalogue {
    /// Writes what was used since this was called last: one record for each key that was.
    ///
    /// # Errors
    /// When the log does not take it; it is written the next time.
    pub async fn write_uses(&self) -> Result<(), CatalogueError> {
        let view = self.view();
        let keys = view.key_uses.iter().map(|((app, name), used)| (Key::KeyUse(app.clone(), name.clone()), used.at()));
        let admins = view.admin_uses.iter().map(|(name, used)| (Key::AdminUse(name.clone()), used.at()));
        let known = self.uses.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let news: Vec<(Bytes, u64)> = keys
            .chain(admins)
            .map(|(key, at)| (key.encode(), at))
            .filter(|(key, at)| *at > known.get(key).copied().unwrap_or_default())
            .collect();
        for part in news.chunks(PAGE) {
            let mut ops = Vec::with_capacity(part.len());
            for (key, last_used_ms) in part {
                let value = records::encode(&LastUse { last_used_ms: *last_used_ms })?;
                ops.push(MetaOp::Put { key: key.clone(), value });
            }
            self.log.metadata().commit(ops).await?;
            self.uses.0.lock().unwrap_or_else(PoisonError::into_inner).extend(part.iter().cloned());
        }
        // Of those that are gone nothing is kept here.
        let view = self.view();
        self.uses.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| match Key::decode(key) {
            Some(Key::KeyUse(app, name)) => view.key_uses.contains_key(&(app, name)),
            Some(Key::AdminUse(name)) => view.admin_uses.contains_key(&name),
            Some(_) | None => false,
        });
        Ok(())
    }

    /// When the app's API keys were used last, in milliseconds since the epoch, by name; without those that never were.
    ///
    /// # Errors
    /// When the log does not answer.
    pub async fn key_uses(&self, app: &AppId) -> Result<BTreeMap<Name, u64>, CatalogueError> {
        let mut uses = BTreeMap::new();
        for (key, at) in self.read_uses(&format!("used/keys/{app}/")).await? {
            if let Key::KeyUse(_, name) = key {
                uses.insert(name, at);
            }
        }
        let view = self.view();
        for ((of, name), used) in view.key_uses.iter().filter(|((of, _), _)| of == app) {
            let at = uses.get(name).copied().unwrap_or_default().max(used.at());
            // A record that is older than the key is of another one, that had its name.
            let created = view.keys.get(&(of.clone(), name.clone())).map_or(0, |key| key.created_ms);
            note(&mut uses, name, at, created);
        }
        Ok(uses)
    }

    /// When admin tokens were used last; see [`Self::key_uses`].
    ///
    /// # Errors
    /// When the log does not answer.
    pub async fn admin_uses(&self) -> Result<BTreeMap<Name, u64>, CatalogueError> {
        let mut uses = BTreeMap::new();
        for (key, at) in self.read_uses(Key::ADMIN_USES).await? {
            if let Key::AdminUse(name) = key {
                uses.insert(name, at);
            }
        }
        let view = self.view();
        for (name, used) in &view.admin_uses {
            let at = uses.get(name).copied().unwrap_or_default().max(used.at());
            let created = view.admins.get(name).map_or(0, |token| token.created_ms);
            note(&mut uses, name, at, created);
        }
        Ok(uses)
    }

    async fn read_uses(&self, place: &str) -> Result<Vec<(Key, u64)>, CatalogueError> {
        let (mut all, mut after) = (Vec::new(), None::<Bytes>);
        loop {
            let page = self.log.metadata().range(place.as_bytes(), after.as_deref(), PAGE).await?;
            for (bytes, value) in &page {
                let Some(key) = Key::decode(bytes) else { continue };
                let LastUse { last_used_ms } = records::decode(&key, &value.value)?;
                all.push((key, last_used_ms));
            }
            match page.last() {
                Some((last, _)) if page.len() == PAGE => after = Some(last.clone()),
                Some(_) | None => return Ok(all),
            }
        }
    }
}

fn note(uses: &mut BTreeMap<Name, u64>, name: &Name, at: u64, created_ms: u64) {
    if at >= created_ms - created_ms % MINUTE_MS && at > 0 {
        uses.insert(name.clone(), at);
    } else {
        uses.remove(name);
    }
}
