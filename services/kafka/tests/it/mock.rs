//! On the client library's own cluster: what goes over the wire, and what happens when brokers fail. It keeps messages of
//! transactions, whether they are committed or not: what only consumers of committed messages can tell is in `broker.rs`.

use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use serde_json::json;

use bigpeer_changefeed::Kafka;
use bigpeer_kafka::Librdkafka;

use crate::world::{about_all, check_order, deliver, event, events, numbers, open, opening, read};

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster() -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    for (topic, partitions) in [("t", 3), ("t.dead-letters", 1)] {
        cluster.create_topic(topic, partitions, 1).unwrap();
    }
    cluster
}

#[tokio::test]
async fn messages_carry_key_and_headers_and_stay_in_order() {
    for compression in ["none", "lz4", "gzip", "snappy"] {
        let cluster = cluster();
        let brokers = cluster.bootstrap_servers();
        let (mut topic, committed) = open(&opening(&brokers, "t", json!({"compression": compression}))).await;
        assert_eq!(committed, None);
        let mut all = events(0, 40);
        all.push(about_all(40));
        assert_eq!(deliver(topic.as_mut(), all, 1).await, Ok(Vec::new()));
        deliver(topic.as_mut(), events(41, 60), 2).await.unwrap();
        let got = read(&brokers, "t", 3);
        let (documents, about): (Vec<_>, Vec<_>) = got.into_iter().partition(|got| got.key.is_some());
        assert_eq!(about.len(), 3, "each partition is told of what is about whole collections");
        assert_eq!(documents.len(), 59);
        check_order(&documents);
        let first = &documents[0];
        let header = |name: &str| first.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        assert_eq!(header("bigpeer-event-id"), first.json["id"].as_str().map(str::to_owned));
        assert_eq!(header("bigpeer-collection").as_deref(), Some("cars"));
        assert_eq!(header("bigpeer-type").as_deref(), Some("documentChanged"));
        assert_eq!(header("content-type").as_deref(), Some("application/json"));
        assert_eq!(header("bigpeer-lsn"), Some(format!("{}.0", first.json["n"])));
        assert!(first.key.as_ref().unwrap().starts_with("cars:"));
    }
}

#[tokio::test]
async fn what_is_too_large_for_the_feed_is_told_to_another_topic_and_the_rest_goes_on() {
    let cluster = cluster();
    let brokers = cluster.bootstrap_servers();
    let spec = json!({"maxMessageBytes": 2000, "compression": "none"});
    let (mut topic, _) = open(&opening(&brokers, "t", spec)).await;
    let buried = deliver(topic.as_mut(), vec![event(1, 1, 10), event(2, 2, 5000), event(3, 3, 10)], 1).await.unwrap();
    assert_eq!(buried.len(), 1);
    assert_eq!(buried[0].event, "2.0:0");
    assert_eq!(numbers(&read(&brokers, "t", 3)), [1, 3]);
    let letters = read(&brokers, "t.dead-letters", 1);
    assert_eq!(letters.len(), 1);
    assert_eq!((&letters[0].json["documentId"], letters[0].key.as_deref()), (&json!(2), Some("cars:2")));
    assert!(letters[0].json["reason"].as_str().unwrap().contains("too large"));
    assert_eq!(letters[0].json["cursor"], "2.0");
    let header = |name: &str| letters[0].headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    assert_eq!((header("bigpeer-type"), header("bigpeer-event-id")), (Some("deadLetter"), Some("2.0:0")));
    assert_eq!(header("bigpeer-reason"), letters[0].json["reason"].as_str());
    assert!(deliver(topic.as_mut(), events(4, 10), 2).await.unwrap().is_empty());
}

