//! The gateway's end: each rule by example, and any messages in any order.

#![allow(clippy::cast_possible_truncation, reason = "small numbers")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test looks at the effects that it is about")]

use super::*;
use crate::limits::MAX_PUSH_TRANSACTIONS;
use bytes::Bytes;
use proptest::prelude::*;

fn limits() -> pb::Limits {
    pb::Limits {
        max_frame_bytes: 1 << 20,
        max_transaction_bytes: 1000,
        max_pushes_in_flight: 4,
        max_push_bytes_in_flight: 2000,
        max_subscriptions: 3,
        max_clock_ahead_ms: 1000,
        idle_timeout_ms: 1000,
    }
}

fn hello() -> pb::Hello {
    pb::Hello { versions: vec![1], site: 7, last_seq: 100, credit: 10, ..Default::default() }
}

fn open_at(last_seq: u64) -> GatewaySession {
    open_with(hello(), last_seq)
}

fn open_with(hello: pb::Hello, last_seq: u64) -> GatewaySession {
    let mut session = GatewaySession::new(limits());
    assert!(matches!(session.receive(hello.into())[..], [GatewayEffect::Admit(_)]));
    session.admitted(Admission { last_seq, ..Admission::default() });
    assert!(session.is_open());
    session
}

fn push(range: std::ops::RangeInclusive<u64>) -> pb::FromPeer {
    let one = |seq| pb::PushedTransaction { seq, transaction: Bytes::from_static(&[1; 100]), ..Default::default() };
    pb::Push { transactions: range.map(one).collect() }.into()
}

fn subscribe(id: u32) -> pb::FromPeer {
    pb::Subscribe { id, ..Default::default() }.into()
}

fn closed_with(effects: &[GatewayEffect]) -> Option<CloseCode> {
    match effects {
        [.., GatewayEffect::Close(close)] => Some(close.code()),
        _ => None,
    }
}

fn accepted(seq: u64, lsn: Lsn) -> GatewayEffect {
    send(pb::Accepted { seq, lsn: Some(lsn.into()) })
}

#[test]
fn missed_outcomes_follow_the_welcome_in_order() {
    let mut session = GatewaySession::new(limits());
    session.receive(pb::Hello { acknowledged_seq: 2, ..hello() }.into());
    let rejected = |seq| pb::Rejected { seq, ..Default::default() };
    let head = Lsn::new(50, 0);
    let admission =
        Admission { last_seq: 9, rejected: vec![rejected(2), rejected(5), rejected(6)], head, ..Admission::default() };
    let effects = session.admitted(admission);
    assert!(
        matches!(&effects[0], GatewayEffect::Send(pb::GatewayMessage { message: Some(pb::FromGateway::Welcome(welcome)) }) if welcome.last_seq == 9)
    );
    assert_eq!(effects[1..], [accepted(4, head), send(rejected(5)), send(rejected(6)), accepted(9, head)]);
}

#[test]
fn pushes_go_on_where_the_log_stands_without_gaps() {
    let mut session = open_at(3);
    assert!(matches!(&session.receive(push(4..=5))[..], [GatewayEffect::Append(two)] if two.len() == 2));
    assert_eq!(session.accepted(5, Lsn::new(9, 0)), [accepted(5, Lsn::new(9, 0))]);
    assert!(session.accepted(5, Lsn::new(9, 0)).is_empty(), "nothing is told twice");
    // Repeated, with something new behind it.
    let effects = session.receive(push(5..=6));
    assert_eq!(effects[0], accepted(5, Lsn::new(9, 0)));
    assert!(matches!(&effects[1], GatewayEffect::Append(one) if one[0].seq == 6 && one.len() == 1));
    assert_eq!(closed_with(&session.receive(push(8..=8))), Some(CloseCode::CloseSeqGap));
    assert!(session.is_closed() && session.receive(push(7..=7)).is_empty());
}

#[test]
fn outcomes_are_only_sent_in_order() {
    let mut session = open_at(0);
    session.receive(push(1..=3));
    let rejected = |seq| pb::Rejected { seq, ..Default::default() };
    assert!(session.rejected(rejected(2), Lsn::ZERO).is_empty());
    assert_eq!(session.rejected(rejected(1), Lsn::ZERO), [send(rejected(1))]);
    assert!(session.accepted(4, Lsn::ZERO).is_empty());
    assert_eq!(session.accepted(3, Lsn::new(1, 0)), [accepted(3, Lsn::new(1, 0))]);
}

