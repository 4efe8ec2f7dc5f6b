//! Structured random sessions: a peer's end and a gateway's end talk through frames, while messages are changed, doubled,
//! lost, swapped and damaged on the way, and while the gateway's other half answers when and what it likes. Whatever
//! happens: no panic, every invariant of both ends holds after every step, nothing follows a Close, transactions are
//! appended whole, once and in order. In sessions in which nothing was tampered with, neither end finds fault with the other.
//!
//! Each case is a number; a failure prints it, and `BIGPEER_FUZZ_CASE=n` runs it alone. `BIGPEER_FUZZ_SECONDS=600` goes on with
//! new cases for so long.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails where it finds something wrong")]
#![allow(clippy::print_stdout, reason = "the number of a case that failed, and of all that ran")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test looks at what it is about")]
#![allow(clippy::cast_possible_truncation, reason = "random numbers")]
#![allow(clippy::disallowed_methods, reason = "how long to go on is asked of the real clock")]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bigpeer_protocol::pb::{self, CloseCode};
use bigpeer_protocol::{
    Admission, GatewayEffect, GatewaySession, PeerEffect, PeerSession, decode_gateway_frame, decode_peer_frame,
    encode_frame,
};
use bigpeer_types::Lsn;
use bytes::Bytes;

/// Cases of a run that is not told how long to go on.
const CASES: u64 = 5_000;
const MAX_FRAME: usize = 1 << 16;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Mostly small, sometimes extreme.
    fn number(&mut self) -> u64 {
        match self.below(12) {
            0 => u64::MAX,
            1 => self.next(),
            2 => u64::from(u32::MAX),
            _ => self.below(12),
        }
    }

    fn bytes(&mut self, most: u64) -> Bytes {
        let length = self.below(most + 1) as usize;
        (0..length).map(|_| self.next() as u8).collect::<Vec<u8>>().into()
    }
}

fn limits(random: &mut Random) -> pb::Limits {
    let max_transaction_bytes = 1 + random.below(3000);
    pb::Limits {
        max_frame_bytes: MAX_FRAME as u64,
        max_transaction_bytes,
        max_pushes_in_flight: 1 + random.below(8) as u32,
        max_push_bytes_in_flight: 2 * max_transaction_bytes,
        max_subscriptions: 1 + random.below(5) as u32,
        max_clock_ahead_ms: random.number(),
        idle_timeout_ms: random.number(),
    }
}

/// One session.
struct Case {
    random: Random,
    /// Whether messages are tampered with.
    hostile: bool,
    limits: pb::Limits,
    gateway: GatewaySession,
    peer: PeerSession,
    up: VecDeque<Bytes>,
    down: VecDeque<Bytes>,
    /// Sizes of what the peer has to push, seq 1, 2, 3, ….
    written: Vec<usize>,
    /// What the gateway is to answer.
    to_admit: bool,
    to_resolve: VecDeque<u64>,
    to_subscribe: VecDeque<u32>,
    open: Vec<u32>,
    appended: u64,
    outcome: u64,
    lsn: u64,
    last_subscription: u32,
    gateway_closed: bool,
    peer_closed: bool,
}

