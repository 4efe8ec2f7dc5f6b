//! `Cursor`: where a reader of changes stands, as text that it keeps for us. Opaque to it; bad text is refused.
//!
//! # Layout
//! ```text
//! cursor   := position [ "~" base64url(JSON of the snapshot's progress) [ "~" base64url(key of a document) ] ]
//! position := VERSION.ORDER            every transaction up to this one was seen, whole
//!           | VERSION.ORDER ":" SEEN   of this one the first SEEN changes, and all before it
//! ```
//! The key is of the last document of the snapshot's current collection that was seen.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bigpeer_crdt::DocId;
use bigpeer_types::{CollectionName, Lsn};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest text that is read as a cursor: a collection's name for each of some thousand collections.
const MAX_TEXT_BYTES: usize = 256 * 1024;

/// How far the log was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The transaction that was seen last.
    pub lsn: Lsn,
    /// How many of its changes were seen; none: all of them.
    pub seen: Option<u32>,
}

impl Position {
    /// Behind the whole transaction at `lsn`.
    #[must_use]
    pub const fn after(lsn: Lsn) -> Self {
        Self { lsn, seen: None }
    }

    /// The last position whose transaction was seen whole: only to compare with, there may be nothing at it.
    #[must_use]
    pub fn whole(self) -> Lsn {
        if self.seen.is_none() {
            return self.lsn;
        }
        match (self.lsn.version, self.lsn.order) {
            (0, 0) => Lsn::ZERO,
            (version, 0) => Lsn::new(version - 1, u32::MAX),
            (version, order) => Lsn::new(version, order - 1),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seen {
            None => write!(f, "{}", self.lsn),
            Some(seen) => write!(f, "{}:{seen}", self.lsn),
        }
    }
}

/// What of a snapshot is still to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotProgress {
    /// The collections that are not done, the current one first. Empty: its end has to be told.
    #[serde(rename = "c")]
    pub collections: Vec<CollectionName>,
    /// Whether all of it is of one position, and changes come after it; else it is read between changes.
    #[serde(rename = "f")]
    pub fixed: bool,
    /// Whether its beginning was told.
    #[serde(rename = "b")]
    pub begun: bool,
    /// Whether all that come behind the current one by name follow it, before the others: so that a snapshot of everything names
    /// one collection at a time.
    #[serde(rename = "r", default, skip_serializing_if = "std::ops::Not::not")]
    pub rest: bool,
    /// The last document of the current collection that was seen.
    #[serde(skip)]
    pub after: Option<DocId>,
}

impl SnapshotProgress {
    /// A snapshot of these collections, from the beginning.
    #[must_use]
    pub const fn new(collections: Vec<CollectionName>, fixed: bool) -> Self {
        Self { collections, fixed, begun: false, rest: false, after: None }
    }

    /// A fixed snapshot of all of these collections, which are in the order of their names, from the beginning.
    #[must_use]
    pub fn of_all(collections: impl IntoIterator<Item = CollectionName>) -> Self {
        let first: Vec<CollectionName> = collections.into_iter().take(1).collect();
        Self { rest: !first.is_empty(), ..Self::new(first, true) }
    }

    /// The same, when the current collection is done. `all` are those that there are, in the order of their names.
    #[must_use]
    pub fn next_collection(&self, all: impl IntoIterator<Item = CollectionName>) -> Self {
        let (current, others) = match self.collections.split_first() {
            Some((current, others)) => (Some(current), others),
            None => (None, &[][..]),
        };
        let next = self.rest.then(|| all.into_iter().find(|name| Some(name) > current)).flatten();
        let rest = next.is_some();
        Self {
            collections: next.into_iter().chain(others.iter().cloned()).collect(),
            rest,
            after: None,
            ..self.clone()
        }
    }
}

/// Where a reader of changes stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// How far the log was seen.
    pub position: Position,
    /// The snapshot that is under way, if one is.
    pub snapshot: Option<SnapshotProgress>,
}

impl Cursor {
    /// Behind the transaction at `lsn`.
    #[must_use]
    pub const fn after(lsn: Lsn) -> Self {
        Self { position: Position::after(lsn), snapshot: None }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.position)?;
        if let Some(snapshot) = &self.snapshot {
            let json = serde_json::to_vec(snapshot).map_err(|_| fmt::Error)?;
            write!(f, "~{}", URL_SAFE_NO_PAD.encode(json))?;
            if let Some(after) = &snapshot.after {
                write!(f, "~{}", key_text(after))?;
            }
        }
        Ok(())
    }
}

