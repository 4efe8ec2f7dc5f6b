//! Questions to the peer about what it holds, and its answers.

use super::{GatewayEffect, GatewaySession, Phase, send};
use crate::limits::MAX_HELD;
use crate::messages::pb;

impl GatewaySession {
    /// Asks which documents of a collection the peer has; it answers with a [`GatewayEffect::Held`]. Only the newest
    /// question counts. Nothing happens, and no answer comes, when the peer does not understand it.
    pub fn ask_held(&mut self, collection: &str, salt: u64, at_most: usize) -> Vec<GatewayEffect> {
        if self.phase != Phase::Open || !self.tells_held {
            return Vec::new();
        }
        let at_most = at_most.min(MAX_HELD);
        self.last_ask = self.last_ask.saturating_add(1);
        self.asked = Some(at_most);
        let collection = collection.to_owned();
        let at_most = u32::try_from(at_most).unwrap_or(u32::MAX);
        vec![send(pb::AskHeld { ask: self.last_ask, collection, salt, at_most })]
    }

    /// The answer to the last question is of no use any more.
    pub fn withdraw_ask(&mut self) {
        self.asked = None;
    }

    pub(super) fn held(&mut self, held: pb::Held) -> Vec<GatewayEffect> {
        if held.ask == 0 || held.ask > self.last_ask {
            return self.protocol_error("a Held that nobody asked for");
        }
        let Some(at_most) = self.asked.filter(|_| held.ask == self.last_ask) else { return Vec::new() };
        if held.fingerprints.len() > at_most {
            return self.limit(format!("a Held has {} fingerprints, {at_most} are allowed", held.fingerprints.len()));
        }
        if !held.fingerprints.is_empty() && held.fingerprints.len() as u64 != u64::from(held.count) {
            return self.protocol_error("Held.count is not the number of fingerprints");
        }
        self.asked = None;
        vec![GatewayEffect::Held(held)]
    }
}
