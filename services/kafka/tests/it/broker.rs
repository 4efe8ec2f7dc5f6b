//! On a real broker, which `BIGPEER_TEST_KAFKA` names (`scripts/test_kafka.py` starts one): what consumers of committed
//! messages see, and what whoever takes over is told.

use bigpeer_changefeed::Kafka;
use bigpeer_kafka::Librdkafka;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::{Value, json};

use crate::world::{check_order, deliver, event, events, numbers, open, opening, read};

fn brokers() -> String {
    std::env::var("BIGPEER_TEST_KAFKA").expect("BIGPEER_TEST_KAFKA names no broker; run scripts/test_kafka.py")
}

#[tokio::test]
#[ignore = "needs a broker: scripts/test_kafka.py"]
async fn topics_are_made_as_asked() {
    let brokers = brokers();
    let create = json!({"create": {"partitions": 5, "retentionMs": 7_200_000}});
    let opening = opening(&brokers, "made", create);
    for _ in 0..2 {
        drop(open(&opening).await);
    }
    let client: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
    let asked = [ResourceSpecifier::Topic("made"), ResourceSpecifier::Topic("made.dead-letters")];
    for config in client.describe_configs(&asked, &AdminOptions::new()).await.unwrap() {
        let config = config.unwrap();
        assert_eq!(config.get("retention.ms").and_then(|entry| entry.value.as_deref()), Some("7200000"));
    }
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
    let metadata = consumer.fetch_metadata(Some("made"), std::time::Duration::from_secs(10)).unwrap();
    assert_eq!(metadata.topics()[0].partitions().len(), 5);
}

#[tokio::test]
#[ignore = "needs a broker: scripts/test_kafka.py"]
async fn only_what_was_committed_is_seen_and_its_number_is_told() {
    let brokers = brokers();
    let opening = opening(&brokers, "committed", json!({"create": {"partitions": 3}}));
    let (mut first, committed) = open(&opening).await;
    assert_eq!(committed, None);
    deliver(first.as_mut(), events(0, 20), 7).await.unwrap();
    // Left open, as by a process that was killed.
    first.send(events(20, 30).into()).await.unwrap();
    assert_eq!(numbers(&read(&brokers, "committed", 3)), (0..20).collect::<Vec<u64>>());
    let (mut second, committed) = open(&opening).await;
    assert_eq!(committed, Some(7));
    assert!(first.commit(8).await.is_err(), "it was fenced");
    deliver(second.as_mut(), events(20, 40), 9).await.unwrap();
    drop(first);
    let (_third, committed) = open(&opening).await;
    assert_eq!(committed, Some(9));
    let got = read(&brokers, "committed", 3);
    assert_eq!(numbers(&got), (0..40).collect::<Vec<u64>>(), "each once");
    check_order(&got);
}

#[tokio::test]
#[ignore = "needs a broker: scripts/test_kafka.py"]
async fn the_limit_of_the_topic_is_asked_for() {
    let brokers = brokers();
    let client: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
    let replication = rdkafka::admin::TopicReplication::Fixed(1);
    let narrow = rdkafka::admin::NewTopic::new("narrow", 2, replication).set("max.message.bytes", "3000");
    client.create_topics(&[narrow], &AdminOptions::new()).await.unwrap();
    let spec = json!({"create": {"partitions": 2}, "compression": "none"});
    let (mut topic, _) = open(&opening(&brokers, "narrow", spec)).await;
    let mixed: Vec<_> = (0..60).map(|n| event(n, n as i64, if n % 20 == 10 { 6000 } else { 500 })).collect();
    let buried = deliver(topic.as_mut(), mixed, 1).await.unwrap();
    assert_eq!(buried.len(), 3);
    assert_eq!(numbers(&read(&brokers, "narrow", 2)).len(), 57);
    assert_eq!(read(&brokers, "narrow.dead-letters", 1).len(), 3);
}

/// Behind a gate that asks for a certificate and a password, which `BIGPEER_TEST_KAFKA_GATE` tells of.
#[tokio::test]
#[ignore = "needs a broker: scripts/test_kafka.py"]
async fn whoever_is_not_let_in_is_told_why_also_when_topics_are_to_be_made() {
    let gate = std::env::var("BIGPEER_TEST_KAFKA_GATE").expect("BIGPEER_TEST_KAFKA_GATE tells of no gate");
    let gate: Value = serde_json::from_str(&gate).unwrap();
    let (brokers, user, tls) = (gate["brokers"].as_str().unwrap(), &gate["username"], &gate["tls"]);
    let sink = |mechanism: &str, password: &Value, tls: &Value, create: bool| {
        let sasl = json!({"mechanism": mechanism, "username": user, "password": password});
        let mut sink = json!({"tls": tls, "sasl": sasl});
        if create {
            sink["create"] = json!({"partitions": 1});
        }
        opening(brokers, "gated", sink)
    };
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"] {
        let (mut topic, _) = open(&sink(mechanism, &gate["password"], tls, true)).await;
        deliver(topic.as_mut(), events(0, 5), 1).await.unwrap();
        for create in [true, false] {
            let wrong = Librdkafka.open(sink(mechanism, &json!("open barley"), tls, create)).await.err().unwrap();
            assert!(wrong.contains("authentication failed"), "{mechanism}: {wrong}");
            assert!(!wrong.contains("barley"), "{wrong}");
        }
    }
    // A certificate of authorities that are not trusted.
    let stranger = Librdkafka.open(sink("PLAIN", &gate["password"], &json!({}), true)).await.err().unwrap();
    assert!(stranger.contains("TLS failed"), "{stranger}");
}
