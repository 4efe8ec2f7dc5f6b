//! `PeerSession`: the Small Peer's end of a session, without I/O. One for each connection; what outlives a connection
//! (documents, cursors, unpushed transactions) is the caller's. A gateway's message in the wrong order ends the session
//! with a protocol error, never the process.

mod held;
mod push;

use std::collections::{BTreeMap, VecDeque};

use bigpeer_types::Lsn;
use thiserror::Error;

use crate::frame::FrameError;
use crate::messages::pb::{self, CloseCode};

/// What the peer is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerEffect {
    /// Send this, encoded with [`PeerSession::compression`].
    Send(pb::PeerMessage),
    /// The session is open: subscribe, and push what is pending after `last_seq`.
    Welcomed(pb::Welcome),
    /// Every transaction up to `seq` without another outcome is durable, at or before `lsn`.
    Accepted {
        /// The newest one.
        seq: u64,
        /// At or after its position.
        lsn: Lsn,
    },
    /// A transaction was refused: take it back, restore the states in it, tell the app. Its seq is used up.
    Rejected(pb::Rejected),
    /// A subscription is open; store its scope for the next Resume.
    Subscribed(pb::Subscribed),
    /// Store these changes in one local transaction, with `through` as the cursor of every live subscription, or the
    /// page's position; then call [`PeerSession::applied`] with `bytes`. Transactions are whole.
    Apply {
        /// Transactions or a page.
        changes: pb::Changes,
        /// What it costs of the credit.
        bytes: usize,
    },
    /// Drop these documents from the subscriptions named, then call [`PeerSession::applied`] with `bytes`.
    Left {
        /// The documents.
        left: pb::Left,
        /// What it costs of the credit.
        bytes: usize,
    },
    /// These subscriptions are live from here on, with this cursor.
    CaughtUp {
        /// Their ids.
        subscriptions: Vec<u32>,
        /// Their cursor.
        lsn: Lsn,
    },
    /// First syncs follow for these: at CaughtUp, drop what they did not bring; keep unpushed writes.
    Resync {
        /// Their ids.
        subscriptions: Vec<u32>,
    },
    /// A subscription was not opened, or was ended.
    Refused(pb::Refused),
    /// Say which documents of the collection the store holds, all of them: [`PeerSession::tell_held`]. If there are more
    /// than `at_most`, only how many.
    AskHeld(pb::AskHeld),
    /// The session is over: close the connection. Sent before it, if this end closes: a Close.
    Closed(pb::Close),
}

/// What may be pushed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushWindow {
    /// The `seq` of the next transaction to push.
    pub next_seq: u64,
    /// Most transactions; at least 1.
    pub max_transactions: usize,
    /// Most bytes of transactions. A single transaction may be larger if nothing is in flight.
    pub max_bytes: usize,
}

/// The caller asked for what the session cannot do now.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Misuse {
    /// Before the Welcome, or after the end.
    #[error("the session is not open")]
    NotOpen,
    /// Transactions with a gap, or over the [`PushWindow`].
    #[error("the push does not fit into the window; {next_seq} is next")]
    Push {
        /// The `seq` to go on with.
        next_seq: u64,
    },
    /// An id that is not greater than those before it.
    #[error("subscription ids must increase within a session; {id} does not")]
    SubscriptionId {
        /// The id.
        id: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    AwaitingWelcome,
    Open,
    Closed,
}

/// The peer's end.
#[derive(Debug)]
pub struct PeerSession {
    phase: Phase,
    last_seq_hello: u64,
    limits: pb::Limits,
    compression: pb::Compression,
    pushed: u64,
    /// The newest `seq` with a known outcome.
    resolved: u64,
    in_flight: VecDeque<usize>,
    in_flight_bytes: usize,
    /// Larger transactions are pushed in parts of this size, in bytes.
    part_bytes: usize,
    last_subscription: u32,
    /// Open subscriptions, and whether they are live.
    subscriptions: BTreeMap<u32, bool>,
    through: Lsn,
    /// Frames of a transaction whose rest has not come yet, and their cost.
    partial: Option<(pb::Changes, usize)>,
    /// What the gateway was told that the store holds, while it may refer to it.
    held: Option<held::Told>,
    /// What was applied and not yet given back as credit.
    owed: usize,
    credit: u64,
}

