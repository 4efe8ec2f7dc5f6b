//! Keys against a comparison of values that knows nothing of keys.
#![allow(
    clippy::wildcard_enum_match_arm,
    clippy::cast_possible_truncation,
    reason = "an oracle says what it means, not what else there is"
)]

use std::cmp::Ordering;

use proptest::prelude::*;

use super::*;

/// Compares two numbers exactly: integers and floats by numeric value.
fn compare_numbers(a: &Value, b: &Value) -> Ordering {
    let parts = |value: &Value| match value {
        Value::Int(number) => (i128::from(*number), 0.0),
        Value::UInt(number) => (i128::from(*number), 0.0),
        Value::Float(number) if number.abs() < 1e30 => (number.trunc() as i128, number.fract()),
        Value::Float(number) => (if *number < 0.0 { i128::MIN } else { i128::MAX }, *number),
        other => panic!("{other:?} is not a number"),
    };
    let (a, b) = (parts(a), parts(b));
    a.0.cmp(&b.0).then(a.1.partial_cmp(&b.1).unwrap())
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(false) => 1,
        Value::Bool(true) => 2,
        Value::Int(_) | Value::UInt(_) | Value::Float(_) => 3,
        Value::String(_) => 4,
        Value::Bytes(_) => 5,
        Value::Array(_) => 6,
        Value::Object(_) => 7,
    }
}

