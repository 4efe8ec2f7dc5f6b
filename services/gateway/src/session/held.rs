//! Which of the changed documents that do not match does the peer have? While there are few, all are named; when there are
//! many, or one that the peer may not read, the peer is asked, if the answer is worth its bytes.
//!
//! So a resume costs bytes in proportion to the lesser of what the peer holds and what changed, and ids that the peer may not
//! read are never sent: what left is then named by its place in the peer's own answer.

use std::collections::BTreeMap;

use bigpeer_protocol::limits::MAX_HELD;
use bigpeer_protocol::{fingerprint, pb};

/// Documents that are named without asking.
const UNASKED: usize = 64;

/// An id costs about as much as so many fingerprints.
const FINGERPRINTS_PER_ID: usize = 4;

/// What is known of what the peer holds of a collection.
#[derive(Debug, Default)]
pub(super) enum Held {
    /// It was not asked.
    #[default]
    Unknown,
    /// It was asked, with this salt, to send so many fingerprints at most.
    Asked(u64, usize),
    /// It holds so many: more than was worth sending then.
    Many(usize),
    /// The place in its answer of every document that it holds, by fingerprint.
    Known(u64, BTreeMap<u64, u32>),
    /// It cannot be asked.
    Silent,
}

/// What to do about a changed document that does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Say {
    /// The peer does not have it.
    Nothing,
    /// Name it.
    Id,
    /// Name it by its place in what the peer said.
    Place(u32),
    /// Ask first; more fingerprints than this are not worth sending.
    Ask(usize),
    /// It must not be named, and the peer may have it: only a new first sync tells.
    Resync,
}

impl Held {
    /// What to do about the document with this key, when so many were named before it.
    pub(super) fn say(&self, key: &[u8], may_name: bool, named: usize) -> Say {
        let worth = named.saturating_mul(FINGERPRINTS_PER_ID);
        match self {
            Self::Known(salt, places) => match places.get(&fingerprint(*salt, key)) {
                None => Say::Nothing,
                Some(_) if may_name => Say::Id,
                Some(place) => Say::Place(*place),
            },
            // Nothing is looked at while an answer is awaited.
            Self::Unknown | Self::Asked(..) if !may_name => Say::Ask(MAX_HELD),
            Self::Unknown if named >= UNASKED => Say::Ask(worth),
            Self::Many(count) if !may_name && *count <= MAX_HELD => Say::Ask(MAX_HELD),
            Self::Many(count) if may_name && named >= UNASKED && worth >= *count && *count <= MAX_HELD => {
                Say::Ask(worth)
            }
            Self::Unknown | Self::Asked(..) | Self::Many(_) | Self::Silent if may_name => Say::Id,
            Self::Unknown | Self::Asked(..) | Self::Many(_) | Self::Silent => Say::Resync,
        }
    }

    /// The peer has answered.
    pub(super) fn answered(&mut self, held: &pb::Held) {
        let Self::Asked(salt, at_most) = *self else { return };
        let count = usize::try_from(held.count).unwrap_or(usize::MAX);
        *self = match held.fingerprints.is_empty() && count > 0 {
            true if count > at_most => Self::Many(count),
            // It could have answered: asking again would not help.
            true => Self::Silent,
            false => Self::Known(salt, held.fingerprints.iter().copied().zip(0..).collect()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(keys: &[&[u8]], count: u32) -> pb::Held {
        pb::Held { ask: 1, fingerprints: keys.iter().map(|key| fingerprint(7, key)).collect(), count }
    }

    #[test]
    fn few_are_named_and_many_are_asked_for() {
        let mut held = Held::Unknown;
        assert_eq!(held.say(b"a", true, 0), Say::Id);
        assert_eq!(held.say(b"a", true, UNASKED), Say::Ask(256));
        assert_eq!(held.say(b"a", false, 0), Say::Ask(MAX_HELD));
        held = Held::Asked(7, 999);
        held.answered(&answer(&[], 1000));
        assert_eq!(held.say(b"a", true, 249), Say::Id, "the answer would cost more");
        assert_eq!(held.say(b"a", true, 250), Say::Ask(1000));
        assert_eq!(held.say(b"a", false, 0), Say::Ask(MAX_HELD));
        held = Held::Asked(7, 2);
        held.answered(&answer(&[b"a", b"b"], 2));
        assert_eq!(held.say(b"a", true, 1000), Say::Id);
        assert_eq!(held.say(b"b", false, 1000), Say::Place(1));
        assert_eq!(held.say(b"c", false, 1000), Say::Nothing);
    }

    #[test]
    fn who_holds_nothing_is_told_nothing_and_who_cannot_tell_is_told_all_or_starts_again() {
        let mut held = Held::Asked(7, 9);
        held.answered(&answer(&[], 9));
        assert_eq!(held.say(b"a", false, 0), Say::Resync, "it could have told");
        held = Held::Asked(7, 9);
        held.answered(&answer(&[], 0));
        assert_eq!(held.say(b"a", false, 1000), Say::Nothing);
        assert_eq!(Held::Silent.say(b"a", true, 1000), Say::Id);
        assert_eq!(Held::Silent.say(b"a", false, 1000), Say::Resync);
        assert_eq!(Held::Many(MAX_HELD + 1).say(b"a", true, 1 << 30), Say::Id);
        assert_eq!(Held::Many(MAX_HELD + 1).say(b"a", false, 0), Say::Resync);
    }
}
