//! The client library, set up: what every connection to the brokers has in common, and the topics that a feed needs.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bigpeer_changefeed::{Compression, KafkaSpec, Mechanism};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{FromClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;

/// How long the brokers may take for what is asked of them once.
pub(crate) const ASK: Duration = Duration::from_secs(15);
/// How long they are asked at first before it is looked whether something is in the way.
const FIRST_PATIENCE: Duration = Duration::from_millis(500);
/// How long nothing has to come for it to be known that there is nothing more.
const QUIET: Duration = Duration::from_millis(20);
/// How long they may take for what can be done without.
const ASK_BRIEFLY: Duration = Duration::from_secs(3);
/// Bytes of the library's queue, besides the largest message: the transaction that is under way.
const QUEUE_BYTES: u32 = 32 << 20;

/// Remembers what the library tells beside the answers to calls.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    /// Messages that could not be delivered, and why.
    failed: Mutex<Vec<(usize, RDKafkaErrorCode)>>,
    /// What went wrong with a connection last. Calls tell only that time is up.
    trouble: Mutex<Option<Trouble>>,
}

/// What went wrong with a connection.
#[derive(Debug)]
struct Trouble {
    /// Whether the brokers, or this side, will not have the other: that does not pass by waiting.
    is_refusal: bool,
    text: String,
}

impl Deliveries {
    /// What failed since this was last asked.
    pub(crate) fn take_failed(&self) -> Vec<(usize, RDKafkaErrorCode)> {
        std::mem::take(&mut self.failed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// An error, and what lies behind it.
    pub(crate) fn told(&self, error: &KafkaError) -> String {
        match &*self.trouble.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(Trouble { is_refusal: true, text }) => text.clone(),
            Some(Trouble { text, .. }) => format!("{}; {text}", told(error)),
            None => told(error),
        }
    }

    /// Whether waiting does not help.
    fn is_refused(&self) -> bool {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|trouble| trouble.is_refusal)
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, message, "kafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka");
        let (code, reason) = (error.rdkafka_error_code(), reason.chars().take(300).collect::<String>());
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        // That no broker is left follows from what was told before.
        if code == Some(RDKafkaErrorCode::AllBrokersDown) && trouble.is_some() {
            return;
        }
        let (is_refusal, text) = match code {
            Some(RDKafkaErrorCode::Authentication) => (true, format!("authentication failed: {reason}")),
            Some(RDKafkaErrorCode::SSL) => (true, format!("TLS failed: {reason}")),
            _ => (false, reason),
        };
        *trouble = Some(Trouble { is_refusal, text });
    }
}

impl ConsumerContext for Deliveries {}

impl ProducerContext for Deliveries {
    /// The place of the message in its transaction.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, place: usize) {
        if let Err((error, _)) = result
            && let Some(code) = error.rdkafka_error_code()
        {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).push((place, code));
        }
    }
}

/// A library's error without the values that it was given, which may be secret.
pub(crate) fn told(error: &KafkaError) -> String {
    if let KafkaError::ClientConfig(_, why, key, _) = error {
        return format!("the setting {key} is not taken: {why}");
    }
    error.to_string()
}

/// A client of the library.
pub(crate) fn create<C: FromClientConfig>(config: &ClientConfig) -> Result<C, String> {
    config.create().map_err(|error| format!("no Kafka client: {}", told(&error)))
}

/// A client of the library that tells `context`.
pub(crate) fn create_with<X: ClientContext, C: FromClientConfigAndContext<X>>(
    config: &ClientConfig,
    context: X,
) -> Result<C, String> {
    config.create_with_context(context).map_err(|error| format!("no Kafka client: {}", told(&error)))
}

/// What every connection has in common.
pub(crate) fn config(spec: &KafkaSpec) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &spec.brokers).set("client.id", "bigpeer").set("socket.keepalive.enable", "true");
    // Brokers that are back are found soon. The library's own way to begin with new ones forgets who coordinates a group
    // (confluentinc/librdkafka#5511), and waits for ever; whoever waits too long here opens the topic anew.
    config.set("reconnect.backoff.max.ms", "2000").set("metadata.recovery.strategy", "none");
    let protocol = match (&spec.tls, &spec.sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if let Some(tls) = &spec.tls {
        for (name, value) in [("ssl.ca.pem", &tls.ca), ("ssl.certificate.pem", &tls.certificate)] {
            if let Some(value) = value {
                config.set(name, value);
            }
        }
        if let Some(key) = &tls.key {
            config.set("ssl.key.pem", key.expose());
        }
    }
    if let Some(sasl) = &spec.sasl {
        let mechanism = match sasl.mechanism {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
        };
        config.set("sasl.mechanism", mechanism).set("sasl.username", &sasl.username);
        config.set("sasl.password", sasl.password.expose());
    }
    config
}

/// What a producer of transactions has besides; `limit` is the largest message.
pub(crate) fn producer_config(spec: &KafkaSpec, transactional_id: &str, limit: u32) -> ClientConfig {
    let compression = match spec.compression {
        Compression::None => "none",
        Compression::Lz4 => "lz4",
        Compression::Gzip => "gzip",
        Compression::Snappy => "snappy",
    };
    let mut config = config(spec);
    config
        .set("transactional.id", transactional_id)
        .set("enable.idempotence", "true")
        .set("compression.type", compression)
        .set("message.max.bytes", limit.to_string())
        // Of a batch, the brokers compare the whole with their limit.
        .set("batch.size", limit.min(1_000_000).to_string())
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "2")
        .set("batch.num.messages", "20000")
        .set("queue.buffering.max.messages", "100000")
        .set("queue.buffering.max.kbytes", ((QUEUE_BYTES + limit) / 1024).to_string())
        .set("transaction.timeout.ms", "60000");
    config
}

