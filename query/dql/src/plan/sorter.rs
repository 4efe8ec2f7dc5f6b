//! `Sorter`: rows in order, and only as many as LIMIT and OFFSET need.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use crate::error::DqlError;
use crate::eval::compare::{Key, total};

/// Most bytes that one statement may hold in memory.
pub(crate) const MAX_HELD_BYTES: usize = 256 * 1024 * 1024;

/// What a statement holds in memory, by estimate.
#[derive(Debug, Default)]
pub(crate) struct Held(usize);

impl Held {
    pub(crate) fn add(&mut self, bytes: usize) -> Result<(), DqlError> {
        self.0 += bytes;
        if self.0 <= MAX_HELD_BYTES {
            return Ok(());
        }
        Err(DqlError::new(format!("The result needs more than {} MiB of memory", MAX_HELD_BYTES / (1024 * 1024)))
            .hint("add a LIMIT, narrow WHERE, or use SQL for large results"))
    }

    pub(crate) fn release(&mut self, bytes: usize) {
        self.0 = self.0.saturating_sub(bytes);
    }
}

/// Keeps the first `keep` items by their keys. Items with equal keys stay in the order in which they came.
#[derive(Debug)]
pub(crate) struct Sorter<T> {
    /// Items in the order in which they came, when nothing else is asked for.
    plain: Vec<T>,
    heap: BinaryHeap<Entry<T>>,
    descending: Arc<[bool]>,
    keep: usize,
    next: u64,
}

#[derive(Debug)]
struct Entry<T> {
    keys: Vec<Key>,
    arrival: u64,
    descending: Arc<[bool]>,
    bytes: usize,
    item: T,
}

impl<T> Entry<T> {
    fn against(&self, keys: &[Key], arrival: u64) -> Ordering {
        compare(&self.keys, keys, &self.descending).then(self.arrival.cmp(&arrival))
    }
}

fn compare(a: &[Key], b: &[Key], descending: &[bool]) -> Ordering {
    for ((a, b), descending) in a.iter().zip(b).zip(descending) {
        let order = total(a.0.as_ref(), b.0.as_ref());
        let order = if *descending { order.reverse() } else { order };
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.against(&other.keys, other.arrival)
    }
}

impl<T> Sorter<T> {
    pub(crate) fn new(descending: Arc<[bool]>, keep: usize) -> Self {
        Self { plain: Vec::new(), heap: BinaryHeap::new(), descending, keep, next: 0 }
    }

    /// Whether nothing that comes later can take a place: there is no order and all places are taken.
    pub(crate) fn is_settled(&self) -> bool {
        self.keep == 0 || (self.descending.is_empty() && self.plain.len() >= self.keep)
    }

    /// Takes an item; `make` makes it, with its size in bytes, when it has a place.
    pub(crate) fn push(
        &mut self,
        keys: Vec<Key>,
        held: &mut Held,
        make: impl FnOnce() -> Result<(T, usize), DqlError>,
    ) -> Result<(), DqlError> {
        if self.descending.is_empty() {
            if self.plain.len() < self.keep {
                let (item, bytes) = make()?;
                held.add(bytes + size_of::<T>())?;
                self.plain.push(item);
            }
            return Ok(());
        }
        let arrival = self.next;
        self.next += 1;
        if self.heap.len() >= self.keep {
            let Some(last) = self.heap.peek() else { return Ok(()) };
            if last.against(&keys, arrival).is_le() {
                return Ok(());
            }
        }
        let (item, size) = make()?;
        let bytes = size
            + size_of::<Entry<T>>()
            + keys
                .iter()
                .map(|key| size_of::<Key>() + key.0.as_ref().map_or(0, bigpeer_crdt::Value::heap_bytes))
                .sum::<usize>();
        held.add(bytes)?;
        self.heap.push(Entry { keys, arrival, descending: Arc::clone(&self.descending), bytes, item });
        if self.heap.len() > self.keep
            && let Some(dropped) = self.heap.pop()
        {
            held.release(dropped.bytes);
        }
        Ok(())
    }

    /// The items in order, without the first `offset`.
    pub(crate) fn finish(self, offset: usize) -> impl Iterator<Item = T> {
        self.plain.into_iter().chain(self.heap.into_sorted_vec().into_iter().map(|entry| entry.item)).skip(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigpeer_crdt::Value;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keeps_what_a_full_stable_sort_would_put_first(numbers in prop::collection::vec(0_i64..20, 0..100), keep in 0_usize..30, descending: bool) {
            let mut sorter = Sorter::new(Arc::from([descending]), keep);
            let mut held = Held::default();
            for (at, number) in numbers.iter().enumerate() {
                sorter.push(vec![Key(Some(Value::Int(*number)))], &mut held, || Ok(((*number, at), 0))).unwrap();
            }
            let mut expected: Vec<(i64, usize)> = numbers.iter().copied().zip(0..).collect();
            expected.sort_by(|a, b| if descending { b.0.cmp(&a.0) } else { a.0.cmp(&b.0) });
            expected.truncate(keep);
            prop_assert_eq!(sorter.finish(0).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut held = Held::default();
        assert!(held.add(MAX_HELD_BYTES).is_ok());
        assert!(held.add(1).is_err());
    }
}
