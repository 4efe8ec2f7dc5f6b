//! `Record`: what a peer did and was told, as its app could know it; it outlives the peer's crashes.

use std::collections::{BTreeMap, BTreeSet};

use bigpeer_harness::{Checker, Held, Place, Readable, Reader, Subscribed, Truth, Violation, select};
use bigpeer_harness::{check_cut, check_permitted};
use bigpeer_peer::Status;
use bigpeer_types::{Lsn, SiteId};

use crate::grants::Grant;

/// What became of a local transaction, as far as the app knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// It was begun, and the app has no answer.
    Begun,
    /// It has this number.
    As(u64),
    /// It changed nothing, or was refused.
    Not,
}

/// A local transaction.
#[derive(Clone, Debug)]
pub struct Op {
    /// What it may touch.
    pub places: Vec<Place>,
    /// What became of it.
    pub committed: Committed,
    /// The counter that it increments, and by how much.
    pub increment: Option<(Place, i64)>,
    /// The document that it deletes for ever.
    pub grave: Option<Place>,
}

/// One peer.
#[derive(Debug)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// The site that it writes as.
    pub site: Option<SiteId>,
    /// What it did, in order.
    pub ops: Vec<Op>,
    /// The newest number that it committed.
    pub last_seq: u64,
    /// What it was told of the server's answers.
    pub acknowledged: u64,
    /// The numbers that it was told to be rejected, and where the log stood then.
    pub rejected: BTreeMap<u64, Lsn>,
    /// Permissions that may be in force for it.
    pub grants: Vec<Grant>,
    /// What it may have been sent: permissions that were ever in force.
    pub ever_granted: Vec<Grant>,
    /// What it held when it was last looked at.
    pub held: Held,
    /// How far it was then.
    pub subscribed: Vec<Subscribed>,
    /// How often it was looked at.
    pub looks: u64,
    /// What the checkers are shown wrongly, to see that they notice.
    pub planted: Option<Planted>,
}

/// A defect of a peer, as the checkers would see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A delta is lost: a document stays as it was.
    Stale,
    /// What left stays.
    Stays,
    /// A document is lost.
    Gone,
}

impl Record {
    /// A peer that has done nothing.
    pub fn new(name: String, grant: Grant) -> Self {
        Self {
            name,
            site: None,
            ops: Vec::new(),
            last_seq: 0,
            acknowledged: 0,
            rejected: BTreeMap::new(),
            grants: vec![grant],
            ever_granted: vec![grant],
            held: Held::new(),
            subscribed: Vec::new(),
            looks: 0,
            planted: None,
        }
    }

    /// The peer was opened again after a crash: what it had begun is there whole, or not at all, and nothing else is gone.
    pub fn reopened(&mut self, truth: &Truth, status: &Status) -> Result<(), Violation> {
        self.told(status);
        // What it was told just before the crash, the app may not have heard.
        for seq in 1..=status.acknowledged {
            if self.site.and_then(|site| truth.find(site, seq)).is_some_and(|entry| entry.is_rejection) {
                self.rejected.entry(seq).or_insert(truth.head());
            }
        }
        let committed = status.committed;
        if committed < self.last_seq {
            let what = format!("{} had committed {}; after a crash it has {committed}", self.name, self.last_seq);
            return Err(Checker::NothingLost.broken(what));
        }
        if let Some(op) = self.ops.last_mut().filter(|op| op.committed == Committed::Begun) {
            op.committed = if committed > self.last_seq { Committed::As(committed) } else { Committed::Not };
        }
        self.last_seq = committed;
        Ok(())
    }

    /// The peer's status, as it is told.
    pub fn told(&mut self, status: &Status) {
        self.site = status.site.or(self.site);
        self.acknowledged = self.acknowledged.max(status.acknowledged);
    }