fn part(seq: u64, bytes: usize, more: bool) -> pb::PushedTransaction {
    pb::PushedTransaction { seq, transaction: vec![seq as u8; bytes].into(), basis: seq - 1, more }
}

fn pushed(parts: Vec<pb::PushedTransaction>) -> pb::FromPeer {
    pb::Push { transactions: parts }.into()
}

#[test]
fn a_transaction_in_parts_is_appended_when_it_is_whole() {
    let mut session = open_at(0);
    assert!(
        matches!(&session.receive(pushed(vec![part(1, 10, false), part(2, 400, true)]))[..], [GatewayEffect::Append(one)] if one.len() == 1)
    );
    assert!(session.receive(pushed(vec![part(2, 400, true)])).is_empty());
    // Other messages may come in between.
    assert!(matches!(session.receive(subscribe(1))[..], [GatewayEffect::Subscribe(_)]));
    let effects = session.receive(pushed(vec![part(2, 100, false), part(3, 10, false)]));
    let [GatewayEffect::Append(two)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((two[0].seq, two[0].transaction.len(), two[0].basis, two[0].more), (2, 900, 1, false));
    assert_eq!(two[1].seq, 3);
    // What the log has already is not kept, and answered when it is whole.
    session.accepted(3, Lsn::new(9, 0));
    assert!(session.receive(pushed(vec![part(2, 400, true)])).is_empty());
    assert_eq!(session.receive(pushed(vec![part(2, 400, false)])), [accepted(3, Lsn::new(9, 0))]);
}

#[test]
fn parts_must_go_on_and_end_within_the_limits() {
    let bad = [
        (vec![part(1, 10, true), part(2, 10, false)], CloseCode::CloseProtocolError),
        (vec![part(2, 10, true)], CloseCode::CloseSeqGap),
        (vec![part(1, 600, true), part(1, 600, true)], CloseCode::CloseLimitExceeded),
        (vec![part(1, 900, false), part(2, 900, false), part(3, 900, true)], CloseCode::CloseLimitExceeded),
    ];
    for (parts, code) in bad {
        let mut session = open_at(0);
        assert_eq!(closed_with(&session.receive(pushed(parts))), Some(code));
        assert_eq!(session.validate(), Ok(()));
    }
}

#[test]
fn a_peer_is_asked_what_it_holds_if_it_can_tell() {
    assert!(open_at(0).ask_held("c", 7, 10).is_empty(), "it did not say that it understands");
    let mut session = open_with(pb::Hello { tells_held: true, ..hello() }, 0);
    let ask = |ask| send(pb::AskHeld { ask, collection: "c".to_owned(), salt: 7, at_most: 2 });
    let held = |ask, told: usize, count| pb::Held { ask, fingerprints: vec![5; told], count };
    assert_eq!(session.ask_held("c", 7, 2), [ask(1)]);
    assert_eq!(session.receive(held(1, 2, 2).into()), [GatewayEffect::Held(held(1, 2, 2))]);
    assert!(session.receive(held(1, 2, 2).into()).is_empty(), "an answer counts once");
    assert_eq!(session.ask_held("c", 7, 2), [ask(2)]);
    assert!(session.receive(held(1, 1, 1).into()).is_empty(), "the answer to an older question");
    assert_eq!(session.receive(held(2, 0, 9).into()), [GatewayEffect::Held(held(2, 0, 9))]);
    session.ask_held("c", 7, 2);
    session.withdraw_ask();
    assert!(session.receive(held(3, 1, 1).into()).is_empty());
    for (message, code) in [
        (held(5, 1, 1), CloseCode::CloseProtocolError),
        (held(4, 3, 3), CloseCode::CloseLimitExceeded),
        (held(4, 2, 1), CloseCode::CloseProtocolError),
    ] {
        let mut session = open_with(pb::Hello { tells_held: true, ..hello() }, 0);
        (0..4).for_each(|_| drop(session.ask_held("c", 7, 2)));
        assert_eq!(closed_with(&session.receive(message.into())), Some(code));
    }
}

#[test]
fn the_version_is_the_first_of_the_peers_that_the_gateway_speaks() {
    let mut session = GatewaySession::new(limits());
    let effects = session.receive(pb::Hello { versions: vec![9, 1, 0], ..hello() }.into());
    assert!(matches!(effects[..], [GatewayEffect::Admit(_)]));
    let effects = session.admitted(Admission::default());
    assert!(
        matches!(&effects[0], GatewayEffect::Send(pb::GatewayMessage { message: Some(pb::FromGateway::Welcome(welcome)) }) if welcome.version == 1)
    );
    let mut session = GatewaySession::new(limits());
    let effects = session.receive(pb::Hello { versions: vec![2, 3], ..hello() }.into());
    assert_eq!(closed_with(&effects), Some(CloseCode::CloseUnsupportedVersion));
}

#[test]
fn limits_end_the_session() {
    let over: [pb::FromPeer; 4] = [
        push(1..=5),
        push(1..=MAX_PUSH_TRANSACTIONS as u64 + 1),
        pb::Push::default().into(),
        pb::Push {
            transactions: vec![pb::PushedTransaction {
                seq: 1,
                transaction: vec![0; 1001].into(),
                ..Default::default()
            }],
        }
        .into(),
    ];
    for message in over {
        assert_eq!(closed_with(&open_at(0).receive(message)), Some(CloseCode::CloseLimitExceeded));
    }
}

#[test]
fn subscriptions_have_ids_that_grow_and_phases_that_follow() {
    let mut session = open_at(0);
    assert!(matches!(session.receive(subscribe(2))[..], [GatewayEffect::Subscribe(_)]));
    assert!(session.caught_up(&[2], Lsn::new(1, 0)).is_empty(), "not before it is open");
    assert_eq!(session.subscribed(2, 77), [send(pb::Subscribed { id: 2, scope: 77 })]);
    let lsn = Lsn::new(5, 0);
    assert_eq!(session.caught_up(&[2, 9], lsn), [send(pb::CaughtUp { subscriptions: vec![2], lsn: Some(lsn.into()) })]);
    session.advanced(Lsn::new(8, 0));
    assert_eq!(session.put_back(), [(2, Lsn::new(8, 0))]);
    assert_eq!(session.subscription(2), Some(SubscriptionPhase::CatchingUp));
    assert_eq!(session.receive(pb::Unsubscribe { id: 2 }.into()), [GatewayEffect::Unsubscribe(2)]);
    assert!(session.receive(pb::Unsubscribe { id: 2 }.into()).is_empty(), "gone already");
    assert_eq!(closed_with(&session.receive(subscribe(2))), Some(CloseCode::CloseProtocolError));

    let mut session = open_at(0);
    for id in 1..=3 {
        session.receive(subscribe(id));
    }
    let refused = session.receive(subscribe(4));
    assert!(
        matches!(&refused[..], [GatewayEffect::Send(_)]) && session.is_open(),
        "over the limit is refused, no more"
    );
}

#[test]
fn documents_flow_while_there_is_credit() {
    let mut session = open_at(0);
    assert!(session.may_send_documents());
    session.spend(1000);
    assert!(!session.may_send_documents());
    assert!(session.receive(pb::Credit { bytes: 990 }.into()).is_empty());
    assert_eq!(session.receive(pb::Credit { bytes: 1 }.into()), [GatewayEffect::Resume]);
    session.receive(pb::Credit { bytes: u64::MAX }.into());
    session.receive(pb::Credit { bytes: u64::MAX }.into());
    assert!(session.may_send_documents());
}

/// Anything that can happen to a session.
#[derive(Clone, Debug)]
enum Input {
    Message(pb::FromPeer),
    Admitted(u64, Vec<u64>),
    Accepted(u64),
    Rejected(u64),
    Subscribed(u32),
    Refused(u32),
    CaughtUp(u32, u64),
    Resync(u32),
    PutBack,
    Ask(usize),
    Withdraw,
    Spend(usize),
    Close,
}

fn messages() -> impl Strategy<Value = pb::FromPeer> {
    let pushed = (0_u64..8, 0_usize..1200, prop::bool::weighted(0.3))
        .prop_map(|(seq, size, more)| pb::PushedTransaction { seq, transaction: vec![0; size].into(), basis: 0, more });
    prop_oneof![
        2 => (0_u32..3, 0_u64..9, 0_u64..9, any::<u64>()).prop_map(|(version, last_seq, acknowledged_seq, credit)| {
            let tells_held = last_seq % 2 == 0;
            pb::Hello { versions: vec![version], last_seq, acknowledged_seq, credit, tells_held, ..Default::default() }.into()
        }),
        6 => prop::collection::vec(pushed, 0..6).prop_map(|transactions| pb::Push { transactions }.into()),
        4 => (0_u32..9).prop_map(subscribe),
        2 => (0_u32..9).prop_map(|id| pb::Unsubscribe { id }.into()),
        2 => any::<u64>().prop_map(|bytes| pb::Credit { bytes }.into()),
        1 => Just(pb::Renew::default().into()),
        2 => (0_u32..4, 0_usize..4, 0_u32..4).prop_map(|(ask, told, count)| pb::Held { ask, fingerprints: vec![0; told], count }.into()),
        1 => Just(pb::Close::default().into()),
    ]
}

fn inputs() -> impl Strategy<Value = Input> {
    prop_oneof![
        8 => messages().prop_map(Input::Message),
        3 => (0_u64..9, prop::collection::vec(0_u64..9, 0..3)).prop_map(|(last, rejected)| Input::Admitted(last, rejected)),
        3 => (0_u64..12).prop_map(Input::Accepted),
        2 => (0_u64..12).prop_map(Input::Rejected),
        2 => (0_u32..9).prop_map(Input::Subscribed),
        1 => (0_u32..9).prop_map(Input::Refused),
        2 => (0_u32..9, 0_u64..9).prop_map(|(id, lsn)| Input::CaughtUp(id, lsn)),
        1 => (0_u32..9).prop_map(Input::Resync),
        1 => Just(Input::PutBack),
        2 => (0_usize..4).prop_map(Input::Ask),
        1 => Just(Input::Withdraw),
        1 => any::<usize>().prop_map(Input::Spend),
        1 => Just(Input::Close),
    ]
}

fn feed(session: &mut GatewaySession, input: Input) -> Vec<GatewayEffect> {
    match input {
        Input::Message(message) => session.receive(message),
        Input::Admitted(last_seq, mut rejected) => {
            rejected.sort_unstable();
            rejected.dedup();
            let rejected = rejected.into_iter().map(|seq| pb::Rejected { seq, ..Default::default() }).collect();
            session.admitted(Admission { last_seq, rejected, ..Admission::default() })
        }
        Input::Accepted(seq) => session.accepted(seq, Lsn::new(seq, 0)),
        Input::Rejected(seq) => session.rejected(pb::Rejected { seq, ..Default::default() }, Lsn::new(seq, 0)),
        Input::Subscribed(id) => session.subscribed(id, 1),
        Input::Refused(id) => session.refused(id, pb::RefuseCode::RefuseForbidden, String::new()),
        Input::CaughtUp(id, lsn) => session.caught_up(&[id], Lsn::new(lsn, 0)),
        Input::Resync(id) => session.resync(&[id]),
        Input::Ask(at_most) => session.ask_held("c", 1, at_most),
        Input::Withdraw => {
            session.withdraw_ask();
            Vec::new()
        }
        Input::PutBack => {
            session.put_back();
            Vec::new()
        }
        Input::Spend(bytes) => {
            session.spend(bytes);
            Vec::new()
        }
        Input::Close => session.close(pb::Close::new(CloseCode::CloseGoingAway, "")),
    }
}

proptest! {
    #[test]
    fn whatever_happens_invariants_hold_and_outcomes_are_in_order(greet: bool, all in prop::collection::vec(inputs(), 0..60)) {
        let mut session = if greet { open_at(0) } else { GatewaySession::new(limits()) };
        let (mut closed, mut outcome, mut appended) = (false, 0, 0);
        for input in all {
            let effects = feed(&mut session, input);
            prop_assert_eq!(session.validate(), Ok(()));
            prop_assert!(!closed || effects.is_empty(), "nothing follows a Close");
            for effect in effects {
                match effect {
                    GatewayEffect::Close(_) => closed = true,
                    GatewayEffect::Send(pb::GatewayMessage { message: Some(pb::FromGateway::Accepted(accepted)) }) => {
                        prop_assert!(accepted.seq >= outcome);
                        outcome = accepted.seq;
                    }
                    GatewayEffect::Send(pb::GatewayMessage { message: Some(pb::FromGateway::Rejected(rejected)) }) => {
                        prop_assert!(rejected.seq > outcome);
                        outcome = rejected.seq;
                    }
                    GatewayEffect::Append(transactions) => for transaction in transactions {
                        prop_assert!(!transaction.more, "only what is whole");
                        prop_assert!(transaction.seq > appended, "appended twice");
                        appended = transaction.seq;
                    },
                    _ => {}
                }
            }
        }
    }
}
