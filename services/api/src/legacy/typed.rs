//! `serializedAs: latestValuesAndTypes`: each value with what it is.

use bigpeer_crdt::{Document, MapView, Object, Value, Visible};

/// `{"name": {"register": {"value": "John"}}, "orders": {"counter": {"value": 5}}, …}`; the fields of a map are written
/// alike in its `value`.
pub(super) fn fields(document: &Document) -> Value {
    const ROOT: &[&str] = &[];
    match document.get(ROOT) {
        Some(Visible::Map(view)) => Value::Object(map(view)),
        Some(Visible::Value(value)) => value.clone(),
        Some(Visible::Counter(_) | Visible::Attachment(_)) | None => Value::Object(Object::new()),
    }
}

fn map(view: MapView<'_>) -> Object {
    view.iter().map(|(key, visible)| (key, typed(visible))).collect()
}

fn typed(visible: Visible<'_>) -> Value {
    let (kind, value) = match visible {
        Visible::Value(value) => ("register", value.clone()),
        Visible::Counter(number) => ("counter", Value::Int(number)),
        Visible::Map(view) => ("map", Value::Object(map(view))),
        Visible::Attachment(attachment) => ("attachment", attachment.to_value()),
    };
    let inner: Object = [("value", value)].into_iter().collect();
    Value::Object([(kind, Value::Object(inner))].into_iter().collect())
}
