//! `FeedSpec`: what a feed is to be, as an administrator writes it.

use std::{fmt, mem};

use bigpeer_chassis::Name;
use serde::{Deserialize, Serialize};

use crate::kafka::KafkaSpec;
use crate::source::{Source, Values, compile_sources};
use crate::webhook::WebhookSpec;

/// Longest spec, as JSON: what is stored of it, sealed, has a third more.
const MAX_BYTES: usize = 44 * 1024;

/// What a feed is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FeedSpec {
    /// The API key of the app whose permissions to read the feed has. When the key ends, the feed stops.
    pub owner: Name,
    /// What it is about; empty: everything that its owner may read.
    #[serde(default)]
    pub sources: Vec<Source>,
    /// The envelope of events.
    #[serde(default)]
    pub format: Format,
    /// How values are written.
    #[serde(default)]
    pub values: Values,
    /// Whether a new feed starts with a snapshot.
    #[serde(default)]
    pub snapshot: bool,
    /// The cursor from which a new feed starts; without, and without a snapshot, with what changes from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Where it goes.
    pub sink: SinkSpec,
}

/// The envelope of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// None: the event itself.
    #[default]
    Json,
    /// CloudEvents 1.0, structured mode.
    CloudEvents,
}

impl Format {
    /// The content type of one event.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::CloudEvents => "application/cloudevents+json",
        }
    }

    /// The content type of an array of events.
    #[must_use]
    pub const fn batch_content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::CloudEvents => "application/cloudevents-batch+json",
        }
    }
}

/// Where a feed goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum SinkSpec {
    /// To an HTTP receiver.
    Webhook(WebhookSpec),
    /// To a Kafka topic.
    Kafka(KafkaSpec),
}

impl SinkSpec {
    /// What is never shown, each in its place.
    fn secrets(&mut self) -> Vec<Option<&mut Hidden>> {
        match self {
            Self::Webhook(webhook) => webhook.secrets.iter_mut().map(Some).collect(),
            Self::Kafka(kafka) => kafka.secrets().into(),
        }
    }
}

/// A secret in a spec: never printed, and left out of answers.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(String);

impl Hidden {
    /// What is shown in the place of a secret, and means in a spec that it stays as it was.
    pub const SHOWN: &'static str = "(hidden)";

    /// The secret.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether this stands for the secret that was there before.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.0 == Self::SHOWN
    }

    /// What is shown of it.
    pub(crate) fn shown() -> Self {
        Self(Self::SHOWN.to_owned())
    }
}

impl From<&str> for Hidden {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(…)")
    }
}

impl FeedSpec {
    /// The spec without its secrets, for answers.
    #[must_use]
    pub fn shown(&self) -> Self {
        let mut spec = self.clone();
        spec.sink.secrets().into_iter().flatten().for_each(|secret| *secret = Hidden::shown());
        spec
    }

    /// Puts the secrets of `old` where this has none of its own.
    ///
    /// # Errors
    /// When there is none to keep.
    pub fn keep_secrets(&mut self, old: Option<&Self>) -> Result<(), String> {
        let kept = old.filter(|old| mem::discriminant(&old.sink) == mem::discriminant(&self.sink));
        let mut kept = kept.map(|old| old.sink.clone());
        let mut kept: Vec<Option<&mut Hidden>> = kept.as_mut().map(SinkSpec::secrets).unwrap_or_default();
        for (place, secret) in self.sink.secrets().into_iter().enumerate() {
            let Some(secret) = secret.filter(|secret| secret.is_kept()) else { continue };
            let old = kept.get_mut(place).and_then(Option::as_deref_mut);
            let none = || format!("a secret is '{}', and there is none to keep", Hidden::SHOWN);
            secret.clone_from(old.ok_or_else(none)?);
        }
        Ok(())
    }

    /// Refuses what cannot work.
    ///
    /// # Errors
    /// Says what, and what to do.
    pub fn check(&self) -> Result<(), String> {
        if self.snapshot && self.cursor.is_some() {
            return Err("'snapshot' and 'cursor' both say where the feed starts; leave one out".to_owned());
        }
        let bytes = serde_json::to_vec(self).map_or(usize::MAX, |json| json.len());
        if bytes > MAX_BYTES {
            return Err(format!(
                "the feed has {bytes} bytes of JSON; {MAX_BYTES} are allowed: name fewer or shorter sources"
            ));
        }
        compile_sources(&self.sources)?;
        match &self.sink {
            SinkSpec::Webhook(webhook) => webhook.check(),
            SinkSpec::Kafka(kafka) => kafka.check(),
        }
    }
}
