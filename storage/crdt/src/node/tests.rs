//! The join against an oracle: a state is a set of facts, a join is a union of such sets, and the canonical form is computed
//! from all facts at once, the slow and obvious way.
#![allow(clippy::wildcard_enum_match_arm, reason = "an oracle says what it means, not what else there is")]

use std::collections::{BTreeMap, BTreeSet};

use bigpeer_types::SiteId;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::document::Document;

/// One thing that somebody once wrote.
#[derive(Clone, Debug)]
enum Fact {
    Deleted(Stamp),
    Cleared(Vec<&'static str>, Stamp),
    Register(Vec<&'static str>, Stamp, Value),
    Contribution(Vec<&'static str>, Contribution),
    Attachment(Vec<&'static str>, Stamp, Attachment),
}

/// Few enough that ties and clearings of everything happen all the time.
fn stamps() -> impl Strategy<Value = Stamp> {
    (0..9_u64, 0..3_u64).prop_map(|(hlc, site)| Stamp::new(Hlc::from_bits(hlc), SiteId::new(site)))
}

fn paths() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(prop::sample::select(vec!["", "a", "b", "ü"]), 1..4)
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        (-2..40_i64).prop_map(Value::Int),
        Just(Value::Float(0.1)),
        Just(Value::from("text")),
        Just(Value::Object(Object::new())),
        Just(Value::Object(Object::from_iter([("k", Value::Bool(true))]))),
    ]
}

fn facts() -> impl Strategy<Value = Fact> {
    let root = prop_oneof![Just(Vec::new()), paths()];
    prop_oneof![
        1 => stamps().prop_map(Fact::Deleted),
        3 => (root, stamps()).prop_map(|(path, stamp)| Fact::Cleared(path, stamp)),
        1 => stamps().prop_map(|stamp| Fact::Register(Vec::new(), stamp, Value::Object(Object::new()))),
        6 => (paths(), stamps(), values()).prop_map(|(path, stamp, value)| Fact::Register(path, stamp, value)),
        4 => (paths(), stamps(), 0..4_u64, 0..3_u64, 0..3_u64).prop_map(|(path, started, later, increments, decrements)| {
            let last = Hlc::from_bits(started.hlc.to_bits() + later);
            Fact::Contribution(path, Contribution { started, last, increments, decrements })
        }),
        2 => (paths(), stamps(), 0..2_u8).prop_map(|(path, stamp, byte)| {
            Fact::Attachment(path, stamp, Attachment { sha256: [byte; 32], length: 1, metadata: Object::new() })
        }),
    ]
}

/// The state that consists of one fact.
fn state(fact: &Fact) -> Document {
    let at = |path: &[&str], node: Node| {
        path.iter().rev().fold(node, |inner, key| {
            let mut outer = Node::default();
            outer.rest_mut().map.push(((*key).into(), inner));
            outer
        })
    };
    let mut node = Node::default();
    let (deleted, root) = match fact.clone() {
        Fact::Deleted(stamp) => (Some(stamp), node),
        Fact::Cleared(path, stamp) => {
            node.rest_mut().cleared = Some(stamp);
            (None, at(&path, node))
        }
        Fact::Register(path, stamp, value) => (None, at(&path, Node::of_register(stamp, value))),
        Fact::Contribution(path, contribution) => {
            node.rest_mut().counter.push(contribution);
            (None, at(&path, node))
        }
        Fact::Attachment(path, stamp, attachment) => {
            node.rest_mut().attachment = Some(Box::new(Attached { stamp, attachment }));
            (None, at(&path, node))
        }
    };
    Document::from_parts(deleted, root)
}

fn joined(facts: &[Fact]) -> Document {
    let mut all = Document::new();
    facts.iter().for_each(|fact| all.join(&state(fact)));
    all
}

/// The canonical form of all facts, from the definition.
fn oracle(facts: &[Fact]) -> Document {
    let cleared_at = |path: &[&str]| {
        facts
            .iter()
            .filter_map(|fact| if let Fact::Cleared(at, stamp) = fact { (at == path).then_some(*stamp) } else { None })
            .max()
    };
    let floor_of = |path: &[&str]| (0..=path.len()).filter_map(|len| cleared_at(&path[..len])).max();
    let deleted =
        facts.iter().filter_map(|fact| if let Fact::Deleted(stamp) = fact { Some(*stamp) } else { None }).max();
    Document {
        deleted: deleted.filter(|deleted| Some(*deleted) > floor_of(&[])),
        root: oracle_node(facts, &mut Vec::new(), &floor_of),
    }
}

fn oracle_node(facts: &[Fact], path: &mut Vec<&'static str>, floor_of: &dyn Fn(&[&str]) -> Floor) -> Node {
    let floor = floor_of(path);
    let above = path.split_last().and_then(|(_, outer)| floor_of(outer));
    let mut registers = Vec::new();
    let mut attachments = Vec::new();
    let mut counter: BTreeMap<Stamp, Contribution> = BTreeMap::new();
    let mut keys = BTreeSet::new();
    for fact in facts {
        let at = match fact {
            Fact::Deleted(_) => continue,
            Fact::Cleared(at, _) | Fact::Register(at, ..) | Fact::Contribution(at, _) | Fact::Attachment(at, ..) => at,
        };
        if at.len() > path.len() && at.starts_with(path) {
            keys.insert(at[path.len()]);
        }
        if at != path {
            continue;
        }
        match fact {
            Fact::Register(_, stamp, value) if Some(*stamp) > floor => registers.push((*stamp, value.clone())),
            Fact::Attachment(_, stamp, attachment) if Some(*stamp) > floor => {
                attachments.push((*stamp, attachment.clone()))
            }
            Fact::Contribution(_, part) if Some(part.started) > floor => {
                let own = counter.entry(part.started).or_insert(*part);
                own.last = own.last.max(part.last);
                own.increments = own.increments.max(part.increments);
                own.decrements = own.decrements.max(part.decrements);
            }
            _ => {}
        }
    }
    let register = registers.into_iter().max_by(|a, b| a.0.cmp(&b.0).then_with(|| tie_order(&a.1, &b.1)));
    let attachment = attachments.into_iter().max_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.tie_order(&b.1)));
    let mut map = Vec::new();
    for key in keys {
        path.push(key);
        let child = oracle_node(facts, path, floor_of);
        path.pop();
        if !child.is_empty() {
            map.push((key.into(), child));
        }
    }
    let rest = Rest {
        cleared: floor.filter(|_| floor > above),
        map,
        counter: counter.into_values().collect(),
        attachment: attachment.map(|(stamp, attachment)| Box::new(Attached { stamp, attachment })),
    };
    let mut node =
        Node { register: register.map(|(stamp, value)| Register { stamp, value }), rest: Some(Box::new(rest)) };
    node.tidy();
    node
}