/// The order that keys must have, said without keys.
fn compare(a: &Value, b: &Value) -> Ordering {
    rank(a).cmp(&rank(b)).then_with(|| match (a, b) {
        (Value::Null | Value::Bool(_), _) => Ordering::Equal,
        (Value::String(a), Value::String(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            let differ = a.iter().zip(b).map(|(a, b)| compare(a, b)).find(|order| order.is_ne());
            differ.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Value::Object(a), Value::Object(b)) => {
            let pairs = a.iter().zip(b.iter());
            let differ = pairs.map(|((k, a), (l, b))| k.cmp(l).then_with(|| compare(a, b))).find(|order| order.is_ne());
            differ.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        _ => compare_numbers(a, b),
    })
}

fn numbers() -> impl Strategy<Value = Value> {
    let near = prop_oneof![
        Just(0_i128),
        Just(i128::from(i64::MAX)),
        Just(i128::from(i64::MIN)),
        Just(i128::from(u64::MAX)),
        Just(1 << 52),
        Just(1 << 53),
        (0..64_u32).prop_map(|bits| 1_i128 << bits),
        (0..64_u32).prop_map(|bits| -(1_i128 << bits)),
    ];
    prop_oneof![
        any::<i64>().prop_map(Value::Int),
        (any::<i64>(), 0..64_u32).prop_map(|(number, shift)| Value::Int(number >> shift)),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::Float),
        (any::<i64>(), 0..80_i32).prop_map(|(number, shift)| Value::Float(number as f64 / 2_f64.powi(shift))),
        (near.clone(), -3..=3_i128).prop_map(|(near, by)| {
            let number = near + by;
            let whole = i64::try_from(number).map(Value::Int).ok();
            whole.or_else(|| u64::try_from(number).map(Value::from).ok()).unwrap_or(Value::Float(number as f64))
        }),
        (near, -3..=3_i32).prop_map(|(near, by)| Value::Float(near as f64 + f64::from(by) / 4.0)),
    ]
}

fn ids() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        numbers(),
        numbers(),
        numbers(),
        prop::collection::vec(prop_oneof![Just('\0'), Just('\u{1}'), Just('\u{2}'), Just('a'), Just('ü')], 0..4)
            .prop_map(|chars| Value::from(chars.into_iter().collect::<String>())),
        prop::collection::vec(0..4_u8, 0..4).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    scalar.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::vec(("[\0\u{1}a-b]{0,2}", inner), 0..3)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn key_order_is_the_order_of_ids(a in ids(), b in ids()) {
        let keys = DocId::from_value(&a).unwrap().cmp(&DocId::from_value(&b).unwrap());
        prop_assert_eq!(keys, compare(&a, &b));
    }

    #[test]
    fn numbers_interleave(a in numbers(), b in numbers()) {
        let keys = DocId::from_value(&a).unwrap().cmp(&DocId::from_value(&b).unwrap());
        prop_assert_eq!(keys, compare_numbers(&a, &b));
    }

    #[test]
    fn values_and_keys_round_trip(value in ids()) {
        let id = DocId::from_value(&value).unwrap();
        prop_assert_eq!(compare(&id.to_value(), &value), Ordering::Equal);
        prop_assert_eq!(DocId::from_value(&id.to_value()).unwrap(), id.clone());
        prop_assert_eq!(DocId::from_key(id.as_key()).unwrap(), id);
    }

    #[test]
    fn what_is_accepted_is_the_one_key_of_its_value(
        value in ids(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        noise in prop::collection::vec(any::<u8>(), 0..24),
        cut: prop::sample::Index,
    ) {
        let mut key = DocId::from_value(&value).unwrap().as_key().to_vec();
        for (at, byte) in edits {
            let at = at.index(key.len());
            key[at] = byte;
        }
        let short = &key[..cut.index(key.len())];
        for key in [&key[..], short, &noise[..]] {
            if let Ok(id) = DocId::from_key(key) {
                let again = DocId::from_value(&id.to_value()).unwrap();
                prop_assert_eq!(again.as_key(), key);
            }
        }
    }
}

#[test]
fn floats_that_are_integers_are_those_integers() {
    let id = |value: Value| DocId::from_value(&value).unwrap();
    assert_eq!(id(Value::Float(1.0)), id(Value::Int(1)));
    assert_eq!(id(Value::Float(-0.0)), id(Value::Int(0)));
    assert_eq!(id(Value::Float(2_f64.powi(63))), id(Value::UInt(1 << 63)));
    assert_eq!(id(Value::Float(-(2_f64.powi(63)))), id(Value::Int(i64::MIN)));
    assert_eq!(id(Value::Float(2_f64.powi(64))).to_value(), Value::Float(2_f64.powi(64)));
    assert_eq!(id(Value::UInt(7)), id(Value::Int(7)));
}

#[test]
fn order_of_keys_in_an_object_does_not_matter() {
    let a = Object::from_iter([("a", Value::Int(1)), ("b", Value::Int(2))]);
    let b = Object::from_iter([("b", Value::Int(2)), ("a", Value::Int(1))]);
    assert_eq!(DocId::from_value(&a.into()), DocId::from_value(&b.into()));
}

#[test]
fn what_cannot_be_an_id_is_refused() {
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(DocId::from_value(&Value::Float(number)), Err(DocIdError::NotFinite));
    }
    let longest = "x".repeat(MAX_DOCUMENT_ID_BYTES - 2);
    assert!(DocId::from_value(&longest.clone().into()).is_ok());
    let too_long = DocId::from_value(&format!("{longest}x").into());
    assert_eq!(too_long, Err(DocIdError::TooLong(MAX_DOCUMENT_ID_BYTES + 1)));
    let nested = |depth: usize| (0..depth).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
    assert!(DocId::from_value(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(DocId::from_value(&nested(MAX_DEPTH + 1)), Err(DocIdError::TooDeep));
    let deep_key = [vec![ARRAY; MAX_DEPTH + 1], vec![END; MAX_DEPTH + 1]].concat();
    assert!(DocId::from_key(&deep_key).is_err());
    assert!(DocId::from_key(&deep_key[1..2 * MAX_DEPTH + 1]).is_ok());
    assert!(DocId::from_key(&[]).is_err());
}

#[test]
fn small_ids_have_small_keys() {
    let len = |value: Value| DocId::from_value(&value).unwrap().as_key().len();
    assert_eq!(len(Value::Int(0)), 1);
    assert_eq!(len(Value::Int(200)), 3);
    assert_eq!(len(Value::Int(336_776)), 5);
    assert_eq!(len(Value::from("N14228")), 8);
}
