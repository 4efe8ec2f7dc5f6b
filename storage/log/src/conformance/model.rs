//! Random histories against a model of the truth: operations in random order, with reopening between them.

use std::collections::BTreeMap;
use std::fmt;

use bigpeer_types::{AppId, Lsn, SiteId};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Engine, app, read_in_steps};
use crate::{AppendEntry, AppendOutcome, ConflictKey, LogEntry, MetaError, MetaOp, ReadError, TransactionLog};

const APPS: [&str; 3] = ["a", "b", "ab"];
const SITES: u64 = 4;
const KEYS: u64 = 6;

/// A number of histories from seeds that are always the same. `BIGPEER_SEED` names one to be run alone.
pub async fn random_histories_match_the_model(engine: &dyn Engine) {
    let seed =
        std::env::var("BIGPEER_SEED").ok().map_or(20_261_123, |seed| seed.parse().expect("BIGPEER_SEED is a number"));
    let mut history = History::new(seed);
    let mut log = engine.open().await;
    for _ in 0..600 {
        if history.chance(25) {
            if history.chance(2) {
                engine.close(log).await;
            } else {
                drop(log);
            }
            log = engine.open().await;
            history.model.check(&*log).await;
        } else {
            history.step(&*log).await;
        }
    }
    history.model.check(&*log).await;
}

/// What one app should be.
#[derive(Debug, Default)]
pub(crate) struct AppModel {
    pub(crate) entries: Vec<LogEntry>,
    sites: BTreeMap<u64, (u64, Lsn)>,
    keys: BTreeMap<u64, Lsn>,
    trimmed: Lsn,
}

impl AppModel {
    fn head(&self) -> Lsn {
        self.entries.last().map_or(Lsn::ZERO, |entry| entry.lsn)
    }

    fn last_seq(&self, site: u64) -> u64 {
        self.sites.get(&site).map_or(0, |(seq, _)| *seq)
    }

    /// Compares an outcome with what it must be, and does what it says.
    fn append(&mut self, entry: &AppendEntry, outcome: AppendOutcome) {
        let site = entry.site.get();
        let last = self.last_seq(site);
        let is_changed = |key: ConflictKey, since| self.keys.get(&key.0).is_some_and(|lsn| *lsn > since);
        match outcome {
            AppendOutcome::Duplicate { through_seq, lsn } => {
                assert!(entry.seq <= last);
                assert_eq!(through_seq, last);
                assert!(lsn <= self.head());
            }
            AppendOutcome::SeqGap { last_seq } => {
                assert_eq!(last_seq, last);
                assert!(entry.seq > last + 1);
            }
            AppendOutcome::Conflict { key } => {
                assert_eq!(entry.seq, last + 1);
                assert!(entry.unchanged.iter().any(|(depended, since)| *depended == key && is_changed(key, *since)));
            }
            AppendOutcome::SnapshotTooOld => {
                assert_eq!(entry.seq, last + 1);
                assert!(entry.unchanged.iter().any(|(_, since)| *since < self.head()));
            }
            AppendOutcome::Applied(lsn) => {
                assert_eq!(entry.seq, last + 1);
                assert!(!entry.unchanged.iter().any(|(key, since)| is_changed(*key, *since)));
                assert!(lsn > self.head());
                self.sites.insert(site, (entry.seq, lsn));
                self.keys.extend(entry.writes.iter().map(|key| (key.0, lsn)));
                let (site, payload) = (entry.site, entry.payload.clone());
                self.entries.push(LogEntry { lsn, site, seq: entry.seq, payload });
            }
        }
    }

    async fn check(&self, log: &dyn TransactionLog, app: &AppId) {
        assert_eq!(log.head(app).await.unwrap(), self.head());
        assert_eq!(log.trimmed(app).await.unwrap(), self.trimmed);
        for site in 0..SITES {
            assert_eq!(log.last_seq(app, SiteId::new(site)).await.unwrap(), self.last_seq(site));
        }
        let kept: Vec<_> = self.entries.iter().filter(|entry| entry.lsn > self.trimmed).cloned().collect();
        assert_eq!(read_in_steps(log, app, self.trimmed, 2000).await, kept);
        if self.trimmed > Lsn::ZERO {
            let error = log.read(app, Lsn::ZERO, 100).await.unwrap_err();
            assert_eq!(error, ReadError::Trimmed { kept_after: self.trimmed });
        }
    }
}

/// What the whole log should be.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) apps: BTreeMap<&'static str, AppModel>,
    metadata: BTreeMap<String, (Bytes, u64)>,
    revision: u64,
}

impl Model {
    pub(crate) async fn check(&self, log: &dyn TransactionLog) {
        for (name, model) in &self.apps {
            model.check(log, &app(name)).await;
        }
        let found = log.metadata().range(b"", None, usize::MAX).await.unwrap();
        let found: Vec<_> = found
            .into_iter()
            .map(|(key, at)| (String::from_utf8(key.to_vec()).unwrap(), (at.value, at.revision)))
            .collect();
        assert_eq!(found, self.metadata.clone().into_iter().collect::<Vec<_>>());
    }
}

/// A random history as it unfolds.
pub(crate) struct History {
    pub(crate) model: Model,
    random: StdRng,
    seed: u64,
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl Drop for History {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the history's seed: BIGPEER_SEED={}", self.seed);
        }
    }
}

impl History {
    pub(crate) fn new(seed: u64) -> Self {
        Self { model: Model::default(), random: StdRng::seed_from_u64(seed), seed }
    }

    /// One in so many.
    pub(crate) fn chance(&mut self, of: u32) -> bool {
        self.random.random_range(0..of) == 0
    }

