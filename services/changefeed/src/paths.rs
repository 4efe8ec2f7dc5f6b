//! Paths in documents: which ones differ between two images, and what is left of a document when only some are wanted.
//! How they are written is `bigpeer-feed-spec`'s to say.

use bigpeer_crdt::{Object, Value};
use bigpeer_feed_spec::Path;

/// Most paths that are told of one change; beyond, the paths above them are.
const MAX_CHANGED: usize = 256;

/// Writes a path.
pub(crate) fn text(path: &Path) -> String {
    let mut out = String::new();
    for key in path {
        if !out.is_empty() {
            out.push('.');
        }
        if key.is_empty() || key.contains(['.', '`']) {
            out.push('`');
            out.push_str(&key.replace('`', "``"));
            out.push('`');
        } else {
            out.push_str(key);
        }
    }
    out
}

/// Whether one is at, below or above the other.
pub(crate) fn meet(a: &Path, b: &Path) -> bool {
    a.iter().zip(b).all(|(a, b)| a == b)
}

/// The paths at which two images differ: the deepest that name all of it. With one image, its fields.
pub(crate) fn changed(before: Option<&Object>, after: Option<&Object>) -> Vec<Path> {
    let mut out = Vec::new();
    let empty = Object::new();
    differ(before.unwrap_or(&empty), after.unwrap_or(&empty), &mut Vec::new(), &mut out);
    if out.len() > MAX_CHANGED {
        out.iter_mut().for_each(|path| path.truncate(1));
        out.dedup();
    }
    out
}

fn differ(before: &Object, after: &Object, at: &mut Path, out: &mut Vec<Path>) {
    let mut step = |key: &str, old: Option<&Value>, new: Option<&Value>| {
        if old == new {
            return;
        }
        at.push(key.into());
        match (old, new) {
            (Some(Value::Object(old)), Some(Value::Object(new))) => differ(old, new, at, out),
            _ => out.push(at.clone()),
        }
        at.pop();
    };
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    loop {
        match (old.peek().copied(), new.peek().copied()) {
            (Some((key, value)), Some((other, changed))) => match key.cmp(other) {
                std::cmp::Ordering::Less => {
                    step(key, Some(value), None);
                    old.next();
                }
                std::cmp::Ordering::Equal => {
                    step(key, Some(value), Some(changed));
                    old.next();
                    new.next();
                }
                std::cmp::Ordering::Greater => {
                    step(other, None, Some(changed));
                    new.next();
                }
            },
            (Some((key, value)), None) => {
                step(key, Some(value), None);
                old.next();
            }
            (None, Some((key, value))) => {
                step(key, None, Some(value));
                new.next();
            }
            (None, None) => return,
        }
    }
}

/// What of a document lies at or below some paths.
pub(crate) fn project(object: &Object, fields: &[Path]) -> Object {
    object
        .iter()
        .filter_map(|(key, value)| {
            let below: Vec<&[Box<str>]> = fields
                .iter()
                .filter_map(|path| path.split_first())
                .filter(|(first, _)| first.as_ref() == key)
                .map(|(_, rest)| rest)
                .collect();
            Some((key, part(value, &below)?))
        })
        .collect()
}

fn part(value: &Value, paths: &[&[Box<str>]]) -> Option<Value> {
    if paths.is_empty() {
        return None;
    }
    if paths.iter().any(|path| path.is_empty()) {
        return Some(value.clone());
    }
    let rest: Vec<Path> = paths.iter().map(|path| path.to_vec()).collect();
    Some(Value::Object(project(value.as_object()?, &rest)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigpeer_feed_spec::parse_path as parse;
    use proptest::prelude::*;
    use serde_json::json;

    fn object(json: serde_json::Value) -> Object {
        Value::from_json(json).unwrap().as_object().unwrap().clone()
    }

    proptest! {
        #[test]
        fn paths_round_trip(keys in prop::collection::vec("[a-z.` ]{0,5}", 1..5)) {
            let path: Path = keys.iter().map(|key| key.as_str().into()).collect();
            prop_assert_eq!(parse(&text(&path)).unwrap(), path);
        }

        #[test]
        fn any_text_is_a_path_or_refused(text in ".{0,20}") {
            let _either = parse(&text);
        }
    }

    #[test]
    fn the_deepest_paths_that_differ_are_named() {
        let before = object(json!({"a": 1, "b": {"c": 1, "d": 2}, "e": [1], "gone": 1, "same": {"x": 1}}));
        let after =
            object(json!({"a": 1, "b": {"c": 2, "d": 2, "f.g": 1}, "e": [1, 2], "new": {"x": 1}, "same": {"x": 1}}));
        let texts = |paths: Vec<Path>| paths.iter().map(text).collect::<Vec<_>>();
        assert_eq!(texts(changed(Some(&before), Some(&after))), ["b.c", "b.`f.g`", "e", "gone", "new"]);
        assert_eq!(texts(changed(None, Some(&object(json!({"b": {"c": 1}, "a": 2}))))), ["a", "b"]);
        assert!(changed(Some(&before), Some(&before)).is_empty());
        let path = |text: &str| parse(text).unwrap();
        assert!(meet(&path("a.b"), &path("a")) && meet(&path("a"), &path("a.b")) && !meet(&path("a.b"), &path("a.c")));
    }

    #[test]
    fn a_projection_keeps_what_was_asked_for() {
        let all = object(json!({"a": 1, "b": {"c": 1, "d": {"e": 1}}, "f": 2}));
        let fields: Vec<Path> = ["a", "b.d", "nothing", "f.x"].iter().map(|text| parse(text).unwrap()).collect();
        assert_eq!(project(&all, &fields), object(json!({"a": 1, "b": {"d": {"e": 1}}})));
    }
}