impl PeerSession {
    /// Begins a session: the Hello is to be sent.
    #[must_use]
    pub fn open(hello: pb::Hello) -> (Self, Vec<PeerEffect>) {
        let session = Self {
            phase: Phase::AwaitingWelcome,
            last_seq_hello: hello.last_seq,
            limits: pb::Limits::default(),
            compression: pb::Compression::None,
            pushed: 0,
            resolved: hello.acknowledged_seq,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            part_bytes: crate::limits::PART_BYTES,
            last_subscription: 0,
            subscriptions: BTreeMap::new(),
            through: Lsn::ZERO,
            partial: None,
            held: None,
            owed: 0,
            credit: hello.credit,
        };
        (session, vec![send(hello)])
    }

    /// Whether the session is between Welcome and Close.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether the session is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// What frames are to be compressed with.
    #[must_use]
    pub const fn compression(&self) -> pb::Compression {
        self.compression
    }

    /// The newest `seq` whose outcome is known: what a new transaction carries as its basis.
    #[must_use]
    pub const fn acknowledged_seq(&self) -> u64 {
        self.resolved
    }

    /// The cursor of the live subscriptions.
    #[must_use]
    pub const fn through(&self) -> Lsn {
        self.through
    }

    /// What the gateway accepts; zeros before the Welcome.
    #[must_use]
    pub const fn limits(&self) -> &pb::Limits {
        &self.limits
    }

    /// Takes a message of the gateway; `bytes` is the frame's size before compression ([`crate::Framed::bytes`]).
    pub fn receive(&mut self, message: pb::FromGateway, bytes: usize) -> Vec<PeerEffect> {
        use pb::FromGateway as M;
        match (self.phase, message) {
            (Phase::Closed, _) => Vec::new(),
            (_, M::Close(close)) => {
                self.phase = Phase::Closed;
                vec![PeerEffect::Closed(close)]
            }
            (Phase::AwaitingWelcome, M::Welcome(welcome)) => self.welcome(welcome),
            (Phase::AwaitingWelcome, _) => self.protocol_error("the first message must be a Welcome"),
            (Phase::Open, M::Welcome(_)) => self.protocol_error("a second Welcome"),
            (Phase::Open, M::Accepted(accepted)) => self.accepted(accepted),
            (Phase::Open, M::Rejected(rejected)) => self.rejected(rejected),
            (Phase::Open, M::Subscribed(subscribed)) => {
                self.known(subscribed.id).then_some(PeerEffect::Subscribed(subscribed)).into_iter().collect()
            }
            (Phase::Open, M::Changes(changes)) => self.changes(changes, bytes),
            (Phase::Open, M::Left(left)) => vec![PeerEffect::Left { left, bytes }],
            (Phase::Open, M::CaughtUp(caught_up)) => self.caught_up(caught_up),
            (Phase::Open, M::Resync(resync)) => self.resync(resync),
            (Phase::Open, M::AskHeld(ask)) => {
                self.held = None;
                vec![PeerEffect::AskHeld(ask)]
            }
            (Phase::Open, M::Refused(refused)) => {
                self.subscriptions.remove(&refused.id).map(|_| PeerEffect::Refused(refused)).into_iter().collect()
            }
        }
    }

    /// Takes a frame that could not be read.
    pub fn malformed(&mut self, error: &FrameError) -> Vec<PeerEffect> {
        self.protocol_error(&error.to_string())
    }

    /// Ends the session from this side.
    pub fn close(&mut self, close: pb::Close) -> Vec<PeerEffect> {
        if self.phase == Phase::Closed {
            return Vec::new();
        }
        self.phase = Phase::Closed;
        vec![send(close.clone()), PeerEffect::Closed(close)]
    }

    fn protocol_error(&mut self, message: &str) -> Vec<PeerEffect> {
        self.close(pb::Close::new(CloseCode::CloseProtocolError, message))
    }

