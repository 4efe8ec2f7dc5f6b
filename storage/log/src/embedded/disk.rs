//! The seam between the embedded engine and the disk: as few operations as it needs, so that tests can make every one fail.

use std::any::Any;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation};

/// One directory of files.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Keeps others out until the answer is dropped. An error of kind `WouldBlock` says that somebody else has it, and
    /// who as far as that is known.
    ///
    /// # Errors
    /// What the operating system says.
    fn lock(&self) -> io::Result<Box<dyn Any + Send>>;

    /// The names of the files.
    ///
    /// # Errors
    /// What the operating system says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// What the operating system says.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Makes an empty file, in place of one that may be there.
    ///
    /// # Errors
    /// What the operating system says.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name.
    ///
    /// # Errors
    /// What the operating system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file; those who have it open may go on.
    ///
    /// # Errors
    /// What the operating system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names of files durable.
    ///
    /// # Errors
    /// What the operating system says. What is durable is then not known.
    fn sync_names(&self) -> io::Result<()>;

    /// Where the files are, for messages.
    fn path(&self) -> &Path;
}

/// An open file.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Length in bytes.
    ///
    /// # Errors
    /// What the operating system says.
    fn length(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// What the operating system says; `UnexpectedEof` beyond the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`. Durable only after a sync.
    ///
    /// # Errors
    /// What the operating system says; some of it may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Reserves space, so that writing below `length` cannot fail for want of it.
    ///
    /// # Errors
    /// What the operating system says, above all that there is no space.
    fn reserve(&self, length: u64) -> io::Result<()>;

    /// Makes what was written durable.
    ///
    /// # Errors
    /// What the operating system says. What is durable is then not known, and syncing again will not tell.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of the local file system.
#[derive(Debug)]
pub struct LocalDisk(PathBuf);

impl LocalDisk {
    /// Opens a directory; makes it if it does not exist.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn new(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(Self(dir.to_owned()))
    }
}

/// The name of the file that is locked. It holds the process id of who locked it last.
const LOCK_FILE: &str = "LOCK";

/// The lock, until this is dropped. Closing the file would not do: a process that is just being started has it open, too.
struct Locked(File);

impl Drop for Locked {
    fn drop(&mut self) {
        // What cannot be unlocked is when the last who has it open closes it.
        let _still_locked = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

impl Disk for LocalDisk {
    fn lock(&self) -> io::Result<Box<dyn Any + Send>> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(self.0.join(LOCK_FILE))?;
        if let Err(error) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(error.into());
            }
            let mut holder = String::new();
            file.take(32).read_to_string(&mut holder)?;
            return Err(io::Error::new(io::ErrorKind::WouldBlock, holder.trim().to_owned()));
        }
        let mut locked = Locked(file);
        locked.0.set_len(0)?;
        locked.0.rewind()?;
        writeln!(locked.0, "{}", std::process::id())?;
        Ok(Box::new(locked))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.0)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(LocalFile(OpenOptions::new().read(true).write(true).open(self.0.join(name))?)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(self.0.join(name))?;
        Ok(Arc::new(LocalFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.0.join(from), self.0.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.0.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

#[derive(Debug)]
struct LocalFile(File);

impl DiskFile for LocalFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn reserve(&self, length: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, length) {
            // Where it is not supported, writing the zeros reserves the space.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Not `sync_all`: the time of the last change is of no use, and costs a second write. What is needed to read the
    /// data back (length, blocks) is synced.
    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Whether an error says that there is no space, which may come back.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}
