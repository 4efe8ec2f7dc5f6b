//! The cache: blocks of objects that never change, in memory and on a local disk.
//!
//! Only segments and attachments are cached: their names stand for one content for ever. A range is read as the blocks that
//! it touches; blocks that are missing side by side are one request, and readers who miss the same block at once wait for
//! one request.
//!
//! # Crash safety
//! Files on the disk are written beside their place and renamed, not synced: each has a checksum and the name of its
//! object, and one that is not as it should be is a miss. What is there is found again at the next start.

mod disk;
mod lru;

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use object_store::path::Path;
use object_store::{Error, Result};

use crate::metrics;
use disk::Disk;
use lru::Lru;

/// Bytes of a block. Large enough that a request's latency is not most of its cost, small enough for a point read.
pub(super) const BLOCK: u64 = 256 << 10;

/// Most blocks in one request.
const MAX_RUN: u64 = 32;

/// How much is cached, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// Most bytes in memory.
    pub memory_bytes: u64,
    /// A directory of the cache's own, made if it does not exist; none for memory alone.
    pub dir: Option<PathBuf>,
    /// Most bytes in the directory.
    pub disk_bytes: u64,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self { memory_bytes: 64 << 20, dir: None, disk_bytes: 8 << 30 }
    }
}

/// A block of an object.
pub(super) type Key = (Path, u64);

/// A request under way: its blocks, in order.
type Fetch = Shared<BoxFuture<'static, Result<Bytes, Arc<Error>>>>;

/// Reads a range of an object from the store.
pub(super) type Read = Arc<dyn Fn(Path, Range<u64>) -> BoxFuture<'static, Result<Bytes>> + Send + Sync>;

/// The cache.
#[derive(Debug)]
pub(super) struct Cache {
    memory: Mutex<Lru<Key, Bytes>>,
    disk: Option<Arc<Disk>>,
    /// For each block that is being fetched: the request, and where in its answer the block is.
    under_way: Mutex<HashMap<Key, (Fetch, u64)>>,
}

/// Where a block comes from.
enum Source {
    Here(Bytes),
    Fetch(Fetch, u64),
}

impl Cache {
    /// Opens the cache with what an earlier process left on the disk.
    pub(super) async fn open(settings: &CacheSettings) -> std::io::Result<Self> {
        let disk = match settings.dir.clone() {
            Some(dir) => {
                let limit = settings.disk_bytes;
                let opened = tokio::task::spawn_blocking(move || Disk::open(&dir, limit)).await;
                Some(Arc::new(opened.unwrap_or_else(|error| Err(std::io::Error::other(error)))?))
            }
            None => None,
        };
        Ok(Self { memory: Mutex::new(Lru::new(settings.memory_bytes)), disk, under_way: Mutex::default() })
    }

