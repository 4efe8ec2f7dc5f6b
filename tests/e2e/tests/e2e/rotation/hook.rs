//! A receiver of webhooks, of logins and of events, that takes nothing whose signature is not of a secret that it knows.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use bigpeer_e2e::{Server, wait_until};
use ring::hmac;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What came.
#[derive(Clone, Default)]
pub(super) struct Seen {
    pub(super) taken: u64,
    /// Requests of which no signature was good.
    pub(super) refused: u64,
    /// How many signatures the last one had.
    signatures: usize,
    /// Of events.
    ids: BTreeSet<String>,
}

struct Receiver {
    secret: Mutex<String>,
    seen: Mutex<Seen>,
}

pub(super) struct Hook {
    pub(super) url: String,
    receiver: Arc<Receiver>,
}

impl Hook {
    pub(super) async fn start(secret: &str) -> Self {
        let receiver = Arc::new(Receiver { secret: Mutex::new(secret.to_owned()), seen: Mutex::default() });
        let router = Router::new().route("/hook", post(receive)).with_state(Arc::clone(&receiver));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, receiver }
    }

    pub(super) fn knows_only(&self, secret: &str) {
        secret.clone_into(&mut self.receiver.secret.lock().unwrap());
    }

    pub(super) fn seen(&self) -> Seen {
        self.receiver.seen.lock().unwrap().clone()
    }

    /// Waits until an event of every car that there is now came.
    pub(super) async fn has_all(&self, server: &Server) {
        let there = server.sql("SELECT count(*) AS n FROM cars").await[0]["n"].as_u64().unwrap();
        let enough = || async { (self.seen().ids.len() as u64 >= there).then_some(()) };
        wait_until("every event is delivered", 60, enough).await;
    }

    /// Waits until requests have so many signatures.
    pub(super) async fn is_signed_for(&self, secrets: usize) {
        wait_until("the new secrets are used", 60, || async { (self.seen().signatures == secrets).then_some(()) })
            .await;
    }
}

/// The signatures of a request, and whether one is of `secret`.
fn signatures(headers: &HeaderMap, body: &[u8], secret: &str) -> (usize, bool) {
    let header = headers.get("bigpeer-signature").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = header.split(',');
    let time = parts.next().and_then(|part| part.strip_prefix("t=")).unwrap_or_default();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mac = hmac::sign(&key, &[time.as_bytes(), b".", body].concat());
    let expected: String = mac.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let all: Vec<&str> = parts.filter_map(|part| part.strip_prefix("v1=")).collect();
    (all.len(), all.contains(&expected.as_str()))
}

async fn receive(
    State(receiver): State<Arc<Receiver>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, axum::Json<Value>) {
    let (count, is_good) = signatures(&headers, &body, &receiver.secret.lock().unwrap());
    let mut seen = receiver.seen.lock().unwrap();
    seen.signatures = count;
    if !is_good {
        seen.refused += 1;
        return (StatusCode::UNAUTHORIZED, axum::Json(json!({})));
    }
    seen.taken += 1;
    seen.ids.extend(headers.get("bigpeer-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned));
    let asked: Value = serde_json::from_slice(&body).unwrap();
    // An event is content with any answer.
    let user = json!({"authenticated": true, "userID": asked["token"], "expirationSeconds": 3600});
    (StatusCode::OK, axum::Json(user))
}