    fn welcome(&mut self, welcome: pb::Welcome) -> Vec<PeerEffect> {
        if welcome.version != crate::VERSION {
            let message = format!("the gateway chose version {}", welcome.version);
            return self.close(pb::Close::new(CloseCode::CloseUnsupportedVersion, message));
        }
        if welcome.last_seq > self.last_seq_hello {
            let message = "the log holds newer transactions of this site than this store: it is an old copy";
            return self.close(pb::Close::new(CloseCode::CloseStaleSite, message));
        }
        if welcome.last_seq < self.resolved {
            let message = "the log has lost transactions that it had acknowledged";
            return self.close(pb::Close::new(CloseCode::CloseSeqGap, message));
        }
        self.phase = Phase::Open;
        self.limits = welcome.limits.unwrap_or_default();
        self.compression = welcome.compression();
        self.pushed = welcome.last_seq;
        // Outcomes that were missed follow at once; they count as in flight, at no cost.
        self.in_flight.extend((self.resolved..welcome.last_seq).map(|_| 0));
        vec![PeerEffect::Welcomed(welcome)]
    }

    fn accepted(&mut self, accepted: pb::Accepted) -> Vec<PeerEffect> {
        if accepted.seq > self.pushed {
            return self.protocol_error("an Accepted for what was not pushed");
        }
        if accepted.seq <= self.resolved {
            return Vec::new();
        }
        while self.resolved < accepted.seq {
            self.resolve_next();
        }
        vec![PeerEffect::Accepted { seq: accepted.seq, lsn: accepted.lsn.unwrap_or_default().into() }]
    }

    fn rejected(&mut self, rejected: pb::Rejected) -> Vec<PeerEffect> {
        if rejected.seq != self.resolved + 1 || rejected.seq > self.pushed {
            return self.protocol_error("a Rejected out of order");
        }
        self.resolve_next();
        vec![PeerEffect::Rejected(rejected)]
    }

    fn resolve_next(&mut self) {
        self.resolved += 1;
        self.in_flight_bytes -= self.in_flight.pop_front().unwrap_or(0);
    }

    fn changes(&mut self, mut changes: pb::Changes, bytes: usize) -> Vec<PeerEffect> {
        if let Some(page) = &mut changes.page {
            if !held::resolve(self.held.as_ref(), page) {
                return self.protocol_error("a document that left is named by a place that was not told");
            }
            if self.partial.is_some() || !changes.transactions.is_empty() || changes.through.is_some() {
                return self.protocol_error("a page together with transactions");
            }
            if !page.subscriptions.iter().any(|&id| self.known(id)) {
                // Sent before the Unsubscribe arrived.
                return self.applied(bytes);
            }
            return vec![PeerEffect::Apply { changes, bytes }];
        }
        let more = changes.transactions.last().is_some_and(|last| last.more);
        if more && changes.through.is_some() || changes.transactions.iter().rev().skip(1).any(|early| early.more) {
            return self.protocol_error("a transaction that is not whole");
        }
        let (mut whole, bytes) = match self.partial.take() {
            None => (std::mem::take(&mut changes), bytes),
            Some((mut begun, before)) => {
                if !continue_transaction(&mut begun, changes) {
                    return self.protocol_error("a transaction that is not whole");
                }
                (begun, before.saturating_add(bytes))
            }
        };
        if more {
            self.partial = Some((whole, bytes));
            return Vec::new();
        }
        if let Some(through) = whole.through {
            let through = Lsn::from(through);
            if through < self.through {
                return self.protocol_error("the cursor went back");
            }
            self.through = through;
        }
        whole.page = None;
        vec![PeerEffect::Apply { changes: whole, bytes }]
    }

    fn caught_up(&mut self, caught_up: pb::CaughtUp) -> Vec<PeerEffect> {
        let mut subscriptions = caught_up.subscriptions;
        subscriptions.retain(|id| self.subscriptions.contains_key(id));
        for id in &subscriptions {
            self.subscriptions.insert(*id, true);
        }
        let lsn = caught_up.lsn.unwrap_or_default().into();
        self.held = None;
        self.through = self.through.max(lsn);
        if subscriptions.is_empty() { Vec::new() } else { vec![PeerEffect::CaughtUp { subscriptions, lsn }] }
    }

