//! What becomes of each entry of a commit, and what is to be written, given what is known before it.

use std::collections::{BTreeMap, BTreeSet};

use bigpeer_types::Lsn;

use super::cluster::{Conflicts, ErrorCode, Stamp, Transaction};
use super::core::Core;
use super::keys::{AppSpace, SiteState, after_all, lsn, next, stamped_lsn};
use super::known::SiteOf;
use super::pack::Packer;
use super::queue::Request;
use super::view::{AppView, SiteView, View};
use crate::{AppendEntry, AppendOutcome, ConflictKey};

/// An entry that writes more keys than this counts as writing every key of its app, and a commit that depends on more than
/// this as depending on every key: a conflict without need, at worst, instead of a commit that is too large.
const MANY_KEYS: usize = 2048;
/// Most bytes in a list of written keys.
const LIST_BYTES: usize = 80_000;

/// About the most bytes that an entry takes in a commit, conflict ranges included.
pub(crate) fn most_bytes(entry: &AppendEntry) -> usize {
    entry.payload.len() + 220 + 80 * entry.writes.len().min(MANY_KEYS) + 40 * entry.unchanged.len().min(MANY_KEYS)
}

/// A position that is known now, or with the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Lsn(Lsn),
    Place(u16),
}

impl At {
    fn lsn(self, stamp: Stamp) -> Lsn {
        match self {
            Self::Lsn(known) => known,
            Self::Place(place) => lsn(stamp, place),
        }
    }
}

/// An outcome, but for the versionstamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Applied(u16),
    Duplicate { through_seq: u64, at: At },
    Refused(AppendOutcome),
}

/// Entries of a site that are applied: their numbers, and the place of the last.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: u64,
    last: u64,
    place: u16,
}

/// What is written to one app.
#[derive(Debug, Default)]
struct AppPlan {
    packer: Packer,
    last: u16,
    writes: BTreeMap<ConflictKey, u16>,
    wrote_many: Option<u16>,
    depends_on: BTreeSet<ConflictKey>,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Plan {
    /// By request.
    decisions: Vec<Vec<Decision>>,
    runs: BTreeMap<SiteOf, Run>,
    apps: BTreeMap<u32, AppPlan>,
    places: u16,
}

/// A commit of which it is not known whether it happened.
#[derive(Debug)]
pub(crate) struct Attempt {
    nonce: u64,
    decisions: Vec<Vec<Decision>>,
    sites: Vec<SiteOf>,
}

impl Plan {
    /// Decides entries one after the other.
    pub(crate) fn decide(requests: &[Request], view: &View) -> Self {
        let mut plan = Self { decisions: Vec::new(), runs: BTreeMap::new(), apps: BTreeMap::new(), places: 0 };
        for request in requests {
            let decisions = request.entries.iter().map(|entry| plan.entry(request.number, entry, view)).collect();
            plan.decisions.push(decisions);
        }
        plan
    }

    fn entry(&mut self, number: u32, entry: &AppendEntry, view: &View) -> Decision {
        let site = (number, entry.site);
        let (seq, at) = match self.runs.get(&site) {
            Some(run) => (run.last, At::Place(run.place)),
            None => {
                let SiteView { seq, lsn, .. } = view.sites.get(&site).copied().unwrap_or_default();
                (seq, At::Lsn(lsn))
            }
        };
        if entry.seq <= seq {
            return Decision::Duplicate { through_seq: seq, at };
        }
        if entry.seq - 1 != seq {
            return Decision::Refused(AppendOutcome::SeqGap { last_seq: seq });
        }
        if let Some(refused) = self.refusal(number, entry, view) {
            return Decision::Refused(refused);
        }
        let place = self.places;
        self.places += 1;
        self.runs.entry(site).and_modify(|run| (run.last, run.place) = (entry.seq, place)).or_insert(Run {
            first: entry.seq,
            last: entry.seq,
            place,
        });
        let app = self.apps.entry(number).or_default();
        app.packer.add(place, entry);
        app.last = place;
        app.depends_on.extend(entry.unchanged.iter().map(|(key, _)| *key));
        if entry.writes.len() > MANY_KEYS {
            app.wrote_many = Some(place);
        } else {
            app.writes.extend(entry.writes.iter().map(|key| (*key, place)));
        }
        Decision::Applied(place)
    }

    /// What keeps an entry out of those that it depends on.
    fn refusal(&self, number: u32, entry: &AppendEntry, view: &View) -> Option<AppendOutcome> {
        let plan = self.apps.get(&number);
        let AppView { wrote_many, forgotten } = view.apps.get(&number).copied().unwrap_or_default();
        let mut too_old = false;
        for &(key, since) in &entry.unchanged {
            let here = plan.is_some_and(|plan| plan.wrote_many.is_some() || plan.writes.contains_key(&key));
            let before = view.keys.get(&(number, key)).copied();
            // What is written here comes after every position that anybody can have seen.
            if here && since < Lsn::MAX || before.is_some_and(|lsn| lsn > since) || wrote_many > since {
                return Some(AppendOutcome::Conflict { key });
            }
            too_old |= before.is_none() && since < forgotten;
        }
        too_old.then_some(AppendOutcome::SnapshotTooOld)
    }

