//! The peer's end: rules by example; any messages in any order; and both ends together over connections that break.

#![allow(clippy::wildcard_enum_match_arm, reason = "a test looks at the effects that it is about")]

use super::*;
use crate::gateway::{Admission, GatewayEffect, GatewaySession};
use bytes::Bytes;
use proptest::prelude::*;

fn limits() -> pb::Limits {
    pb::Limits {
        max_frame_bytes: 1 << 20,
        max_transaction_bytes: 1000,
        max_pushes_in_flight: 4,
        max_push_bytes_in_flight: 2000,
        max_subscriptions: 10,
        max_clock_ahead_ms: 1000,
        idle_timeout_ms: 1000,
    }
}

fn opened(hello: pb::Hello, last_seq: u64) -> PeerSession {
    let (mut session, effects) = PeerSession::open(hello);
    assert!(matches!(&effects[..], [PeerEffect::Send(_)]));
    let welcome = pb::Welcome { version: 1, last_seq, limits: Some(limits()), ..Default::default() };
    assert!(matches!(session.receive(welcome.into(), 10)[..], [PeerEffect::Welcomed(_)]));
    session
}

fn transaction(seq: u64) -> pb::PushedTransaction {
    pb::PushedTransaction { seq, transaction: Bytes::from_static(&[1; 100]), ..Default::default() }
}

fn closed_with(effects: &[PeerEffect]) -> Option<CloseCode> {
    match effects {
        [.., PeerEffect::Closed(close)] => Some(close.code()),
        _ => None,
    }
}

#[test]
fn the_window_bounds_what_is_in_flight() {
    let mut session = opened(pb::Hello { last_seq: 9, acknowledged_seq: 3, credit: 100, ..Default::default() }, 3);
    assert_eq!(session.push_window(), Some(PushWindow { next_seq: 4, max_transactions: 4, max_bytes: 2000 }));
    assert_eq!(session.push(vec![transaction(5)]), Err(Misuse::Push { next_seq: 4 }));
    assert!(session.push((4..=7).map(transaction).collect()).is_ok());
    assert_eq!(session.push_window(), None);
    let accepted = session.receive(pb::Accepted { seq: 5, lsn: Some(Lsn::new(8, 0).into()) }.into(), 10);
    assert_eq!(accepted, [PeerEffect::Accepted { seq: 5, lsn: Lsn::new(8, 0) }]);
    assert_eq!(session.push_window().map(|window| window.max_transactions), Some(2));
    let rejected = pb::Rejected { seq: 6, ..Default::default() };
    assert_eq!(session.receive(rejected.clone().into(), 10), [PeerEffect::Rejected(rejected)]);
    assert_eq!(session.acknowledged_seq(), 6);
}

#[test]
fn a_store_and_a_log_that_do_not_fit_are_noticed() {
    let welcome = |last_seq| pb::Welcome { version: 1, last_seq, ..Default::default() };
    let hello = || pb::Hello { last_seq: 5, acknowledged_seq: 3, ..Default::default() };
    for (last_seq, code) in [(6, CloseCode::CloseStaleSite), (2, CloseCode::CloseSeqGap)] {
        let (mut session, _) = PeerSession::open(hello());
        assert_eq!(closed_with(&session.receive(welcome(last_seq).into(), 10)), Some(code));
    }
}

#[test]
fn transactions_in_several_frames_come_out_whole() {
    let mut session = opened(pb::Hello::default(), 0);
    let part = |more: bool, id: &'static str, through: Option<u64>| pb::Changes {
        transactions: vec![pb::Transaction {
            lsn: Some(Lsn::new(5, 0).into()),
            changes: vec![pb::Change { id: Bytes::from_static(id.as_bytes()), ..Default::default() }],
            more,
            ..Default::default()
        }],
        through: through.map(|version| Lsn::new(version, 0).into()),
        page: None,
    };
    assert!(session.receive(part(true, "a", None).into(), 100).is_empty());
    assert!(session.receive(part(true, "b", None).into(), 100).is_empty());
    let effects = session.receive(part(false, "c", Some(6)).into(), 100);
    let [PeerEffect::Apply { changes, bytes: 300 }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(changes.transactions.len(), 1);
    assert_eq!(changes.transactions[0].changes.len(), 3);
    assert_eq!(session.through(), Lsn::new(6, 0));
    // Another transaction must not begin in between.
    session.receive(part(true, "a", None).into(), 100);
    let other = pb::Changes { transactions: vec![pb::Transaction::default()], ..Default::default() };
    assert_eq!(closed_with(&session.receive(other.into(), 10)), Some(CloseCode::CloseProtocolError));
}

