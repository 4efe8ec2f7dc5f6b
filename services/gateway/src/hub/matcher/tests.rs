//! The index finds what evaluating every matcher finds.

use bigpeer_crdt::{Editor, ObjectMode};
use bigpeer_types::{Hlc, HlcClock, ManualClock, SiteId};
use proptest::prelude::*;

use super::*;

const QUERIES: [&str; 12] = [
    "SELECT * FROM c",
    "SELECT * FROM c WHERE a = 1",
    "SELECT * FROM c WHERE a = 1.0",
    "SELECT * FROM c WHERE a IN (1, 2, 'x')",
    "SELECT * FROM c WHERE a = 'x' AND b = true",
    "SELECT * FROM c WHERE b = false AND a > 0",
    "SELECT * FROM c WHERE a = 1 OR b = true",
    "SELECT * FROM c WHERE a > 1",
    "SELECT * FROM c WHERE _id = 'd1'",
    "SELECT * FROM c WHERE _id IN ('d0', 'd2') AND a = 2",
    "SELECT * FROM c WHERE m.k = 1",
    "SELECT * FROM c WHERE NOT (a = 1)",
];

fn matcher(query: &str) -> Arc<Matcher> {
    let plan = rules::bind(query, &Object::default()).unwrap();
    Arc::new(Matcher::new(plan, Allowed::Everything))
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        (0_i64..4).prop_map(Value::Int),
        prop_oneof![Just(1.0), Just(2.5)].prop_map(Value::Float),
        Just(Value::String("x".into())),
        any::<bool>().prop_map(Value::Bool),
        Just(Value::Null),
    ]
}

fn document() -> impl Strategy<Value = Option<Document>> {
    let fields = (prop::option::of(value()), prop::option::of(value()), prop::option::of(value()), any::<bool>());
    prop::option::of(fields.prop_map(|(a, b, k, deleted)| {
        let mut fields = Object::default();
        for (key, value) in [("a", a), ("b", b)] {
            if let Some(value) = value {
                fields.insert(key, value);
            }
        }
        if let Some(value) = k {
            fields.insert("m", [("k", value)].into_iter().collect::<Object>());
        }
        let mut clock = HlcClock::new(SiteId::new(1), Hlc::ZERO, Arc::new(ManualClock::new(1000)));
        let nothing = Document::new();
        let mut editor = Editor::new(&nothing, &mut clock);
        editor.insert(&fields, ObjectMode::Map).unwrap();
        if deleted {
            editor.delete();
        }
        editor.finish().unwrap()
    }))
}

proptest! {
    #[test]
    fn an_index_changes_nothing(
        listeners in prop::collection::vec((0..QUERIES.len(), 0_u64..5, any::<bool>()), 0..30),
        changes in prop::collection::vec((0_u8..3, document(), document()), 1..10),
    ) {
        let all: Vec<Arc<Matcher>> = QUERIES.iter().map(|query| matcher(query)).collect();
        let mut matchers = Matchers::default();
        let mut expected: BTreeSet<(u64, u32)> = BTreeSet::new();
        for (query, session, add) in listeners {
            let listener = (session, u32::try_from(query).unwrap());
            if add {
                matchers.add(&all[query], listener);
                expected.insert(listener);
            } else {
                matchers.remove(&all[query], listener);
                expected.remove(&listener);
            }
        }
        prop_assert_eq!(matchers.is_empty(), expected.is_empty());
        for (id, before, after) in changes {
            let id = DocId::from_value(&Value::String(format!("d{id}").into())).unwrap();
            let after = after.unwrap_or_default();
            let mut found = BTreeMap::new();
            matchers.hits(&id, before.as_ref(), &after, |listener, was, is| {
                assert!(found.insert(listener, (was, is)).is_none(), "twice");
            });
            let one_by_one = expected.iter().filter_map(|listener| {
                let matcher = &all[listener.1 as usize];
                let was = before.as_ref().is_some_and(|before| matcher.matches(&id, before));
                let is = matcher.matches(&id, &after);
                (was || is).then_some((*listener, (was, is)))
            });
            prop_assert_eq!(&found, &one_by_one.collect());
        }
    }
}

#[test]
fn equal_subscriptions_share_and_leave_nothing_behind() {
    let mut matchers = Matchers::default();
    let (one, other) = (matcher("SELECT * FROM c WHERE a = 1"), matcher("select *  from c where a = 1"));
    matchers.add(&one, (1, 1));
    matchers.add(&other, (2, 1));
    assert_eq!((matchers.entries.len(), matchers.index.len(), matchers.unindexed.len()), (1, 1, 0));
    matchers.remove(&one, (1, 1));
    matchers.remove(&other, (2, 1));
    assert!(matchers.is_empty() && matchers.index.is_empty() && matchers.by_key.is_empty());
}

#[test]
fn only_a_query_without_condition_is_everything() {
    let everything: Vec<bool> = QUERIES.iter().map(|query| matcher(query).is_everything()).collect();
    assert_eq!(everything.iter().filter(|everything| **everything).count(), 1);
    assert!(everything[0]);
    let restricted = Matcher::new(rules::bind(QUERIES[0], &Object::default()).unwrap(), Allowed::Nothing);
    assert!(!restricted.is_everything());
    assert_ne!(restricted.scope(), matcher(QUERIES[0]).scope());
}
