//! Live queries: a SELECT that answers again when its result has changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bigpeer_crdt::{DocId, Value};
use bigpeer_dql::SelectPlan;
use bigpeer_types::Clock;
use tokio::sync::watch;

use crate::PeerError;
use crate::local::run_select;
use crate::signals::Versions;
use crate::store::Store;

/// A live query's result, and how it differs from the one before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LiveResult {
    /// The rows, in the query's order.
    pub items: Vec<Value>,
    /// Which of `items` are new.
    pub inserted: Vec<usize>,
    /// Which of `items` are other than before, and the row before. Rows are the same by `_id`; rows without `_id` are
    /// only ever inserted and removed.
    pub updated: Vec<(usize, Value)>,
    /// The rows that are gone.
    pub removed: Vec<Value>,
}

/// A SELECT over the local store that is evaluated again when its collection changes. Changes that come faster than
/// they are asked for are taken together; nothing queues up.
#[derive(Debug)]
pub struct LiveQuery {
    store: Store,
    plan: SelectPlan,
    versions: watch::Receiver<Versions>,
    clock: Arc<dyn Clock>,
    /// The collection's version that the last result saw; none before the first.
    seen: Option<u64>,
    /// The last result's rows by identity.
    rows: BTreeMap<RowKey, Value>,
    /// The last result's order.
    order: Vec<RowKey>,
    /// When the last evaluation ended, and how long it took: the next one starts no sooner than that after it, so that an
    /// expensive query under steady change costs at most half a core.
    last_run: Option<(Duration, Duration)>,
}

/// What makes two rows the same row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum RowKey {
    Id(DocId),
    /// A row without an id is itself; the count tells equal ones apart.
    Whole(String, usize),
}

impl LiveQuery {
    pub(crate) fn new(
        store: Store,
        plan: SelectPlan,
        versions: watch::Receiver<Versions>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (rows, order) = (BTreeMap::new(), Vec::new());
        Self { store, plan, versions, clock, seen: None, rows, order, last_run: None }
    }

    /// The result now the first time; afterwards waits until it is another one. Cancel safe.
    ///
    /// # Errors
    /// When the store fails or the peer is closed.
    pub async fn next(&mut self) -> Result<LiveResult, PeerError> {
        loop {
            let version = self.changed_version().await?;
            rest(self.last_run, self.clock.monotonic()).await;
            let plan = self.plan.clone();
            let started = self.clock.monotonic();
            let items = self.store.read(move |tables| run_select(tables, plan)).await?;
            let ended = self.clock.monotonic();
            self.last_run = Some((ended, ended.saturating_sub(started)));
            let first = self.seen.is_none();
            self.seen = Some(version);
            let (result, reordered) = self.compare(items);
            if first || reordered || !result.is_unchanged() {
                return Ok(result);
            }
        }
    }

    /// Waits until the collection's version is another one than seen. It is read before the evaluation, so that a change
    /// during the evaluation leads to another one.
    async fn changed_version(&mut self) -> Result<u64, PeerError> {
        let collection = self.plan.collection().clone();
        let seen = self.seen;
        let version = |versions: &Versions| versions.get(&collection).copied().unwrap_or(0);
        let versions = self.versions.wait_for(|versions| seen != Some(version(versions))).await;
        versions.map(|versions| version(&versions)).map_err(|_| PeerError::Closed)
    }

    /// The difference to the last rows, which are replaced, and whether the order is another one.
    fn compare(&mut self, items: Vec<Value>) -> (LiveResult, bool) {
        let mut order = Vec::with_capacity(items.len());
        let mut old = std::mem::take(&mut self.rows);
        let mut result = LiveResult::default();
        let mut copies = BTreeMap::new();
        for (index, item) in items.iter().enumerate() {
            let key = row_key(item, &mut copies);
            match old.remove(&key) {
                None => result.inserted.push(index),
                Some(before) if before != *item => result.updated.push((index, before)),
                Some(_) => {}
            }
            self.rows.insert(key.clone(), item.clone());
            order.push(key);
        }
        result.removed = old.into_values().collect();
        result.items = items;
        let reordered = order != self.order;
        self.order = order;
        (result, reordered)
    }
}

/// Lets as much time pass after an evaluation as it took. A sleep of nothing would still wait for the timer's next millisecond,
/// so there is none.
async fn rest(last_run: Option<(Duration, Duration)>, now: Duration) {
    let Some((ended, took)) = last_run else { return };
    let left = took.saturating_sub(now.saturating_sub(ended));
    if !left.is_zero() {
        tokio::time::sleep(left).await;
    }
}

impl LiveResult {
    fn is_unchanged(&self) -> bool {
        self.inserted.is_empty() && self.updated.is_empty() && self.removed.is_empty()
    }
}

fn row_key(row: &Value, copies: &mut BTreeMap<String, usize>) -> RowKey {
    let id = row.as_object().and_then(|fields| fields.get("_id")).and_then(|id| DocId::from_value(id).ok());
    match id {
        Some(id) => RowKey::Id(id),
        None => {
            let text = row.to_json().to_string();
            let count = copies.entry(text.clone()).or_insert(0);
            *count += 1;
            RowKey::Whole(text, *count)
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_has_rested_does_not_wait_for_a_timer() {
        // Between two of the timer's milliseconds, as nearly always.
        tokio::time::advance(Duration::from_micros(300)).await;
        let ms = Duration::from_millis;
        assert_eq!(rest(None, ms(5)).now_or_never(), Some(()));
        assert_eq!(rest(Some((ms(1), ms(2))), ms(3)).now_or_never(), Some(()));
        assert_eq!(rest(Some((ms(1), ms(2))), ms(2)).now_or_never(), None, "half of the rest is left");
    }
}
