//! Baselines: what this machine does at the same hour with the same disk and processor, without anything of ours.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::figures::{Target, bytes_of, rate, show};

const KEYS: u64 = 4_000_000;
const WRITTEN: u64 = 256 << 20;
const PIECE: usize = 4 << 20;
/// Bytes of a read at a random place: what a page of the disk has.
const SMALL: usize = 4096;

/// Keys of 16 bytes that one core puts in order in a second.
pub(crate) fn sorted_keys() -> f64 {
    let mut random = Random(7);
    let mut keys: Vec<u128> = (0..KEYS).map(|_| u128::from(random.next()) << 64 | u128::from(random.next())).collect();
    let started = Instant::now();
    keys.sort_unstable();
    let sorted = rate(KEYS, started.elapsed());
    assert!(keys.is_sorted());
    show("baseline_sort", sorted, "keys/s", Target::None);
    sorted
}

/// MB that are written and synced in a second.
pub(crate) fn disk_writes(dir: &Path) -> f64 {
    let path = dir.join("baseline");
    let mut random = Random(11);
    let piece: Vec<u8> = (0..PIECE / 8).flat_map(|_| random.next().to_le_bytes()).collect();
    let started = Instant::now();
    let mut file = File::create(&path).unwrap();
    for _ in 0..WRITTEN / PIECE as u64 {
        file.write_all(&piece).unwrap();
    }
    file.sync_all().unwrap();
    let written = rate(WRITTEN, started.elapsed()) / 1e6;
    std::fs::remove_file(path).unwrap();
    show("baseline_disk_writes", written, "MB/s", Target::None);
    written
}

/// MB of these files that are read in a second, one after the other.
pub(crate) fn disk_reads(files: &[(PathBuf, u64)]) -> f64 {
    let mut piece = vec![0; PIECE];
    let started = Instant::now();
    for (path, _) in files {
        let mut file = File::open(path).unwrap();
        while file.read(&mut piece).unwrap() > 0 {}
    }
    let read = rate(bytes_of(files), started.elapsed()) / 1e6;
    show("baseline_disk_reads", read, "MB/s", Target::None);
    read
}

/// How long so many reads of 4 KiB at random places of these files take, one after the other.
pub(crate) fn random_reads(files: &[(PathBuf, u64)], reads: u64) -> Duration {
    let files: Vec<(File, u64)> = files
        .iter()
        .filter(|(_, bytes)| *bytes > SMALL as u64)
        .map(|(path, bytes)| (File::open(path).unwrap(), *bytes))
        .collect();
    let total: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    let (mut random, mut page) = (Random(13), [0; SMALL]);
    let started = Instant::now();
    for _ in 0..reads {
        let mut at = random.next() % total;
        for (file, bytes) in &files {
            if at < *bytes {
                file.read_exact_at(&mut page, at.min(bytes - SMALL as u64)).unwrap();
                break;
            }
            at -= bytes;
        }
    }
    started.elapsed()
}

/// Xorshift.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