    /// A range of an object, from the cache as far as it is there.
    pub(super) async fn get(self: &Arc<Self>, path: &Path, range: Range<u64>, read: &Read) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let blocks = range.start / BLOCK..(range.end - 1) / BLOCK + 1;
        let mut found: Vec<Option<Bytes>> = Vec::new();
        for block in blocks.clone() {
            found.push(self.look(&(path.clone(), block)).await);
        }
        let sources = self.sources(path, blocks.start, found, read);
        let mut out = BytesMut::new();
        let mut whole = None;
        for (block, source) in blocks.clone().zip(sources) {
            let bytes = match source {
                Source::Here(bytes) => bytes,
                Source::Fetch(fetch, offset) => block_of(&fetch.await.map_err(|error| share(&error))?, offset),
            };
            let start = block * BLOCK;
            let from = usize::try_from(range.start.saturating_sub(start)).unwrap_or(usize::MAX).min(bytes.len());
            let to = usize::try_from(range.end - start).unwrap_or(usize::MAX).min(bytes.len());
            let part = bytes.slice(from..to.max(from));
            if blocks.end - blocks.start == 1 {
                whole = Some(part);
            } else {
                out.extend_from_slice(&part);
            }
        }
        Ok(whole.unwrap_or_else(|| out.freeze()))
    }

    /// A block from memory or the disk.
    async fn look(&self, key: &Key) -> Option<Bytes> {
        let in_memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner).get(key);
        if in_memory.is_some() {
            metrics::cached("memory", 1);
            return in_memory;
        }
        let disk = self.disk.as_ref().filter(|disk| disk.has(key))?;
        let (disk, wanted) = (Arc::clone(disk), key.clone());
        let bytes = tokio::task::spawn_blocking(move || disk.read(&wanted)).await.ok().flatten()?;
        metrics::cached("disk", 1);
        self.remember(key.clone(), bytes.clone());
        Some(bytes)
    }

    fn remember(&self, key: Key, bytes: Bytes) {
        let size = bytes.len() as u64;
        // What falls out of memory is on the disk, if there is one.
        let _ = self.memory.lock().unwrap_or_else(PoisonError::into_inner).insert(key, bytes, size);
    }

    /// Begins requests for what was not found and is not under way.
    fn sources(self: &Arc<Self>, path: &Path, first: u64, found: Vec<Option<Bytes>>, read: &Read) -> Vec<Source> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sources: Vec<Option<Source>> = Vec::with_capacity(found.len());
        for (block, bytes) in (first..).zip(found) {
            sources.push(match bytes {
                Some(bytes) => Some(Source::Here(bytes)),
                None => {
                    under_way.get(&(path.clone(), block)).map(|(fetch, offset)| Source::Fetch(fetch.clone(), *offset))
                }
            });
        }
        let mut at = 0;
        while at < sources.len() {
            let missing = sources.iter().skip(at).take_while(|source| source.is_none()).count() as u64;
            let count = missing.min(MAX_RUN);
            if count == 0 {
                at += 1;
                continue;
            }
            let run = first + at as u64..first + at as u64 + count;
            let fetch = self.fetch(path.clone(), run.clone(), read);
            for (offset, block) in (0..).zip(run) {
                under_way.insert((path.clone(), block), (fetch.clone(), offset));
                if let Some(slot) = sources.get_mut(at) {
                    *slot = Some(Source::Fetch(fetch.clone(), offset));
                }
                at += 1;
            }
        }
        metrics::cached(
            "miss",
            sources.iter().filter(|source| matches!(source, Some(Source::Fetch(..)))).count() as u64,
        );
        sources.into_iter().flatten().collect()
    }

    /// One request for some blocks. Whoever waits for it drives it; it is forgotten when it has ended.
    fn fetch(self: &Arc<Self>, path: Path, blocks: Range<u64>, read: &Read) -> Fetch {
        let (this, answer) = (Arc::clone(self), read(path.clone(), blocks.start * BLOCK..blocks.end * BLOCK));
        let work = async move {
            let answer = answer.await.map_err(Arc::new);
            if let Ok(bytes) = &answer {
                for (offset, block) in (0..).zip(blocks.clone()) {
                    // Copied: a block must not keep its neighbours in memory.
                    let bytes = Bytes::copy_from_slice(&block_of(bytes, offset));
                    if !bytes.is_empty() {
                        this.keep((path.clone(), block), bytes);
                    }
                }
            }
            let mut under_way = this.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            for block in blocks {
                under_way.remove(&(path.clone(), block));
            }
            answer
        };
        work.boxed().shared()
    }

    fn keep(&self, key: Key, bytes: Bytes) {
        self.remember(key.clone(), bytes.clone());
        if let Some(disk) = &self.disk {
            let disk = Arc::clone(disk);
            // Nobody waits for the disk.
            drop(tokio::task::spawn_blocking(move || disk.write(&key, &bytes)));
        }
    }

    /// Waits until what was to be written to the disk has been, as far as it had begun.
    #[cfg(test)]
    pub(super) async fn settle(&self, blocks: usize) {
        while self.disk.as_ref().is_some_and(|disk| disk.len() < blocks) {
            tokio::task::yield_now().await;
        }
    }
}

/// A block of a request's answer; shorter at the object's end.
fn block_of(answer: &Bytes, offset: u64) -> Bytes {
    let at = |block: u64| usize::try_from(block * BLOCK).unwrap_or(usize::MAX).min(answer.len());
    answer.slice(at(offset)..at(offset + 1))
}

/// An error that several readers get.
#[allow(clippy::wildcard_enum_match_arm, reason = "a foreign enum that may grow")]
fn share(error: &Arc<Error>) -> Error {
    match &**error {
        Error::NotFound { path, .. } => Error::NotFound { path: path.clone(), source: Box::new(Arc::clone(error)) },
        _ => Error::Generic { store: "cache", source: Box::new(Arc::clone(error)) },
    }
}

#[cfg(test)]
mod tests;