    /// Does one random thing and compares the answer.
    pub(crate) async fn step(&mut self, log: &dyn TransactionLog) {
        match self.random.random_range(0..20) {
            0..=11 => self.append(log).await,
            12 => self.trim(log).await,
            13..=15 => self.read(log).await,
            16..=18 => self.commit(log).await,
            _ => self.last_seq(log).await,
        }
    }

    fn app(&mut self) -> &'static str {
        APPS[self.random.random_range(0..APPS.len())]
    }

    /// A position that means something, or is close to one.
    fn position(&mut self, name: &'static str) -> Lsn {
        let model = self.model.apps.entry(name).or_default();
        let at = self.random.random_range(0..=model.entries.len());
        let lsn = model.entries.get(at).map_or(model.head(), |entry| entry.lsn);
        match self.random.random_range(0..4) {
            0 => Lsn::new(lsn.version.saturating_sub(1), 0),
            1 => Lsn::new(lsn.version, lsn.order + 1),
            _ => lsn,
        }
    }

    fn entry(&mut self, name: &'static str, seqs: &mut BTreeMap<u64, u64>) -> AppendEntry {
        let site = self.random.random_range(0..SITES);
        let last = *seqs.entry(site).or_insert_with(|| self.model.apps.entry(name).or_default().last_seq(site));
        let seq = match self.random.random_range(0..10) {
            0 => self.random.random_range(1..=last + 3),
            _ => last + 1,
        };
        if seq == last + 1 {
            seqs.insert(site, seq);
        }
        let writes =
            (0..self.random.random_range(0..3)).map(|_| ConflictKey(self.random.random_range(0..KEYS))).collect();
        let count = self.random.random_range(0..6_u32).saturating_sub(3);
        let unchanged =
            (0..count).map(|_| (ConflictKey(self.random.random_range(0..KEYS)), self.position(name))).collect();
        let size = match self.random.random_range(0..30) {
            0 => self.random.random_range(0..40_000),
            _ => self.random.random_range(0..300),
        };
        let mut payload = vec![0; size];
        self.random.fill(&mut payload[..]);
        AppendEntry { site: SiteId::new(site), seq, writes, unchanged, payload: payload.into() }
    }

    async fn append(&mut self, log: &dyn TransactionLog) {
        let name = self.app();
        let mut seqs = BTreeMap::new();
        let entries: Vec<_> = (0..self.random.random_range(1..6)).map(|_| self.entry(name, &mut seqs)).collect();
        let outcomes = log.append(&app(name), entries.clone()).await.unwrap();
        assert_eq!(outcomes.len(), entries.len());
        let model = self.model.apps.entry(name).or_default();
        for (entry, outcome) in entries.iter().zip(outcomes) {
            model.append(entry, outcome);
        }
    }

    async fn trim(&mut self, log: &dyn TransactionLog) {
        let name = self.app();
        let through = self.position(name);
        log.trim(&app(name), through).await.unwrap();
        let model = self.model.apps.entry(name).or_default();
        model.trimmed = model.trimmed.max(through.min(model.head()));
    }

    async fn read(&mut self, log: &dyn TransactionLog) {
        let name = self.app();
        let (after, bytes) = (self.position(name), self.random.random_range(0..50_000));
        let found = log.read(&app(name), after, bytes).await;
        let model = self.model.apps.entry(name).or_default();
        if after < model.trimmed {
            assert_eq!(found, Err(ReadError::Trimmed { kept_after: model.trimmed }));
            return;
        }
        let found = found.unwrap();
        let rest: Vec<_> = model.entries.iter().filter(|entry| entry.lsn > after).cloned().collect();
        assert_eq!(found.entries, rest[..found.entries.len().min(rest.len())]);
        assert_eq!(found.entries.is_empty(), rest.is_empty());
    }

    async fn commit(&mut self, log: &dyn TransactionLog) {
        let mut after = self.model.metadata.clone();
        let (mut ops, mut conflict) = (Vec::new(), None);
        for _ in 0..self.random.random_range(1..5) {
            let name = format!("key {}", self.random.random_range(0..5));
            let key = Bytes::from(name.clone());
            match self.random.random_range(0..4) {
                0 => {
                    let current = self.model.metadata.get(&name).map(|(_, revision)| *revision);
                    let revision = if self.chance(6) { Some(self.model.revision + 1) } else { current };
                    if revision != current && conflict.is_none() {
                        conflict = Some(key.clone());
                    }
                    ops.push(MetaOp::Check { key, revision });
                }
                1 => {
                    after.remove(&name);
                    ops.push(MetaOp::Delete { key });
                }
                _ => {
                    let value = Bytes::from(self.random.random_range(0..1000_u32).to_string());
                    after.insert(name, (value.clone(), u64::MAX));
                    ops.push(MetaOp::Put { key, value });
                }
            }
        }
        match (log.metadata().commit(ops).await, conflict) {
            (Ok(revision), None) => {
                assert!(revision > self.model.revision);
                self.model.revision = revision;
                after.values_mut().filter(|value| value.1 == u64::MAX).for_each(|value| value.1 = revision);
                self.model.metadata = after;
            }
            (Err(MetaError::Conflict { key }), Some(expected)) => assert_eq!(key, expected),
            (answer, expected) => panic!("{answer:?}, expected a conflict of {expected:?}"),
        }
    }

    async fn last_seq(&mut self, log: &dyn TransactionLog) {
        let name = self.app();
        let site = self.random.random_range(0..SITES);
        let expected = self.model.apps.entry(name).or_default().last_seq(site);
        assert_eq!(log.last_seq(&app(name), SiteId::new(site)).await.unwrap(), expected);
    }
}
