//! Every key of the keyspace: layout and lifetime.
//!
//! All numbers are big-endian. `P` is the log's prefix in the cluster (`bp`, unless told otherwise), A an app's number, in
//! four bytes; `stamp` a versionstamp of ten bytes, `lsn` a versionstamp and two bytes of the entry's place in its commit.
//!
//! | key | value | lifetime |
//! | --- | --- | --- |
//! | `P F` | format of the keyspace: one byte | for ever |
//! | `P n` | the next app's number: 4 bytes | for ever |
//! | `P a name` | the app's number: 4 bytes | for ever |
//! | `P m key` | metadata: the stamp of the commit that wrote it, and the value | until deleted |
//! | `P c` | the stamp of the last metadata commit; watched | for ever |
//! | `P d stamp` | which metadata keys a commit changed (see `metadata`) | minutes |
//! | `P l A h` | the last entry: lsn; watched | for ever |
//! | `P l A t` | the trim point: an LSN | for ever |
//! | `P l A s site` | a site's last entry: lsn (12), seq (8), nonce of the commit (8) | for ever |
//! | `P l A q site seq` | nothing: only depended on and conflicted with | none |
//! | `P l A k key` | when a conflict key was last written: lsn | minutes, see `trim` |
//! | `P l A *` | when an entry that writes very many keys was last written: lsn | for ever |
//! | `P l A w lsn chunk` | which conflict keys a commit wrote, the last at this LSN: 8 bytes each | minutes, see `trim` |
//! | `P l A g` | up to where written keys were forgotten: an LSN | for ever |
//! | `P l A e lsn chunk` | entries, packed (see `pack`); the LSN is that of the last one in it | until trimmed |

use bigpeer_types::{AppId, Lsn, SiteId};

use super::cluster::Stamp;
use crate::ConflictKey;

/// A key to be written in which ten bytes at `at` become the commit's versionstamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StampedKey {
    pub(crate) key: Vec<u8>,
    pub(crate) at: usize,
}

/// The keys of one log.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    prefix: Vec<u8>,
}

/// The keys of one app.
#[derive(Clone, Debug)]
pub(crate) struct AppSpace {
    prefix: Vec<u8>,
}

/// The first key after all that start with `prefix`. The prefix must have a byte that is not 0xff.
pub(crate) fn after_all(mut prefix: Vec<u8>) -> Vec<u8> {
    while prefix.pop_if(|last| *last == u8::MAX).is_some() {}
    if let Some(last) = prefix.last_mut() {
        *last += 1;
    }
    prefix
}

/// The first key after `key`.
pub(crate) fn next(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

fn key(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

impl Space {
    pub(crate) fn new(prefix: &[u8]) -> Self {
        Self { prefix: prefix.to_vec() }
    }

    pub(crate) fn format(&self) -> Vec<u8> {
        key(&[&self.prefix, b"F"])
    }

    pub(crate) fn next_app(&self) -> Vec<u8> {
        key(&[&self.prefix, b"n"])
    }

    pub(crate) fn app_number(&self, app: &AppId) -> Vec<u8> {
        key(&[&self.prefix, b"a", app.as_str().as_bytes()])
    }

    pub(crate) fn metadata(&self, name: &[u8]) -> Vec<u8> {
        key(&[&self.prefix, b"m", name])
    }

    /// The name in a key of [`Self::metadata`].
    pub(crate) fn metadata_name<'a>(&self, key: &'a [u8]) -> Option<&'a [u8]> {
        key.strip_prefix(&self.prefix[..])?.strip_prefix(b"m")
    }

    pub(crate) fn last_change(&self) -> Vec<u8> {
        key(&[&self.prefix, b"c"])
    }

    /// Where the change of a metadata commit is written.
    pub(crate) fn new_change(&self) -> StampedKey {
        StampedKey { key: self.change(Stamp::default()), at: self.prefix.len() + 1 }
    }

    pub(crate) fn change(&self, stamp: Stamp) -> Vec<u8> {
        key(&[&self.prefix, b"d", &stamp.to_bytes()])
    }

    pub(crate) fn after_changes(&self) -> Vec<u8> {
        after_all(key(&[&self.prefix, b"d"]))
    }

    /// The stamp in a key of [`Self::change`].
    pub(crate) fn change_stamp(&self, key: &[u8]) -> Option<Stamp> {
        let stamp = key.strip_prefix(&self.prefix[..])?.strip_prefix(b"d")?;
        Some(Stamp::from_bytes(stamp.try_into().ok()?))
    }

    pub(crate) fn app(&self, number: u32) -> AppSpace {
        AppSpace { prefix: key(&[&self.prefix, b"l", &number.to_be_bytes()]) }
    }
}

