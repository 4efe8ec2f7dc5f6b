//! What the encodings may take.

use std::sync::Arc;

use bigpeer_crdt::{DocId, Document, Object, ObjectMode, TransactionBuilder, Value};
use bigpeer_types::{CollectionName, Hlc, HlcClock, ManualClock, SiteId};

use crate::world::{Edit, Site};

fn ten_fields() -> Object {
    Object::from_iter([
        ("carrier", Value::from("UA")),
        ("flight", Value::from(1545)),
        ("tailnum", Value::from("N14228")),
        ("origin", Value::from("EWR")),
        ("dest", Value::from("IAH")),
        ("air_time", Value::from(227)),
        ("distance", Value::from(1400)),
        ("dep_delay", Value::from(2.5)),
        ("cancelled", Value::from(false)),
        ("remarks", Value::Null),
    ])
}

/// A site as the authentication service gives them: any 64 bits.
const SITE: u64 = 0xd1f2_8c44_0b6e_95a7;

#[test]
fn a_delta_of_one_short_field_is_at_most_64_bytes_with_its_id() {
    let mut site = Site::new(SITE);
    site.edit(&[Edit::Insert(ten_fields(), ObjectMode::Map)]);
    let flights = CollectionName::new("flights").unwrap();
    for id in ["6f1c1f3e-9a54-4c0e-8f3b-2d1f0a9b7c55", "507f191e810c19729de860ea", "UA-1545-EWR-2013-01-01"] {
        for value in [Value::from(120), Value::from("delayed"), Value::Null, Value::from(0.1)] {
            let delta = site.edit(&[Edit::Set(vec!["dep_delay"], value.clone(), ObjectMode::Map)]).unwrap();
            let mut builder = TransactionBuilder::new();
            builder.change(&flights, &DocId::from_value(&id.into()).unwrap(), &delta);
            let around = 1 + 1 + 1 + flights.as_str().len() + 1;
            let len = builder.finish().unwrap().len() - around;
            assert!(len <= 64, "{id} {value:?} takes {len} bytes");
        }
    }
}

#[test]
fn a_state_of_ten_fields_is_at_most_twice_its_json() {
    let json = ten_fields().to_json().to_string().len();
    let mut site = Site::new(SITE);
    site.edit(&[Edit::Insert(ten_fields(), ObjectMode::Map)]);
    let fresh = site.document.encode().len();
    assert!(fresh <= json, "{fresh} bytes for {json} of JSON, written at once");
    // Every field was written on its own, by one of five sites.
    let wall = Arc::new(ManualClock::new(1_795_392_000_000));
    let mut document = Document::new();
    for (at, (key, value)) in (0_u64..).zip(ten_fields()) {
        wall.advance(at * 12_345);
        let mut clock = HlcClock::new(SiteId::new(SITE - at % 5), Hlc::ZERO, Arc::<ManualClock>::clone(&wall));
        let mut editor = bigpeer_crdt::Editor::new(&document, &mut clock);
        editor.set(&[key], value, ObjectMode::Map).unwrap();
        document.join(&editor.finish().unwrap());
    }
    let edited = document.encode().len();
    assert!(edited <= 2 * json, "{edited} bytes for {json} of JSON, written piece by piece");
}

#[test]
fn a_loaded_document_of_ten_fields_takes_at_most_1500_bytes() {
    let mut site = Site::new(SITE);
    site.edit(&[Edit::Insert(ten_fields(), ObjectMode::Map)]);
    let loaded = Document::decode(&site.document.encode()).unwrap();
    let bytes = loaded.heap_bytes() + size_of::<Document>();
    assert!(bytes <= 1500, "{bytes}");
}
