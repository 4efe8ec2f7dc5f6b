//! `KafkaSpec`: where a feed's topic is, and how to get there, as an administrator writes it.

use serde::{Deserialize, Serialize};

use crate::feed::Hidden;

/// Where a feed's topic is, and how to get there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaSpec {
    /// Brokers to begin with, as `host:port,host:port`.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// Makes the topic, and the topic for dead letters, if they do not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<CreateTopic>,
    /// How messages are compressed.
    #[serde(default)]
    pub compression: Compression,
    /// Where it is told of events that are too large for the topic; without, `TOPIC.dead-letters`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter_topic: Option<String>,
    /// Largest message, in bytes; not above what the topic takes.
    #[serde(default = "megabyte")]
    pub max_message_bytes: u32,
    /// TLS, and a certificate of our own if the brokers ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// A user and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<Sasl>,
}

/// What a topic is made like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateTopic {
    /// Order is per document; with one partition it is that of the app.
    #[serde(default = "one")]
    pub partitions: u16,
    /// Replicas; without, as the brokers' default says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication: Option<u16>,
    /// How long messages are kept, in milliseconds; without, as the brokers' default says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_ms: Option<u64>,
}

/// How messages are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// Fast.
    #[default]
    Lz4,
    /// Small.
    Gzip,
    /// For old consumers.
    Snappy,
}

/// TLS to the brokers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    /// Certificates of the authorities to trust, as PEM; without, the machine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// A certificate of our own, as PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Its key, as PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Hidden>,
}

/// A user and password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sasl {
    /// How the password is shown to the brokers.
    pub mechanism: Mechanism,
    /// The user.
    pub username: String,
    /// The password.
    pub password: Hidden,
}

/// How a password is shown to the brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mechanism {
    /// As it is; only over TLS.
    #[serde(rename = "PLAIN")]
    Plain,
    /// By proof.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// By proof.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

const fn one() -> u16 {
    1
}
const fn megabyte() -> u32 {
    1_000_000
}

fn is_topic(text: &str) -> bool {
    (1..=240).contains(&text.len())
        && !matches!(text, "." | "..")
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// One of `host:port`.
fn is_broker(text: &str) -> bool {
    let parts = text.trim().rsplit_once(':');
    parts.is_some_and(|(host, port)| !host.is_empty() && !host.contains("//") && port.parse::<u16>().is_ok())
}

impl KafkaSpec {
    /// In an order that never changes: what is hidden is kept by its place.
    pub(crate) fn secrets(&mut self) -> [Option<&mut Hidden>; 2] {
        let key = self.tls.as_mut().and_then(|tls| tls.key.as_mut());
        [key, self.sasl.as_mut().map(|sasl| &mut sasl.password)]
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        if !self.brokers.split(',').all(is_broker) {
            return Err("'brokers' must be host:port, or several with commas between".to_owned());
        }
        for topic in [&self.topic, &self.dead_letter_topic()] {
            if !is_topic(topic) {
                return Err(format!("'{topic}' is not a topic; use 1 to 240 of a-z, A-Z, 0-9, '.', '_' and '-'"));
            }
        }
        if self.topic == self.dead_letter_topic() {
            return Err("'deadLetterTopic' must be another topic than 'topic'".to_owned());
        }
        if !(1_000..=64_000_000).contains(&self.max_message_bytes) {
            return Err("'maxMessageBytes' must be 1000 to 64000000".to_owned());
        }
        if self.create.as_ref().is_some_and(|create| !(1..=1000).contains(&create.partitions)) {
            return Err("'partitions' must be 1 to 1000".to_owned());
        }
        match &self.sasl {
            Some(sasl) if sasl.mechanism == Mechanism::Plain && self.tls.is_none() => {
                return Err("PLAIN shows the password to the network: add 'tls', or use SCRAM-SHA-256".to_owned());
            }
            Some(sasl) if sasl.username.is_empty() || sasl.password.expose().is_empty() => {
                return Err("'username' and 'password' must not be empty".to_owned());
            }
            Some(_) | None => {}
        }
        match &self.tls {
            Some(tls) if tls.certificate.is_some() != tls.key.is_some() => {
                Err("'certificate' and 'key' belong together".to_owned())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Where it is told of events that are too large.
    #[must_use]
    pub fn dead_letter_topic(&self) -> String {
        self.dead_letter_topic.clone().unwrap_or_else(|| format!("{}.dead-letters", self.topic))
    }
}
