//! `Journal`: the attempts of a webhook, kept with the feed, the newest of them. They are written with the feed's checkpoint: no
//! attempt costs a commit of its own.
//!
//! # Consistency
//! Only whoever holds the feed's lease writes, a page at a time under the next number. What an owner has not written when it is
//! killed is not there.

use std::collections::VecDeque;

use bigpeer_chassis::Name;
use bigpeer_log::MetaOp;
use bigpeer_types::AppId;
use serde::{Deserialize, Serialize};

use super::keys::{self, Key};
use super::{Registry, decode, encode};
use crate::error::FeedError;

/// Most attempts of one feed that are kept.
const MAX_DELIVERIES: usize = 2000;
/// How long they are kept, in milliseconds.
const MAX_AGE_MS: u64 = 7 * 24 * 3600 * 1000;
/// Most attempts of one page. A feed that makes more between two checkpoints keeps those that failed, and the latest others.
pub(crate) const PAGE_DELIVERIES: usize = 250;
/// Most bytes of one page, well below what a value may have.
const PAGE_BYTES: usize = 48 * 1024;
/// Longest text of one attempt, in characters.
const MAX_TEXT: usize = 300;
/// Pages that are forgotten in one commit, at most.
const FORGOTTEN_AT_ONCE: usize = 500;

/// One attempt to deliver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Delivery {
    /// The event, or the first and last of several.
    pub(crate) id: String,
    /// How many events.
    pub(crate) events: usize,
    /// The how-many-th attempt it was.
    pub(crate) attempt: u32,
    /// When it ended, in milliseconds since the epoch.
    pub(crate) at_ms: u64,
    /// How long it took.
    pub(crate) latency_ms: u64,
    /// What the receiver answered.
    pub(crate) status: Option<u16>,
    /// Why it failed, if it did.
    pub(crate) error: Option<String>,
}

impl Delivery {
    /// The same, with texts of bounded length.
    fn bounded(mut self) -> Self {
        let cut = |text: &mut String| {
            if let Some((end, _)) = text.char_indices().nth(MAX_TEXT) {
                text.truncate(end);
            }
        };
        cut(&mut self.id);
        self.error.iter_mut().for_each(cut);
        self
    }
}

/// Attempts that were made and are not kept yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fresh {
    failed: VecDeque<Delivery>,
    taken: VecDeque<Delivery>,
    omitted: u64,
}

impl Fresh {
    /// Remembers an attempt; when there are many, those that failed rather than others, and later ones rather than earlier.
    pub(crate) fn push(&mut self, delivery: Delivery) {
        let delivery = delivery.bounded();
        if delivery.error.is_some() { &mut self.failed } else { &mut self.taken }.push_back(delivery);
        if self.failed.len() + self.taken.len() > PAGE_DELIVERIES {
            self.omitted += 1;
            if self.taken.pop_front().is_none() {
                self.failed.pop_front();
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.failed.is_empty() && self.taken.is_empty()
    }

    /// A page, the newest attempt first.
    fn into_page(self) -> Page {
        let mut deliveries: Vec<Delivery> = self.failed.into_iter().chain(self.taken).collect();
        deliveries.sort_by_key(|delivery| std::cmp::Reverse(delivery.at_ms));
        let mut page = Page { deliveries, omitted: self.omitted };
        let mut bytes = 0;
        let fits = |delivery: &&Delivery| {
            bytes += serde_json::to_vec(delivery).map_or(PAGE_BYTES, |json| json.len() + 1);
            bytes <= PAGE_BYTES
        };
        let kept = page.deliveries.iter().take_while(fits).count();
        page.omitted += (page.deliveries.len() - kept) as u64;
        page.deliveries.truncate(kept);
        page
    }
}

/// Attempts between two checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Page {
    /// The newest first.
    deliveries: Vec<Delivery>,
    /// How many others there were.
    omitted: u64,
}

/// What is known of a page that is kept.
#[derive(Clone, Copy, Debug)]
struct Kept {
    number: u64,
    deliveries: usize,
    newest_ms: u64,
}

/// The attempts of one feed, as its owner keeps them.
#[derive(Debug)]
pub(crate) struct Journal {
    app: AppId,
    name: Name,
    /// The oldest first.
    pages: VecDeque<Kept>,
    /// What is being written, under the next number; the same until it is known to be.
    next: Option<Page>,
}

/// What a commit has to say for a journal.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    pub(crate) ops: Vec<MetaOp>,
    /// Pages that it forgets.
    forgotten: usize,
}

