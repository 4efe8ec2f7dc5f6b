//! Transactions: what is accepted is exactly what a builder makes of its changes.
#![no_main]

use bigpeer_crdt::{Document, Transaction, TransactionBuilder};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(transaction) = Transaction::decode(Bytes::copy_from_slice(data)) else { return };
    let mut builder = TransactionBuilder::new();
    for change in transaction.changes() {
        let delta = Document::decode(&change.delta).unwrap();
        assert!(delta.max_hlc() <= transaction.max_hlc());
        builder.change(&change.collection, &change.id, &delta);
    }
    assert_eq!(builder.finish().unwrap(), data);
});