    /// Whether there is something to write.
    pub(crate) fn writes(&self) -> bool {
        self.places > 0
    }

    /// Whether every entry is applied.
    pub(crate) fn is_accepted(&self) -> bool {
        self.decisions.iter().flatten().all(|decision| matches!(decision, Decision::Applied(_)))
    }

    /// The outcomes, by request, once the commit has happened; any stamp will do when there was nothing to write.
    pub(crate) fn outcomes(&self, stamp: Stamp) -> Vec<Vec<AppendOutcome>> {
        outcomes(&self.decisions, stamp)
    }

    /// Each site's last `seq` and position.
    pub(crate) fn sites(&self, stamp: Stamp) -> impl Iterator<Item = (SiteOf, u64, Lsn)> {
        self.runs.iter().map(move |(site, run)| (*site, run.last, lsn(stamp, run.place)))
    }

    /// Each app's new head.
    pub(crate) fn heads(&self, stamp: Stamp) -> impl Iterator<Item = (u32, Lsn)> {
        self.apps.iter().map(move |(number, app)| (*number, lsn(stamp, app.last)))
    }

    /// What to remember if it does not become known whether the commit happened.
    pub(crate) fn attempt(self, nonce: u64) -> Attempt {
        Attempt { nonce, decisions: self.decisions, sites: self.runs.into_keys().collect() }
    }

    /// Puts everything into the transaction. What it depends on must stand at the version of the view.
    pub(crate) fn write(&mut self, core: &Core, transaction: &dyn Transaction, nonce: u64) -> Result<(), ErrorCode> {
        for (&number, plan) in &mut self.apps {
            plan.write(&core.space.app(number), transaction)?;
        }
        for (&(number, site), run) in &self.runs {
            let app = core.space.app(number);
            transaction.set_stamped_value(
                &app.site(site),
                &SiteState::encode(run.last, nonce, run.place),
                Conflicts::No,
            );
            let (begin, end) = (app.sequence(site, run.first), next(&app.sequence(site, run.last)));
            transaction.depend_on(&begin, &end)?;
            transaction.conflict_with(&begin, &end)?;
        }
        Ok(())
    }
}

impl AppPlan {
    fn write(&mut self, app: &AppSpace, transaction: &dyn Transaction) -> Result<(), ErrorCode> {
        for pack in std::mem::take(&mut self.packer).finish() {
            for (chunk, value) in pack.chunks() {
                let key = app.new_entries(pack.last, chunk);
                transaction.set_stamped_key(&key.key, key.at, value);
            }
        }
        transaction.set_stamped_value(&app.head(), &stamped_lsn(self.last), Conflicts::No);
        let mut list = Vec::new();
        for (key, place) in &self.writes {
            transaction.set_stamped_value(&app.written(*key), &stamped_lsn(*place), Conflicts::Yes);
            list.extend_from_slice(&key.0.to_be_bytes());
        }
        for (chunk, list) in (0..).zip(list.chunks(LIST_BYTES)) {
            let key = app.new_writes(self.writes.values().copied().max().unwrap_or_default(), chunk);
            transaction.set_stamped_key(&key.key, key.at, list);
        }
        if let Some(place) = self.wrote_many {
            transaction.set_stamped_value(&app.wrote_many(), &stamped_lsn(place), Conflicts::Yes);
        }
        if self.depends_on.is_empty() {
            return Ok(());
        }
        transaction.depend_on(&app.wrote_many(), &next(&app.wrote_many()))?;
        if self.depends_on.len() > MANY_KEYS {
            return transaction.depend_on(&app.all_written(), &after_all(app.all_written()));
        }
        self.depends_on.iter().try_for_each(|key| {
            let key = app.written(*key);
            transaction.depend_on(&key, &next(&key))
        })
    }
}

impl Attempt {
    /// The outcomes, if what is stored shows that this commit happened.
    pub(crate) fn resolve(&self, view: &View) -> Option<Vec<Vec<AppendOutcome>>> {
        let ours =
            self.sites.iter().filter_map(|site| view.sites.get(site)).find(|site| site.nonce == Some(self.nonce))?;
        let stamp = Stamp { version: ours.lsn.version, batch: u16::try_from(ours.lsn.order >> 16).unwrap_or(u16::MAX) };
        Some(outcomes(&self.decisions, stamp))
    }
}

fn outcomes(decisions: &[Vec<Decision>], stamp: Stamp) -> Vec<Vec<AppendOutcome>> {
    let outcome = |decision: &Decision| match *decision {
        Decision::Applied(place) => AppendOutcome::Applied(lsn(stamp, place)),
        Decision::Duplicate { through_seq, at } => AppendOutcome::Duplicate { through_seq, lsn: at.lsn(stamp) },
        Decision::Refused(outcome) => outcome,
    };
    decisions.iter().map(|request| request.iter().map(outcome).collect()).collect()
}