impl Journal {
    /// Goes on from what is kept.
    pub(crate) async fn open(registry: &Registry, app: &AppId, name: &Name) -> Result<Self, FeedError> {
        let mut pages = VecDeque::new();
        for (number, page) in registry.delivery_pages(app, name, None, MAX_DELIVERIES).await? {
            let newest_ms = page.deliveries.first().map_or(0, |delivery| delivery.at_ms);
            pages.push_front(Kept { number, deliveries: page.deliveries.len(), newest_ms });
        }
        Ok(Self { app: app.clone(), name: name.clone(), pages, next: None })
    }

    /// Whether something that was taken up is not written yet.
    pub(crate) const fn is_due(&self) -> bool {
        self.next.is_some()
    }

    /// Takes up what was done since, if what was taken up before is written.
    pub(crate) fn take(&mut self, fresh: &mut Fresh) {
        if self.next.is_none() && !fresh.is_empty() {
            self.next = Some(std::mem::take(fresh).into_page());
        }
    }

    /// What is to be committed now.
    pub(crate) fn entries(&self, now_ms: u64) -> Result<Entries, FeedError> {
        let mut entries = Entries::default();
        let key = |number| Key::Deliveries(self.app.clone(), self.name.clone(), number).encode();
        let mut left: usize = self.pages.iter().map(|page| page.deliveries).sum();
        if let Some(page) = &self.next {
            entries.ops.push(MetaOp::Put { key: key(self.next_number()), value: encode(page)? });
            left += page.deliveries.len();
        }
        for page in self.pages.iter().take(FORGOTTEN_AT_ONCE) {
            if left <= MAX_DELIVERIES && page.newest_ms + MAX_AGE_MS >= now_ms {
                break;
            }
            left -= page.deliveries;
            entries.ops.push(MetaOp::Delete { key: key(page.number) });
            entries.forgotten += 1;
        }
        Ok(entries)
    }

    /// They are committed.
    pub(crate) fn committed(&mut self, entries: &Entries) {
        self.pages.drain(..entries.forgotten.min(self.pages.len()));
        let number = self.next_number();
        if let Some(page) = self.next.take() {
            let newest_ms = page.deliveries.first().map_or(0, |delivery| delivery.at_ms);
            self.pages.push_back(Kept { number, deliveries: page.deliveries.len(), newest_ms });
        }
    }

    fn next_number(&self) -> u64 {
        self.pages.back().map_or(0, |newest| newest.number + 1)
    }
}

/// Attempts as they are answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deliveries {
    /// The newest first.
    pub(crate) deliveries: Vec<Delivery>,
    /// How many there were that were not kept.
    pub(crate) omitted: u64,
    /// Where older ones begin, if there are any.
    pub(crate) next: Option<u64>,
}

impl Registry {
    /// Pages of attempts, the newest first, from before the one of number `before` on.
    async fn delivery_pages(
        &self,
        app: &AppId,
        name: &Name,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, Page)>, FeedError> {
        let prefix = keys::deliveries_of(app, name);
        let after = before.map(|number| Key::Deliveries(app.clone(), name.clone(), number).encode());
        let found = self.log.metadata().range(prefix.as_bytes(), after.as_deref(), limit).await?;
        let mut out = Vec::with_capacity(found.len());
        for (key, stored) in found {
            let Some(Key::Deliveries(_, _, number)) = Key::decode(&key) else {
                return Err(FeedError::Records(format!("{} is no key of a feed", String::from_utf8_lossy(&key))));
            };
            out.push((number, decode(&key, &stored.value)?));
        }
        Ok(out)
    }

    /// Attempts of a feed, the newest first, about `wanted` of them, from before the page `before` on.
    pub(crate) async fn deliveries(
        &self,
        app: &AppId,
        name: &Name,
        mut before: Option<u64>,
        wanted: usize,
    ) -> Result<Deliveries, FeedError> {
        let mut out = Deliveries::default();
        loop {
            const AT_ONCE: usize = 16;
            let pages = self.delivery_pages(app, name, before, AT_ONCE).await?;
            let last = pages.len() < AT_ONCE;
            for (number, page) in pages {
                if out.deliveries.len() >= wanted {
                    out.next = before;
                    return Ok(out);
                }
                out.deliveries.extend(page.deliveries);
                out.omitted += page.omitted;
                before = Some(number);
            }
            if last {
                return Ok(out);
            }
        }
    }