/// The brokers refuse batches, of which they say only that they are too large.
#[tokio::test]
async fn what_is_too_large_for_the_brokers_takes_nothing_with_it() {
    let cluster = cluster();
    let brokers = cluster.bootstrap_servers();
    let (mut topic, _) = open(&opening(&brokers, "t", json!({}))).await;
    deliver(topic.as_mut(), events(0, 5), 1).await.unwrap();
    let too_large = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    // All of one document: of several, the batch that is refused first need not be that of the first event.
    let of_one = || (5..9).map(|number| event(number, 1, 10)).collect::<Vec<_>>();
    // Once as a batch; then, one by one, the first and no other.
    cluster.request_errors(RDKafkaApiKey::Produce, &[too_large]);
    let sent = topic.send(of_one().into()).await;
    let refused = match sent {
        Ok(()) => topic.commit(2).await.err(),
        Err(error) => Some(error),
    };
    assert!(matches!(refused, Some(bigpeer_changefeed::TopicError::Refused(_))), "{refused:?}");
    cluster.request_errors(RDKafkaApiKey::Produce, &[too_large]);
    let buried = deliver(topic.as_mut(), of_one(), 2).await.unwrap();
    assert_eq!(buried.iter().map(|buried| buried.event.as_str()).collect::<Vec<_>>(), ["5.0:0"]);
    assert!(deliver(topic.as_mut(), events(9, 12), 3).await.unwrap().is_empty());
}

#[tokio::test]
async fn errors_of_brokers_are_waited_out() {
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS as LOADING,
        RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE as NO_COORDINATOR,
        RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION as NO_LEADER, RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT as TIMED_OUT,
    };
    let cluster = cluster();
    let brokers = cluster.bootstrap_servers();
    cluster.request_errors(RDKafkaApiKey::InitProducerId, &[LOADING, NO_COORDINATOR]);
    let (mut topic, _) = open(&opening(&brokers, "t", json!({}))).await;
    for (number, (api, errors)) in [
        (RDKafkaApiKey::Produce, [NO_LEADER, TIMED_OUT]),
        (RDKafkaApiKey::AddPartitionsToTxn, [LOADING, NO_COORDINATOR]),
        (RDKafkaApiKey::AddOffsetsToTxn, [LOADING, NO_COORDINATOR]),
        (RDKafkaApiKey::TxnOffsetCommit, [LOADING, NO_COORDINATOR]),
        (RDKafkaApiKey::EndTxn, [LOADING, NO_COORDINATOR]),
    ]
    .into_iter()
    .enumerate()
    {
        let from = number as u64 * 10;
        cluster.request_errors(api, &errors);
        deliver(topic.as_mut(), events(from, from + 10), number as u64 + 1).await.unwrap();
    }
    let got = read(&brokers, "t", 3);
    assert_eq!(numbers(&got), (0..50).collect::<Vec<u64>>());
    check_order(&got);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_is_waited_for() {
    let cluster = cluster();
    let brokers = cluster.bootstrap_servers();
    let (mut topic, _) = open(&opening(&brokers, "t", json!({}))).await;
    deliver(topic.as_mut(), events(0, 10), 1).await.unwrap();
    cluster.broker_down(1).unwrap();
    let delivering = tokio::spawn(async move { deliver(topic.as_mut(), events(10, 30), 2).await });
    // It does nothing meanwhile.
    assert!(
        tokio::time::timeout(Duration::from_secs(1), async {
            while !delivering.is_finished() {
                tokio::task::yield_now().await
            }
        })
        .await
        .is_err()
    );
    cluster.broker_up(1).unwrap();
    delivering.await.unwrap().unwrap();
    assert_eq!(numbers(&read(&brokers, "t", 3)), (0..30).collect::<Vec<u64>>());
}

#[tokio::test]
async fn who_was_fenced_cannot_commit() {
    let cluster = cluster();
    let brokers = cluster.bootstrap_servers();
    let opening = opening(&brokers, "t", json!({}));
    let (mut first, _) = open(&opening).await;
    deliver(first.as_mut(), events(0, 10), 1).await.unwrap();
    first.send(events(10, 20).into()).await.unwrap();
    let (mut second, _) = open(&opening).await;
    assert!(deliver(first.as_mut(), events(10, 20), 2).await.is_err());
    deliver(second.as_mut(), events(10, 20), 2).await.unwrap();
}

#[tokio::test]
async fn what_is_not_there_is_said() {
    let opening = |brokers: &str, topic: &str| opening(brokers, topic, json!({}));
    let nowhere = Librdkafka.open(opening("127.0.0.1:1", "t")).await.err().unwrap();
    assert!(nowhere.contains("brokers"), "{nowhere}");
}
