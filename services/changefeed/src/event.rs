//! `Event`: one thing that a reader is told, as JSON: compatible with the change data capture of Ditto's server, and more.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bigpeer_crdt::{DocId, Object, Value};
use bigpeer_feed_spec::Format;
use bigpeer_types::{AppId, CollectionName, Lsn, SiteId};
use bytes::Bytes;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::lens::Seen;

/// What an event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A document changed.
    Changed,
    /// A document, as it is in a snapshot.
    Snapshot,
    /// Documents of a snapshot follow.
    SnapshotBegin,
    /// The snapshot is whole.
    SnapshotEnd,
    /// Changes were lost to the reader: it has to take what comes next as a snapshot.
    RequeryRequired,
}

impl Kind {
    /// The `type` of the event.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Changed | Self::Snapshot => "documentChanged",
            Self::SnapshotBegin => "snapshotBegin",
            Self::SnapshotEnd => "snapshotEnd",
            Self::RequeryRequired => "requeryRequired",
        }
    }
}

/// One thing that a reader is told.
#[derive(Clone, Debug)]
pub struct Event {
    /// The same whenever it is told again.
    pub id: String,
    /// What it tells.
    pub kind: Kind,
    /// Where the reader stands behind it.
    pub cursor: String,
    /// The document, if it is about one.
    pub key: Option<(CollectionName, DocId)>,
    /// The transaction.
    pub lsn: Lsn,
    /// The event as JSON.
    pub json: Bytes,
}

/// Where a change comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) lsn: Lsn,
    pub(crate) site: SiteId,
    pub(crate) seq: u64,
    pub(crate) time_ms: u64,
}

/// Writes events.
#[derive(Clone, Debug)]
pub struct Encoder {
    format: Format,
    /// What CloudEvents call the source.
    source: String,
}

impl Encoder {
    /// For the readers of `app` called `reader`, such as `feeds/NAME`.
    #[must_use]
    pub fn new(app: &AppId, reader: &str, format: Format) -> Self {
        Self { format, source: format!("/apps/{app}/{reader}") }
    }

    /// A document changed, in the `index`th change of a transaction.
    pub(crate) fn changed(
        &self,
        origin: &Origin,
        index: u32,
        (collection, id): (&CollectionName, &DocId),
        seen: &Seen,
        cursor: String,
    ) -> Event {
        let document_id = id.to_value();
        let image = |object| Image { id: &document_id, object };
        let change = match (&seen.before, &seen.after) {
            (Some(before), None) => Change { method: "remove", value: Some(image(before)), images: None },
            (before, after) => Change {
                method: if before.is_none() { "upsert" } else { "update" },
                value: None,
                images: Some(Images { old_value: before.as_ref().map(image), new_value: after.as_ref().map(image) }),
            },
        };
        let event_id = format!("{}:{index}", origin.lsn);
        let data = Changed {
            id: &event_id,
            txn_id: origin.lsn.version,
            lsn: origin.lsn,
            kind: Kind::Changed.name(),
            collection: collection.as_str(),
            document_id: &document_id,
            change,
            changed_paths: Some(&seen.paths),
            site: Some(origin.site),
            seq: Some(origin.seq),
            time: Some(Time(origin.time_ms)),
            snapshot: None,
            cursor: &cursor,
        };
        let json = self.write(Kind::Changed, &event_id, Some((collection, &document_id)), Some(origin.time_ms), &data);
        Event {
            id: event_id,
            kind: Kind::Changed,
            cursor,
            key: Some((collection.clone(), id.clone())),
            lsn: origin.lsn,
            json,
        }
    }