    /// Forgets the attempts of a feed that is gone.
    pub(super) async fn forget_deliveries(&self, app: &AppId, name: &Name) -> Result<(), FeedError> {
        self.forget(&keys::deliveries_of(app, name)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use bigpeer_log::{MemoryLog, TransactionLog};
    use bigpeer_types::{ManualClock, RandomIds};

    fn delivery(at_ms: u64, error: Option<&str>) -> Delivery {
        let (id, error) = (format!("{at_ms}.0:0"), error.map(str::to_owned));
        Delivery { id, events: 1, attempt: 1, at_ms, latency_ms: 3, status: Some(204), error }
    }

    struct World {
        log: Arc<MemoryLog>,
        registry: Registry,
        app: AppId,
        name: Name,
    }

    impl World {
        fn new() -> Self {
            let log = Arc::new(MemoryLog::new());
            let registry = Registry::new(Arc::clone(&log) as _, Arc::new(ManualClock::new(1)), Arc::new(RandomIds));
            Self { log, registry, app: AppId::new("a").unwrap(), name: "f".parse().unwrap() }
        }

        async fn open(&self) -> Journal {
            Journal::open(&self.registry, &self.app, &self.name).await.unwrap()
        }

        async fn write(&self, journal: &mut Journal, deliveries: impl IntoIterator<Item = Delivery>, now_ms: u64) {
            let mut fresh = Fresh::default();
            deliveries.into_iter().for_each(|delivery| fresh.push(delivery));
            journal.take(&mut fresh);
            let entries = journal.entries(now_ms).unwrap();
            self.log.metadata().commit(entries.ops.clone()).await.unwrap();
            journal.committed(&entries);
        }

        /// All that is kept, by pages of about `wanted`.
        async fn all(&self, wanted: usize) -> (Vec<u64>, u64) {
            let (mut out, mut omitted, mut before) = (Vec::new(), 0, None);
            loop {
                let found = self.registry.deliveries(&self.app, &self.name, before, wanted).await.unwrap();
                out.extend(found.deliveries.iter().map(|delivery| delivery.at_ms));
                omitted += found.omitted;
                before = found.next;
                if before.is_none() {
                    return (out, omitted);
                }
            }
        }
    }

    #[tokio::test]
    async fn the_newest_are_kept_over_owners_and_come_in_pages() {
        let world = World::new();
        let mut journal = world.open().await;
        for at in 0..MAX_DELIVERIES as u64 + 40 {
            if at % 97 == 0 {
                // Another owner.
                journal = world.open().await;
            }
            world.write(&mut journal, [delivery(at, None)], at).await;
        }
        let newest_first: Vec<u64> = (40..MAX_DELIVERIES as u64 + 40).rev().collect();
        for wanted in [1, 7, 100, 10_000] {
            assert_eq!(world.all(wanted).await, (newest_first.clone(), 0), "by {wanted}");
        }
    }

    #[tokio::test]
    async fn what_is_old_goes() {
        let world = World::new();
        let mut journal = world.open().await;
        for at in 0..10 {
            world.write(&mut journal, [delivery(at, None)], at).await;
        }
        world.write(&mut journal, [delivery(MAX_AGE_MS + 5, None)], MAX_AGE_MS + 5).await;
        assert_eq!(world.all(100).await.0, [MAX_AGE_MS + 5, 9, 8, 7, 6, 5]);
    }

    #[tokio::test]
    async fn of_too_many_those_that_failed_are_kept_and_the_latest_others() {
        let world = World::new();
        let mut journal = world.open().await;
        let many = (0..1000).map(|at| delivery(at, (at % 100 == 0).then_some("it answered 500")));
        world.write(&mut journal, many, 0).await;
        let (kept, omitted) = world.all(1).await;
        assert_eq!((kept.len(), omitted), (PAGE_DELIVERIES, 1000 - PAGE_DELIVERIES as u64));
        assert!((0..10).all(|n| kept.contains(&(n * 100))) && kept.contains(&999) && !kept.contains(&1));
    }

    #[tokio::test]
    async fn a_page_fits_into_a_value_whatever_it_is_about() {
        let world = World::new();
        let mut journal = world.open().await;
        let long = |at| Delivery { id: "ä".repeat(3000), error: Some("é".repeat(3000)), ..delivery(at, None) };
        world.write(&mut journal, (0..400).map(long), 0).await;
        let found = world.registry.deliveries(&world.app, &world.name, None, 100).await.unwrap();
        assert!(found.deliveries.iter().all(|delivery| delivery.id.chars().count() == MAX_TEXT));
        assert_eq!(found.deliveries.len() as u64 + found.omitted, 400);
        assert!(found.deliveries.len() > 20);
    }
}
