//! `WebhookSpec`: where a feed's receiver is, and how events get there, as an administrator writes it.

use bigpeer_chassis::outbound_url;
use serde::{Deserialize, Serialize};

use crate::feed::Hidden;

/// Shortest secret, in bytes.
const MIN_SECRET_BYTES: usize = 16;

/// Where a webhook goes, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebhookSpec {
    /// Where to.
    pub url: String,
    /// What requests are signed with; two while one is changed, the new one first.
    pub secrets: Vec<Hidden>,
    /// Most events in one request; 1: each by itself, as an object, else as an array.
    #[serde(default = "one")]
    pub batch: u16,
    /// Requests at once.
    #[serde(default = "sixteen")]
    pub concurrency: u16,
    /// How long a request may take, in seconds.
    #[serde(default = "thirty")]
    pub timeout_secs: u64,
    /// How often an event is tried that the receiver refuses, or fails on while it takes others.
    #[serde(default = "ten")]
    pub max_attempts: u32,
    /// How long an event is tried, in seconds, whatever the receiver does.
    #[serde(default = "day")]
    pub give_up_after_secs: u64,
}

const fn one() -> u16 {
    1
}
const fn sixteen() -> u16 {
    16
}
const fn thirty() -> u64 {
    30
}
const fn ten() -> u32 {
    10
}
const fn day() -> u64 {
    24 * 3600
}

impl WebhookSpec {
    pub(crate) fn check(&self) -> Result<(), String> {
        // Whether it may go there is the server's to say, not the feed's.
        outbound_url("url", &self.url, true)?;
        if !(1..=2).contains(&self.secrets.len()) {
            return Err("'secrets' must hold one secret, or two while one is changed".to_owned());
        }
        if self.secrets.iter().any(|secret| !secret.is_kept() && secret.expose().len() < MIN_SECRET_BYTES) {
            return Err(format!("a secret must have at least {MIN_SECRET_BYTES} bytes"));
        }
        let range = |what: &str, value: u64, from: u64, to: u64| {
            if (from..=to).contains(&value) { Ok(()) } else { Err(format!("'{what}' must be {from} to {to}")) }
        };
        range("batch", u64::from(self.batch), 1, 1000)?;
        range("concurrency", u64::from(self.concurrency), 1, 128)?;
        range("timeoutSecs", self.timeout_secs, 1, 120)?;
        range("maxAttempts", u64::from(self.max_attempts), 1, 1000)?;
        range("giveUpAfterSecs", self.give_up_after_secs, 1, 30 * 24 * 3600)
    }
}
