//! `Client`: the admin API over HTTP. Requests are repeated when the server is not ready for them: each may be, as `PUT` and
//! `DELETE` are idempotent. The token and bodies are never printed.

use std::fmt;
use std::time::Duration;

use bigpeer_chassis::{bounded_body, said};
use reqwest::header::RETRY_AFTER;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Method, Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::Value as Json;
use thiserror::Error;

/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(60);
const ATTEMPTS: u32 = 6;
/// Longest pause that the server may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(20);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest answer, in bytes.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// Why there is no answer to what was asked.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// Nobody answered, or not to the end.
    #[error("{endpoint} does not answer: {reason}")]
    Unreachable { endpoint: String, reason: String },
    /// The server says no.
    #[error("{message} ({code}, HTTP {status}{request})")]
    Refused { status: StatusCode, code: String, message: String, request: String },
    /// Somebody answered who does not speak this API.
    #[error("{endpoint} answered {status}, but not as a bigpeer server does; is 'endpoint' right?")]
    Foreign { endpoint: String, status: StatusCode },
}

/// Asks one server.
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    token: String,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

/// The shape of errors.
#[derive(Deserialize)]
struct Refusal {
    error: Inner,
    #[serde(default)]
    request_id: Option<String>,
}

#[derive(Deserialize)]
struct Inner {
    code: String,
    message: String,
}

/// Reads the address of a server.
pub(crate) fn endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("'endpoint' is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() || url.query().is_some() {
        return Err("'endpoint' must be http://HOST:PORT or https://HOST:PORT".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("'endpoint' must not hold a name or password; the admin token is 'token'".to_owned());
    }
    Ok(url)
}

impl Client {
    /// A client of the server at `base`, trusting the authorities in `ca`, as PEM, besides the usual ones.
    pub(crate) fn new(base: Url, token: String, ca: Option<&[u8]>) -> Result<Self, String> {
        let mut builder = reqwest::Client::builder()
            .redirect(Policy::none())
            .timeout(TIMEOUT)
            .user_agent(concat!("terraform-provider-bigpeer/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = ca {
            let bundle = Certificate::from_pem_bundle(pem).unwrap_or_default();
            if bundle.is_empty() {
                return Err("'ca_file' holds no certificates in PEM".to_owned());
            }
            builder = bundle.into_iter().fold(builder, reqwest::ClientBuilder::add_root_certificate);
        }
        let http = builder.build().map_err(|error| format!("there is no HTTP client: {}", said(&error)))?;
        Ok(Self { http, base, token })
    }

    /// What is there, if something is.
    pub(crate) async fn get(&self, path: &[String]) -> Result<Option<Json>, Failure> {
        found(self.ask(Method::GET, path, None).await)
    }

    /// Makes it so; answers what is there then.
    pub(crate) async fn put(&self, path: &[String], body: &Json) -> Result<Json, Failure> {
        self.ask(Method::PUT, path, Some(body)).await
    }

    /// Removes it, if it is there.
    pub(crate) async fn delete(&self, path: &[String]) -> Result<(), Failure> {
        found(self.ask(Method::DELETE, path, None).await).map(|_| ())
    }

    fn url(&self, path: &[String]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["admin", "v1"]).extend(path);
        }
        url
    }

    async fn ask(&self, method: Method, path: &[String], body: Option<&Json>) -> Result<Json, Failure> {
        let url = self.url(path);
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let mut request = self.http.request(method.clone(), url.clone()).bearer_auth(&self.token);
            if let Some(body) = body {
                request = request.json(body);
            }
            let (failure, asked) = match request.send().await {
                Ok(answer) => {
                    let later = retry_after(&answer);
                    match self.read(answer).await {
                        Ok(json) => return Ok(json),
                        Err(failure) => (failure, later),
                    }
                }
                Err(error) => (self.unreachable(said(&error)), None),
            };
            if attempt >= ATTEMPTS || !(failure.is_for_now() || asked.is_some()) {
                return Err(failure);
            }
            tokio::time::sleep(asked.unwrap_or(pause).min(MAX_PAUSE)).await;
            pause *= 2;
        }
        Err(self.unreachable("it was not asked".to_owned()))
    }

    async fn read(&self, answer: Response) -> Result<Json, Failure> {
        let status = answer.status();
        let body = bounded_body(answer, MAX_ANSWER_BYTES).await.map_err(|reason| self.unreachable(reason))?;
        let foreign = || Failure::Foreign { endpoint: self.endpoint(), status };
        if status == StatusCode::NO_CONTENT {
            return Ok(Json::Null);
        }
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|_| foreign());
        }
        let refusal: Refusal = serde_json::from_slice(&body).map_err(|_| foreign())?;
        let request = refusal.request_id.map(|id| format!(", request {id}")).unwrap_or_default();
        Err(Failure::Refused { status, code: refusal.error.code, message: refusal.error.message, request })
    }

    fn unreachable(&self, reason: String) -> Failure {
        Failure::Unreachable { endpoint: self.endpoint(), reason }
    }

    fn endpoint(&self) -> String {
        self.base.origin().ascii_serialization()
    }
}

impl Failure {
    /// Whether another attempt may go better.
    fn is_for_now(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } | Self::Foreign { status, .. } => {
                matches!(status.as_u16(), 429 | 502 | 503 | 504)
            }
        }
    }
}

fn retry_after(answer: &Response) -> Option<Duration> {
    let secs = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(secs))
}

/// Nothing, where the server says that there is nothing; a 404 of anybody else says nothing.
fn found(answer: Result<Json, Failure>) -> Result<Option<Json>, Failure> {
    match answer {
        Ok(json) => Ok(Some(json)),
        Err(Failure::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_below_the_endpoint_whatever_is_in_them() {
        let client = |base: &str| Client::new(endpoint(base).unwrap(), "t".to_owned(), None).unwrap();
        let path = ["apps".to_owned(), "a/b?c".to_owned()];
        assert_eq!(client("http://h:1").url(&path).as_str(), "http://h:1/admin/v1/apps/a%2Fb%3Fc");
        assert_eq!(client("https://h/below/").url(&path).as_str(), "https://h/below/admin/v1/apps/a%2Fb%3Fc");
        assert!(!format!("{:?}", client("http://h:1")).contains("\"t\""));
        for bad in ["h:1", "ftp://h", "http://", "http://a:b@h", "http://h?x=y"] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
        assert!(Client::new(endpoint("https://h").unwrap(), "t".to_owned(), Some(b"no")).is_err());
    }
}
