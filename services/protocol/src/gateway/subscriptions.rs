//! Subscriptions: asked for, opened or refused, catching up, live, put back; and the cursor of those that are live.

use bigpeer_types::Lsn;

use super::{GatewayEffect, GatewaySession, send};
use crate::limits::MAX_REACHED;
use crate::messages::pb;

/// Where a subscription stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionPhase {
    /// The peer asked; neither opened nor refused yet.
    Asked,
    /// Documents are sent up to a snapshot.
    CatchingUp,
    /// Everything up to the last cursor was sent; changes follow as they happen.
    Live(Lsn),
}

impl GatewaySession {
    /// Where the subscription stands, if it is open.
    #[must_use]
    pub fn subscription(&self, id: u32) -> Option<SubscriptionPhase> {
        self.subscriptions.get(&id).copied()
    }

    pub(super) fn subscribe(&mut self, subscribe: pb::Subscribe) -> Vec<GatewayEffect> {
        if subscribe.id <= self.last_subscription {
            return self.protocol_error("a subscription's id must be greater than those before it");
        }
        if subscribe.reached.len() > MAX_REACHED {
            return self.protocol_error("a Subscribe says `reached` too often");
        }
        self.last_subscription = subscribe.id;
        if self.subscriptions.len() as u64 >= u64::from(self.limits.max_subscriptions) {
            let message = format!("at most {} subscriptions can be open", self.limits.max_subscriptions);
            return vec![send(refusal(subscribe.id, pb::RefuseCode::RefuseLimit, message))];
        }
        self.subscriptions.insert(subscribe.id, SubscriptionPhase::Asked);
        vec![GatewayEffect::Subscribe(subscribe)]
    }

    pub(super) fn unsubscribe(&mut self, id: u32) -> Vec<GatewayEffect> {
        if id > self.last_subscription {
            return self.protocol_error("an Unsubscribe for an id that was never used");
        }
        // One that was refused meanwhile is gone already.
        self.subscriptions.remove(&id).map(|_| GatewayEffect::Unsubscribe(id)).into_iter().collect()
    }

    /// The subscription is open, and catches up. Again, when its scope has changed: a [`Self::resync`] goes before.
    pub fn subscribed(&mut self, id: u32, scope: u64) -> Vec<GatewayEffect> {
        match self.subscriptions.get_mut(&id) {
            Some(phase @ (SubscriptionPhase::Asked | SubscriptionPhase::CatchingUp)) => {
                *phase = SubscriptionPhase::CatchingUp;
                vec![send(pb::Subscribed { id, scope })]
            }
            Some(SubscriptionPhase::Live(_)) | None => Vec::new(),
        }
    }

    /// The subscription cannot be opened, or has to end.
    pub fn refused(&mut self, id: u32, code: pb::RefuseCode, message: String) -> Vec<GatewayEffect> {
        self.subscriptions.remove(&id).map(|_| send(refusal(id, code, message))).into_iter().collect()
    }

    /// The subscriptions that still catch up have everything up to `lsn`.
    pub fn caught_up(&mut self, ids: &[u32], lsn: Lsn) -> Vec<GatewayEffect> {
        let mut subscriptions = Vec::new();
        let others = self.subscriptions.values().any(|phase| matches!(phase, SubscriptionPhase::Live(_)));
        for &id in ids {
            if let Some(phase @ SubscriptionPhase::CatchingUp) = self.subscriptions.get_mut(&id) {
                *phase = SubscriptionPhase::Live(lsn);
                subscriptions.push(id);
            }
        }
        if subscriptions.is_empty() {
            return Vec::new();
        }
        // This is for these alone: live ones are still to be told.
        if !others {
            self.through = self.through.max(lsn);
        }
        vec![send(pb::CaughtUp { subscriptions, lsn: Some(lsn.into()) })]
    }

    /// The subscriptions cannot go on from their cursors: first syncs follow.
    pub fn resync(&mut self, ids: &[u32]) -> Vec<GatewayEffect> {
        let subscriptions: Vec<u32> = ids.iter().copied().filter(|id| self.subscriptions.contains_key(id)).collect();
        for id in &subscriptions {
            self.subscriptions.insert(*id, SubscriptionPhase::CatchingUp);
        }
        if subscriptions.is_empty() { Vec::new() } else { vec![send(pb::Resync { subscriptions })] }
    }

    /// All live subscriptions are put back to catching up from their cursor, which is answered.
    pub fn put_back(&mut self) -> Vec<(u32, Lsn)> {
        let through = self.through;
        let mut back = Vec::new();
        for (&id, phase) in &mut self.subscriptions {
            if let SubscriptionPhase::Live(since) = *phase {
                *phase = SubscriptionPhase::CatchingUp;
                back.push((id, since.max(through)));
            }
        }
        back
    }

    /// A Changes with this `through` is sent: the live subscriptions' cursor. Ignored when it would go back.
    pub fn advanced(&mut self, through: Lsn) {
        self.through = self.through.max(through);
    }

    /// The cursor of the live subscriptions.
    #[must_use]
    pub const fn through(&self) -> Lsn {
        self.through
    }
}

fn refusal(id: u32, code: pb::RefuseCode, message: String) -> pb::Refused {
    pb::Refused { id, code: code.into(), message }
}
