//! Keys of document ids: what is accepted is the one key of its value, and keys order as their values do again.
#![no_main]

use bigpeer_crdt::DocId;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(id) = DocId::from_key(data) else { return };
    let again = DocId::from_value(&id.to_value()).unwrap();
    assert_eq!(again.as_key(), data);
});
