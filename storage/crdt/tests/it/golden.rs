//! Bytes that were written once. They are never changed: whatever a release of format version 1 wrote must be read, and
//! written again as the same bytes, for ever. `BIGPEER_WRITE_GOLDEN=1` writes files that do not exist yet.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bigpeer_crdt::{Attachment, DocId, Document, Editor, Object, ObjectMode, Transaction, TransactionBuilder, Value};
use bigpeer_types::{CollectionName, Hlc, HlcClock, ManualClock, SiteId};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The bytes of `name`, which are the same as `now` says they are today.
fn golden(name: &str, now: &[u8]) -> Vec<u8> {
    let path = file(name);
    if std::env::var_os("BIGPEER_WRITE_GOLDEN").is_some() && !path.exists() {
        std::fs::write(&path, now).unwrap();
    }
    let golden = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(golden, now, "{name} is written differently now");
    golden
}

fn clock(site: u64, wall: &Arc<ManualClock>) -> HlcClock {
    HlcClock::new(SiteId::new(site), Hlc::ZERO, Arc::<ManualClock>::clone(wall))
}

fn values() -> Object {
    Object::from_iter([
        ("null", Value::Null),
        ("false", Value::Bool(false)),
        ("true", Value::Bool(true)),
        ("small", Value::Int(15)),
        ("int", Value::Int(-1_234_567)),
        ("least", Value::Int(i64::MIN)),
        ("uint", Value::UInt(u64::MAX)),
        ("half", Value::Float(0.5)),
        ("tenth", Value::Float(0.1)),
        ("nan", Value::Float(f64::NAN)),
        ("short", Value::from("Größe")),
        ("long", Value::from("x".repeat(32))),
        ("bytes", Value::from(vec![0_u8, 1, 255])),
        ("array", Value::Array(vec![Value::Int(1), Value::Array(Vec::new()), Value::from("")])),
        ("object", Value::Object(Object::from_iter([("k", Value::Object(Object::new()))]))),
    ])
}

/// Two sites, every slot, removals, a restart, a deletion that lost.
fn everything() -> (Document, Document) {
    let wall = Arc::new(ManualClock::new(1_795_392_000_000));
    let (mut a, mut b) = (clock(1, &wall), clock(0xd1f2_8c44_0b6e_95a7, &wall));
    let mut document = Document::new();
    let mut editor = Editor::new(&document, &mut a);
    editor.insert(&values(), ObjectMode::Map).unwrap();
    editor.set(&["register"], Value::Object(values()), ObjectMode::Register).unwrap();
    document.join(&editor.finish().unwrap());
    let seen_by_b = document.clone();
    wall.advance(1_000);
    let mut editor = Editor::new(&document, &mut a);
    editor.increment(&["counter"], 5).unwrap();
    editor.increment(&["restarted"], -5).unwrap();
    editor.unset(&["object", "k"]).unwrap();
    editor.unset(&["null"]).unwrap();
    editor.delete();
    document.join(&editor.finish().unwrap());
    wall.advance(1_000);
    let mut editor = Editor::new(&seen_by_b, &mut b);
    editor.increment(&["counter"], 7).unwrap();
    editor.restart(&["restarted"], 100).unwrap();
    let metadata = Object::from_iter([("name", Value::from("a.jpg"))]);
    editor.attach(&["attachment"], Attachment { sha256: [7; 32], length: 1 << 30, metadata }).unwrap();
    editor.set(&["map", "of", "maps"], Value::Int(1), ObjectMode::Map).unwrap();
    document.join(&editor.finish().unwrap());
    wall.advance(1_000);
    let mut editor = Editor::new(&document, &mut b);
    editor.set(&["short"], Value::from("later"), ObjectMode::Map).unwrap();
    (document, editor.finish().unwrap())
}

#[test]
fn states_of_version_1() {
    let (state, delta) = everything();
    let deleted = {
        let wall = Arc::new(ManualClock::new(1_795_392_000_000));
        let mut clock = clock(1, &wall);
        let mut editor = Editor::new(&state, &mut clock);
        editor.delete();
        editor.insert(&Object::new(), ObjectMode::Map).unwrap();
        editor.finish().unwrap()
    };
    for (name, document) in [
        ("v1-empty.state", Document::new()),
        ("v1-everything.state", state),
        ("v1-one-field.delta", delta),
        ("v1-reinserted.delta", deleted),
    ] {
        let bytes = golden(name, &document.encode());
        let decoded = Document::decode(&bytes).unwrap();
        assert_eq!(decoded, document, "{name}");
        assert_eq!(decoded.encode(), bytes, "{name}");
    }
}

#[test]
fn what_readers_see_of_version_1() {
    let document = Document::decode(&std::fs::read(file("v1-everything.state")).unwrap()).unwrap();
    let json = serde_json::to_string_pretty(&document.to_object()).unwrap();
    golden("v1-everything.json", json.as_bytes());
}

#[test]
fn transactions_of_version_1() {
    let (state, delta) = everything();
    let mut builder = TransactionBuilder::new();
    let uuid = Value::from("6f1c1f3e-9a54-4c0e-8f3b-2d1f0a9b7c55");
    for (collection, id, change) in
        [("flights", uuid, &delta), ("flights", Value::Int(7), &state), ("Größe", Value::Null, &delta)]
    {
        builder.change(&CollectionName::new(collection).unwrap(), &DocId::from_value(&id).unwrap(), change);
    }
    let bytes = golden("v1.transaction", &builder.finish().unwrap());
    assert_eq!(Transaction::decode(bytes.into()).unwrap().changes().len(), 3);
}

#[test]
fn keys_of_version_1() {
    let mut lines = String::new();
    for (_, value) in values() {
        if let Ok(id) = DocId::from_value(&value) {
            let key: String = id.as_key().iter().map(|byte| format!("{byte:02x}")).collect();
            lines.push_str(&format!("{key} {value:?}\n"));
            assert_eq!(DocId::from_key(id.as_key()).unwrap().to_value(), value);
        }
    }
    golden("v1-keys.txt", lines.as_bytes());
}
