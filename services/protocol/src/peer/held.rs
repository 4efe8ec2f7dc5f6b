//! Telling the gateway what the store holds, and understanding what it says about that.

use bytes::Bytes;

use super::{PeerEffect, PeerSession, Phase, send};
use crate::messages::pb;

/// What was told.
#[derive(Debug)]
pub(super) struct Told {
    collection: String,
    /// In the order of the fingerprints.
    keys: Vec<Bytes>,
}

impl PeerSession {
    /// Answers a [`PeerEffect::AskHeld`]: the keys of all documents of the collection in the store; or, if there are more
    /// than the question allows, none, and how many there are.
    pub fn tell_held(&mut self, ask: &pb::AskHeld, keys: Vec<Bytes>, count: u32) -> Vec<PeerEffect> {
        if self.phase != Phase::Open {
            return Vec::new();
        }
        let fits = keys.len() <= usize::try_from(ask.at_most).unwrap_or(usize::MAX);
        let keys = if fits { keys } else { Vec::new() };
        let fingerprints = keys.iter().map(|key| crate::fingerprint(ask.salt, key)).collect();
        self.held = Some(Told { collection: ask.collection.clone(), keys });
        vec![send(pb::Held { ask: ask.ask, fingerprints, count })]
    }
}

/// Puts the ids in the place of references to what was told; false when one refers to nothing.
pub(super) fn resolve(told: Option<&Told>, page: &mut pb::Page) -> bool {
    let told = told.filter(|told| told.collection == page.collection);
    page.left.iter_mut().all(|left| {
        let Some(place) = left.held.take() else { return true };
        let key = told.and_then(|told| told.keys.get(usize::try_from(place).ok()?));
        match key {
            Some(key) => {
                left.id = key.clone();
                true
            }
            None => false,
        }
    })
}
