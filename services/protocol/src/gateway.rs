//! `GatewaySession`: the gateway's end of a session, without I/O. What happens goes in (a message, an outcome, the end
//! of a catch-up), what is to be done comes out. Whatever a peer sends in whatever order, the answer is defined here:
//! an effect, or a Close with a code.

mod held;
mod push;
mod subscriptions;

pub use subscriptions::SubscriptionPhase;

use std::collections::{BTreeMap, VecDeque};

use bigpeer_types::{Lsn, SiteId};

use crate::frame::FrameError;
use crate::limits::{MAX_HELLO_BYTES, MAX_TOKEN_BYTES};
use crate::messages::pb::{self, CloseCode};

/// What the gateway is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum GatewayEffect {
    /// Send this.
    Send(pb::GatewayMessage),
    /// Check the token and find out what the log holds; answer with [`GatewaySession::admitted`] or
    /// [`GatewaySession::close`].
    Admit(pb::Hello),
    /// Check and append these, all of them whole; answer each with [`GatewaySession::accepted`] or [`GatewaySession::rejected`], in order.
    Append(Vec<pb::PushedTransaction>),
    /// Open a subscription; answer with [`GatewaySession::subscribed`] or [`GatewaySession::refused`].
    Subscribe(pb::Subscribe),
    /// Forget a subscription.
    Unsubscribe(u32),
    /// Documents may flow again.
    Resume,
    /// Check this token, and close if it is not good.
    Renew(String),
    /// The answer to the last [`GatewaySession::ask_held`] that was not withdrawn.
    Held(pb::Held),
    /// Send this, then close the connection. Nothing follows.
    Close(pb::Close),
}

/// What the gateway found out about a peer that said hello.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Admission {
    /// The session's name.
    pub session: String,
    /// The newest `seq` of the site in the log.
    pub last_seq: u64,
    /// Rejections among the `seq`s after the peer's `acknowledged_seq`, in order.
    pub rejected: Vec<pb::Rejected>,
    /// The newest position that the gateway has seen.
    pub head: Lsn,
    /// Milliseconds since the epoch.
    pub server_time_ms: u64,
    /// The end of the token, in milliseconds since the epoch; 0 for never.
    pub expires_at_ms: u64,
    /// What the token allows, as JSON.
    pub permissions_json: String,
    /// Whether the gateway compresses.
    pub compress: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    AwaitingHello,
    Admitting,
    Open,
    Closed,
}

/// The gateway's end.
#[derive(Debug)]
pub struct GatewaySession {
    phase: Phase,
    limits: pb::Limits,
    site: SiteId,
    /// From the Hello; used when the Welcome is written.
    acknowledged_hello: u64,
    last_seq_hello: u64,
    version: u32,
    peer_compresses: bool,
    compression: pb::Compression,
    /// The newest `seq` in the log when the session began, or pushed since.
    pushed: u64,
    /// The newest `seq` whose outcome was sent; outcomes go out in order, without gaps.
    resolved: u64,
    resolved_lsn: Lsn,
    /// Bytes of the transactions `resolved + 1 ..= pushed`.
    in_flight: VecDeque<usize>,
    in_flight_bytes: usize,
    /// The beginning of a transaction whose rest has not come yet.
    part: Option<push::Part>,
    /// Bytes of documents that may still be sent; below zero by what the last frame was over.
    credit: i64,
    last_subscription: u32,
    subscriptions: BTreeMap<u32, SubscriptionPhase>,
    /// The cursor of what is live.
    through: Lsn,
    tells_held: bool,
    /// The number of the last AskHeld, and how many fingerprints its answer may have, while it has none.
    last_ask: u32,
    asked: Option<usize>,
}

impl GatewaySession {
    /// A session that waits for its Hello.
    #[must_use]
    pub fn new(limits: pb::Limits) -> Self {
        Self {
            phase: Phase::AwaitingHello,
            limits,
            site: SiteId::new(0),
            acknowledged_hello: 0,
            last_seq_hello: 0,
            version: crate::VERSION,
            peer_compresses: false,
            compression: pb::Compression::None,
            pushed: 0,
            resolved: 0,
            resolved_lsn: Lsn::ZERO,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            part: None,
            credit: 0,
            last_subscription: 0,
            subscriptions: BTreeMap::new(),
            through: Lsn::ZERO,
            tells_held: false,
            last_ask: 0,
            asked: None,
        }
    }