impl AppSpace {
    pub(crate) fn head(&self) -> Vec<u8> {
        key(&[&self.prefix, b"h"])
    }

    pub(crate) fn trimmed(&self) -> Vec<u8> {
        key(&[&self.prefix, b"t"])
    }

    pub(crate) fn site(&self, site: SiteId) -> Vec<u8> {
        key(&[&self.prefix, b"s", &site.get().to_be_bytes()])
    }

    /// What stands for the application of one `seq` of a site: whoever applies it depends on it and conflicts with it.
    pub(crate) fn sequence(&self, site: SiteId, seq: u64) -> Vec<u8> {
        key(&[&self.prefix, b"q", &site.get().to_be_bytes(), &seq.to_be_bytes()])
    }

    pub(crate) fn written(&self, written: ConflictKey) -> Vec<u8> {
        key(&[&self.prefix, b"k", &written.0.to_be_bytes()])
    }

    /// Before all keys of [`Self::written`].
    pub(crate) fn all_written(&self) -> Vec<u8> {
        key(&[&self.prefix, b"k"])
    }

    pub(crate) fn wrote_many(&self) -> Vec<u8> {
        key(&[&self.prefix, b"*"])
    }

    /// Where the conflict keys are listed that a commit wrote, in entries up to this place.
    pub(crate) fn new_writes(&self, last: u16, chunk: u8) -> StampedKey {
        let at = self.prefix.len() + 1;
        StampedKey { key: key(&[&self.prefix, b"w", &[0; Stamp::BYTES], &last.to_be_bytes(), &[chunk]]), at }
    }

    /// Before all lists of conflict keys of `version` and later.
    pub(crate) fn writes_from(&self, version: u64) -> Vec<u8> {
        key(&[&self.prefix, b"w", &version.to_be_bytes()])
    }

    /// The LSN in a key of [`Self::new_writes`].
    pub(crate) fn writes_lsn(&self, key: &[u8]) -> Option<Lsn> {
        let rest = key.strip_prefix(&self.prefix[..])?.strip_prefix(b"w")?;
        Some(Lsn::from_bytes(*rest.first_chunk()?))
    }

    pub(crate) fn forgotten(&self) -> Vec<u8> {
        key(&[&self.prefix, b"g"])
    }

    /// Where a chunk of a pack of entries is written, the last of which has this place in the commit.
    pub(crate) fn new_entries(&self, last: u16, chunk: u8) -> StampedKey {
        let at = self.prefix.len() + 1;
        StampedKey { key: key(&[&self.prefix, b"e", &[0; Stamp::BYTES], &last.to_be_bytes(), &[chunk]]), at }
    }

    /// After all packs that end at or before `lsn`, before all others.
    pub(crate) fn entries_after(&self, lsn: Lsn) -> Vec<u8> {
        key(&[&self.prefix, b"e", &lsn.to_bytes(), &[u8::MAX]])
    }

    /// Before all packs.
    pub(crate) fn all_entries(&self) -> Vec<u8> {
        key(&[&self.prefix, b"e"])
    }

    /// The LSN of a pack's last entry and the number of the chunk.
    pub(crate) fn entries_chunk(&self, key: &[u8]) -> Option<(Lsn, u8)> {
        let rest = key.strip_prefix(&self.prefix[..])?.strip_prefix(b"e")?;
        let (lsn, chunk) = rest.split_first_chunk::<{ Lsn::BYTES }>()?;
        let [chunk] = chunk else { return None };
        Some((Lsn::from_bytes(*lsn), *chunk))
    }
}

/// The LSN of the entry at `place` in the commit of `stamp`: the version, then the commit's place among those that share
/// the version and the entry's place in the commit. Its byte form is the versionstamp and the place.
pub(crate) fn lsn(stamp: Stamp, place: u16) -> Lsn {
    Lsn::new(stamp.version, u32::from(stamp.batch) << 16 | u32::from(place))
}

/// A site's last entry, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SiteState {
    pub(crate) seq: u64,
    /// Which commit wrote this: how a commit whose outcome was not known is recognized.
    pub(crate) nonce: u64,
    pub(crate) lsn: Lsn,
}