/// How a document's key stands in a cursor.
pub(crate) fn key_text(id: &DocId) -> String {
    URL_SAFE_NO_PAD.encode(id.as_key())
}

/// Text that is not a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("this is not a cursor of the change feed; send one back exactly as it was given, or leave it out to start now")]
pub struct CursorError;

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(CursorError);
        }
        let mut parts = text.split('~');
        let (position, progress, key) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        if parts.next().is_some() {
            return Err(CursorError);
        }
        let (lsn, seen) = match position.split_once(':') {
            Some((lsn, seen)) => (lsn, Some(seen.parse().map_err(|_| CursorError)?)),
            None => (position, None),
        };
        let lsn = lsn.parse().map_err(|_| CursorError)?;
        let snapshot = progress.map(|progress| snapshot(progress, key).ok_or(CursorError)).transpose()?;
        Ok(Self { position: Position { lsn, seen }, snapshot })
    }
}

fn snapshot(progress: &str, key: Option<&str>) -> Option<SnapshotProgress> {
    let mut progress: SnapshotProgress = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(progress).ok()?).ok()?;
    if let Some(key) = key {
        progress.after = Some(DocId::from_key(&URL_SAFE_NO_PAD.decode(key).ok()?).ok()?);
    }
    Some(progress)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigpeer_crdt::Value;
    use proptest::prelude::*;

    fn cursors() -> impl Strategy<Value = Cursor> {
        let names = prop::collection::vec("[a-zäé ~:.]{1,12}", 0..4);
        let snapshot = (names, prop::option::of(any::<i64>()), any::<bool>(), any::<bool>()).prop_map(
            |(names, after, fixed, begun)| {
                let names = names.iter().map(|name| CollectionName::new(name).unwrap()).collect();
                let after = after.map(|id| DocId::from_value(&Value::Int(id)).unwrap());
                SnapshotProgress { begun, after, ..SnapshotProgress::new(names, fixed) }
            },
        );
        let snapshot = (snapshot, any::<bool>()).prop_map(|(snapshot, rest)| SnapshotProgress { rest, ..snapshot });
        (any::<(u64, u32)>(), prop::option::of(any::<u32>()), prop::option::of(snapshot)).prop_map(
            |((version, order), seen, snapshot)| Cursor {
                position: Position { lsn: Lsn::new(version, order), seen },
                snapshot,
            },
        )
    }

    proptest! {
        #[test]
        fn cursors_round_trip_and_are_safe_in_a_url(cursor in cursors()) {
            let text = cursor.to_string();
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b".:~-_".contains(&b)), "{}", text);
            prop_assert_eq!(text.parse::<Cursor>(), Ok(cursor));
        }

        #[test]
        fn any_text_is_a_cursor_or_refused(text in ".{0,80}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string().parse::<Cursor>(), Ok(cursor));
            }
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for text in [
            "",
            "1",
            "1.2:",
            "1.2:x",
            "1.2~",
            "1.2~e30",
            "1.2:-1",
            "x~y",
            "1.2~eyJjIjpbXX0",
            "1.2~~",
            "1.2~e30~e30~e30",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(CursorError), "{text}");
        }
    }

    #[test]
    fn a_snapshot_of_everything_goes_through_all_names_in_order_and_then_through_what_was_asked_for() {
        let names = |text: &str| -> Vec<CollectionName> {
            text.split_terminator(' ').map(|name| CollectionName::new(name).unwrap()).collect()
        };
        let all = || names("a b c d");
        let mut progress = SnapshotProgress::of_all(all());
        progress.collections.extend(names("b"));
        let mut seen = Vec::new();
        while let Some(current) = progress.collections.first() {
            seen.push(current.clone());
            progress = progress.next_collection(all());
        }
        assert_eq!(seen, names("a b c d b"));
        assert_eq!(SnapshotProgress::of_all(names("")).collections, names(""));
    }

    #[test]
    fn a_position_within_a_transaction_is_behind_the_one_before() {
        let within = |version, order| Position { lsn: Lsn::new(version, order), seen: Some(3) }.whole();
        assert_eq!(within(7, 2), Lsn::new(7, 1));
        assert_eq!(within(7, 0), Lsn::new(6, u32::MAX));
        assert_eq!(within(0, 0), Lsn::ZERO);
        assert_eq!(Position::after(Lsn::new(7, 2)).whole(), Lsn::new(7, 2));
    }
}
