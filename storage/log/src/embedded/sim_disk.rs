//! A disk that does what disks do at their worst, on command: loses what was not synced, writes it in any order, tears it
//! at sectors, fails the n-th operation, forgets what a failed sync should have written, flips bits.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::disk::{Disk, DiskFile};

/// What a disk writes whole or not at all.
pub const SECTOR: usize = 512;

/// What becomes of bytes and names that were not synced when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// All gone.
    Lost,
    /// All there.
    Kept,
    /// Each sector for itself, by chance of this seed; of the changes to names those up to some point.
    Some(u64),
}

/// What happens at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power goes: this and every later operation fails. A write may or may not have reached the disk.
    PowerLoss,
    /// This one operation fails; a sync that fails forgets what it did not write.
    Error(io::ErrorKind),
    /// This and every later operation that needs space fails, until [`SimDisk::repair`].
    Full,
}

/// A change to the directory.
#[derive(Clone, Debug)]
enum Naming {
    Set(String, usize),
    Remove(String),
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Set(name, file) => {
                names.insert(name.clone(), *file);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
struct FileState {
    /// What a reader sees.
    current: Vec<u8>,
    /// What is on the disk.
    durable: Vec<u8>,
    /// What was written since the last sync, in order; one sector or less each.
    pending: Vec<(usize, Vec<u8>)>,
}

fn write_into(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if file.len() < offset + bytes.len() {
        file.resize(offset + bytes.len(), 0);
    }
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}

#[derive(Clone, Debug)]
struct State {
    files: Vec<FileState>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<Naming>,
    locked: bool,
    operations: u64,
    fault: Option<(u64, Fault)>,
    /// No power.
    dead: bool,
    full: bool,
    random: StdRng,
}

/// A simulated disk; clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    path: PathBuf,
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new(0)
    }
}

impl SimDisk {
    /// An empty disk; `seed` decides what a failed sync has written.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with(State {
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            locked: false,
            operations: 0,
            fault: None,
            dead: false,
            full: false,
            random: StdRng::seed_from_u64(seed),
        })
    }

    fn with(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)), path: PathBuf::from("/simulated") }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a fault happen at the operation of this number, counted from the disk's beginning.
    pub fn fault_at(&self, operation: u64, fault: Fault) {
        self.state().fault = Some((operation, fault));
    }

    /// How many operations there were that change something or sync.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Takes back the fault, and gives space back.
    pub fn repair(&self) {
        let mut state = self.state();
        (state.fault, state.full) = (None, false);
    }

    /// The disk as it is found after the power was lost now.
    #[must_use]
    pub fn after_power_loss(&self, unsynced: Unsynced) -> Self {
        let mut state = self.state().clone();
        let mut random = StdRng::seed_from_u64(if let Unsynced::Some(seed) = unsynced { seed } else { 0 });
        let names = match unsynced {
            Unsynced::Lost => 0,
            Unsynced::Kept => state.pending_names.len(),
            Unsynced::Some(_) => random.random_range(0..=state.pending_names.len()),
        };
        let happened: Vec<_> = state.pending_names.drain(..).take(names).collect();
        for naming in happened {
            naming.apply(&mut state.durable_names);
        }
        // Sometimes most of it is there, sometimes little.
        let kept = random.random_range(0.0..=1.0);
        for file in &mut state.files {
            for (offset, bytes) in std::mem::take(&mut file.pending) {
                if unsynced == Unsynced::Kept || (unsynced != Unsynced::Lost && random.random_bool(kept)) {
                    write_into(&mut file.durable, offset, &bytes);
                }
            }
            file.current.clone_from(&file.durable);
        }
        state.names.clone_from(&state.durable_names);
        (state.locked, state.dead, state.full, state.fault) = (false, false, false, None);
        Self::with(state)
    }

    /// The disk as another process finds it after this one was killed: what was written is there, synced or not.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let mut state = self.state().clone();
        (state.locked, state.dead, state.full, state.fault) = (false, false, false, None);
        Self::with(state)
    }

    /// Flips bits of a stored byte; answers whether there is such a byte.
    pub fn flip(&self, name: &str, offset: usize, mask: u8) -> bool {
        let mut state = self.state();
        let Some(file) = state.names.get(name).copied() else { return false };
        let file = &mut state.files[file];
        let mut flipped = false;
        for bytes in [&mut file.current, &mut file.durable] {
            if let Some(byte) = bytes.get_mut(offset) {
                *byte ^= mask;
                flipped = true;
            }
        }
        flipped
    }

    /// A file's bytes, as a reader sees them.
    #[must_use]
    pub fn contents(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.names.get(name).map(|file| state.files[*file].current.clone()).unwrap_or_default()
    }
}

