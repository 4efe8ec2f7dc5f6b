//! A scripted history of operations, and the truth about what of it was acknowledged.

use std::collections::BTreeMap;

use bigpeer_log::{
    AppendEntry, AppendError, AppendOutcome, ConflictKey, LogEntry, MetaError, MetaOp, ReadError, TransactionLog,
};
use bigpeer_types::{AppId, Lsn, SiteId};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// One operation.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Sites that append their next entries, in this order.
    Append {
        app: usize,
        sites: Vec<u64>,
    },
    /// All but so many of the newest entries.
    Trim {
        app: usize,
        keep: usize,
    },
    Put {
        key: u64,
        value: u64,
    },
    Delete {
        key: u64,
    },
}

const APPS: [&str; 2] = ["one", "two"];

/// A history of so many operations.
pub(crate) fn script(seed: u64, length: usize) -> Vec<Op> {
    let mut random = StdRng::seed_from_u64(seed);
    let op = |random: &mut StdRng| {
        let app = random.random_range(0..APPS.len());
        match random.random_range(0..20) {
            0..=13 => {
                let sites = (0..random.random_range(1..6)).map(|_| random.random_range(1..4)).collect();
                Op::Append { app, sites }
            }
            14 | 15 => Op::Trim { app, keep: random.random_range(0..30) },
            16..=18 => Op::Put { key: random.random_range(0..5), value: random.random_range(0..1000) },
            _ => Op::Delete { key: random.random_range(0..5) },
        }
    };
    (0..length).map(|_| op(&mut random)).collect()
}

/// What a site's entry must hold: nothing else could have been written.
fn payload(app: usize, site: u64, seq: u64) -> Bytes {
    let chance = (seq * 1000 + site * 10 + app as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let length = if chance.is_multiple_of(50) { 6000 } else { (chance >> 32) % 600 };
    let word = chance.rotate_left(17).to_le_bytes();
    word.repeat((length as usize).div_ceil(8)).into()
}

/// What of one app was acknowledged.
#[derive(Clone, Debug, Default)]
pub(crate) struct AppTruth {
    entries: Vec<(Lsn, u64, u64)>,
    seqs: BTreeMap<u64, u64>,
    trimmed: Lsn,
}

/// What was acknowledged, and what was asked without an answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Truth {
    apps: [AppTruth; 2],
    metadata: BTreeMap<u64, u64>,
    /// Entries, site by site, that were refused or not answered.
    pub(crate) in_doubt: Option<Op>,
    trim_in_doubt: Lsn,
}

/// How an operation ended, if not well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It did not happen.
    Refused,
    /// It may have happened.
    Unknown,
}