impl Case {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let limits = limits(&mut random);
        let written: Vec<usize> =
            (0..random.below(12)).map(|_| random.below(limits.max_transaction_bytes + 1) as usize).collect();
        let acknowledged_seq = random.below(3).min(written.len() as u64);
        let hello = pb::Hello {
            versions: vec![1],
            site: 7,
            last_seq: written.len() as u64,
            acknowledged_seq,
            compressions: if random.one_in(2) { vec![pb::Compression::Zstd.into()] } else { Vec::new() },
            credit: random.below(5000),
            tells_held: random.one_in(2),
            ..Default::default()
        };
        let hostile = !random.one_in(4);
        let (peer, effects) = PeerSession::open(hello);
        let gateway = GatewaySession::new(limits);
        let mut case = Self {
            random,
            hostile,
            limits,
            gateway,
            peer,
            up: VecDeque::new(),
            down: VecDeque::new(),
            written,
            to_admit: false,
            to_resolve: VecDeque::new(),
            to_subscribe: VecDeque::new(),
            open: Vec::new(),
            appended: acknowledged_seq,
            outcome: 0,
            lsn: 0,
            last_subscription: 0,
            gateway_closed: false,
            peer_closed: false,
        };
        case.of_peer(effects);
        case
    }

    fn run(&mut self) {
        for _ in 0..150 {
            match self.random.below(10) {
                0..=2 => self.deliver_up(),
                3..=4 => self.deliver_down(),
                5..=7 => self.gateway_acts(),
                _ => self.peer_acts(),
            }
            assert_eq!(self.gateway.validate(), Ok(()));
            assert_eq!(self.peer.validate(), Ok(()));
        }
    }

    fn lsn(&mut self) -> Lsn {
        self.lsn += self.random.below(3);
        Lsn::new(self.lsn, 0)
    }

    /// Changes a frame's order, number or bytes.
    fn tamper(&mut self, queue_is_up: bool) {
        let random = &mut self.random;
        let queue = if queue_is_up { &mut self.up } else { &mut self.down };
        let Some(frame) = queue.pop_front() else { return };
        match random.below(6) {
            0 => {}
            1 => queue.extend([frame.clone(), frame]),
            2 => queue.push_back(frame),
            3 if !frame.is_empty() => {
                let mut bytes = frame.to_vec();
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << random.below(8);
                queue.push_front(bytes.into());
            }
            4 => queue.push_front(frame.slice(..random.below(frame.len() as u64) as usize)),
            _ => queue.push_front(random.bytes(60)),
        }
    }

    fn deliver_up(&mut self) {
        if self.hostile && self.random.one_in(12) {
            self.tamper(true);
        }
        if self.hostile && self.random.one_in(6) {
            let message = hostile_message(&mut self.random);
            self.up
                .push_front(encode_frame(&pb::PeerMessage { message: Some(message) }, pb::Compression::None).message);
        }
        let Some(frame) = self.up.pop_front() else { return };
        let effects = match decode_peer_frame(frame, self.gateway.max_frame_bytes().min(MAX_FRAME)) {
            Ok(framed) => self.gateway.receive(framed.message),
            Err(error) => self.gateway.malformed(&error),
        };
        self.of_gateway(effects);
    }

    fn deliver_down(&mut self) {
        if self.hostile && self.random.one_in(12) {
            self.tamper(false);
        }
        let Some(frame) = self.down.pop_front() else { return };
        let effects = match decode_gateway_frame(frame, MAX_FRAME) {
            Ok(framed) => self.peer.receive(framed.message, framed.bytes),
            Err(error) => self.peer.malformed(&error),
        };
        self.of_peer(effects);
    }

    /// The gateway's other half: what it was asked to do, and what happens to it.
    fn gateway_acts(&mut self) {
        let lsn = self.lsn();
        let effects = match self.random.below(9) {
            0 if self.to_admit => self.admit(lsn),
            1 | 2 => match self.to_resolve.pop_front() {
                Some(seq) if self.random.one_in(3) => {
                    self.gateway.rejected(pb::Rejected { seq, ..Default::default() }, lsn)
                }
                Some(seq) => self.gateway.accepted(seq, lsn),
                None => Vec::new(),
            },
            3 => match self.to_subscribe.pop_front() {
                Some(id) if self.random.one_in(4) => {
                    self.gateway.refused(id, pb::RefuseCode::RefuseInvalidQuery, String::new())
                }
                Some(id) => {
                    self.open.push(id);
                    self.gateway.subscribed(id, self.random.next())
                }
                None => Vec::new(),
            },
            4 => {
                let ids = self.some_open();
                self.gateway.caught_up(&ids, self.gateway.through().max(lsn))
            }
            5 if self.random.one_in(3) => {
                let ids = self.some_open();
                self.gateway.resync(&ids)
            }
            5 => {
                self.gateway.put_back();
                Vec::new()
            }
            6 if self.gateway.is_open() => {
                self.gateway.ask_held("c", self.random.next(), self.random.below(5) as usize)
            }
            7 => {
                self.gateway.withdraw_ask();
                Vec::new()
            }
            8 if self.gateway.may_send_documents() => self.documents(lsn),
            _ => Vec::new(),
        };
        self.of_gateway(effects);
    }

    fn admit(&mut self, head: Lsn) -> Vec<GatewayEffect> {
        self.to_admit = false;
        // The log holds what an earlier session appended, which the peer may not have heard of.
        let last_seq = (self.appended + self.random.below(3)).min(self.written.len() as u64);
        let rejected = (0..=last_seq).filter(|seq| seq % 3 == 1).map(|seq| pb::Rejected { seq, ..Default::default() });
        let admission =
            Admission { last_seq, rejected: rejected.collect(), head, compress: true, ..Default::default() };
        self.appended = last_seq;
        self.gateway.admitted(admission)
    }

    fn some_open(&mut self) -> Vec<u32> {
        let ids = self.open.clone();
        ids.into_iter().filter(|_| !self.random.one_in(3)).collect()
    }

    /// A page, or live transactions.
    fn documents(&mut self, lsn: Lsn) -> Vec<GatewayEffect> {
        let changes = if self.random.one_in(2) {
            let page = pb::Page { subscriptions: self.some_open(), snapshot: Some(lsn.into()), ..Default::default() };
            pb::Changes { page: Some(page), ..Default::default() }
        } else {
            let through = self.gateway.through().max(lsn);
            self.gateway.advanced(through);
            let transaction = pb::Transaction { lsn: Some(through.into()), ..Default::default() };
            pb::Changes { transactions: vec![transaction], through: Some(through.into()), page: None }
        };
        let frame = encode_frame(&pb::GatewayMessage::from(changes), self.gateway.compression());
        self.gateway.spend(frame.bytes);
        self.down.push_back(frame.message);
        Vec::new()
    }

    fn of_gateway(&mut self, effects: Vec<GatewayEffect>) {
        assert!(!self.gateway_closed || effects.is_empty(), "nothing follows a Close: {effects:?}");
        for effect in effects {
            match effect {
                GatewayEffect::Send(message) => {
                    let frame = encode_frame(&message, self.gateway.compression());
                    let read = decode_gateway_frame(frame.message.clone(), MAX_FRAME).unwrap();
                    assert_eq!(Some(&read.message), message.message.as_ref());
                    self.outcome_of(&read.message);
                    self.down.push_back(frame.message);
                }
                GatewayEffect::Admit(_) => self.to_admit = true,
                GatewayEffect::Append(transactions) => {
                    for transaction in transactions {
                        assert_eq!(transaction.seq, self.appended + 1, "in order, without gaps, once");
                        assert!(!transaction.more, "whole");
                        assert!(transaction.transaction.len() as u64 <= self.limits.max_transaction_bytes);
                        if !self.hostile {
                            let length = self.written[transaction.seq as usize - 1];
                            assert_eq!(transaction.transaction, vec![transaction.seq as u8; length]);
                        }
                        self.appended = transaction.seq;
                        self.to_resolve.push_back(transaction.seq);
                    }
                }
                GatewayEffect::Subscribe(subscribe) => self.to_subscribe.push_back(subscribe.id),
                GatewayEffect::Unsubscribe(id) => self.open.retain(|open| *open != id),
                GatewayEffect::Held(held) => assert!(held.fingerprints.len() <= 5),
                GatewayEffect::Resume | GatewayEffect::Renew(_) => {}
                GatewayEffect::Close(close) => {
                    assert!(self.hostile || close.code() == CloseCode::CloseDone, "no fault was made: {close:?}");
                    self.gateway_closed = true;
                    self.down.push_back(encode_frame(&pb::GatewayMessage::from(close), pb::Compression::None).message);
                }
            }
        }
    }

    fn outcome_of(&mut self, message: &pb::FromGateway) {
        let seq = match message {
            pb::FromGateway::Accepted(accepted) => accepted.seq,
            pb::FromGateway::Rejected(rejected) => {
                assert!(rejected.seq > self.outcome, "each outcome once");
                rejected.seq
            }
            _ => return,
        };
        assert!(seq >= self.outcome && seq <= self.appended, "outcomes are in order, of what was appended");
        self.outcome = seq;
    }

    fn peer_acts(&mut self) {
        let effects = match self.random.below(8) {
            0..=2 => self.push(),
            3 => {
                self.last_subscription += 1 + self.random.below(2) as u32;
                let subscribe = pb::Subscribe { id: self.last_subscription, ..Default::default() };
                self.peer.subscribe(subscribe).unwrap_or_default()
            }
            4 => self.peer.unsubscribe(self.random.below(u64::from(self.last_subscription) + 1) as u32),
            5 => self.peer.applied(self.random.below(3000) as usize),
            6 if self.random.one_in(4) => self.peer.renew("token".to_owned()),
            7 if self.random.one_in(20) => self.peer.close(pb::Close::new(CloseCode::CloseDone, "")),
            _ => Vec::new(),
        };
        self.of_peer(effects);
    }

    fn push(&mut self) -> Vec<PeerEffect> {
        let Some(window) = self.peer.push_window() else { return Vec::new() };
        let mut bytes = 0;
        let mut transactions = Vec::new();
        for (&length, seq) in self.written.iter().zip(1_u64..).skip(window.next_seq as usize - 1) {
            bytes += length;
            if transactions.len() == window.max_transactions || bytes > window.max_bytes || self.random.one_in(4) {
                break;
            }
            let transaction = Bytes::from(vec![seq as u8; length]);
            transactions.push(pb::PushedTransaction { seq, transaction, basis: seq - 1, more: false });
        }
        if transactions.is_empty() { Vec::new() } else { self.peer.push(transactions).unwrap() }
    }

    fn of_peer(&mut self, effects: Vec<PeerEffect>) {
        assert!(!self.peer_closed || effects.is_empty(), "nothing follows the end: {effects:?}");
        for effect in effects {
            match effect {
                PeerEffect::Send(message) => {
                    let message = self.in_parts(message);
                    for message in message {
                        self.up.push_back(encode_frame(&message, self.peer.compression()).message);
                    }
                }
                PeerEffect::AskHeld(ask) => {
                    let keys: Vec<Bytes> = (0..self.random.below(5)).map(|_| self.random.bytes(9)).collect();
                    let count = keys.len() as u32;
                    let effects = self.peer.tell_held(&ask, keys, count);
                    self.of_peer(effects);
                }
                PeerEffect::Closed(close) => {
                    let fine = [CloseCode::CloseDone].contains(&close.code());
                    assert!(self.hostile || fine, "no fault was made: {close:?}");
                    self.peer_closed = true;
                }
                _ => {}
            }
        }
    }

    /// The same Push with its transactions in more parts.
    fn in_parts(&mut self, message: pb::PeerMessage) -> Vec<pb::PeerMessage> {
        let Some(pb::FromPeer::Push(push)) = message.message else { return vec![message] };
        let mut frames = vec![Vec::new()];
        for mut transaction in push.transactions {
            while transaction.transaction.len() > 1 && self.random.one_in(2) {
                let at = 1 + self.random.below(transaction.transaction.len() as u64 - 1) as usize;
                let part = transaction.transaction.split_to(at);
                let part = pb::PushedTransaction { transaction: part, more: true, ..transaction.clone() };
                frames.last_mut().unwrap().push(part);
                if self.random.one_in(2) {
                    frames.push(Vec::new());
                }
            }
            frames.last_mut().unwrap().push(transaction);
        }
        frames.into_iter().map(|transactions| pb::Push { transactions }.into()).collect()
    }
}