/// Asks the brokers for anything at all, so that what is in the way is told, and soon: a client that makes topics is told
/// nothing, and of others each call takes its whole time. Blocks.
pub(crate) fn reach(spec: &KafkaSpec) -> Result<(), String> {
    let consumer: BaseConsumer<Deliveries> = create_with(&config(spec), Deliveries::default())?;
    let (mut patience, mut waited) = (FIRST_PATIENCE, Duration::ZERO);
    loop {
        // A consumer's question makes no topic.
        let Err(error) = consumer.fetch_metadata(Some(&spec.topic), patience) else { return Ok(()) };
        // What the library has to tell waits to be fetched.
        while consumer.poll(QUIET).is_some() {}
        waited += patience;
        if waited >= ASK || consumer.context().is_refused() {
            return Err(format!("the brokers cannot be reached: {}", consumer.context().told(&error)));
        }
        patience *= 2;
    }
}

fn within(time: Duration) -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(time)).request_timeout(Some(time))
}

fn kept<'a>(topic: NewTopic<'a>, retention_ms: Option<&'a str>) -> NewTopic<'a> {
    match retention_ms {
        Some(ms) => topic.set("retention.ms", ms),
        None => topic,
    }
}

/// Makes the topics that the feed needs and that are missing, if it is to.
pub(crate) async fn make_topics(spec: &KafkaSpec) -> Result<(), String> {
    let Some(wanted) = &spec.create else { return Ok(()) };
    let admin: AdminClient<DefaultClientContext> = create(&config(spec))?;
    let dead = spec.dead_letter_topic();
    let replication = || TopicReplication::Fixed(wanted.replication.map_or(-1, i32::from));
    let retention = wanted.retention_ms.map(|ms| ms.to_string());
    let topics = [
        kept(NewTopic::new(&spec.topic, i32::from(wanted.partitions), replication()), retention.as_deref()),
        kept(NewTopic::new(&dead, 1, replication()), retention.as_deref()),
    ];
    let made = admin.create_topics(&topics, &within(ASK)).await;
    for outcome in made.map_err(|error| format!("the brokers cannot be asked for topics: {}", told(&error)))? {
        match outcome {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            // Somebody else may have made it, who may.
            Err((topic, RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed)) => {
                tracing::debug!(topic, "may not make the topic; it has to be there");
            }
            Err((topic, code)) => return Err(format!("the topic '{topic}' cannot be made: {code}")),
        }
    }
    Ok(())
}

/// The largest message that the topic takes, as far as the brokers tell; never more than the feed's own limit.
pub(crate) async fn message_limit(spec: &KafkaSpec) -> u32 {
    let asked = async {
        let admin: AdminClient<DefaultClientContext> = create(&config(spec)).ok()?;
        let answer =
            admin.describe_configs(&[ResourceSpecifier::Topic(&spec.topic)], &within(ASK_BRIEFLY)).await.ok()?;
        let topic = answer.into_iter().next()?.ok()?;
        topic.get("max.message.bytes")?.value.as_ref()?.parse::<u32>().ok()
    };
    asked.await.map_or(spec.max_message_bytes, |topic| topic.clamp(1_000, spec.max_message_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::producer::BaseProducer;
    use serde_json::json;

    fn spec(extra: serde_json::Value) -> KafkaSpec {
        let mut spec = json!({"brokers": "127.0.0.1:1", "topic": "t"});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn every_setting_is_known_to_the_library() {
        for (extra, protocol) in [
            (json!({}), "plaintext"),
            (json!({"compression": "gzip", "tls": {}}), "ssl"),
            (
                json!({"compression": "snappy", "sasl": {"mechanism": "SCRAM-SHA-256", "username": "u", "password": "p"}}),
                "sasl_plaintext",
            ),
            (
                json!({"compression": "none", "tls": {}, "sasl": {"mechanism": "PLAIN", "username": "u", "password": "p"}}),
                "sasl_ssl",
            ),
            (json!({"tls": {}, "sasl": {"mechanism": "SCRAM-SHA-512", "username": "u", "password": "p"}}), "sasl_ssl"),
        ] {
            for limit in [1_000, 1_000_000, 64_000_000] {
                let config = producer_config(&spec(extra.clone()), "id", limit);
                assert_eq!(config.get("security.protocol"), Some(protocol));
                create::<BaseProducer>(&config).unwrap();
            }
        }
    }

    #[test]
    fn what_is_in_the_way_is_not_hidden_by_what_follows_from_it() {
        let timed_out = KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut);
        let context = Deliveries::default();
        let tell = |code, reason| context.error(KafkaError::Global(code), reason);
        tell(RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down");
        tell(RDKafkaErrorCode::BrokerTransportFailure, "Connection refused");
        tell(RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down");
        assert!(context.told(&timed_out).ends_with("; Connection refused") && !context.is_refused());
        tell(RDKafkaErrorCode::Authentication, "invalid credentials");
        tell(RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down");
        assert_eq!(context.told(&timed_out), "authentication failed: invalid credentials");
        assert!(context.is_refused());
    }

    #[test]
    fn secrets_are_in_no_error() {
        let bad_key = json!({"tls": {"certificate": "not a certificate", "key": "my-secret-key"}});
        let error = create::<BaseProducer>(&config(&spec(bad_key))).err().unwrap();
        assert!(error.contains("ssl.certificate.pem") && !error.contains("my-secret-key"), "{error}");
        let mut config = config(&spec(json!({})));
        config.set("socket.timeout.ms", "my-secret-password");
        let error = create::<BaseProducer>(&config).err().unwrap();
        assert!(error.contains("socket.timeout.ms") && !error.contains("my-secret-password"), "{error}");
    }
}