impl Truth {
    /// Does an operation and notes what the log says. `again` is for an operation that is in doubt.
    pub(crate) async fn run(&mut self, log: &dyn TransactionLog, op: &Op) -> Result<(), Failure> {
        match op {
            Op::Append { app, sites } => self.append(log, *app, sites).await,
            Op::Trim { app, keep } => {
                let truth = &mut self.apps[*app];
                let kept = truth.entries.len().saturating_sub(*keep);
                let Some(&(through, ..)) = truth.entries[..kept].last() else { return Ok(()) };
                match log.trim(&AppId::new(APPS[*app]).unwrap(), through).await {
                    Ok(()) => {
                        truth.trimmed = truth.trimmed.max(through);
                        Ok(())
                    }
                    Err(ReadError::Unavailable { .. }) => {
                        self.trim_in_doubt = through;
                        Err(Failure::Unknown)
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Op::Put { key, value } => {
                let put = MetaOp::Put { key: key.to_string().into(), value: value.to_string().into() };
                self.commit(log, put).await.map(|()| {
                    self.metadata.insert(*key, *value);
                })
            }
            Op::Delete { key } => self.commit(log, MetaOp::Delete { key: key.to_string().into() }).await.map(|()| {
                self.metadata.remove(key);
            }),
        }
        .inspect_err(|_| self.in_doubt = Some(op.clone()))
    }

    async fn commit(&self, log: &dyn TransactionLog, op: MetaOp) -> Result<(), Failure> {
        match log.metadata().commit(vec![op]).await {
            Ok(_) => Ok(()),
            Err(MetaError::Unavailable { .. }) => Err(Failure::Refused),
            Err(MetaError::Unknown { .. }) => Err(Failure::Unknown),
            Err(error) => panic!("{error}"),
        }
    }

    fn entries(&self, app: usize, sites: &[u64]) -> Vec<AppendEntry> {
        let mut seqs = self.apps[app].seqs.clone();
        let entry = |site: &u64| {
            let seq = seqs.entry(*site).or_default();
            *seq += 1;
            let (site, seq) = (*site, *seq);
            AppendEntry {
                site: SiteId::new(site),
                seq,
                writes: vec![ConflictKey(site)],
                unchanged: Vec::new(),
                payload: payload(app, site, seq),
            }
        };
        sites.iter().map(entry).collect()
    }

    async fn append(&mut self, log: &dyn TransactionLog, app: usize, sites: &[u64]) -> Result<(), Failure> {
        let entries = self.entries(app, sites);
        let ids: Vec<_> = entries.iter().map(|entry| (entry.site.get(), entry.seq)).collect();
        let outcomes = match log.append(&AppId::new(APPS[app]).unwrap(), entries).await {
            Ok(outcomes) => outcomes,
            Err(AppendError::Unavailable { .. }) => return Err(Failure::Refused),
            Err(AppendError::Unknown { .. }) => return Err(Failure::Unknown),
            Err(error) => panic!("{error}"),
        };
        let in_doubt = self.in_doubt.take();
        let truth = &mut self.apps[app];
        for ((site, seq), outcome) in ids.into_iter().zip(outcomes) {
            match outcome {
                AppendOutcome::Applied(lsn) => {
                    assert!(truth.entries.last().is_none_or(|last| last.0 < lsn), "a position was used again");
                    truth.entries.push((lsn, site, seq));
                }
                AppendOutcome::Duplicate { .. } => {
                    assert!(in_doubt.is_some(), "site {site} never appended {seq} before");
                    // It is there; where, reading will tell.
                }
                AppendOutcome::SeqGap { .. } | AppendOutcome::Conflict { .. } | AppendOutcome::SnapshotTooOld => {
                    panic!("{outcome:?}")
                }
            }
            truth.seqs.insert(site, seq);
        }
        Ok(())
    }

    /// What may be there beside what was acknowledged.
    fn doubtful(&self, app: usize) -> Vec<(u64, u64)> {
        match &self.in_doubt {
            Some(Op::Append { app: doubtful, sites }) if *doubtful == app => {
                self.entries(app, sites).iter().map(|entry| (entry.site.get(), entry.seq)).collect()
            }
            Some(_) | None => Vec::new(),
        }
    }

    /// Compares a log with the truth: what was acknowledged is there, whole, once, where it was said to be; beside it only
    /// what is in doubt. Then what was in doubt is done again, which settles it.
    pub(crate) async fn check(&mut self, log: &dyn TransactionLog) {
        for app in 0..APPS.len() {
            self.check_app(log, app).await;
        }
        self.check_metadata(log).await;
        if let Some(op) = self.in_doubt.clone() {
            self.run(log, &op).await.unwrap_or_else(|failure| panic!("{failure:?} on doing {op:?} again"));
            self.in_doubt = None;
            for app in 0..APPS.len() {
                self.check_app(log, app).await;
            }
        }
    }

    async fn check_app(&mut self, log: &dyn TransactionLog, app: usize) {
        let id = AppId::new(APPS[app]).unwrap();
        let doubtful = self.doubtful(app);
        let trim_doubtful = match &self.in_doubt {
            Some(Op::Trim { app: doubtful, .. }) if *doubtful == app => self.trim_in_doubt,
            Some(_) | None => Lsn::ZERO,
        };
        let truth = &mut self.apps[app];
        let trimmed = log.trimmed(&id).await.unwrap();
        assert!(
            trimmed == truth.trimmed || (trimmed == trim_doubtful && trimmed > truth.trimmed),
            "trimmed at {trimmed}"
        );
        truth.trimmed = trimmed;
        let found = read_everything(log, &id, trimmed).await;
        let mut extra = Vec::new();
        let mut expected = truth.entries.iter().filter(|entry| entry.0 > trimmed).peekable();
        for entry in &found {
            let (site, seq) = (entry.site.get(), entry.seq);
            assert!(entry.payload == payload(app, site, seq), "entry {seq} of site {site} is not what was appended");
            if expected.next_if(|known| **known == (entry.lsn, site, seq)).is_none() {
                extra.push((entry.lsn, site, seq));
            }
        }
        assert_eq!(expected.next(), None, "an acknowledged entry of app {app} is missing");
        // Those that were done again and said to be duplicates count as acknowledged: now it is known where they are.
        let (settled, extra): (Vec<_>, Vec<_>) =
            extra.into_iter().partition(|(_, site, seq)| truth.seqs.get(site).is_some_and(|last| last >= seq));
        truth.entries.extend(settled);
        truth.entries.sort_unstable();
        let ids: Vec<_> = extra.iter().map(|(_, site, seq)| (*site, *seq)).collect();
        assert_eq!(ids, doubtful[..ids.len().min(doubtful.len())], "more is there than may be");
        let unique: std::collections::BTreeSet<_> = truth.entries.iter().map(|(_, site, seq)| (site, seq)).collect();
        assert_eq!(unique.len(), truth.entries.len(), "an entry is there twice");
        for site in 1..4 {
            let known = truth.seqs.get(&site).copied().unwrap_or(0);
            let more = ids.iter().filter(|(of, seq)| *of == site && *seq > known).count() as u64;
            assert_eq!(log.last_seq(&id, SiteId::new(site)).await.unwrap(), known + more);
        }
    }

    /// Compares only what can be read of a log that has stopped.
    pub(crate) async fn check_reading(&self, log: &dyn TransactionLog) {
        for (app, truth) in self.apps.iter().enumerate() {
            let found = read_everything(log, &AppId::new(APPS[app]).unwrap(), truth.trimmed).await;
            let found: Vec<_> = found.iter().map(|entry| (entry.lsn, entry.site.get(), entry.seq)).collect();
            let expected: Vec<_> = truth.entries.iter().filter(|entry| entry.0 > truth.trimmed).copied().collect();
            assert_eq!(found, expected);
        }
    }

    async fn check_metadata(&mut self, log: &dyn TransactionLog) {
        let found = log.metadata().range(b"", None, usize::MAX).await.unwrap();
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).parse::<u64>().unwrap();
        let found: BTreeMap<_, _> = found.iter().map(|(key, at)| (text(key), text(&at.value))).collect();
        let mut after = self.metadata.clone();
        match self.in_doubt {
            Some(Op::Put { key, value }) => drop(after.insert(key, value)),
            Some(Op::Delete { key }) => drop(after.remove(&key)),
            Some(Op::Append { .. } | Op::Trim { .. }) | None => {}
        }
        assert!(found == self.metadata || found == after, "metadata is {found:?}, must be {:?}", self.metadata);
    }
}

/// Everything of an app that is kept.
pub(crate) async fn read_everything(log: &dyn TransactionLog, app: &AppId, mut after: Lsn) -> Vec<LogEntry> {
    let mut all = Vec::new();
    loop {
        let batch = log.read(app, after, 100_000).await.unwrap();
        if batch.entries.is_empty() {
            return all;
        }
        after = batch.through;
        all.extend(batch.entries);
    }
}
