//! S3, and what speaks its protocol.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bigpeer_types::Clock;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut, S3CopyIfNotExists};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use super::sign::AttachmentSigner;
use super::{ObjectsError, ObjectsSettings, credentials};

/// How S3 is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Settings {
    /// The server, for what is not Amazon's: `https://minio.example:9000`. None finds Amazon's by region.
    pub endpoint: Option<String>,
    /// The region. None takes it from the environment or the profile; `us-east-1` where there is none.
    pub region: Option<String>,
    /// Whether the bucket is part of the server's name (`bucket.server/key`) rather than of the path (`server/bucket/key`).
    pub virtual_hosted: bool,
    /// Whether plain HTTP is allowed. Requests are signed, bodies are readable to everyone on the way.
    pub allow_http: bool,
    /// How objects are encrypted where they are stored.
    pub encryption: S3Encryption,
    /// Longest time for one attempt of one request, its body included.
    pub request_timeout: Duration,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// How often a request is repeated that failed for a reason that may pass.
    pub retries: usize,
    /// Longest time over all attempts of a request.
    pub retry_timeout: Duration,
    /// Most requests a second, repetitions included; none for no limit.
    pub requests_per_second: Option<u32>,
}

/// How S3 encrypts objects where it stores them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum S3Encryption {
    /// As the bucket's own settings say.
    #[default]
    Bucket,
    /// With keys that S3 manages (SSE-S3, AES-256).
    S3,
    /// With a key of the key management service (SSE-KMS), by its id; none takes the account's default key.
    Kms {
        /// The key.
        key: Option<String>,
        /// Whether one key for the bucket spares a request to the key service for each object.
        bucket_key: bool,
    },
}

impl Default for S3Settings {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            virtual_hosted: false,
            allow_http: false,
            encryption: S3Encryption::default(),
            request_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            retries: 8,
            retry_timeout: Duration::from_secs(90),
            requests_per_second: None,
        }
    }
}

pub(super) async fn connect(
    bucket: &str,
    prefix: &Path,
    settings: &ObjectsSettings,
) -> Result<(Arc<dyn ObjectStore>, AttachmentSigner), ObjectsError> {
    let s3 = &settings.s3;
    if s3.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://")) && !s3.allow_http {
        let problem = "the S3 endpoint is plain http: use https, or allow it (--s3-allow-http) where nobody listens in";
        return Err(ObjectsError::Settings(problem.to_owned()));
    }
    let client = ClientOptions::new()
        .with_allow_http(s3.allow_http)
        .with_timeout(s3.request_timeout)
        .with_connect_timeout(s3.connect_timeout);
    let retry = RetryConfig {
        // Pauses grow from 100 ms, each chosen at random between the first and three times the last.
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(15),
            base: 3.0,
        },
        max_retries: s3.retries,
        retry_timeout: s3.retry_timeout,
    };
    let budget = s3.requests_per_second.map(|rate| Arc::new(Budget::new(rate, Arc::clone(&settings.clock))));
    let mut builder = credentials::find(&|name| std::env::var(name).ok(), s3.region.as_deref(), &settings.clock)
        .await?
        .with_bucket_name(bucket)
        .with_client_options(client)
        .with_retry(retry)
        .with_virtual_hosted_style_request(s3.virtual_hosted)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_copy_if_not_exists(S3CopyIfNotExists::Multipart)
        .with_http_connector(Connector { budget });
    if let Some(endpoint) = &s3.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    builder = match &s3.encryption {
        S3Encryption::Bucket => builder,
        S3Encryption::S3 => encrypted(builder, "AES256"),
        S3Encryption::Kms { key: Some(key), bucket_key } => {
            builder.with_sse_kms_encryption(key).with_bucket_key(*bucket_key)
        }
        S3Encryption::Kms { key: None, bucket_key } => encrypted(builder, "aws:kms").with_bucket_key(*bucket_key),
    };
    let store = builder.build().map_err(|error| ObjectsError::Settings(format!("S3 cannot be set up: {error}")))?;
    let signer = AttachmentSigner { store: store.clone(), prefix: prefix.clone() };
    if prefix.as_ref().is_empty() {
        return Ok((Arc::new(store), signer));
    }
    Ok((Arc::new(PrefixStore::new(store, prefix.clone())), signer))
}

fn encrypted(builder: AmazonS3Builder, kind: &str) -> AmazonS3Builder {
    match "aws_server_side_encryption".parse::<AmazonS3ConfigKey>() {
        Ok(key) => builder.with_config(key, kind),
        // A key that the crate itself documents.
        Err(_) => builder,
    }
}

/// Makes clients that keep to the budget and count what is really sent, repetitions included.
#[derive(Debug)]
struct Connector {
    budget: Option<Arc<Budget>>,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Metered { inner, budget: self.budget.clone() }))
    }
}

#[derive(Debug)]
struct Metered {
    inner: HttpClient,
    budget: Option<Arc<Budget>>,
}

#[async_trait]
impl HttpService for Metered {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if let Some(budget) = &self.budget {
            budget.take().await;
        }
        let method = match request.method().as_str() {
            "GET" => "get",
            "PUT" => "put",
            "POST" => "post",
            "DELETE" => "delete",
            "HEAD" => "head",
            _ => "other",
        };
        let result = self.inner.execute(request).await;
        crate::metrics::attempt(method, result.as_ref().ok().map(|response| response.status().as_u16()));
        result
    }
}

/// A number of requests a second. Who comes too early waits; what was not used for a second is lost.
#[derive(Debug)]
struct Budget {
    each: Duration,
    clock: Arc<dyn Clock>,
    /// When the next request may go.
    next: Mutex<Duration>,
}

impl Budget {
    fn new(per_second: u32, clock: Arc<dyn Clock>) -> Self {
        Self { each: Duration::from_secs(1) / per_second.max(1), clock, next: Mutex::default() }
    }

    /// How long to wait for a turn that is taken by this call.
    fn book(&self) -> Duration {
        let now = self.clock.monotonic();
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (*next).max(now.saturating_sub(Duration::from_secs(1)));
        *next = turn + self.each;
        turn.saturating_sub(now)
    }

    async fn take(&self) {
        let wait = self.book();
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigpeer_types::ManualClock;

    #[test]
    fn a_budget_lets_a_burst_of_a_second_go_and_then_one_at_a_time() {
        let clock = Arc::new(ManualClock::new(60_000));
        let budget = Budget::new(10, Arc::clone(&clock) as _);
        let waits: Vec<u128> = (0..13).map(|_| budget.book().as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 200]);
        clock.advance(300);
        assert_eq!(budget.book(), Duration::ZERO);
        clock.advance(60_000);
        assert!((0..11).all(|_| budget.book().is_zero()), "an hour's pause gives one burst");
        assert!(!budget.book().is_zero());
    }
}
