//! What a message looks like: key, headers, value.

use bigpeer_changefeed::Event;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use serde_json::json;

/// What a document is keyed by: all of its events go to one partition.
pub(crate) fn key_of(event: &Event) -> Option<String> {
    event.key.as_ref().map(|(collection, id)| format!("{collection}:{}", id.to_value().to_json()))
}

/// An event's message; `place` comes back with what became of it.
pub(crate) fn record<'a>(
    event: &'a Event,
    (topic, key): (&'a str, Option<&'a str>),
    content_type: &str,
    place: usize,
) -> BaseRecord<'a, str, [u8], usize> {
    let headers = headers(event, event.kind.name(), content_type, None);
    let record = BaseRecord::with_opaque_to(topic, place).payload(&event.json[..]).headers(headers);
    match key {
        Some(key) => record.key(key),
        None => record,
    }
}

fn headers(event: &Event, kind: &str, content_type: &str, reason: Option<&str>) -> OwnedHeaders {
    let collection = event.key.as_ref().map(|(collection, _)| collection.as_str());
    let lsn = event.lsn.to_string();
    let mut headers = OwnedHeaders::new_with_capacity(6);
    for (name, value) in [
        ("bigpeer-event-id", Some(event.id.as_str())),
        ("bigpeer-type", Some(kind)),
        ("bigpeer-collection", collection),
        ("bigpeer-lsn", Some(lsn.as_str())),
        ("bigpeer-reason", reason),
        ("content-type", Some(content_type)),
    ] {
        if value.is_some() {
            headers = headers.insert(Header { key: name, value });
        }
    }
    headers
}

/// The message that tells of an event that is too large; `text` is its [`letter`].
pub(crate) fn letter_record<'a>(
    event: &Event,
    (topic, key): (&'a str, &'a str),
    (text, reason): (&'a str, &str),
    place: usize,
) -> BaseRecord<'a, str, [u8], usize> {
    let headers = headers(event, "deadLetter", "application/json", Some(reason));
    BaseRecord::with_opaque_to(topic, place).key(key).payload(text.as_bytes()).headers(headers)
}

/// Why an event is not in the topic.
pub(crate) fn reason(event: &Event, topic: &str) -> String {
    format!("a message of {} bytes is too large for the topic '{topic}'", event.json.len())
}

/// What is told of an event that is too large: where it would have been, and why it is not.
pub(crate) fn letter(event: &Event, reason: &str) -> String {
    let (collection, id) = match &event.key {
        Some((collection, id)) => (json!(collection.as_str()), id.to_value().to_json()),
        None => (json!(null), json!(null)),
    };
    let letter = json!({
        "id": event.id, "type": event.kind.name(), "collection": collection, "documentId": id,
        "lsn": event.lsn.to_string(), "cursor": event.cursor, "bytes": event.json.len(), "reason": reason,
    });
    letter.to_string()
}
