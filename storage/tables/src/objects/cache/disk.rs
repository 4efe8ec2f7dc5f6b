//! The cache's directory: one file for each block.
//!
//! **Layout**: `{xx}/{32 hexadecimal digits}`, the hash of object and block; `xx` its first two digits. In a file, little-endian:
//! ```text
//! 8 bytes   "bpcache" and the format version (1)
//! 4 bytes   crc32c of everything that follows
//! 8 bytes   number of the block
//! 4 bytes   length of the object's path
//! path, then the block
//! ```

use std::fs;
use std::io::{self, Write};
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use super::lru::Lru;
use super::{BLOCK, Key};

const MAGIC: &[u8; 8] = b"bpcache\x01";
const HEADER: usize = 24;

#[derive(Debug)]
pub(super) struct Disk {
    dir: PathBuf,
    /// Names of files.
    files: Mutex<Lru<u128, ()>>,
}

impl Disk {
    /// Opens a directory; makes it if need be, and deletes what does not belong there or is too much.
    pub(super) fn open(dir: &FilePath, limit: u64) -> io::Result<Self> {
        let mut found = Vec::new();
        for xx in 0..=255_u8 {
            let place = dir.join(format!("{xx:02x}"));
            fs::create_dir_all(&place)?;
            for entry in fs::read_dir(&place)? {
                let entry = entry?;
                let meta = entry.metadata()?;
                let name = entry.file_name();
                let name = name.to_str().filter(|name| name.len() == 32);
                match name.and_then(|name| u128::from_str_radix(name, 16).ok()) {
                    Some(name) if meta.is_file() => found.push((meta.modified()?, name, meta.len())),
                    // A write that was interrupted.
                    Some(_) | None => fs::remove_file(entry.path())?,
                }
            }
        }
        found.sort();
        let disk = Self { dir: dir.to_owned(), files: Mutex::new(Lru::new(limit)) };
        for (_, name, bytes) in found {
            disk.add(name, bytes);
        }
        Ok(disk)
    }

    pub(super) fn has(&self, key: &Key) -> bool {
        self.files().contains(&name_of(key))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.files().len()
    }

    /// A block, if it is there and whole.
    pub(super) fn read(&self, key: &Key) -> Option<Bytes> {
        let name = name_of(key);
        self.files().get(&name)?;
        let block = fs::read(self.path(name)).ok().and_then(|bytes| decode(&Bytes::from(bytes), key));
        if block.is_none() {
            self.files().remove(&name);
        }
        block
    }

    /// Keeps a block. A disk that is full or broken costs speed, nothing else.
    pub(super) fn write(&self, key: &Key, block: &[u8]) {
        let name = name_of(key);
        match self.put(name, key, block) {
            Ok(bytes) => self.add(name, bytes),
            Err(error) => tracing::warn!(%error, "the cache's directory cannot be written"),
        }
    }

    fn put(&self, name: u128, key: &Key, block: &[u8]) -> io::Result<u64> {
        let bytes = encode(key, block);
        let path = self.path(name);
        // One name at a time is written: a block is fetched once. Another writer of the same would write the same.
        let temporary = path.with_extension("new");
        let mut file = fs::File::create(&temporary)?;
        file.write_all(&bytes)?;
        fs::rename(&temporary, &path)?;
        Ok(bytes.len() as u64)
    }

    fn add(&self, name: u128, bytes: u64) {
        let gone = self.files().insert(name, (), bytes);
        for (name, ()) in gone {
            // What cannot be deleted is found again at the next start.
            let _ = fs::remove_file(self.path(name));
        }
    }

    fn files(&self) -> std::sync::MutexGuard<'_, Lru<u128, ()>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: u128) -> PathBuf {
        let name = format!("{name:032x}");
        self.dir.join(name.get(..2).unwrap_or_default()).join(name)
    }
}

fn name_of((path, block): &Key) -> u128 {
    let mut bytes = block.to_le_bytes().to_vec();
    bytes.extend_from_slice(path.as_ref().as_bytes());
    xxh3_128(&bytes)
}

fn encode((path, block): &Key, bytes: &[u8]) -> Vec<u8> {
    let path = path.as_ref().as_bytes();
    let mut out = Vec::with_capacity(HEADER + path.len() + bytes.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&block.to_le_bytes());
    out.extend_from_slice(&u32::try_from(path.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(path);
    out.extend_from_slice(bytes);
    let crc = crc32c::crc32c(out.get(12..).unwrap_or_default());
    if let Some(slot) = out.get_mut(8..12) {
        slot.copy_from_slice(&crc.to_le_bytes());
    }
    out
}

fn decode(bytes: &Bytes, key: &Key) -> Option<Bytes> {
    let (head, rest) = (bytes.get(..12)?, bytes.get(12..)?);
    let start = HEADER + key.0.as_ref().len();
    let expected = encode(key, &[]);
    let whole = head.get(..8)? == MAGIC
        && *head.get(8..)? == crc32c::crc32c(rest).to_le_bytes()
        && bytes.get(12..start)? == expected.get(12..)?
        && (1..=BLOCK).contains(&(bytes.len() as u64).saturating_sub(start as u64));
    whole.then(|| bytes.slice(start..))
}
