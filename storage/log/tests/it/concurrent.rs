//! Many appenders at once on a slow disk on which something fails, while others wait for the next batch: each is told what became
//! of its own entries, and of what was refused no trace is kept.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bigpeer_log::embedded::disk::{Disk, DiskFile};
use bigpeer_log::embedded::sim_disk::{Fault, SimDisk, Unsynced};
use bigpeer_log::{
    AppendEntry, AppendError, AppendOutcome, EmbeddedLog, EmbeddedSettings, MetaError, MetaOp, ReadError,
    TransactionLog,
};
use bigpeer_types::{AppId, Lsn, SeededIds, SiteId};
use bytes::Bytes;

use crate::history::read_everything;

const SITES: u64 = 12;
/// Few appenders make batches of one, many make large ones: the rounds take turns.
fn sites(round: u64) -> u64 {
    [SITES, 3, 5][round as usize % 3]
}
/// Entries of each site.
const ENTRIES: u64 = 30;

/// A disk whose syncs take time, as real ones do.
#[derive(Debug)]
struct SlowDisk(SimDisk);

#[derive(Debug)]
struct SlowFile(Arc<dyn DiskFile>);

impl Disk for SlowDisk {
    fn lock(&self) -> io::Result<Box<dyn Any + Send>> {
        self.0.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(SlowFile(self.0.open(name)?)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(SlowFile(self.0.create(name)?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.0.sync_names()
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl DiskFile for SlowFile {
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        // The time that a disk takes: appenders come meanwhile.
        std::thread::sleep(Duration::from_micros(200));
        self.0.write_at(bytes, offset)
    }

    fn reserve(&self, length: u64) -> io::Result<()> {
        self.0.reserve(length)
    }

    fn sync(&self) -> io::Result<()> {
        std::thread::sleep(Duration::from_micros(200));
        self.0.sync()
    }
}

fn app() -> AppId {
    AppId::new("crowd").unwrap()
}

fn payload(site: u64, seq: u64) -> Bytes {
    let chance = (site << 32 | seq).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    chance.to_le_bytes().repeat(1 + (chance >> 40) as usize % 60).into()
}

/// What the log said.
#[derive(Debug, Default)]
struct Said {
    applied: BTreeMap<Lsn, (u64, u64)>,
    /// It may be there.
    unknown: BTreeSet<(u64, u64)>,
    /// It must not be there.
    refused: BTreeSet<(u64, u64)>,
    /// Of each site, the last value put under its key.
    put: BTreeMap<u64, u64>,
    put_unknown: BTreeMap<u64, u64>,
    trimmed: Lsn,
}

/// One site's life: entry after entry, each with a metadata commit after it, a trim now and then. What is refused is asked again;
/// refused twice, the log has stopped.
async fn live(log: Arc<EmbeddedLog>, site: u64, said: Arc<Mutex<Said>>) {
    for seq in 1..=ENTRIES {
        let mut attempts = 0;
        let lsn = loop {
            attempts += 1;
            let entry = AppendEntry {
                site: SiteId::new(site),
                seq,
                writes: Vec::new(),
                unchanged: Vec::new(),
                payload: payload(site, seq),
            };
            let outcome = log.append(&app(), vec![entry]).await;
            let mut said = said.lock().unwrap();
            match outcome.as_deref() {
                Ok([AppendOutcome::Applied(lsn)]) => {
                    assert_eq!(said.applied.insert(*lsn, (site, seq)), None, "{lsn} was given twice");
                    said.refused.remove(&(site, seq));
                    break *lsn;
                }
                Err(AppendError::Unavailable { .. }) => {
                    said.refused.insert((site, seq));
                    if attempts > 2 {
                        return;
                    }
                }
                Err(AppendError::Unknown { .. }) => {
                    said.unknown.insert((site, seq));
                    return;
                }
                other => panic!("{other:?}"),
            }
        };
        let put = MetaOp::Put { key: site.to_string().into(), value: seq.to_string().into() };
        match log.metadata().commit(vec![put]).await {
            Ok(_) => drop(said.lock().unwrap().put.insert(site, seq)),
            Err(MetaError::Unavailable { .. }) => {}
            Err(MetaError::Unknown { .. }) => drop(said.lock().unwrap().put_unknown.insert(site, seq)),
            Err(error) => panic!("{error}"),
        }
        if site == 1 && seq % 5 == 0 {
            let through = Lsn::new(lsn.version.saturating_sub(60), 0);
            let mut said = log.trim(&app(), through).await.map(|()| said.lock().unwrap());
            if let Ok(said) = &mut said {
                said.trimmed = said.trimmed.max(through);
            }
        }
    }
}

/// Follows the log until it ends: what a follower saw, in order, and which positions it may have missed to trims.
async fn follow(log: Arc<EmbeddedLog>) -> (BTreeSet<Lsn>, Vec<(Lsn, Lsn)>) {
    let (mut seen, mut missed, mut after) = (BTreeSet::new(), Vec::new(), Lsn::ZERO);
    loop {
        match log.read(&app(), after, 4096).await {
            Ok(batch) if batch.entries.is_empty() => {
                if log.wait_past(&app(), after).await.is_err() {
                    return (seen, missed);
                }
            }
            Ok(batch) => {
                for entry in batch.entries {
                    assert!(entry.lsn > after, "{} was read after {after}", entry.lsn);
                    after = entry.lsn;
                    seen.insert(after);
                }
            }
            Err(ReadError::Trimmed { kept_after }) => {
                missed.push((after, kept_after));
                after = kept_after;
            }
            Err(_) => return (seen, missed),
        }
    }
}

fn open(disk: &SimDisk) -> Arc<EmbeddedLog> {
    let settings = EmbeddedSettings {
        segment_bytes: 16 * 1024,
        tail_bytes: 4 * 1024,
        ids: Arc::new(SeededIds::new(disk.operations())),
        ..EmbeddedSettings::default()
    };
    let disk = Arc::new(SlowDisk(disk.clone())) as Arc<dyn Disk>;
    Arc::new(EmbeddedLog::open_threaded_on(&disk, settings).unwrap_or_else(|error| panic!("{error}")))
}

/// Everything said to be done is there, once, in its place; what else is there may be.
async fn check(log: &EmbeddedLog, said: &Said) {
    let trimmed = log.trimmed(&app()).await.unwrap();
    assert!(trimmed >= said.trimmed, "trimmed through {trimmed}, asked and answered: {}", said.trimmed);
    let mut expected = said.applied.range((std::ops::Bound::Excluded(trimmed), std::ops::Bound::Unbounded)).peekable();
    let (mut seen, mut last) = (BTreeSet::new(), trimmed);
    for entry in read_everything(log, &app(), trimmed).await {
        let id = (entry.site.get(), entry.seq);
        assert!(entry.lsn > last, "{} comes after {last}", entry.lsn);
        last = entry.lsn;
        assert!(entry.payload == payload(id.0, id.1), "{id:?} is torn");
        assert!(seen.insert(id), "{id:?} is there twice");
        assert!(!said.refused.contains(&id), "{id:?} was refused, and is there");
        if expected.next_if(|(lsn, known)| **lsn == entry.lsn && **known == id).is_none() {
            assert!(said.unknown.contains(&id), "{id:?} is there, and nobody was told");
        }
    }
    assert_eq!(expected.next(), None, "an acknowledged entry is missing");
    for (site, value) in &said.put {
        let found = log.metadata().get(site.to_string().as_bytes()).await.unwrap().map(|found| found.value);
        let may_be = [Some(value), said.put_unknown.get(site)].map(|value| value.map(u64::to_string));
        let found = found.map(|value| String::from_utf8_lossy(&value).into_owned());
        assert!(may_be.contains(&found) && found.is_some(), "site {site} put {may_be:?}, found {found:?}");
    }
}

async fn run(disk: &SimDisk, sites: u64) -> Said {
    let said = Arc::new(Mutex::new(Said::default()));
    let log = open(disk);
    let follower = tokio::spawn(follow(Arc::clone(&log)));
    let lives: Vec<_> = (1..=sites).map(|site| tokio::spawn(live(Arc::clone(&log), site, Arc::clone(&said)))).collect();
    for life in lives {
        life.await.unwrap();
    }
    let said = std::mem::take(&mut *said.lock().unwrap());
    if log.last_seq(&app(), SiteId::new(1)).await.is_ok() {
        // Whoever goes on after a failure knows what happened, and has not kept a trace of what did not.
        assert!(said.unknown.is_empty() && said.put_unknown.is_empty(), "the log goes on: {said:?}");
        check(&log, &said).await;
        for site in 1..=sites {
            let applied = said.applied.values().filter(|(of, _)| *of == site).count() as u64;
            assert_eq!(log.last_seq(&app(), SiteId::new(site)).await.unwrap(), applied, "of site {site}");
        }
    }
    log.close().await;
    let (seen, missed) = follower.await.unwrap();
    for lsn in said.applied.keys() {
        let trimmed = missed.iter().any(|(after, through)| after < lsn && lsn <= through);
        // Where the power is lost, reading ends too.
        assert!(seen.contains(lsn) || trimmed || seen.last() < Some(lsn), "a follower has missed {lsn}");
    }
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_survives_what_a_disk_does() {
    let whole = SimDisk::new(0);
    let said = run(&whole, SITES).await;
    assert_eq!(said.applied.len() as u64, SITES * ENTRIES);
    let operations = whole.operations();
    let (mut refused, mut unknown) = (0, 0);
    let rounds = std::env::var("BIGPEER_CROWDS").ok().map_or(48, |rounds| rounds.parse().expect("a number"));
    for round in 0..rounds {
        let fault = match round % 5 {
            0 => Fault::PowerLoss,
            1 => Fault::Error(ErrorKind::Other),
            // What a write on a full disk says, once.
            _ => Fault::Error(ErrorKind::StorageFull),
        };
        let disk = SimDisk::new(round);
        let at = 20 + (round * 7919) % (operations / 2);
        disk.fault_at(at, fault);
        eprintln!("round {round}: {fault:?} at operation {at} of about {operations}");
        let said = run(&disk, sites(round)).await;
        refused += said.refused.len();
        unknown += said.unknown.len();
        for unsynced in [Unsynced::Lost, Unsynced::Some(round)] {
            let log = open(&disk.after_power_loss(unsynced));
            check(&log, &said).await;
            log.close().await;
        }
    }
    assert!(refused > 0 && unknown > 0, "no fault hit a commit: {refused} refused, {unknown} unknown");
}