    /// Documents that the cut at `cursor` does not show as the peer must hold them.
    fn dirty(&self, truth: &Truth, cursor: Lsn) -> BTreeSet<Place> {
        let mut dirty = BTreeSet::new();
        for op in &self.ops {
            let is_dirty = match op.committed {
                Committed::Begun => true,
                Committed::Not => false,
                Committed::As(seq) => match self.site.and_then(|site| truth.find(site, seq)) {
                    None => true,
                    // What was put back may be newer than the cursor.
                    Some(entry) if entry.is_rejection => self.rejected.get(&seq).is_none_or(|heard| *heard > cursor),
                    Some(entry) => entry.lsn > cursor,
                },
            };
            if is_dirty {
                dirty.extend(op.places.iter().cloned());
            }
        }
        dirty
    }

    /// Looks at what the peer holds. Checkers 4, 5 and 6.
    ///
    /// `is_quiet`: there is nothing more to come, and no excuse.
    pub fn look(&mut self, truth: &Truth, status: &Status, mut held: Held, is_quiet: bool) -> Result<(), Violation> {
        self.told(status);
        match self.planted {
            None => {}
            Some(Planted::Stale) => {
                let changed = held.iter_mut().find_map(|(place, now)| {
                    let before = self.held.get(place).filter(|before| *before != now)?;
                    Some((now, before))
                });
                if let Some((now, before)) = changed {
                    now.clone_from(before);
                }
            }
            Some(Planted::Stays) => {
                for (place, before) in &self.held {
                    held.entry(place.clone()).or_insert_with(|| before.clone());
                }
            }
            Some(Planted::Gone) => drop(held.pop_first()),
        }
        self.looks += 1;
        self.subscribed = status
            .subscriptions
            .values()
            .map(|subscription| Subscribed {
                plan: select(&subscription.query),
                cursor: subscription.cursor.filter(|_| subscription.caught_up && subscription.refused.is_none()),
            })
            .collect();
        self.held = held;
        let readable: Vec<Readable> = self.grants.iter().map(|grant| grant.readable()).collect();
        self.check(truth, &readable, is_quiet, check_cut)?;
        self.check_whole()?;
        let ever: Vec<Readable> = self.ever_granted.iter().map(|grant| grant.readable()).collect();
        self.check(truth, &ever, is_quiet, check_permitted)
    }

    /// Has a checker look at what the peer held when it was last looked at.
    fn check(
        &self,
        truth: &Truth,
        readable: &[Readable],
        is_quiet: bool,
        checker: fn(&Truth, &Reader<'_>) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        let cursor = self.subscribed.iter().filter_map(|subscription| subscription.cursor).min().unwrap_or(Lsn::ZERO);
        let dirty = self.dirty(truth, cursor);
        let written = self.ops.iter().filter(|_| !is_quiet).flat_map(|op| op.places.iter().cloned());
        let late: BTreeSet<Place> = written.collect();
        let subscriptions = &self.subscribed;
        checker(
            truth,
            &Reader {
                name: &self.name,
                site: self.site,
                subscriptions,
                held: &self.held,
                dirty: &dirty,
                late: &late,
                readable,
            },
        )
    }

    /// Checker 4, without a model: the documents of `pairs` that one site writes together are always the same.
    fn check_whole(&self) -> Result<(), Violation> {
        let is_live = |subscription: &Subscribed| {
            subscription.plan.collection().as_str() == "pairs" && subscription.cursor.is_some()
        };
        if !self.subscribed.iter().any(is_live) {
            return Ok(());
        }
        let mut writers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for ((collection, _), object) in &self.held {
            if collection.as_str() == "pairs" {
                let field = |name: &str| object.get(name).cloned().map(|value| value.to_json().to_string());
                writers.entry(field("of").unwrap_or_default()).or_default().insert(field("v").unwrap_or_default());
            }
        }
        match writers.into_iter().find(|(_, values)| values.len() > 1) {
            Some((of, values)) => {
                let what = format!("{} holds a part of a transaction of {of}: {values:?}", self.name);
                Err(Checker::OneCut.broken(what))
            }
            None => Ok(()),
        }
    }

    /// Whether it ever wrote, or tried to write, to a document.
    pub fn wrote(&self, place: &Place) -> bool {
        self.ops.iter().any(|op| op.places.contains(place))
    }
}
