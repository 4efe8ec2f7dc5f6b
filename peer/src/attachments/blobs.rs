//! `Blobs`: the files of attachments. Everything here blocks.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bigpeer_crdt::{Attachment, Object};
use sha2::{Digest, Sha256};

use crate::PeerError;

/// Bytes that are copied and hashed at once.
const COPY_BYTES: usize = 256 << 10;

/// A directory of blobs.
#[derive(Debug)]
pub(super) struct Blobs {
    dir: PathBuf,
}

/// The store could not do it.
pub(super) fn failed(path: &Path, source: io::Error) -> PeerError {
    PeerError::Io { path: path.to_owned(), source: Arc::new(source) }
}

impl Blobs {
    /// Opens the directory, and makes it if need be. Removes blobs that are not `known`, and what was not finished being
    /// attached. What was being fetched stays.
    pub(super) fn open(dir: PathBuf, known: &BTreeSet<[u8; 32]>) -> Result<Self, PeerError> {
        let at = |error| failed(&dir, error);
        if !dir.is_dir() {
            let mut builder = fs::DirBuilder::new();
            #[cfg(unix)]
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.create(&dir).map_err(at)?;
        }
        for entry in fs::read_dir(&dir).map_err(at)? {
            let entry = entry.map_err(at)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let whole = Attachment::parse_id(&name);
            if name.ends_with(".new") || whole.is_some_and(|id| !known.contains(&id)) {
                fs::remove_file(entry.path()).map_err(at)?;
            }
        }
        Ok(Self { dir })
    }

    /// The file of a whole blob.
    pub(super) fn whole(&self, sha256: [u8; 32]) -> PathBuf {
        self.dir.join(name(sha256))
    }

    /// The file of a blob that is being fetched.
    pub(super) fn part(&self, sha256: [u8; 32]) -> PathBuf {
        self.dir.join(format!("{}.part", name(sha256)))
    }

    /// Copies what `content` holds; `number` tells it from others that are being taken. Answers digest and length.
    pub(super) fn take(&self, content: &mut dyn Read, number: u64) -> Result<([u8; 32], u64), PeerError> {
        let new = self.dir.join(format!("{number:016x}.new"));
        let taken = copy(content, &new).and_then(|(sha256, length)| {
            self.install(&new, sha256)?;
            Ok((sha256, length))
        });
        if taken.is_err() {
            // Removed at the next start if this fails.
            let _ = fs::remove_file(&new);
        }
        taken.map_err(|error| failed(&new, error))
    }

    /// Makes a file that is synced the blob.
    fn install(&self, from: &Path, sha256: [u8; 32]) -> io::Result<()> {
        fs::rename(from, self.whole(sha256))?;
        File::open(&self.dir)?.sync_all()
    }

    /// Makes what was fetched the blob, if it is what it should be; removes it if it is not. Says whether it was.
    pub(super) fn keep(&self, sha256: [u8; 32]) -> Result<bool, PeerError> {
        let part = self.part(sha256);
        let keep = || {
            if digest(&part)? != sha256 {
                fs::remove_file(&part)?;
                return Ok(false);
            }
            File::open(&part)?.sync_all()?;
            self.install(&part, sha256)?;
            Ok(true)
        };
        keep().map_err(|error| failed(&part, error))
    }

    /// Whether the whole blob is there and is what it should be.
    pub(super) fn is_sound(&self, sha256: [u8; 32]) -> bool {
        digest(&self.whole(sha256)).is_ok_and(|found| found == sha256)
    }

    /// Removes a whole blob; one that is not there is fine.
    pub(super) fn remove(&self, sha256: [u8; 32]) {
        let path = self.whole(sha256);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "an attachment could not be removed; it goes at the next start");
        }
    }
}

fn name(sha256: [u8; 32]) -> String {
    Attachment { sha256, length: 0, metadata: Object::new() }.id()
}

/// A new file that only its owner can read.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn copy(content: &mut dyn Read, to: &Path) -> io::Result<([u8; 32], u64)> {
    let mut file = private().truncate(true).open(to)?;
    let (mut hash, mut length, mut buffer) = (Sha256::new(), 0_u64, vec![0; COPY_BYTES]);
    loop {
        let read = content.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        hash.update(bytes);
        file.write_all(bytes)?;
        length += bytes.len() as u64;
    }
    file.sync_all()?;
    Ok((hash.finalize().into(), length))
}

fn digest(path: &Path) -> io::Result<[u8; 32]> {
    let (mut file, mut hash, mut buffer) = (File::open(path)?, Sha256::new(), vec![0; COPY_BYTES]);
    loop {
        let read = file.read(&mut buffer)?;
        match buffer.get(..read) {
            Some(bytes) if !bytes.is_empty() => hash.update(bytes),
            Some(_) | None => return Ok(hash.finalize().into()),
        }
    }
}
