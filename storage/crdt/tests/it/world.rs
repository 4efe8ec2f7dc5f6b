//! Sites that edit one document, each with a clock of its own that is wrong in its own way, and what they edit.

use std::sync::Arc;

use bigpeer_crdt::{Attachment, Document, Editor, Object, ObjectMode, Value, Visible};
use bigpeer_types::{Hlc, HlcClock, ManualClock, SiteId};
use proptest::prelude::*;

/// One edit, as a test strategy makes it.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    Insert(Object, ObjectMode),
    Set(Vec<&'static str>, Value, ObjectMode),
    Unset(Vec<&'static str>),
    Increment(Vec<&'static str>, i64),
    Restart(Vec<&'static str>, i64),
    Attach(Vec<&'static str>, u8),
    Delete,
}

#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) wall: Arc<ManualClock>,
    pub(crate) clock: HlcClock,
    pub(crate) document: Document,
}

impl Site {
    pub(crate) fn new(number: u64) -> Self {
        let wall = Arc::new(ManualClock::new(1_795_392_000_000));
        let clock = HlcClock::new(SiteId::new(number), Hlc::ZERO, Arc::<ManualClock>::clone(&wall));
        Self { wall, clock, document: Document::new() }
    }

    /// Makes one edit, checks that its writer sees what it wrote, and answers the delta.
    pub(crate) fn edit(&mut self, edits: &[Edit]) -> Option<Document> {
        let mut editor = Editor::new(&self.document, &mut self.clock);
        for edit in edits {
            let before = editor.current().clone();
            apply(&mut editor, edit);
            seen(&before, editor.current(), edit);
        }
        let after = editor.current().clone();
        let delta = editor.finish();
        if let Some(delta) = &delta {
            self.document.join(delta);
        }
        assert_eq!(self.document, after, "the delta makes of the state what the editor showed");
        delta
    }
}

fn token(byte: u8) -> Attachment {
    let metadata = Object::from_iter([("name", Value::from("a.jpg"))]);
    Attachment { sha256: [byte; 32], length: u64::from(byte) << 20, metadata }
}

fn apply(editor: &mut Editor<'_>, edit: &Edit) {
    match edit {
        Edit::Insert(fields, mode) => editor.insert(fields, *mode).unwrap(),
        Edit::Set(path, value, mode) => editor.set(path, value.clone(), *mode).unwrap(),
        Edit::Unset(path) => editor.unset(path).unwrap(),
        Edit::Increment(path, by) => editor.increment(path, *by).unwrap(),
        Edit::Restart(path, value) => editor.restart(path, *value).unwrap(),
        Edit::Attach(path, byte) => editor.attach(path, token(*byte)).unwrap(),
        Edit::Delete => editor.delete(),
    }
}

/// What the writer sees after its edit.
fn seen(before: &Document, after: &Document, edit: &Edit) {
    // A change of a deleted document brings back all of it, which `before` does not show.
    let hidden = before.deleted().is_some() && !before.is_visible();
    match edit {
        Edit::Set(..) | Edit::Increment(..) if hidden => assert!(after.is_visible()),
        Edit::Insert(fields, mode) => {
            assert!(after.is_visible());
            for (key, value) in fields.iter() {
                written(after.get(&[key]), value, *mode, before.get(&[key]));
            }
            if !before.is_visible() {
                assert_eq!(&after.to_object(), fields, "an insertion over nothing, or a deletion, is all there is");
            }
        }
        Edit::Set(path, value, mode) => written(after.get(path), value, *mode, before.get(path)),
        Edit::Unset(path) => {
            assert!(after.get(path).is_none());
            assert_eq!(after.is_visible(), before.is_visible(), "removing a field does not remove the document");
            let (_, outer) = path.split_last().unwrap();
            assert_eq!(after.get(outer).is_some(), before.get(outer).is_some(), "nor the map around it");
        }
        Edit::Increment(path, by) => {
            let from = if let Some(Visible::Counter(sum)) = before.get(path) { sum } else { 0 };
            assert!(matches!(after.get(path), Some(Visible::Counter(sum)) if sum == from.saturating_add(*by)));
        }
        Edit::Restart(path, value) => {
            assert!(matches!(after.get(path), Some(Visible::Counter(sum)) if sum == *value));
        }
        Edit::Attach(path, byte) => {
            assert!(matches!(after.get(path), Some(Visible::Attachment(seen)) if *seen == token(*byte)));
        }
        Edit::Delete => assert!(!after.is_visible()),
    }
}

fn written(after: Option<Visible<'_>>, value: &Value, mode: ObjectMode, before: Option<Visible<'_>>) {
    let after = after.expect("what was written is visible").to_value();
    match (value, before, mode) {
        (Value::Object(fields), Some(Visible::Map(_)), ObjectMode::Map) => {
            let Value::Object(after) = after else { panic!("a map is read as an object") };
            for (key, value) in fields.iter() {
                if !matches!(value, Value::Object(_)) {
                    assert_eq!(after.get(key), Some(value), "merged into the map");
                }
            }
        }
        _ => assert_eq!(&after, value),
    }
}

fn paths() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4)
}

pub(crate) fn values() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-3..30_i64).prop_map(Value::Int),
        any::<i64>().prop_map(Value::Int),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::Float),
        any::<f32>().prop_map(|number| Value::Float(f64::from(number))),
        "[a-zü\0]{0,40}".prop_map(Value::from),
        prop::collection::vec(any::<u8>(), 0..5).prop_map(Value::from),
    ];
    scalar.prop_map(Value::normalized).prop_recursive(3, 10, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::vec(("[a-d]", inner), 0..3)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

pub(crate) fn objects() -> impl Strategy<Value = Object> {
    prop::collection::vec(("[a-d]", values()), 0..4).prop_map(|entries| entries.into_iter().collect())
}

pub(crate) fn modes() -> impl Strategy<Value = ObjectMode> {
    prop::sample::select(vec![ObjectMode::Map, ObjectMode::Register])
}

pub(crate) fn edits() -> impl Strategy<Value = Edit> {
    prop_oneof![
        2 => (objects(), modes()).prop_map(|(fields, mode)| Edit::Insert(fields, mode)),
        6 => (paths(), values(), modes()).prop_map(|(path, value, mode)| Edit::Set(path, value, mode)),
        3 => paths().prop_map(Edit::Unset),
        3 => (paths(), -9..9_i64).prop_map(|(path, by)| Edit::Increment(path, by)),
        1 => (paths(), -9..9_i64).prop_map(|(path, value)| Edit::Restart(path, value)),
        1 => (paths(), 0..3_u8).prop_map(|(path, byte)| Edit::Attach(path, byte)),
        1 => Just(Edit::Delete),
    ]
}