    fn resync(&mut self, resync: pb::Resync) -> Vec<PeerEffect> {
        let mut subscriptions = resync.subscriptions;
        subscriptions.retain(|id| self.subscriptions.contains_key(id));
        for id in &subscriptions {
            self.subscriptions.insert(*id, false);
        }
        if subscriptions.is_empty() { Vec::new() } else { vec![PeerEffect::Resync { subscriptions }] }
    }

    fn known(&self, id: u32) -> bool {
        self.subscriptions.contains_key(&id)
    }

    /// Opens a subscription. Ids must increase within a session: send stored ones sorted by id.
    ///
    /// # Errors
    /// When the session is not open, or the id is not greater than those before it.
    pub fn subscribe(&mut self, subscribe: pb::Subscribe) -> Result<Vec<PeerEffect>, Misuse> {
        if self.phase != Phase::Open {
            return Err(Misuse::NotOpen);
        }
        if subscribe.id <= self.last_subscription {
            return Err(Misuse::SubscriptionId { id: subscribe.id });
        }
        self.last_subscription = subscribe.id;
        self.subscriptions.insert(subscribe.id, false);
        Ok(vec![send(subscribe)])
    }

    /// Ends a subscription; nothing happens when it is not open.
    pub fn unsubscribe(&mut self, id: u32) -> Vec<PeerEffect> {
        let known = self.phase == Phase::Open && self.subscriptions.remove(&id).is_some();
        if known { vec![send(pb::Unsubscribe { id })] } else { Vec::new() }
    }

    /// Gives back the credit of what was applied: not at once, but when a quarter of the credit has gathered.
    pub fn applied(&mut self, bytes: usize) -> Vec<PeerEffect> {
        if self.phase != Phase::Open {
            return Vec::new();
        }
        self.owed = self.owed.saturating_add(bytes);
        if (self.owed as u64) < self.credit.div_ceil(4) {
            return Vec::new();
        }
        let bytes = std::mem::take(&mut self.owed) as u64;
        vec![send(pb::Credit { bytes })]
    }

    /// Puts a new access token in force for the running session.
    pub fn renew(&mut self, access_token: String) -> Vec<PeerEffect> {
        if self.phase == Phase::Open { vec![send(pb::Renew { access_token })] } else { Vec::new() }
    }

    /// Checks what must always hold.
    ///
    /// # Errors
    /// What does not hold.
    pub fn validate(&self) -> Result<(), &'static str> {
        let open = self.phase == Phase::Open;
        let holds = [
            (!open || self.resolved <= self.pushed, "an outcome for what was not pushed"),
            (!open || self.pushed - self.resolved == self.in_flight.len() as u64, "in flight is pushed minus resolved"),
            (self.in_flight.iter().sum::<usize>() == self.in_flight_bytes, "bytes in flight"),
            (self.subscriptions.keys().all(|&id| id <= self.last_subscription), "an unknown subscription"),
        ];
        holds.iter().find(|(good, _)| !good).map_or(Ok(()), |(_, what)| Err(what))
    }
}

/// Adds the next frame of a transaction that was begun; false when it does not go on with it.
fn continue_transaction(begun: &mut pb::Changes, next: pb::Changes) -> bool {
    let mut rest = next.transactions.into_iter();
    let (Some(last), Some(first)) = (begun.transactions.last_mut(), rest.next()) else { return false };
    if last.lsn != first.lsn || !last.more {
        return false;
    }
    last.changes.extend(first.changes);
    last.left.extend(first.left);
    last.more = first.more;
    begun.transactions.extend(rest);
    begun.through = next.through;
    true
}

fn send(message: impl Into<pb::PeerMessage>) -> PeerEffect {
    PeerEffect::Send(message.into())
}

#[cfg(test)]
mod tests;