    /// A document, last changed at `lsn`, as it is in the snapshot `at`.
    pub(crate) fn snapshot(
        &self,
        at: Lsn,
        lsn: Lsn,
        (collection, id): (&CollectionName, &DocId),
        document: &Object,
        cursor: String,
    ) -> Event {
        let document_id = id.to_value();
        let mut event_id = format!("s{at}:");
        URL_SAFE_NO_PAD.encode_string(collection.as_str(), &mut event_id);
        event_id.push('.');
        URL_SAFE_NO_PAD.encode_string(id.as_key(), &mut event_id);
        let new_value = Some(Image { id: &document_id, object: document });
        let change = Change { method: "upsert", value: None, images: Some(Images { old_value: None, new_value }) };
        let data = Changed {
            id: &event_id,
            txn_id: lsn.version,
            lsn,
            kind: Kind::Snapshot.name(),
            collection: collection.as_str(),
            document_id: &document_id,
            change,
            changed_paths: None,
            site: None,
            seq: None,
            time: None,
            snapshot: Some(true),
            cursor: &cursor,
        };
        let json = self.write(Kind::Snapshot, &event_id, Some((collection, &document_id)), None, &data);
        Event { id: event_id, kind: Kind::Snapshot, cursor, key: Some((collection.clone(), id.clone())), lsn, json }
    }

    /// Something about whole collections.
    pub(crate) fn about(&self, kind: Kind, at: Lsn, collections: &[CollectionName], cursor: String) -> Event {
        let mut event_id = format!("{}:{at}", kind.name());
        // A snapshot of other collections at the same position is another one.
        for collection in collections.iter().take(1) {
            let _fits = write!(event_id, ":{}", URL_SAFE_NO_PAD.encode(collection.as_str()));
        }
        let documents = (kind == Kind::RequeryRequired).then_some([]);
        let data = About {
            id: &event_id,
            txn_id: at.version,
            lsn: at,
            kind: kind.name(),
            collections,
            documents,
            cursor: &cursor,
        };
        let json = self.write(kind, &event_id, None, None, &data);
        Event { id: event_id, kind, cursor, key: None, lsn: at, json }
    }

    fn write(
        &self,
        kind: Kind,
        id: &str,
        document: Option<(&CollectionName, &Value)>,
        time_ms: Option<u64>,
        data: &impl Serialize,
    ) -> Bytes {
        let mut out = Vec::with_capacity(512);
        let done = match self.format {
            Format::Json => serde_json::to_writer(&mut out, data),
            Format::CloudEvents => {
                let event = CloudEvent {
                    specversion: "1.0",
                    id,
                    source: &self.source,
                    kind: match kind {
                        Kind::Changed | Kind::Snapshot => "bigpeer.document.changed.v1",
                        Kind::SnapshotBegin => "bigpeer.snapshot.begin.v1",
                        Kind::SnapshotEnd => "bigpeer.snapshot.end.v1",
                        Kind::RequeryRequired => "bigpeer.requery.required.v1",
                    },
                    subject: document.map(|(collection, id)| format!("{collection}/{}", id.to_json())),
                    time: time_ms.map(Time),
                    datacontenttype: "application/json",
                    data,
                };
                serde_json::to_writer(&mut out, &event)
            }
        };
        // Maps with text for keys, into memory: nothing that can fail.
        debug_assert!(done.is_ok());
        out.into()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Changed<'a> {
    id: &'a str,
    txn_id: u64,
    #[serde(serialize_with = "text")]
    lsn: Lsn,
    #[serde(rename = "type")]
    kind: &'static str,
    collection: &'a str,
    document_id: &'a Value,
    change: Change<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed_paths: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    site: Option<SiteId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<bool>,
    cursor: &'a str,
}

#[derive(Serialize)]
struct Change<'a> {
    method: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Image<'a>>,
    #[serde(flatten)]
    images: Option<Images<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Images<'a> {
    old_value: Option<Image<'a>>,
    new_value: Option<Image<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct About<'a> {
    id: &'a str,
    txn_id: u64,
    #[serde(serialize_with = "text")]
    lsn: Lsn,
    #[serde(rename = "type")]
    kind: &'static str,
    collections: &'a [CollectionName],
    /// Always empty; older consumers look for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    documents: Option<[(); 0]>,
    cursor: &'a str,
}

#[derive(Serialize)]
struct CloudEvent<'a, D> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<Time>,
    datacontenttype: &'static str,
    data: &'a D,
}