impl SiteState {
    /// The value to be written, of which the first ten bytes become the versionstamp.
    pub(crate) fn encode(seq: u64, nonce: u64, place: u16) -> Vec<u8> {
        key(&[&[0; Stamp::BYTES], &place.to_be_bytes(), &seq.to_be_bytes(), &nonce.to_be_bytes()])
    }

    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        let (lsn, rest) = value.split_first_chunk::<{ Lsn::BYTES }>()?;
        let (seq, rest) = rest.split_first_chunk::<8>()?;
        let nonce: [u8; 8] = rest.try_into().ok()?;
        Some(Self { seq: u64::from_be_bytes(*seq), nonce: u64::from_be_bytes(nonce), lsn: Lsn::from_bytes(*lsn) })
    }
}

/// A value that is an LSN, to be written with a versionstamp.
pub(crate) fn stamped_lsn(place: u16) -> Vec<u8> {
    key(&[&[0; Stamp::BYTES], &place.to_be_bytes()])
}

/// Reads a value that is an LSN.
pub(crate) fn decode_lsn(value: &[u8]) -> Option<Lsn> {
    Some(Lsn::from_bytes(value.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stamp_into(stamped: StampedKey, stamp: Stamp) -> Vec<u8> {
        let mut key = stamped.key;
        key[stamped.at..stamped.at + Stamp::BYTES].copy_from_slice(&stamp.to_bytes());
        key
    }

    proptest! {
        #[test]
        fn keys_are_read_back(prefix in proptest::collection::vec(any::<u8>(), 0..4), app in any::<u32>(),
            version in any::<u64>(), batch in any::<u16>(), place in any::<u16>(), chunk in 0..255_u8,
            name in proptest::collection::vec(any::<u8>(), 0..20)) {
            let (space, stamp) = (Space::new(&prefix), Stamp { version, batch });
            let app = space.app(app);
            let entries = stamp_into(app.new_entries(place, chunk), stamp);
            prop_assert_eq!(app.entries_chunk(&entries), Some((lsn(stamp, place), chunk)));
            prop_assert!(entries < app.entries_after(lsn(stamp, place)));
            prop_assert!(entries > app.all_entries());
            let writes = stamp_into(app.new_writes(place, chunk), stamp);
            prop_assert_eq!(app.writes_lsn(&writes), Some(lsn(stamp, place)));
            prop_assert!(writes >= app.writes_from(version));
            prop_assert_eq!(stamp_into(space.new_change(), stamp), space.change(stamp));
            prop_assert_eq!(space.change_stamp(&space.change(stamp)), Some(stamp));
            prop_assert!(space.change(stamp) < space.after_changes());
            let metadata = space.metadata(&name);
            prop_assert_eq!(space.metadata_name(&metadata), Some(&name[..]));
            let mut site = SiteState::encode(7, 8, place);
            site[..Stamp::BYTES].copy_from_slice(&stamp.to_bytes());
            let expected = SiteState { seq: 7, nonce: 8, lsn: lsn(stamp, place) };
            prop_assert_eq!(SiteState::decode(&site), Some(expected));
        }

        #[test]
        fn entries_stand_in_the_order_of_their_positions(a in any::<(u64, u16, u16)>(), b in any::<(u64, u16, u16)>()) {
            let app = Space::new(b"bp").app(1);
            let at = |(version, batch, place)| (Stamp { version, batch }, place);
            let ((a, a_place), (b, b_place)) = (at(a), at(b));
            let keys = (stamp_into(app.new_entries(a_place, 0), a), stamp_into(app.new_entries(b_place, 0), b));
            prop_assert_eq!(keys.0.cmp(&keys.1), lsn(a, a_place).cmp(&lsn(b, b_place)));
            prop_assert_eq!(app.entries_after(lsn(a, a_place)) < keys.1, lsn(a, a_place) < lsn(b, b_place));
        }

        #[test]
        fn after_all_is_after_all(prefix in proptest::collection::vec(any::<u8>(), 0..4), rest in proptest::collection::vec(any::<u8>(), 0..4)) {
            let prefix = key(&[b"m", &prefix]);
            let end = after_all(prefix.clone());
            prop_assert!(key(&[&prefix, &rest]) < end);
            prop_assert!(!end.starts_with(&prefix));
        }
    }
}
