//! One request to a receiver: signed, without redirects, to public addresses, with a bounded answer.

use std::sync::Arc;
use std::time::Duration;

use bigpeer_chassis::{SIGNATURE, Signer, outbound_client, outbound_url, said};
use bigpeer_types::Clock;
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};

use super::WebhookSpec;

/// Most bytes of an answer that are read; the connection of a longer one is not used again.
const MAX_ANSWER_BYTES: usize = 16 * 1024;
/// Longest wait that a receiver may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was taken.
    Taken(u16),
    /// The receiver is there, and does not want this.
    Refused(u16),
    /// The receiver failed, or wants it later.
    Failed {
        /// Its status, if it answered.
        status: Option<u16>,
        /// When to come again.
        retry_after: Option<Duration>,
        /// For people.
        reason: String,
    },
}

/// Where to, and with what.
#[derive(Clone, Debug)]
pub(crate) struct Poster {
    client: Client,
    url: Url,
    signer: Signer,
    clock: Arc<dyn Clock>,
}

impl Poster {
    /// # Errors
    /// When the URL is not allowed.
    pub(crate) fn new(spec: &WebhookSpec, allow_private: bool, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let url = outbound_url("url", &spec.url, allow_private)?;
        let client = outbound_client(allow_private, Duration::from_secs(spec.timeout_secs))
            .pool_max_idle_per_host(usize::from(spec.concurrency))
            .user_agent(concat!("bigpeer-webhook/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("no HTTP client: {error}"))?;
        let signer = Signer::new(spec.secrets.iter().map(|secret| secret.expose().as_bytes()));
        Ok(Self { client, url, signer, clock })
    }

    /// Sends `body` once.
    pub(crate) async fn post(&self, id: &str, content_type: &'static str, attempt: u32, body: Bytes) -> Answer {
        let signature = self.signer.sign(self.clock.now_ms(), &body);
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, content_type)
            .header(SIGNATURE, signature)
            .header("bigpeer-event-id", id)
            .header("bigpeer-attempt", attempt)
            .body(body);
        match request.send().await {
            Ok(answer) => self.judge(answer).await,
            Err(error) => Answer::Failed { status: None, retry_after: None, reason: said(&error) },
        }
    }

    async fn judge(&self, mut answer: Response) -> Answer {
        let status = answer.status();
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|text| wait(text, self.clock.now_ms()));
        let mut read = 0;
        while read <= MAX_ANSWER_BYTES {
            match answer.chunk().await {
                Ok(Some(chunk)) => read += chunk.len(),
                Ok(None) => break,
                // The status was read, and is what counts; unless it never ends.
                Err(error) if error.is_timeout() => {
                    let reason = "its answer did not end in time".to_owned();
                    return Answer::Failed { status: Some(status.as_u16()), retry_after, reason };
                }
                Err(_) => break,
            }
        }
        drop(answer);
        if status.is_success() {
            return Answer::Taken(status.as_u16());
        }
        let later = status.is_server_error()
            || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS);
        if later {
            let reason = format!("it answered {status}");
            return Answer::Failed { status: Some(status.as_u16()), retry_after, reason };
        }
        // A redirect, too: where it leads was never checked.
        Answer::Refused(status.as_u16())
    }
}

/// What `Retry-After` says: seconds, or a date.
fn wait(text: &str, now_ms: u64) -> Option<Duration> {
    let text = text.trim();
    let wait = match text.parse::<u64>() {
        Ok(secs) => Duration::from_secs(secs),
        Err(_) => {
            let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
            Duration::from_millis(u64::try_from(at.as_millisecond()).ok()?.saturating_sub(now_ms))
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_say_how_long_to_wait() {
        assert_eq!(wait("7", 0), Some(Duration::from_secs(7)));
        assert_eq!(wait("99999999", 0), Some(MAX_RETRY_AFTER));
        assert_eq!(wait("Tue, 14 Nov 2023 22:13:25 GMT", 1_700_000_000_000), Some(Duration::from_secs(5)));
        assert_eq!(wait("Tue, 14 Nov 2023 22:13:25 GMT", 1_800_000_000_000), Some(Duration::ZERO));
        assert_eq!(wait("soon", 0), None);
    }
}