/// What no correct peer would send, or not now.
fn hostile_message(random: &mut Random) -> pb::FromPeer {
    match random.below(8) {
        0 => pb::Hello {
            versions: (0..random.below(3)).map(|_| random.number() as u32).collect(),
            last_seq: random.number(),
            acknowledged_seq: random.number(),
            credit: random.number(),
            tells_held: random.one_in(2),
            access_token: "x".repeat(random.below(9000) as usize),
            ..Default::default()
        }
        .into(),
        1 | 2 => {
            let transactions = (0..random.below(5)).map(|_| pb::PushedTransaction {
                seq: random.number(),
                transaction: random.bytes(800),
                basis: random.number(),
                more: random.one_in(3),
            });
            pb::Push { transactions: transactions.collect() }.into()
        }
        3 => {
            let lsn = pb::Lsn { version: random.number(), order: random.number() as u32 };
            let resume = pb::Resume { lsn: Some(lsn), position: random.bytes(9), scope: random.next() };
            let reached = (0..random.below(6)).map(|_| pb::Reached { position: random.bytes(9), lsn: Some(lsn) });
            let reached = reached.collect();
            pb::Subscribe { id: random.number() as u32, resume: Some(resume), reached, ..Default::default() }.into()
        }
        4 => pb::Unsubscribe { id: random.number() as u32 }.into(),
        5 => pb::Credit { bytes: random.number() }.into(),
        6 => {
            let fingerprints: Vec<u64> = (0..random.below(8)).map(|_| random.next()).collect();
            let count = if random.one_in(3) { random.number() as u32 } else { fingerprints.len() as u32 };
            pb::Held { ask: random.below(4) as u32, fingerprints, count }.into()
        }
        _ => pb::Renew { access_token: "x".repeat(random.below(9000) as usize) }.into(),
    }
}

fn run(case: u64) {
    struct Say(u64);
    impl Drop for Say {
        fn drop(&mut self) {
            if std::thread::panicking() {
                println!("failed: BIGPEER_FUZZ_CASE={}", self.0);
            }
        }
    }
    let say = Say(case);
    Case::new(case).run();
    drop(say);
}

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn sessions_survive_any_messages_in_any_order() {
    if let Some(case) = number_of("BIGPEER_FUZZ_CASE") {
        return run(case);
    }
    for case in 0..CASES {
        run(case);
    }
    let Some(seconds) = number_of("BIGPEER_FUZZ_SECONDS") else { return };
    let (begun, mut case) = (Instant::now(), CASES);
    while begun.elapsed() < Duration::from_secs(seconds) {
        run(case);
        case += 1;
    }
    println!("{case} cases");
}
