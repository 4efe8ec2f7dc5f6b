//! Events, a topic that was taken over, and what a consumer finds.

use std::sync::Arc;
use std::time::Duration;

use bigpeer_changefeed::{Buried, Event, Kafka, Kind, Opening, Topic, TopicError};
use bigpeer_crdt::{DocId, Value};
use bigpeer_kafka::Librdkafka;
use bigpeer_types::{CollectionName, Lsn};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Headers;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::{Value as Json, json};

/// An event about document `id`, so many bytes long at least.
pub(crate) fn event(number: u64, id: i64, bytes: usize) -> Event {
    let padding = "x".repeat(bytes);
    let name = format!("{number}.0:0");
    Event {
        json: json!({"id": name, "n": number, "padding": padding}).to_string().into(),
        id: name,
        kind: Kind::Changed,
        cursor: format!("{number}.0"),
        key: Some((CollectionName::new("cars").unwrap(), DocId::from_value(&Value::Int(id)).unwrap())),
        lsn: Lsn::new(number, 0),
    }
}

pub(crate) fn events(from: u64, to: u64) -> Vec<Event> {
    (from..to).map(|number| event(number, (number % 7) as i64, 10)).collect()
}

pub(crate) fn about_all(number: u64) -> Event {
    Event { kind: Kind::SnapshotEnd, key: None, ..event(number, 0, 0) }
}

pub(crate) fn opening(brokers: &str, topic: &str, extra: Json) -> Opening {
    let mut spec = json!({"brokers": brokers, "topic": topic});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let producer = format!("bigpeer.app.feed.{topic}");
    Opening { spec: serde_json::from_value(spec).unwrap(), producer, content_type: "application/json" }
}

pub(crate) async fn open(opening: &Opening) -> (Box<dyn Topic>, Option<u64>) {
    Librdkafka.open(opening.clone()).await.unwrap()
}

/// Delivers as a feed does.
pub(crate) async fn deliver(topic: &mut dyn Topic, events: Vec<Event>, number: u64) -> Result<Vec<Buried>, String> {
    let events: Arc<[Event]> = events.into();
    let mut sent = topic.send(Arc::clone(&events)).await;
    for _ in 0..50 {
        let done = match sent {
            Ok(()) => topic.commit(number).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(buried) => return Ok(buried),
            Err(TopicError::Pending(_)) => sent = Ok(()),
            Err(TopicError::Aborted(_) | TopicError::Refused(_)) => sent = topic.send(Arc::clone(&events)).await,
            Err(TopicError::Broken(why)) => return Err(why),
        }
    }
    Err("never done".to_owned())
}

/// A message as a consumer gets it.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) partition: i32,
    pub(crate) key: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) json: Json,
}

/// Everything that a consumer of committed messages finds in a topic now.
pub(crate) fn read(brokers: &str, topic: &str, partitions: i32) -> Vec<Got> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "test")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut at = TopicPartitionList::new();
    for partition in 0..partitions {
        at.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&at).unwrap();
    let (mut out, mut ended) = (Vec::new(), 0);
    while ended < partitions {
        match consumer.poll(Duration::from_secs(20)) {
            Some(Ok(message)) => {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let headers = message.headers().map(|headers| {
                    headers.iter().map(|header| (header.key.to_owned(), text(header.value.unwrap()))).collect()
                });
                out.push(Got {
                    partition: message.partition(),
                    key: message.key().map(text),
                    headers: headers.unwrap_or_default(),
                    json: serde_json::from_slice(message.payload().unwrap()).unwrap(),
                });
            }
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            // One of the brokers was away.
            Some(Err(_)) => {}
            None => panic!("the cluster does not answer"),
        }
    }
    out
}

/// The numbers of what was found, in order.
pub(crate) fn numbers(got: &[Got]) -> Vec<u64> {
    let mut numbers: Vec<u64> = got.iter().map(|got| got.json["n"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

/// Whether each document's messages are in its order, in one partition.
pub(crate) fn check_order(got: &[Got]) {
    for one in got {
        let same: Vec<&Got> = got.iter().filter(|other| other.key == one.key).collect();
        assert!(same.iter().all(|other| other.partition == one.partition), "a document stays in its partition");
        assert!(same.is_sorted_by_key(|other| other.json["n"].as_u64()), "in order");
    }
}