    /// The largest frame that is acceptable now, in bytes.
    #[must_use]
    pub fn max_frame_bytes(&self) -> usize {
        match self.phase {
            Phase::AwaitingHello | Phase::Admitting => MAX_HELLO_BYTES,
            Phase::Open | Phase::Closed => usize::try_from(self.limits.max_frame_bytes).unwrap_or(usize::MAX),
        }
    }

    /// What frames are to be compressed with.
    #[must_use]
    pub const fn compression(&self) -> pb::Compression {
        self.compression
    }

    /// The site that said hello.
    #[must_use]
    pub const fn site(&self) -> SiteId {
        self.site
    }

    /// Whether the session is between Welcome and Close.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether nothing more will be done.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Whether there is credit to send a frame of documents.
    #[must_use]
    pub fn may_send_documents(&self) -> bool {
        self.phase == Phase::Open && self.credit > 0
    }

    /// Takes a message of the peer.
    pub fn receive(&mut self, message: pb::FromPeer) -> Vec<GatewayEffect> {
        use pb::FromPeer as M;
        match (self.phase, message) {
            (Phase::Closed, _) => Vec::new(),
            (_, M::Close(close)) => self.peer_closed(&close),
            (Phase::AwaitingHello, M::Hello(hello)) => self.hello(hello),
            (Phase::Open, M::Push(push)) => self.push(push),
            (Phase::Open, M::Subscribe(subscribe)) => self.subscribe(subscribe),
            (Phase::Open, M::Unsubscribe(unsubscribe)) => self.unsubscribe(unsubscribe.id),
            (Phase::Open, M::Credit(credit)) => self.more_credit(credit.bytes),
            (Phase::Open, M::Renew(renew)) => self.renew(renew),
            (Phase::Open, M::Held(held)) => self.held(held),
            (Phase::AwaitingHello, _) => self.protocol_error("the first message must be a Hello"),
            (Phase::Admitting, _) => self.protocol_error("nothing may be sent before the Welcome"),
            (Phase::Open, M::Hello(_)) => self.protocol_error("a second Hello"),
        }
    }

    /// Takes a frame that could not be read.
    pub fn malformed(&mut self, error: &FrameError) -> Vec<GatewayEffect> {
        let code = match error {
            FrameError::TooLarge { .. } => CloseCode::CloseLimitExceeded,
            FrameError::Empty
            | FrameError::UnknownFlags(_)
            | FrameError::Compressed
            | FrameError::TooManyFields
            | FrameError::Malformed(_)
            | FrameError::NoMessage => CloseCode::CloseProtocolError,
        };
        self.close(pb::Close::new(code, error.to_string()))
    }

    /// Ends the session.
    pub fn close(&mut self, close: pb::Close) -> Vec<GatewayEffect> {
        if self.phase == Phase::Closed {
            return Vec::new();
        }
        self.phase = Phase::Closed;
        self.subscriptions.clear();
        self.part = None;
        self.asked = None;
        vec![GatewayEffect::Close(close)]
    }

    fn peer_closed(&mut self, close: &pb::Close) -> Vec<GatewayEffect> {
        let _ = close;
        self.close(pb::Close::new(CloseCode::CloseDone, "the peer closed the session"))
    }

    fn protocol_error(&mut self, message: &str) -> Vec<GatewayEffect> {
        self.close(pb::Close::new(CloseCode::CloseProtocolError, message))
    }

    fn limit(&mut self, message: String) -> Vec<GatewayEffect> {
        self.close(pb::Close::new(CloseCode::CloseLimitExceeded, message))
    }

    fn hello(&mut self, hello: pb::Hello) -> Vec<GatewayEffect> {
        // The peer names what it likes best first.
        let Some(version) = hello.versions.iter().find(|version| crate::VERSIONS.contains(version)) else {
            let message = format!("this gateway speaks versions {:?} of the protocol", crate::VERSIONS);
            return self.close(pb::Close::new(CloseCode::CloseUnsupportedVersion, message));
        };
        self.version = *version;
        if hello.acknowledged_seq > hello.last_seq {
            return self.protocol_error("Hello.acknowledged_seq is greater than last_seq");
        }
        if hello.access_token.len() > MAX_TOKEN_BYTES {
            return self.limit(format!("the access token has more than {MAX_TOKEN_BYTES} bytes"));
        }
        self.site = SiteId::new(hello.site);
        self.acknowledged_hello = hello.acknowledged_seq;
        self.last_seq_hello = hello.last_seq;
        self.peer_compresses = hello.compressions.contains(&pb::Compression::Zstd.into());
        self.credit = i64::try_from(hello.credit).unwrap_or(i64::MAX);
        self.tells_held = hello.tells_held;
        self.phase = Phase::Admitting;
        vec![GatewayEffect::Admit(hello)]
    }