#[test]
fn what_is_large_is_pushed_in_parts_and_what_is_small_together() {
    let mut session = opened(pb::Hello { last_seq: 9, acknowledged_seq: 3, credit: 100, ..Default::default() }, 3);
    session.part_bytes = 40;
    let sized =
        |seq, bytes: usize| pb::PushedTransaction { seq, transaction: vec![1; bytes].into(), ..Default::default() };
    let effects = session.push(vec![sized(4, 10), sized(5, 100), sized(6, 10), sized(7, 20)]).unwrap();
    let shape = |effect: &PeerEffect| match effect {
        PeerEffect::Send(pb::PeerMessage { message: Some(pb::FromPeer::Push(push)) }) => {
            push.transactions.iter().map(|one| (one.seq, one.transaction.len(), one.more)).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    let shapes: Vec<_> = effects.iter().map(shape).collect();
    assert_eq!(
        shapes,
        [
            vec![(4, 10, false), (5, 40, true)],
            vec![(5, 40, true)],
            vec![(5, 20, false), (6, 10, false)],
            vec![(7, 20, false)]
        ]
    );
}

#[test]
fn what_left_may_be_named_by_its_place_in_what_was_told() {
    let mut session = opened(pb::Hello::default(), 0);
    session.subscribe(pb::Subscribe { id: 1, ..Default::default() }).unwrap();
    let ask = pb::AskHeld { ask: 1, collection: "c".to_owned(), salt: 7, at_most: 2 };
    assert_eq!(session.receive(ask.clone().into(), 10), [PeerEffect::AskHeld(ask.clone())]);
    let keys = vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")];
    let fingerprints = keys.iter().map(|key| crate::fingerprint(7, key)).collect();
    let told = session.tell_held(&ask, keys, 2);
    assert_eq!(told, [send(pb::Held { ask: 1, fingerprints, count: 2 })]);
    let page = |collection: &str, place| pb::Changes {
        page: Some(pb::Page {
            subscriptions: vec![1],
            collection: collection.to_owned(),
            left: vec![pb::LeftKey { held: Some(place), ..Default::default() }],
            ..Default::default()
        }),
        ..Default::default()
    };
    let effects = session.receive(page("c", 1).into(), 10);
    let [PeerEffect::Apply { changes, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(
        changes.page.as_ref().unwrap().left,
        [pb::LeftKey { id: Bytes::from_static(b"b"), ..Default::default() }]
    );
    let caught_up = pb::CaughtUp { subscriptions: vec![1], lsn: None };
    session.receive(caught_up.into(), 10);
    assert_eq!(closed_with(&session.receive(page("c", 1).into(), 10)), Some(CloseCode::CloseProtocolError));

    let mut session = opened(pb::Hello::default(), 0);
    let keys = (0..3_u8).map(|key| Bytes::from(vec![key])).collect();
    assert_eq!(session.tell_held(&ask, keys, 3), [send(pb::Held { ask: 1, fingerprints: vec![], count: 3 })]);
    assert_eq!(closed_with(&session.receive(page("c", 0).into(), 10)), Some(CloseCode::CloseProtocolError));
}

#[test]
fn credit_is_given_back_in_quarters() {
    let mut session = opened(pb::Hello { credit: 1000, ..Default::default() }, 0);
    assert!(session.applied(249).is_empty());
    let [PeerEffect::Send(pb::PeerMessage { message: Some(pb::FromPeer::Credit(credit)) })] = &session.applied(1)[..]
    else {
        panic!("no credit")
    };
    assert_eq!(credit.bytes, 250);
}

fn from_gateway() -> impl Strategy<Value = pb::FromGateway> {
    let lsn = || (0_u64..9).prop_map(|version| Some(pb::Lsn { version, order: 0 }));
    let transaction =
        (lsn(), any::<bool>()).prop_map(|(lsn, more)| pb::Transaction { lsn, more, ..Default::default() });
    prop_oneof![
        2 => (0_u32..3, 0_u64..9).prop_map(|(version, last_seq)| pb::Welcome { version, last_seq, limits: Some(limits()), ..Default::default() }.into()),
        3 => (0_u64..9, lsn()).prop_map(|(seq, lsn)| pb::Accepted { seq, lsn }.into()),
        3 => (0_u64..9).prop_map(|seq| pb::Rejected { seq, ..Default::default() }.into()),
        1 => (0_u32..9).prop_map(|id| pb::Subscribed { id, scope: 1 }.into()),
        1 => (0_u32..9).prop_map(|id| pb::Refused { id, ..Default::default() }.into()),
        4 => (prop::collection::vec(transaction, 0..3), prop::option::of(lsn()), any::<bool>()).prop_map(|(transactions, through, page)| {
            let left = vec![pb::LeftKey { held: through.is_none().then_some(0), ..Default::default() }];
            let page = page.then(|| pb::Page { subscriptions: vec![1], left, ..Default::default() });
            pb::Changes { transactions, through: through.flatten(), page }.into()
        }),
        1 => Just(pb::Left::default().into()),
        1 => (0_u32..4).prop_map(|ask| pb::AskHeld { ask, at_most: ask, ..Default::default() }.into()),
        2 => (0_u32..9, lsn()).prop_map(|(id, lsn)| pb::CaughtUp { subscriptions: vec![id], lsn }.into()),
        1 => (0_u32..9).prop_map(|id| pb::Resync { subscriptions: vec![id] }.into()),
        1 => Just(pb::Close::default().into()),
    ]
}

proptest! {
    #[test]
    fn any_messages_in_any_order_keep_the_invariants(greet: bool, all in prop::collection::vec(from_gateway(), 0..60)) {
        let hello = pb::Hello { last_seq: 8, credit: 100, ..Default::default() };
        let mut session = if greet { opened(hello, 2) } else { PeerSession::open(hello).0 };
        let mut closed = false;
        for (message, id) in all.into_iter().zip(1..) {
            let _ = session.subscribe(pb::Subscribe { id, ..Default::default() });
            if let Some(window) = session.push_window() {
                session.push(vec![transaction(window.next_seq)]).unwrap();
            }
            let effects = session.receive(message, 50);
            for effect in &effects {
                if let PeerEffect::AskHeld(ask) = effect {
                    session.tell_held(ask, vec![Bytes::from_static(b"a")], 1);
                }
            }
            prop_assert!(!closed || effects.is_empty());
            closed |= effects.iter().any(|effect| matches!(effect, PeerEffect::Closed(_)));
            session.applied(50);
            prop_assert_eq!(session.validate(), Ok(()));
        }
    }
}

/// What outlives connections: the log with its decision on each transaction, and the peer's own store.
#[derive(Debug, Default)]
struct World {
    /// The payload of each `seq`, and whether it was rejected.
    log: Vec<(Bytes, bool)>,
    /// The peer's transactions, 1, 2, 3, ….
    written: Vec<Bytes>,
    outcomes: Vec<bool>,
}

impl World {
    /// One connection: at most so many messages arrive in each direction before it breaks.
    fn connect(&mut self, to_gateway: usize, to_peer: usize) {
        let hello = pb::Hello {
            versions: vec![1],
            last_seq: self.written.len() as u64,
            acknowledged_seq: self.outcomes.len() as u64,
            credit: 1000,
            ..Default::default()
        };
        let (mut peer, effects) = PeerSession::open(hello);
        peer.part_bytes = 50;
        let mut gateway = GatewaySession::new(limits());
        let (mut up, mut down) = (VecDeque::new(), VecDeque::new());
        let (mut up_left, mut down_left) = (to_gateway, to_peer);
        self.of_peer(&mut peer, effects, &mut up);
        loop {
            let moved = if up_left > 0
                && let Some(message) = up.pop_front()
            {
                up_left -= 1;
                let effects = gateway.receive(message);
                self.of_gateway(&mut gateway, effects, &mut down);
                true
            } else if down_left > 0
                && let Some(message) = down.pop_front()
            {
                down_left -= 1;
                let effects = peer.receive(message, 20);
                self.of_peer(&mut peer, effects, &mut up);
                true
            } else {
                false
            };
            assert_eq!((gateway.validate(), peer.validate()), (Ok(()), Ok(())));
            if !moved {
                return;
            }
        }
    }

    fn of_gateway(
        &mut self,
        gateway: &mut GatewaySession,
        effects: Vec<GatewayEffect>,
        down: &mut VecDeque<pb::FromGateway>,
    ) {
        for effect in effects {
            match effect {
                GatewayEffect::Send(message) => down.extend(message.message),
                GatewayEffect::Admit(hello) => {
                    let last_seq = self.log.len() as u64;
                    let rejected =
                        (1..).zip(&self.log).filter(|(seq, (_, rejected))| *rejected && *seq > hello.acknowledged_seq);
                    let rejected = rejected.map(|(seq, _)| pb::Rejected { seq, ..Default::default() }).collect();
                    let effects = gateway.admitted(Admission { last_seq, rejected, ..Admission::default() });
                    self.of_gateway(gateway, effects, down);
                }
                GatewayEffect::Append(transactions) => {
                    for pushed in transactions {
                        assert_eq!(pushed.seq, self.log.len() as u64 + 1, "the log refuses gaps");
                        let rejected = pushed.seq % 3 == 0;
                        self.log.push((pushed.transaction, rejected));
                        let lsn = Lsn::new(pushed.seq, 0);
                        let effects = if rejected {
                            gateway.rejected(pb::Rejected { seq: pushed.seq, ..Default::default() }, lsn)
                        } else {
                            gateway.accepted(pushed.seq, lsn)
                        };
                        self.of_gateway(gateway, effects, down);
                    }
                }
                GatewayEffect::Close(close) => panic!("both ends are correct: {close:?}"),
                GatewayEffect::Subscribe(_)
                | GatewayEffect::Unsubscribe(_)
                | GatewayEffect::Resume
                | GatewayEffect::Held(_)
                | GatewayEffect::Renew(_) => {}
            }
        }
    }

    fn of_peer(&mut self, peer: &mut PeerSession, effects: Vec<PeerEffect>, up: &mut VecDeque<pb::FromPeer>) {
        for effect in effects {
            match effect {
                PeerEffect::Send(message) => up.extend(message.message),
                PeerEffect::Accepted { seq, .. } => {
                    while (self.outcomes.len() as u64) < seq {
                        self.outcomes.push(true);
                    }
                }
                PeerEffect::Rejected(rejected) => {
                    assert_eq!(rejected.seq, self.outcomes.len() as u64 + 1);
                    self.outcomes.push(false);
                }
                PeerEffect::Closed(close) => panic!("both ends are correct: {close:?}"),
                _ => {}
            }
        }
        if let Some(window) = peer.push_window() {
            let pending = self.written.iter().zip(1_u64..).filter(|(_, seq)| *seq >= window.next_seq);
            let next: Vec<_> = pending
                .map(|(transaction, seq)| pb::PushedTransaction {
                    seq,
                    transaction: transaction.clone(),
                    basis: 0,
                    more: false,
                })
                .take(window.max_transactions)
                .collect();
            if !next.is_empty() {
                let effects = peer.push(next).unwrap();
                self.of_peer(peer, effects, up);
            }
        }
    }
}

proptest! {
    #[test]
    fn both_ends_converge_whatever_connections_lose(rounds in prop::collection::vec((1_usize..6, 0_usize..12, 0_usize..12), 1..12)) {
        let mut world = World::default();
        for (writes, to_gateway, to_peer) in rounds {
            for _ in 0..writes {
                let number = world.written.len() as u64;
                // Some are pushed in parts, and connections break between those.
                let copies = if number % 4 == 1 { 17 } else { 1 };
                world.written.push(number.to_be_bytes().repeat(copies).into());
            }
            world.connect(to_gateway, to_peer);
        }
        world.connect(usize::MAX, usize::MAX);
        let logged: Vec<Bytes> = world.log.iter().map(|(payload, _)| payload.clone()).collect();
        prop_assert_eq!(&logged, &world.written, "each exactly once, in order");
        let expected: Vec<bool> = world.log.iter().map(|(_, rejected)| !rejected).collect();
        prop_assert_eq!(&world.outcomes, &expected, "each outcome is heard, and the true one");
    }
}
