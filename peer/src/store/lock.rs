//! One process per store: the lock file, and files that only their owner can read.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::sync::Arc;

use crate::PeerError;

/// Held for as long as the store is open. The operating system lets go of it when the process dies.
#[derive(Debug)]
pub(super) struct StoreLock(File);

impl Drop for StoreLock {
    fn drop(&mut self) {
        // Closing the file would not do: a process that is just being started has it open, too.
        let _still_locked = self.0.unlock();
    }
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
            Ok(()) => Ok(Self(file)),
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_store_can_be_opened_again_at_once_also_while_processes_are_started() {
        let dir = tempfile::tempdir().unwrap();
        let done = AtomicBool::new(false);
        let taken = std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        assert!(Command::new("true").status().unwrap().success());
                    }
                });
            }
            let taken = (0..2000).take_while(|_| StoreLock::take(dir.path()).is_ok()).count();
            done.store(true, Ordering::Relaxed);
            taken
        });
        assert_eq!(taken, 2000);
    }
}