    /// Lets the peer in.
    pub fn admitted(&mut self, admission: Admission) -> Vec<GatewayEffect> {
        if self.phase != Phase::Admitting {
            return Vec::new();
        }
        if admission.last_seq > self.last_seq_hello {
            let message = format!(
                "the log holds transactions of this site up to {}, the peer knows of {}: its store is an old copy and needs a new site",
                admission.last_seq, self.last_seq_hello
            );
            return self.close(pb::Close::new(CloseCode::CloseStaleSite, message));
        }
        self.phase = Phase::Open;
        if self.peer_compresses && admission.compress {
            self.compression = pb::Compression::Zstd;
        }
        let mut effects = vec![send(pb::Welcome {
            version: self.version,
            session: admission.session,
            last_seq: admission.last_seq,
            server_time_ms: admission.server_time_ms,
            limits: Some(self.limits),
            permissions_json: admission.permissions_json,
            compression: self.compression.into(),
            head: Some(admission.head.into()),
            expires_at_ms: admission.expires_at_ms,
        })];
        // What the peer has not heard of: everything between was accepted, but for the rejected ones.
        self.resolved = self.acknowledged_hello.min(admission.last_seq);
        for rejected in admission.rejected {
            if rejected.seq <= self.resolved || rejected.seq > admission.last_seq {
                continue;
            }
            if rejected.seq > self.resolved + 1 {
                effects.push(send(pb::Accepted { seq: rejected.seq - 1, lsn: Some(admission.head.into()) }));
            }
            self.resolved = rejected.seq;
            effects.push(send(rejected));
        }
        if admission.last_seq > self.resolved {
            effects.push(send(pb::Accepted { seq: admission.last_seq, lsn: Some(admission.head.into()) }));
        }
        self.resolved = admission.last_seq;
        self.resolved_lsn = admission.head;
        self.pushed = admission.last_seq;
        effects
    }

    /// A frame of documents with so many bytes is sent.
    pub fn spend(&mut self, bytes: usize) {
        self.credit = self.credit.saturating_sub_unsigned(bytes as u64);
    }

    fn more_credit(&mut self, bytes: u64) -> Vec<GatewayEffect> {
        let had = self.credit > 0;
        self.credit = self.credit.saturating_add_unsigned(bytes);
        if !had && self.credit > 0 { vec![GatewayEffect::Resume] } else { Vec::new() }
    }

    fn renew(&mut self, renew: pb::Renew) -> Vec<GatewayEffect> {
        if renew.access_token.len() > MAX_TOKEN_BYTES {
            return self.limit(format!("the access token has more than {MAX_TOKEN_BYTES} bytes"));
        }
        vec![GatewayEffect::Renew(renew.access_token)]
    }

    /// Checks what must always hold.
    ///
    /// # Errors
    /// What does not hold.
    pub fn validate(&self) -> Result<(), &'static str> {
        let holds = [
            (self.resolved <= self.pushed, "an outcome for what was not pushed"),
            (
                self.pushed - self.resolved.min(self.pushed) == self.in_flight.len() as u64,
                "in flight is pushed minus resolved",
            ),
            (self.in_flight.iter().sum::<usize>() == self.in_flight_bytes, "bytes in flight"),
            (self.subscriptions.keys().all(|&id| id <= self.last_subscription), "an unknown subscription"),
            (
                self.phase != Phase::Open
                    || self.subscriptions.len() as u64 <= u64::from(self.limits.max_subscriptions),
                "too many subscriptions",
            ),
            (self.phase == Phase::Open || self.subscriptions.is_empty(), "a subscription outside of an open session"),
            (self.phase == Phase::Open || self.part.is_none(), "a part of a transaction outside of an open session"),
            (self.part.as_ref().is_none_or(|part| part.seq() <= self.pushed + 1), "a part of a later transaction"),
            (
                self.phase != Phase::Open
                    || self.in_flight_bytes + self.part.as_ref().map_or(0, push::Part::len)
                        <= usize::try_from(self.limits.max_push_bytes_in_flight).unwrap_or(usize::MAX),
                "more bytes of transactions than allowed",
            ),
            (self.asked.is_none() || self.last_ask > 0 && self.tells_held, "an answer without a question"),
        ];
        holds.iter().find(|(good, _)| !good).map_or(Ok(()), |(_, what)| Err(what))
    }
}

fn send(message: impl Into<pb::GatewayMessage>) -> GatewayEffect {
    GatewayEffect::Send(message.into())
}

#[cfg(test)]
mod tests;
