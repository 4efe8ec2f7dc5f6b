//! Joining one sorted map of nodes into another, whichever way is cheaper.

use super::{Floor, Node};

/// Entries of a map, with ascending keys, to be joined into another.
pub(crate) trait Incoming<'k> {
    type Error;
    /// The next entry's key. Bytes, for that is all that comparing takes.
    fn key(&mut self) -> Result<&'k [u8], Self::Error>;
    /// The key that was just asked for, to be kept.
    fn owned(&self, key: &'k [u8]) -> Result<Box<str>, Self::Error>;
    /// Joins the entry whose key was just asked for into its node.
    fn join_into(&mut self, node: &mut Node) -> Result<(), Self::Error>;
}

/// The entries of a map in memory.
pub(super) struct Entries<'k> {
    pub(super) left: &'k [(Box<str>, Node)],
    pub(super) floor: Floor,
}

impl<'k> Incoming<'k> for Entries<'k> {
    type Error = std::convert::Infallible;

    fn key(&mut self) -> Result<&'k [u8], Self::Error> {
        Ok(self.left.first().map_or(&[], |(key, _)| key.as_bytes()))
    }

    fn owned(&self, _: &'k [u8]) -> Result<Box<str>, Self::Error> {
        Ok(self.left.first().map_or_else(Box::default, |(key, _)| key.clone()))
    }

    fn join_into(&mut self, node: &mut Node) -> Result<(), Self::Error> {
        if let Some(((_, other), left)) = self.left.split_first() {
            node.join(other, self.floor);
            self.left = left;
        }
        Ok(())
    }
}

/// Up to how many comparisons and moves keys are inserted one by one; more are merged in one walk over both sides.
pub(super) const FEW: usize = 4096;

/// Merges `count` entries into a sorted map. A node that is empty after its join is not kept.
///
/// On an error the map is left without some of its entries.
pub(crate) fn merge_into<'k, I: Incoming<'k>>(
    map: &mut Vec<(Box<str>, Node)>,
    count: usize,
    incoming: &mut I,
) -> Result<(), I::Error> {
    if map.is_empty() {
        map.reserve_exact(count);
        for _ in 0..count {
            let key = incoming.key()?;
            map.extend(fresh(key, incoming)?);
        }
        Ok(())
    } else if count == 1 || count.saturating_mul(map.len()) <= FEW {
        insert_each(map, count, incoming)
    } else {
        merge_walk(map, count, incoming)
    }
}

fn insert_each<'k, I: Incoming<'k>>(
    map: &mut Vec<(Box<str>, Node)>,
    count: usize,
    incoming: &mut I,
) -> Result<(), I::Error> {
    let mut from = 0;
    for _ in 0..count {
        let key = incoming.key()?;
        let rest = map.get_mut(from..).unwrap_or_default();
        match rest.binary_search_by(|(probe, _)| probe.as_bytes().cmp(key)) {
            Ok(at) => {
                if let Some((_, node)) = rest.get_mut(at) {
                    incoming.join_into(node)?;
                }
                from += at + 1;
            }
            Err(at) => {
                from += at;
                if let Some(entry) = fresh(key, incoming)? {
                    map.insert(from, entry);
                    from += 1;
                }
            }
        }
    }
    Ok(())
}

fn merge_walk<'k, I: Incoming<'k>>(
    map: &mut Vec<(Box<str>, Node)>,
    count: usize,
    incoming: &mut I,
) -> Result<(), I::Error> {
    let mut merged = Vec::with_capacity(map.len().saturating_add(count));
    let mut own = std::mem::take(map).into_iter().peekable();
    for _ in 0..count {
        let key = incoming.key()?;
        while let Some(entry) = own.next_if(|(own, _)| own.as_bytes() < key) {
            merged.push(entry);
        }
        match own.next_if(|(own, _)| own.as_bytes() == key) {
            Some((key, mut node)) => {
                incoming.join_into(&mut node)?;
                merged.push((key, node));
            }
            None => merged.extend(fresh(key, incoming)?),
        }
    }
    merged.extend(own);
    *map = merged;
    Ok(())
}

/// The entry at a key that the map does not have; nothing if nothing of it is live.
fn fresh<'k, I: Incoming<'k>>(key: &'k [u8], incoming: &mut I) -> Result<Option<(Box<str>, Node)>, I::Error> {
    let key = incoming.owned(key)?;
    let mut node = Node::default();
    incoming.join_into(&mut node)?;
    Ok(if node.is_empty() { None } else { Some((key, node)) })
}
