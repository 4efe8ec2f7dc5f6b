//! Transactions: what goes in comes out, as slices, in one canonical order.

use bigpeer_crdt::{
    DecodeErrorKind, DocId, Document, ObjectMode, Transaction, TransactionBuilder, TransactionTooLarge, Value, Writers,
};
use bigpeer_types::limits::{MAX_DOCUMENT_BYTES, MAX_TRANSACTION_BYTES, MAX_TRANSACTION_CHANGES};
use bigpeer_types::{CollectionName, SiteId};
use bytes::Bytes;
use proptest::prelude::*;

use crate::world::{Edit, Site, edits};

fn id(value: impl Into<Value>) -> DocId {
    DocId::from_value(&value.into()).unwrap()
}

fn name(text: &str) -> CollectionName {
    CollectionName::new(text).unwrap()
}

fn delta(site: u64, value: Value) -> Document {
    Site::new(site).edit(&[Edit::Set(vec!["f"], value, ObjectMode::Map)]).unwrap()
}

proptest! {
    #[test]
    fn changes_round_trip_as_slices(
        changes in prop::collection::vec(("[a-c]", "[0-3]|[0-9a-f]{15,19}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", edits()), 0..20)
    ) {
        let mut builder = TransactionBuilder::new();
        let mut site = Site::new(9);
        let mut expected: std::collections::BTreeMap<(CollectionName, DocId), Document> = Default::default();
        let mut max = bigpeer_types::Hlc::ZERO;
        for (collection, key, edit) in changes {
            let Some(delta) = site.edit(&[edit]) else { continue };
            let (collection, id) = (name(&collection), id(key));
            builder.change(&collection, &id, &delta);
            max = max.max(delta.max_hlc());
            expected.entry((collection, id)).or_default().join(&delta);
        }
        prop_assert_eq!(builder.len(), expected.len());
        let about = builder.encoded_bytes();
        let encoded = builder.finish().unwrap();
        prop_assert!(encoded.len() <= about);
        let transaction = Transaction::decode(encoded.clone()).unwrap();
        prop_assert_eq!(transaction.encoded(), &encoded);
        prop_assert_eq!(transaction.changes().len(), expected.len());
        for (change, ((collection, id), delta)) in transaction.changes().iter().zip(&expected) {
            prop_assert_eq!((&change.collection, &change.id), (collection, id));
            prop_assert_eq!(&Document::decode(&change.delta).unwrap(), delta);
            let within = encoded.as_ptr_range();
            prop_assert!(within.contains(&change.delta.as_ptr()), "a slice, not a copy");
        }
        prop_assert_eq!(transaction.max_hlc(), max);
    }
}

#[test]
fn ids_that_say_bytes_in_hexadecimal_take_these_bytes() {
    let len = |key: &str| {
        let mut builder = TransactionBuilder::new();
        builder.change(&name("c"), &id(key), &delta(1, Value::Null));
        let encoded = builder.finish().unwrap();
        assert_eq!(Transaction::decode(encoded.clone()).unwrap().changes()[0].id, id(key));
        encoded.len()
    };
    let one_letter = len("x");
    assert_eq!(len("6f1c1f3e-9a54-4c0e-8f3b-2d1f0a9b7c55"), one_letter + 17 - 4);
    assert_eq!(len("6F1c1f3e-9a54-4c0e-8f3b-2d1f0a9b7c55"), one_letter + 35);
    assert_eq!(len("6f1c1f3e-9a54-4c0e-8f3b-2d1f0a9b7c5-"), one_letter + 35);
    assert_eq!(len("507f191e810c19729de860ea"), one_letter + 14 - 4);
    assert_eq!(len("507f191e810c19729de860eA"), one_letter + 23);
    assert_eq!(len("507f191e810c19729de860e"), one_letter + 22);
    assert_eq!(len("0123456789abcd"), one_letter + 13);
    assert_eq!(len("0123456789abcdef"), one_letter + 10 - 4);
    assert_eq!(len(&"0".repeat(1022)), one_letter + 1 + 2 + 511 - 4);
}

#[test]
fn writers_are_told() {
    let of = |deltas: &[Document]| {
        let mut builder = TransactionBuilder::new();
        deltas.iter().for_each(|delta| builder.change(&name("c"), &id(1), delta));
        Transaction::decode(builder.finish().unwrap()).unwrap().writers()
    };
    assert_eq!(of(&[]), Writers::Nobody);
    assert_eq!(of(&[delta(7, Value::Null)]), Writers::One(SiteId::new(7)));
    // A register of each, at keys of their own.
    let other = Site::new(8).edit(&[Edit::Set(vec!["g"], Value::Null, ObjectMode::Map)]).unwrap();
    assert_eq!(of(&[delta(7, Value::Null), other]), Writers::Several);
}

#[test]
fn limits_hold_in_both_directions() {
    let mut builder = TransactionBuilder::new();
    let small = delta(1, Value::Null);
    for number in 0..=i64::try_from(MAX_TRANSACTION_CHANGES).unwrap() {
        builder.change(&name("c"), &id(number), &small);
    }
    assert_eq!(builder.finish(), Err(TransactionTooLarge::Changes(MAX_TRANSACTION_CHANGES + 1)));

    let mut builder = TransactionBuilder::new();
    builder.change(&name("c"), &id(1), &delta(1, "x".repeat(MAX_DOCUMENT_BYTES).into()));
    assert!(matches!(builder.finish(), Err(TransactionTooLarge::Document(len)) if len > MAX_DOCUMENT_BYTES));

    let mut builder = TransactionBuilder::new();
    for number in 0..2 {
        builder.change(&name("c"), &id(number), &delta(1, "x".repeat(MAX_DOCUMENT_BYTES - 100).into()));
    }
    assert!(matches!(builder.finish(), Err(TransactionTooLarge::Bytes(len)) if len > MAX_TRANSACTION_BYTES));

    let long = Transaction::decode(Bytes::from(vec![1; MAX_TRANSACTION_BYTES + 1])).unwrap_err();
    assert_eq!(long.kind, DecodeErrorKind::TooLarge(MAX_TRANSACTION_BYTES));
}

#[test]
fn errors_point_into_the_transaction() {
    let mut builder = TransactionBuilder::new();
    builder.change(&name("c"), &id(1), &delta(1, Value::Null));
    let mut bytes = builder.finish().unwrap().to_vec();
    let start = bytes.len() - delta(1, Value::Null).encode().len();
    bytes[start] = 9;
    let error = Transaction::decode(bytes.into()).unwrap_err();
    assert_eq!((error.offset, error.kind), (start, DecodeErrorKind::UnknownVersion(9)));
}
