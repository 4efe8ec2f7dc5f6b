//! Document states: what is accepted is canonical, validating agrees with decoding, and joins keep their laws.
#![no_main]

use bigpeer_crdt::Document;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The input is one state, or two: then a byte tells where the second starts.
    let (split, rest) = data.split_first().unwrap_or((&0, &[]));
    let (first, second) = rest.split_at(rest.len().min(usize::from(*split)));
    let whole = one(data);
    let (a, b) = (one(first), one(second));
    if let (Some(a), Some(b)) = (&a, &b) {
        let mut ab = a.clone();
        ab.join(b);
        let mut ba = b.clone();
        ba.join_encoded(first).unwrap();
        assert_eq!(ab, ba);
        assert_eq!(ab.encode(), ba.encode());
        assert_eq!(Document::decode(&ab.encode()).unwrap(), ab);
        ab.join(a);
        assert_eq!(ab, ba);
    }
    drop(whole);
});

fn one(bytes: &[u8]) -> Option<Document> {
    let header = Document::validate_encoded(bytes);
    let decoded = Document::decode(bytes);
    assert_eq!(header.is_ok(), decoded.is_ok());
    let document = decoded.ok()?;
    assert_eq!(document.encode(), bytes);
    assert_eq!(document.max_hlc(), header.unwrap().max_hlc);
    assert!(document.heap_bytes() <= 64 * bytes.len());
    let visible = document.to_object();
    assert!(document.is_visible() || visible.is_empty());
    for (key, value) in visible.iter() {
        assert_eq!(&document.get(&[key]).unwrap().to_value(), value);
    }
    let mut again = document.clone();
    again.join_encoded(bytes).unwrap();
    assert_eq!(again, document);
    Some(document)
}
