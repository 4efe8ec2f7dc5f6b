//! Segment files: those that hold the log, and those made ready ahead of use.
//!
//! A ready file is written with zeros once and synced, because overwriting initialized blocks costs a sync a tenth of what
//! allocating them does. Trimmed segments become ready files again. Making files ready happens on the maintenance thread.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use super::disk::{Disk, DiskFile};
use super::format::{SEGMENT_HEADER_BYTES, Seed, SegmentHeader};

/// How much is written at once when a file is made ready.
static ZEROS: [u8; 256 * 1024] = [0; 256 * 1024];

/// Most files kept ready; more that become free are removed.
const MOST_READY: usize = 2;

/// A segment that holds a part of the log.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) name: String,
    pub(crate) header: SegmentHeader,
    pub(crate) seed: Seed,
    pub(crate) file: Arc<dyn DiskFile>,
}

impl Segment {
    pub(crate) fn new(name: String, header: SegmentHeader, file: Arc<dyn DiskFile>) -> Self {
        Self { name, header, seed: header.seed(), file }
    }
}

/// A file that may become a segment.
#[derive(Debug)]
pub(crate) struct ReadyFile {
    pub(crate) name: String,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) bytes: u64,
}

#[derive(Debug, Default)]
struct Pool {
    ready: Vec<ReadyFile>,
    /// Whether somebody is making one ready: others wait for it instead of making another.
    preparing: bool,
    /// The number of the next file's name.
    next_name: u64,
}

/// All segment files of a log.
#[derive(Debug)]
pub(crate) struct Segments {
    disk: Arc<dyn Disk>,
    file_bytes: u64,
    live: RwLock<BTreeMap<u64, Arc<Segment>>>,
    pool: Mutex<Pool>,
    prepared: Condvar,
}

/// Ending of a segment's file name.
pub(crate) const SEGMENT_SUFFIX: &str = ".segment";
/// Ending of the name of a file that is not ready yet; removed when a log is opened.
pub(crate) const UNFINISHED_SUFFIX: &str = ".new";

impl Segments {
    pub(crate) fn new(disk: Arc<dyn Disk>, file_bytes: u64, next_name: u64) -> Self {
        let pool = Pool { ready: Vec::new(), preparing: false, next_name };
        Self { disk, file_bytes, live: RwLock::default(), pool: Mutex::new(pool), prepared: Condvar::new() }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segment of this number, if it has not been freed.
    pub(crate) fn get(&self, number: u64) -> Option<Arc<Segment>> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    pub(crate) fn add(&self, segment: Arc<Segment>) {
        self.live.write().unwrap_or_else(PoisonError::into_inner).insert(segment.header.number, segment);
    }

    /// Takes a ready file that can hold `needed` bytes; makes one if there is none.
    pub(crate) fn take(&self, needed: u64) -> io::Result<ReadyFile> {
        let mut pool = self.pool();
        loop {
            if let Some(at) = pool.ready.iter().position(|ready| ready.bytes >= needed) {
                return Ok(pool.ready.swap_remove(at));
            }
            if !pool.preparing || needed > self.file_bytes {
                break;
            }
            pool = self.prepared.wait(pool).unwrap_or_else(PoisonError::into_inner);
        }
        drop(pool);
        self.make(needed.max(self.file_bytes))
    }

    /// Makes a file ready if there is none.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        {
            let mut pool = self.pool();
            if !pool.ready.is_empty() || pool.preparing {
                return Ok(());
            }
            pool.preparing = true;
        }
        let made = self.make(self.file_bytes);
        let mut pool = self.pool();
        pool.preparing = false;
        let result = made.map(|ready| pool.ready.push(ready));
        self.prepared.notify_all();
        result
    }

    fn make(&self, bytes: u64) -> io::Result<ReadyFile> {
        let number = {
            let mut pool = self.pool();
            pool.next_name += 1;
            pool.next_name
        };
        let unfinished = format!("{number:08}{UNFINISHED_SUFFIX}");
        let name = format!("{number:08}{SEGMENT_SUFFIX}");
        let file = match self.initialize(&unfinished, bytes) {
            Ok(file) => file,
            Err(error) => {
                // What is left of it takes space that is missing; if it cannot be removed now, the next opening will.
                let _ = self.disk.remove(&unfinished);
                return Err(error);
            }
        };
        self.disk.rename(&unfinished, &name)?;
        self.disk.sync_names()?;
        Ok(ReadyFile { name, file, bytes })
    }

    fn initialize(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.create(name)?;
        file.reserve(bytes)?;
        let mut offset = 0;
        while offset < bytes {
            let length = usize::try_from(bytes - offset).unwrap_or(usize::MAX).min(ZEROS.len());
            file.write_at(&ZEROS[..length], offset)?;
            offset += length as u64;
        }
        file.sync()?;
        Ok(file)
    }

    /// Puts a file that holds nothing of the log to the ready ones, or removes it.
    pub(crate) fn give_back(&self, ready: ReadyFile) -> io::Result<()> {
        let mut pool = self.pool();
        if ready.bytes == self.file_bytes && pool.ready.len() < MOST_READY {
            pool.ready.push(ready);
            return Ok(());
        }
        drop(pool);
        self.disk.remove(&ready.name)
    }

    /// Frees the segments before `first`: nothing in them is needed, and a durable checkpoint says so.
    pub(crate) fn free_before(&self, first: u64) -> io::Result<()> {
        loop {
            let segment = {
                let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
                match live.first_key_value() {
                    Some((&number, _)) if number < first => live.pop_first().map(|(_, segment)| segment),
                    Some(_) | None => None,
                }
            };
            let Some(segment) = segment else { return Ok(()) };
            match Arc::try_unwrap(segment) {
                Ok(Segment { name, header, file, .. }) => {
                    self.give_back(ReadyFile { name, file, bytes: header.file_bytes })?;
                }
                // Somebody still reads it: its bytes must stay as they are.
                Err(segment) => self.disk.remove(&segment.name)?,
            }
        }
    }
}

/// A segment file's header as found on disk.
#[derive(Debug)]
pub(crate) enum FoundHeader {
    /// A segment, of this log or another, in use or freed.
    Segment(SegmentHeader),
    /// Zeros: made ready, never used.
    Unused,
    /// Something else.
    Damaged,
}

/// Reads the header of a segment file.
pub(crate) fn read_header(file: &dyn DiskFile) -> io::Result<FoundHeader> {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    file.read_at(&mut bytes, 0)?;
    Ok(match SegmentHeader::decode(&bytes) {
        Some(header) => FoundHeader::Segment(header),
        None if bytes == [0; SEGMENT_HEADER_BYTES] => FoundHeader::Unused,
        None => FoundHeader::Damaged,
    })
}