/// A document with its `_id`.
struct Image<'a> {
    id: &'a Value,
    object: &'a Object,
}

impl Serialize for Image<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.object.len() + 1))?;
        map.serialize_entry("_id", self.id)?;
        for (key, value) in self.object.iter().filter(|(key, _)| *key != "_id") {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// Milliseconds since the epoch, as RFC 3339.
#[derive(Clone, Copy)]
struct Time(u64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match i64::try_from(self.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()) {
            Some(time) => to.collect_str(&format_args!("{time:.3}")),
            None => to.serialize_none(),
        }
    }
}

fn text<S: Serializer>(lsn: &Lsn, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(lsn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(json: serde_json::Value) -> Object {
        Value::from_json(json).unwrap().as_object().unwrap().clone()
    }

    fn event(format: Format, seen: &Seen) -> serde_json::Value {
        let encoder = Encoder::new(&AppId::new("app").unwrap(), "feeds/f", format);
        let origin = Origin { lsn: Lsn::new(7, 1), site: SiteId::new(10), seq: 3, time_ms: 1_700_000_000_123 };
        let (collection, id) = (CollectionName::new("cars").unwrap(), DocId::from_value(&Value::Int(5)).unwrap());
        let event = encoder.changed(&origin, 2, (&collection, &id), seen, "7.1:3".to_owned());
        assert_eq!((event.id.as_str(), event.kind), ("7.1:2", Kind::Changed));
        serde_json::from_slice(&event.json).unwrap()
    }

    fn seen(before: Option<serde_json::Value>, after: Option<serde_json::Value>) -> Seen {
        Seen { before: before.map(object), after: after.map(object), paths: vec!["a".to_owned()] }
    }

    #[test]
    fn a_change_is_told_as_compatible_consumers_expect() {
        let update = event(Format::Json, &seen(Some(json!({"a": 1})), Some(json!({"a": 2}))));
        let expected = json!({
            "id": "7.1:2", "txnId": 7, "lsn": "7.1", "type": "documentChanged", "collection": "cars", "documentId": 5,
            "change": {"method": "update", "oldValue": {"_id": 5, "a": 1}, "newValue": {"_id": 5, "a": 2}},
            "changedPaths": ["a"], "site": "000000000000000a", "seq": 3, "time": "2023-11-14T22:13:20.123Z", "cursor": "7.1:3"
        });
        assert_eq!(update, expected);
        let insert = event(Format::Json, &seen(None, Some(json!({"a": 2}))));
        assert_eq!(insert["change"], json!({"method": "upsert", "oldValue": null, "newValue": {"_id": 5, "a": 2}}));
        let remove = event(Format::Json, &seen(Some(json!({"a": 2})), None));
        assert_eq!(remove["change"], json!({"method": "remove", "value": {"_id": 5, "a": 2}}));
    }

    #[test]
    fn a_cloud_event_carries_the_same() {
        let change = seen(None, Some(json!({"a": 2})));
        let event_json = event(Format::CloudEvents, &change);
        assert_eq!(event_json["data"], event(Format::Json, &change));
        assert_eq!(
            (&event_json["specversion"], &event_json["id"], &event_json["source"], &event_json["subject"]),
            (&json!("1.0"), &json!("7.1:2"), &json!("/apps/app/feeds/f"), &json!("cars/5"))
        );
    }

    #[test]
    fn a_gap_names_the_collections_and_where_to_go_on() {
        let encoder = Encoder::new(&AppId::new("app").unwrap(), "changes", Format::Json);
        let cars = CollectionName::new("cars").unwrap();
        let event = encoder.about(Kind::RequeryRequired, Lsn::new(9, 0), &[cars], "9.0~x".to_owned());
        let json: serde_json::Value = serde_json::from_slice(&event.json).unwrap();
        assert_eq!((&json["type"], &json["txnId"]), (&json!("requeryRequired"), &json!(9)));
        assert_eq!((&json["documents"], &json["collections"]), (&json!([]), &json!(["cars"])));
        assert_eq!(json["cursor"], json!("9.0~x"));
    }
}
