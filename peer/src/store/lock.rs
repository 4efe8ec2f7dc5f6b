//! One process per store: the lock file, and files that only their owner can read.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::sync::Arc;

use crate::PeerError;

/// Held for as long as the store is open. The operating system lets go of it when the process dies.
#[derive(Debug)]
pub(super) struct StoreLock {
    _file: File,
}

impl StoreLock {
    /// Makes the directory when it is new, and takes its lock.
    pub(super) fn take(dir: &Path) -> Result<Self, PeerError> {
        if !dir.is_dir() {
            make_private_dir(dir)?;
        }
        let path = dir.join("peer.lock");
        let file = open_private(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(PeerError::StoreInUse(dir.to_owned())),
            Err(TryLockError::Error(source)) => Err(io(&path, source)),
        }
    }
}

/// Makes `path` with mode 0600 if it does not exist.
pub(super) fn make_private_file(path: &Path) -> Result<(), PeerError> {
    open_private(path).map(drop)
}

fn open_private(path: &Path) -> Result<File, PeerError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|source| io(path, source))
}

fn make_private_dir(dir: &Path) -> Result<(), PeerError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|source| io(dir, source))
}

fn io(path: &Path, source: std::io::Error) -> PeerError {
    PeerError::Io { path: path.to_owned(), source: Arc::new(source) }
}