fn join(a: &Document, b: &Document) -> Document {
    let mut joined = a.clone();
    joined.join(b);
    joined
}

fn sets() -> impl Strategy<Value = Vec<Fact>> {
    prop::collection::vec(facts(), 0..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn joins_are_unions_of_facts(facts in sets(), order in prop::collection::vec(any::<Index>(), 0..40), split: Index) {
        let expected = oracle(&facts);
        prop_assert_eq!(&joined(&facts), &expected);
        // Any order, repeated.
        let mut shuffled = facts.clone();
        if !facts.is_empty() {
            shuffled.extend(order.iter().map(|at| facts[at.index(facts.len())].clone()));
            shuffled.reverse();
        }
        prop_assert_eq!(&joined(&shuffled), &expected);
        // Any grouping, in memory and from bytes.
        let (left, right) = facts.split_at(split.index(facts.len() + 1));
        let (left, right) = (joined(left), joined(right));
        prop_assert_eq!(&join(&left, &right), &expected);
        let mut streamed = right.clone();
        streamed.join_encoded(&left.encode()).unwrap();
        prop_assert_eq!(&streamed, &expected);
        prop_assert_eq!(streamed.encode(), expected.encode());
    }

    #[test]
    fn laws_hold_for_arbitrary_states(a in sets(), b in sets(), c in sets()) {
        let (a, b, c) = (joined(&a), joined(&b), joined(&c));
        let left = join(&join(&a, &b), &c);
        let right = join(&a, &join(&b, &c));
        prop_assert_eq!(&left, &right);
        prop_assert_eq!(left.encode(), right.encode());
        prop_assert_eq!(join(&a, &b), join(&b, &a));
        prop_assert_eq!(join(&a, &b).encode(), join(&b, &a).encode());
        prop_assert_eq!(join(&a, &a), a.clone());
        prop_assert_eq!(join(&left, &b), left);
        prop_assert_eq!(join(&a, &Document::new()), a.clone());
        prop_assert_eq!(join(&Document::new(), &a), a);
    }

    #[test]
    fn arbitrary_states_round_trip(facts in sets()) {
        let state = joined(&facts);
        let bytes = state.encode();
        prop_assert_eq!(&Document::decode(&bytes).unwrap(), &state);
        let header = Document::validate_encoded(&bytes).unwrap();
        prop_assert_eq!(header.max_hlc, state.max_hlc());
        let mut all = Vec::new();
        all.extend(state.deleted());
        state.root.each_stamp(&mut |stamp| all.push(stamp));
        prop_assert_eq!(header.min_hlc, all.iter().map(|stamp| stamp.hlc).min().unwrap_or_default());
    }

    /// Equality is equality of bytes, both ways.
    #[test]
    fn different_states_have_different_bytes(a in sets(), b in sets()) {
        let (a, b) = (joined(&a), joined(&b));
        prop_assert_eq!(a == b, a.encode() == b.encode());
    }
}

/// Wide maps are merged in one walk; the result is that of inserting key by key.
#[test]
fn wide_maps_merge_as_narrow_ones() {
    let wide = |from: u64, step: usize| {
        let mut document = Document::new();
        for number in (from..600).step_by(step) {
            let mut node = Node::default();
            let stamp = Stamp::new(Hlc::from_bits(number % 7 + from), SiteId::new(from));
            node.rest_mut().map.push((format!("{number:03}").into(), Node::of_register(stamp, Value::from(number))));
            document.join(&Document::from_parts(None, node));
        }
        document
    };
    let (a, b) = (wide(1, 2), wide(3, 3));
    let mut one_by_one = a.clone();
    for (key, node) in b.root.map() {
        let mut root = Node::default();
        root.rest_mut().map.push((key.clone(), node.clone()));
        one_by_one.join(&Document::from_parts(None, root));
    }
    assert_eq!(join(&a, &b), one_by_one);
    assert_eq!(join(&b, &a), one_by_one);
    let mut streamed = a.clone();
    streamed.join_encoded(&b.encode()).unwrap();
    assert_eq!(streamed, one_by_one);
}

/// As above, for counters with many contributions.
#[test]
fn wide_counters_merge_as_narrow_ones() {
    let wide = |from: u64, step: usize| {
        let parts = (from..600).step_by(step).map(|number| {
            let started = Stamp::new(Hlc::from_bits(number), SiteId::new(1));
            Contribution { started, last: started.hlc, increments: number * from, decrements: number / from }
        });
        let mut child = Node::default();
        child.rest_mut().counter = parts.collect();
        let mut root = Node::default();
        root.rest_mut().map.push(("n".into(), child));
        Document::from_parts(None, root)
    };
    let (a, b) = (wide(1, 2), wide(3, 3));
    let mut one_by_one = a.clone();
    for part in b.root.child("n").unwrap().counter() {
        one_by_one.join(&state(&Fact::Contribution(vec!["n"], *part)));
    }
    assert_eq!(join(&a, &b), one_by_one);
    assert_eq!(join(&b, &a), one_by_one);
    let mut streamed = a.clone();
    streamed.join_encoded(&b.encode()).unwrap();
    assert_eq!(streamed, one_by_one);
}
