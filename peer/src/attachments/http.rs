//! Requests about attachments: with the store's token, and broken off when nothing moves any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};

use crate::network::http_client;
use crate::session::Endpoint;
use crate::store::Store;
use crate::{ConnectSettings, PeerError, Secret};

/// The server's side, as attachments see it.
pub(super) struct Server {
    client: reqwest::Client,
    base: String,
    store: Store,
    idle_timeout: Duration,
}

/// How far a request has come; whoever moves bytes counts here.
#[derive(Clone, Debug, Default)]
pub(super) struct Moved(Arc<AtomicU64>);

impl Moved {
    pub(super) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Server {
    pub(super) fn new(store: &Store, settings: &ConnectSettings) -> Result<Self, PeerError> {
        let base = Endpoint::new(&settings.url, &settings.app)?.http("api");
        let client = http_client(&*settings.network).connect_timeout(settings.connect_timeout);
        let client = client.build().map_err(|error| unreachable(&error))?;
        Ok(Self { client, base, store: store.clone(), idle_timeout: settings.idle_timeout })
    }

    /// A request to a path below `/{app}/api/`, with the token that the store has now.
    pub(super) async fn request(&self, method: Method, path: &str) -> Result<(RequestBuilder, Secret), PeerError> {
        let token = self.store.read(|tables| tables.token()).await?.ok_or(PeerError::NoSite)?.token;
        let request = self.client.request(method, format!("{}/{path}", self.base)).bearer_auth(token.reveal());
        Ok((request, token))
    }

    /// Whether this is the server's, and no place that it has sent the request to.
    pub(super) fn is_at(&self, url: &reqwest::Url) -> bool {
        url.as_str().starts_with(&self.base)
    }

    /// Sends a request and waits for the head of its answer, for as long as something moves.
    pub(super) async fn send(&self, request: RequestBuilder, moved: &Moved) -> Result<Response, PeerError> {
        self.while_moving(moved, async { request.send().await.map_err(|error| unreachable(&error)) }).await
    }

    /// What `work` comes to, unless nothing has moved for the time that a server may be silent.
    pub(super) async fn while_moving<T>(
        &self,
        moved: &Moved,
        work: impl Future<Output = Result<T, PeerError>>,
    ) -> Result<T, PeerError> {
        let stalled = async {
            let mut before = moved.get();
            loop {
                tokio::time::sleep(self.idle_timeout).await;
                let now = moved.get();
                if now == before {
                    return;
                }
                before = now;
            }
        };
        tokio::select! {
            biased;
            done = work => done,
            () = stalled => Err(PeerError::Unreachable("nothing moved for too long".to_owned())),
        }
    }
}

/// The innermost reason: reqwest's own text only says that sending failed.
pub(super) fn unreachable(error: &reqwest::Error) -> PeerError {
    let mut reason: &dyn std::error::Error = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    PeerError::Unreachable(reason.to_string())
}

/// What the server said about a request that it did not do, as far as it can be shown.
pub(super) async fn message(response: Response) -> String {
    let status = response.status();
    let body = response.bytes().await.unwrap_or_default();
    let json: serde_json::Value = serde_json::from_slice(body.get(..body.len().min(64 << 10)).unwrap_or_default())
        .unwrap_or(serde_json::Value::Null);
    let message = json.pointer("/error/message").and_then(serde_json::Value::as_str);
    message.map_or_else(|| status.to_string(), |text| text.chars().take(500).collect())
}

/// Whether a later attempt may be answered otherwise.
pub(super) fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::REQUEST_TIMEOUT
}