impl State {
    /// Counts an operation. Answers whether it is the one that fails, and how.
    fn operate(&mut self, needs_space: bool) -> Result<(), Fault> {
        if self.dead {
            return Err(Fault::PowerLoss);
        }
        let number = self.operations;
        self.operations += 1;
        if let Some((at, fault)) = self.fault
            && number >= at
        {
            match fault {
                Fault::PowerLoss => self.dead = true,
                Fault::Error(_) => self.fault = None,
                Fault::Full => self.full = true,
            }
            if fault != Fault::Full {
                return Err(fault);
            }
        }
        if self.full && needs_space { Err(Fault::Full) } else { Ok(()) }
    }

    fn alive(&self) -> io::Result<()> {
        if self.dead { Err(error(Fault::PowerLoss)) } else { Ok(()) }
    }

    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        self.pending_names.push(naming);
    }
}

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::PowerLoss => io::Error::other("the simulated power is lost"),
        Fault::Error(kind) => io::Error::new(kind, "a simulated error"),
        Fault::Full => io::Error::new(io::ErrorKind::StorageFull, "the simulated disk is full"),
    }
}

#[derive(Debug)]
struct SimLock(SimDisk);

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.state().locked = false;
    }
}

impl Disk for SimDisk {
    fn lock(&self) -> io::Result<Box<dyn Any + Send>> {
        let mut state = self.state();
        if state.locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.locked = true;
        drop(state);
        Ok(Box::new(SimLock(self.clone())))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state();
        state.alive()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state();
        state.alive()?;
        let file = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), file }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.operate(true).map_err(error)?;
        state.files.push(FileState::default());
        let file = state.files.len() - 1;
        state.name(Naming::Set(name.to_owned(), file));
        Ok(Arc::new(SimFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operate(false).map_err(error)?;
        let file = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.name(Naming::Set(to.to_owned(), file));
        state.name(Naming::Remove(from.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operate(false).map_err(error)?;
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.name(Naming::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state();
        state.operate(false).map_err(error)?;
        state.durable_names = state.names.clone();
        state.pending_names.clear();
        Ok(())
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: usize,
}

impl DiskFile for SimFile {
    fn length(&self) -> io::Result<u64> {
        let state = self.disk.state();
        state.alive()?;
        Ok(state.files[self.file].current.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.state();
        state.alive()?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = state.files[self.file].current.get(offset..offset.saturating_add(buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let result = state.operate(false);
        if result == Err(Fault::PowerLoss)
            && !state.pending_names.is_empty()
            && state.files[self.file].current.is_empty()
        {
            return Err(error(Fault::PowerLoss));
        }
        let mut offset = usize::try_from(offset).unwrap_or(usize::MAX);
        // An error comes after a part of it: the first half.
        let mut rest = if matches!(result, Err(Fault::Error(_))) { &bytes[..bytes.len() / 2] } else { bytes };
        let file = &mut state.files[self.file];
        write_into(&mut file.current, offset, rest);
        while !rest.is_empty() {
            let (sector, more) = rest.split_at(rest.len().min(SECTOR - offset % SECTOR));
            file.pending.push((offset, sector.to_vec()));
            offset += sector.len();
            rest = more;
        }
        result.map_err(error)
    }

    fn reserve(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operate(true).map_err(error)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let file = &mut state.files[self.file];
        if file.current.len() < length {
            file.current.resize(length, 0);
            file.pending.push((length, Vec::new()));
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let result = state.operate(false);
        let State { files, random, .. } = &mut *state;
        let file = &mut files[self.file];
        match result {
            Ok(()) => {
                for (offset, bytes) in file.pending.drain(..) {
                    write_into(&mut file.durable, offset, &bytes);
                }
            }
            // What the power's loss keeps is decided when it comes back.
            Err(Fault::PowerLoss) => {}
            // As operating systems do: the bytes can be read, and no later sync will write them.
            Err(Fault::Error(_) | Fault::Full) => {
                for (offset, bytes) in std::mem::take(&mut file.pending) {
                    if random.random_bool(0.5) {
                        write_into(&mut file.durable, offset, &bytes);
                    }
                }
            }
        }
        result.map_err(error)
    }
}
