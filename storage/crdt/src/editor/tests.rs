//! Edits by two sites, and what readers see of them: the outcomes that users may rely on.

use std::sync::Arc;

use bigpeer_types::{Hlc, ManualClock, SiteId};
use serde_json::json;

use super::*;
use crate::visible::Visible;

/// A site with its own copy of one document.
struct Site {
    clock: HlcClock,
    document: Document,
}

impl Site {
    fn new(number: u64) -> Self {
        // The clocks move by ticks alone, so the order of edits is the order in which tests make them.
        Self {
            clock: HlcClock::new(SiteId::new(number), Hlc::ZERO, Arc::new(ManualClock::new(0))),
            document: Document::new(),
        }
    }

    /// Edits at a time later than every edit of `later_than`.
    fn edit(&mut self, at: u64, edit: impl FnOnce(&mut Editor<'_>)) -> Document {
        self.clock.observe(Hlc::new(at, 0));
        let mut editor = Editor::new(&self.document, &mut self.clock);
        edit(&mut editor);
        let delta = editor.finish().unwrap_or_default();
        self.document.join(&delta);
        delta
    }

    fn json(&self) -> serde_json::Value {
        self.document.to_object().to_json()
    }
}

fn object(json: serde_json::Value) -> Object {
    value(json).as_object().unwrap().clone()
}

fn value(json: serde_json::Value) -> Value {
    Value::from_json(json).unwrap()
}

/// Two sites that both have the document `json`, written at time 1.
fn two(json: serde_json::Value) -> (Site, Site) {
    let (mut a, mut b) = (Site::new(1), Site::new(2));
    let delta = a.edit(1, |editor| editor.insert(&object(json), ObjectMode::Map).unwrap());
    b.document.join(&delta);
    (a, b)
}

/// Exchanges states; both must then be equal, in memory and in bytes.
fn sync(a: &mut Site, b: &mut Site) -> serde_json::Value {
    a.document.join_encoded(&b.document.encode()).unwrap();
    b.document.join_encoded(&a.document.encode()).unwrap();
    assert_eq!(a.document, b.document);
    assert_eq!(a.document.encode(), b.document.encode());
    a.json()
}

#[test]
fn a_document_reads_as_it_was_inserted() {
    let json = json!({"a": 1, "b": {"c": [1, 2], "d": {}}, "e": null});
    for mode in [ObjectMode::Map, ObjectMode::Register] {
        let mut a = Site::new(1);
        a.edit(1, |editor| editor.insert(&object(json.clone()), mode).unwrap());
        assert_eq!(a.json(), json);
        assert!(matches!(a.document.get(&["b", "c"]), Some(Visible::Value(Value::Array(_)))));
        assert!(a.document.get(&["b", "x"]).is_none());
        assert!(a.document.get(&["a", "x"]).is_none());
    }
}

#[test]
fn an_empty_document_is_a_document() {
    let mut a = Site::new(1);
    assert!(!a.document.is_visible());
    a.edit(1, |editor| editor.insert(&Object::new(), ObjectMode::Map).unwrap());
    assert!(a.document.is_visible());
    assert_eq!(a.json(), json!({}));
}

#[test]
fn ids_are_not_in_documents() {
    let mut a = Site::new(1);
    a.edit(1, |editor| editor.insert(&object(json!({"_id": 1, "a": {"_id": 2}})), ObjectMode::Map).unwrap());
    assert_eq!(a.json(), json!({"a": {"_id": 2}}));
}

#[test]
fn the_later_write_of_a_field_wins() {
    let (mut a, mut b) = two(json!({"status": "new"}));
    a.edit(10, |editor| editor.set(&["status"], "A".into(), ObjectMode::Map).unwrap());
    b.edit(20, |editor| editor.set(&["status"], "B".into(), ObjectMode::Map).unwrap());
    assert_eq!(sync(&mut a, &mut b), json!({"status": "B"}));
}

#[test]
fn keys_of_maps_merge_and_objects_in_registers_do_not() {
    let (mut a, mut b) = two(json!({"obj": {"a": 1, "b": 1}}));
    a.edit(10, |editor| editor.set(&["obj", "a"], 2.into(), ObjectMode::Map).unwrap());
    b.edit(20, |editor| editor.set(&["obj", "b"], 3.into(), ObjectMode::Map).unwrap());
    assert_eq!(sync(&mut a, &mut b), json!({"obj": {"a": 2, "b": 3}}));
    a.edit(30, |editor| editor.set(&["obj"], value(json!({"a": 10})), ObjectMode::Map).unwrap());
    b.edit(40, |editor| editor.set(&["obj", "b"], 20.into(), ObjectMode::Map).unwrap());
    assert_eq!(sync(&mut a, &mut b), json!({"obj": {"a": 10, "b": 20}}));
    a.edit(50, |editor| editor.set(&["obj"], value(json!({"c": 1})), ObjectMode::Register).unwrap());
    assert_eq!(sync(&mut a, &mut b), json!({"obj": {"c": 1}}));
    b.edit(60, |editor| editor.set(&["obj", "d", "e"], 2.into(), ObjectMode::Map).unwrap());
    assert_eq!(sync(&mut a, &mut b), json!({"obj": {"c": 1, "d": {"e": 2}}}));
    assert!(matches!(a.document.get(&["obj"]), Some(Visible::Value(_))));
}

#[test]
fn a_removal_loses_to_a_later_update_below_it() {
    let (mut a, mut b) = two(json!({"obj": {"a": 1, "b": 2}}));
    a.edit(10, |editor| editor.unset(&["obj"]).unwrap());
    b.edit(20, |editor| editor.set(&["obj", "c"], 5.into(), ObjectMode::Map).unwrap());
    assert_eq!(sync(&mut a, &mut b), json!({"obj": {"c": 5}}));
    a.edit(40, |editor| editor.unset(&["obj"]).unwrap());
    b.edit(30, |editor| editor.set(&["obj", "c"], 6.into(), ObjectMode::Map).unwrap());
    assert_eq!(sync(&mut a, &mut b), json!({}));
}

#[test]
fn a_map_without_keys_is_still_there() {
    let (mut a, mut b) = two(json!({"obj": {"a": 1}}));
    a.edit(10, |editor| editor.unset(&["obj", "a"]).unwrap());
    assert_eq!(sync(&mut a, &mut b), json!({"obj": {}}));
    a.edit(20, |editor| editor.unset(&["obj"]).unwrap());
    b.edit(30, |editor| editor.set(&["obj", "c"], 5.into(), ObjectMode::Map).unwrap());
    sync(&mut a, &mut b);
    a.edit(40, |editor| editor.unset(&["obj", "c"]).unwrap());
    assert_eq!(sync(&mut a, &mut b), json!({"obj": {}}));
}

#[test]
fn a_map_that_is_said_again_does_not_hide_concurrent_keys() {
    let (mut a, mut b) = two(json!({"obj": {}}));
    b.edit(10, |editor| editor.set(&["obj", "b"], 1.into(), ObjectMode::Map).unwrap());
    a.edit(20, |editor| editor.set(&["obj"], value(json!({"a": 1})), ObjectMode::Map).unwrap());
    a.edit(30, |editor| editor.unset(&["obj", "a"]).unwrap());
    assert_eq!(sync(&mut a, &mut b), json!({"obj": {"b": 1}}));
}

#[test]
fn counters_add_up() {
    let (mut a, mut b) = two(json!({}));
    a.edit(10, |editor| editor.increment(&["n"], 5).unwrap());
    b.edit(10, |editor| editor.increment(&["n"], 7).unwrap());
    assert_eq!(sync(&mut a, &mut b), json!({"n": 12}));
    a.edit(20, |editor| editor.increment(&["n"], -20).unwrap());
    b.edit(20, |editor| editor.increment(&["n"], 1).unwrap());
    assert_eq!(sync(&mut a, &mut b), json!({"n": -7}));
    let parts = a.document.root.child("n").unwrap().counter().len();
    assert_eq!(parts, 2, "one contribution per site");
}

#[test]
fn a_restart_voids_what_it_has_not_seen_in_either_order() {
    for (restart, increment) in [(10, 20), (20, 10)] {
        let (mut a, mut b) = two(json!({}));
        a.edit(5, |editor| editor.increment(&["n"], 3).unwrap());
        sync(&mut a, &mut b);
        a.edit(restart, |editor| editor.restart(&["n"], 100).unwrap());
        // The first increment of this site, and one more.
        b.edit(increment, |editor| editor.increment(&["n"], 5).unwrap());
        b.edit(increment, |editor| editor.increment(&["n"], 5).unwrap());
        assert_eq!(sync(&mut a, &mut b), json!({"n": 100}));
        b.edit(30, |editor| editor.increment(&["n"], 5).unwrap());
        assert_eq!(sync(&mut a, &mut b), json!({"n": 105}));
    }
}

#[test]
fn counters_stay_within_their_range() {
    let (mut a, mut b) = two(json!({}));
    a.edit(10, |editor| editor.increment(&["n"], i64::MAX).unwrap());
    b.edit(10, |editor| editor.increment(&["n"], i64::MAX).unwrap());
    assert_eq!(sync(&mut a, &mut b), json!({"n": i64::MAX}));
    a.edit(20, |editor| editor.restart(&["n"], i64::MIN).unwrap());
    assert_eq!(sync(&mut a, &mut b), json!({"n": i64::MIN}));
}

#[test]
fn what_a_field_was_does_not_come_back_when_its_type_changes_twice() {
    let token = Attachment { sha256: [7; 32], length: 3, metadata: Object::new() };
    let (mut a, mut b) = two(json!({"f": {"old": 1}}));
    a.edit(10, |editor| editor.set(&["f"], 5.into(), ObjectMode::Map).unwrap());
    assert_eq!(sync(&mut a, &mut b), json!({"f": 5}));
    a.edit(20, |editor| editor.increment(&["f"], 2).unwrap());
    assert_eq!(sync(&mut a, &mut b), json!({"f": 2}));
    a.edit(30, |editor| editor.set(&["f", "new"], 1.into(), ObjectMode::Map).unwrap());
    assert_eq!(sync(&mut a, &mut b), json!({"f": {"new": 1}}));
    a.edit(40, |editor| editor.attach(&["f"], token.clone()).unwrap());
    assert_eq!(sync(&mut a, &mut b)["f"]["len"], json!(3));
    assert!(matches!(a.document.get(&["f"]), Some(Visible::Attachment(seen)) if *seen == token));
    a.edit(50, |editor| editor.increment(&["f"], 1).unwrap());
    assert_eq!(sync(&mut a, &mut b), json!({"f": 1}));
    a.edit(60, |editor| editor.set(&["f"], value(json!({})), ObjectMode::Map).unwrap());
    assert_eq!(sync(&mut a, &mut b), json!({"f": {}}));
}

#[test]
fn a_map_stays_a_map_when_the_key_goes_that_made_it_newer_than_a_concurrent_counter() {
    let (mut a, mut b) = two(json!({}));
    a.edit(5, |editor| editor.set(&["b", "b"], value(json!({})), ObjectMode::Map).unwrap());
    b.edit(10, |editor| editor.increment(&["b"], 7).unwrap());
    a.edit(20, |editor| editor.increment(&["b", "b", "c"], 1).unwrap());
    assert_eq!(sync(&mut a, &mut b), json!({"b": {"b": {"c": 1}}}));
    a.edit(30, |editor| editor.unset(&["b", "b", "c"]).unwrap());
    assert_eq!(a.json(), json!({"b": {"b": {}}}), "removing a field removes nothing else");
    assert_eq!(sync(&mut a, &mut b), json!({"b": {"b": {}}}));
}

#[test]
fn a_counter_within_an_object_in_a_register_makes_it_a_map() {
    let mut a = Site::new(1);
    let json = json!({"o": {"k": 1, "in": {"n": 4, "m": 2}}});
    a.edit(1, |editor| editor.insert(&object(json), ObjectMode::Register).unwrap());
    a.edit(2, |editor| editor.increment(&["o", "in", "n"], 3).unwrap());
    assert_eq!(a.json(), json!({"o": {"k": 1, "in": {"n": 3, "m": 2}}}));
    a.edit(3, |editor| editor.increment(&["o", "k", "deep"], 1).unwrap());
    assert_eq!(a.json(), json!({"o": {"k": {"deep": 1}, "in": {"n": 3, "m": 2}}}));
    assert_eq!(Document::decode(&a.document.encode()), Ok(a.document.clone()));
}

#[test]
fn removal_within_an_object_in_a_register() {
    let mut a = Site::new(1);
    a.edit(1, |editor| editor.insert(&object(json!({"o": {"k": 1, "l": {"m": 1}}})), ObjectMode::Register).unwrap());
    a.edit(2, |editor| editor.unset(&["o", "l", "m"]).unwrap());
    assert_eq!(a.json(), json!({"o": {"k": 1, "l": {}}}));
    assert!(a.edit(3, |editor| editor.unset(&["o", "x", "m"]).unwrap()).is_empty());
}

#[test]
fn a_later_update_brings_back_the_whole_document() {
    for removal in [false, true] {
        let (mut a, mut b) = two(json!({"color": "red", "size": 1, "shape": "round"}));
        a.edit(10, |editor| editor.delete());
        assert_eq!(a.json(), json!({}));
        assert!(!a.document.is_visible() && a.document.deleted().is_some());
        b.edit(20, |editor| {
            if removal {
                editor.unset(&["size"]).unwrap();
            } else {
                editor.set(&["color"], "blue".into(), ObjectMode::Map).unwrap();
            }
        });
        let expected = if removal {
            json!({"color": "red", "shape": "round"})
        } else {
            json!({"color": "blue", "size": 1, "shape": "round"})
        };
        assert_eq!(sync(&mut a, &mut b), expected);
    }
}

#[test]
fn a_later_deletion_beats_an_update() {
    let (mut a, mut b) = two(json!({"color": "red"}));
    b.edit(10, |editor| editor.set(&["color"], "blue".into(), ObjectMode::Map).unwrap());
    a.edit(20, |editor| editor.delete());
    sync(&mut a, &mut b);
    assert!(!a.document.is_visible());
    assert!(a.document.get(&["color"]).is_none());
}

#[test]
fn an_insertion_over_a_seen_deletion_starts_from_nothing() {
    let (mut a, mut b) = two(json!({"color": "red", "size": 1}));
    a.edit(10, |editor| editor.delete());
    sync(&mut a, &mut b);
    a.edit(20, |editor| editor.insert(&object(json!({"color": "blue"})), ObjectMode::Map).unwrap());
    assert_eq!(a.json(), json!({"color": "blue"}));
    assert_eq!(sync(&mut a, &mut b), json!({"color": "blue"}));
    // What was deleted and replaced stays gone when a copy of it arrives again.
    let (old, _) = two(json!({"color": "red", "size": 1}));
    a.document.join(&old.document);
    assert_eq!(a.json(), json!({"color": "blue"}));
}

#[test]
fn concurrent_insertions_of_one_id_are_united() {
    let (mut a, mut b) = (Site::new(1), Site::new(2));
    a.edit(10, |editor| editor.insert(&object(json!({"a": 1, "both": "a"})), ObjectMode::Map).unwrap());
    b.edit(20, |editor| editor.insert(&object(json!({"b": 2, "both": "b"})), ObjectMode::Map).unwrap());
    assert_eq!(sync(&mut a, &mut b), json!({"a": 1, "b": 2, "both": "b"}));
}

#[test]
fn changes_of_one_editor_compose() {
    let mut a = Site::new(1);
    let delta = a.edit(1, |editor| {
        editor.insert(&object(json!({"a": 1})), ObjectMode::Map).unwrap();
        editor.set(&["a"], 2.into(), ObjectMode::Map).unwrap();
        editor.increment(&["n"], 1).unwrap();
        editor.increment(&["n"], 1).unwrap();
        editor.unset(&["a"]).unwrap();
        assert_eq!(editor.current().to_object().to_json(), json!({"n": 2}));
    });
    assert_eq!(a.json(), json!({"n": 2}));
    assert_eq!(delta, a.document);
}

#[test]
fn nothing_changed_is_no_delta() {
    let (mut a, _) = two(json!({"a": 1}));
    let mut editor = Editor::new(&a.document, &mut a.clock);
    editor.unset(&["b"]).unwrap();
    editor.unset(&["a", "b"]).unwrap();
    assert!(editor.finish().is_none());
    let mut editor = Editor::new(&a.document, &mut a.clock);
    editor.delete();
    editor.delete();
    editor.unset(&["a"]).unwrap();
    assert_eq!(editor.finish().unwrap().newest(), None);
}

#[test]
fn what_would_be_too_deep_is_refused_and_the_deepest_decodes() {
    let (mut a, _) = two(json!({}));
    let nested =
        |depth: usize| (0..depth).fold(Value::Null, |inner, _| Value::Object(Object::from_iter([("k", inner)])));
    for mode in [ObjectMode::Map, ObjectMode::Register] {
        a.edit(10, |editor| {
            assert_eq!(editor.set(&["f"], nested(MAX_DEPTH), mode), Err(EditError::TooDeep));
            editor.set(&["f"], nested(MAX_DEPTH - 1), mode).unwrap();
        });
        assert_eq!(Document::decode(&a.document.encode()), Ok(a.document.clone()));
    }
    let deep = vec!["k"; MAX_DEPTH];
    a.edit(20, |editor| {
        assert_eq!(editor.set(&[deep.clone(), vec!["k"]].concat(), 1.into(), ObjectMode::Map), Err(EditError::TooDeep));
        assert_eq!(editor.increment(&[""; 0], 1), Err(EditError::EmptyPath));
        editor.increment(&deep, 1).unwrap();
    });
    assert_eq!(Document::decode(&a.document.encode()), Ok(a.document.clone()));
}

#[test]
fn edits_win_over_everything_seen_whatever_the_clock_says() {
    let (mut a, mut b) = two(json!({"a": 1}));
    a.edit(1_000_000, |editor| editor.set(&["a"], 2.into(), ObjectMode::Map).unwrap());
    sync(&mut a, &mut b);
    b.edit(5, |editor| editor.set(&["a"], 3.into(), ObjectMode::Map).unwrap());
    assert_eq!(sync(&mut a, &mut b), json!({"a": 3}));
}

#[test]
fn a_purge_leaves_nothing_of_the_document() {
    let attachment = Attachment { sha256: [7; 32], length: 3, metadata: Object::new() };
    let mut site = Site::new(1);
    site.edit(1, |edit| {
        edit.insert(&Object::from_iter([("name", Value::from("a secret"))]), ObjectMode::Map).unwrap();
        edit.attach(&["photo"], attachment.clone()).unwrap();
    });
    let text = |document: &Document| String::from_utf8_lossy(&document.encode()).into_owned();
    site.edit(2, |edit| edit.delete());
    assert_eq!(site.document.held_attachments(), [&attachment], "a deletion keeps it");
    assert!(text(&site.document).contains("a secret"));
    let late = site.document.clone();

    site.edit(3, |edit| edit.purge());
    assert!(!site.document.is_visible());
    assert!(site.document.held_attachments().is_empty());
    assert!(!text(&site.document).contains("a secret"));
    assert!(site.document.encode().len() < 32, "{}", site.document.encode().len());
    assert!(site.edit(4, |edit| edit.purge()).is_empty(), "there is nothing left");

    // What was written before, and comes late, is gone as well; a new document starts empty.
    site.document.join(&late);
    assert!(!text(&site.document).contains("a secret"));
    site.edit(5, |edit| edit.insert(&Object::from_iter([("n", Value::Int(1))]), ObjectMode::Map).unwrap());
    assert_eq!(site.json(), json!({"n": 1}));
}
