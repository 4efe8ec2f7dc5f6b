//! A real HTTP receiver that behaves as it is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use hmac::{Hmac, Mac};
use serde_json::Value as Json;
use sha2::Sha256;

/// What it does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Take,
    Answer(u16),
    /// Asks to be asked again after so many seconds.
    Later(u64),
    /// Never answers.
    Hang,
    /// Answers 200, with a body that never ends.
    Endless,
    /// Sends elsewhere.
    Redirect,
}

type Script = Box<dyn Fn(usize, &Json) -> Act + Send + Sync>;

#[derive(Default)]
struct Seen {
    requests: usize,
    /// What was taken, in order.
    taken: Vec<Json>,
    attempts: Vec<u32>,
    event_ids: Vec<String>,
}

/// A receiver.
pub(crate) struct Receiver {
    pub(crate) port: u16,
    seen: Arc<Mutex<Seen>>,
    server: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    seen: Arc<Mutex<Seen>>,
    script: Arc<Script>,
}

pub(crate) const SECRET: &str = "a secret that is long enough";

fn verify(headers: &HeaderMap, body: &[u8]) {
    let signature = headers["bigpeer-signature"].to_str().unwrap();
    let parts: Vec<(&str, &str)> = signature.split(',').map(|part| part.split_once('=').unwrap()).collect();
    let (_, time) = parts[0];
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{time}.").as_bytes());
    mac.update(body);
    let expected: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(parts[1..].iter().any(|(name, value)| *name == "v1" && *value == expected), "{signature}");
}

async fn receive(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    verify(&headers, &body);
    let json: Json = serde_json::from_slice(&body).unwrap();
    let number = {
        let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.requests += 1;
        seen.attempts.push(headers["bigpeer-attempt"].to_str().unwrap().parse().unwrap());
        seen.event_ids.push(headers["bigpeer-event-id"].to_str().unwrap().to_owned());
        seen.requests
    };
    match (shared.script)(number, &json) {
        Act::Take => {
            let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
            match json {
                Json::Array(events) => seen.taken.extend(events),
                event => seen.taken.push(event),
            }
            StatusCode::NO_CONTENT.into_response()
        }
        Act::Answer(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Act::Later(secs) => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", secs.to_string())]).into_response(),
        Act::Hang => std::future::pending().await,
        Act::Endless => {
            shared.seen.lock().unwrap_or_else(PoisonError::into_inner).taken.push(json);
            let endless = futures::stream::repeat_with(|| Ok::<_, std::convert::Infallible>(vec![b'x'; 4096]));
            Body::from_stream(endless).into_response()
        }
        Act::Redirect => (StatusCode::FOUND, [("location", "http://127.0.0.1:1/inside")]).into_response(),
    }
}

impl Receiver {
    /// One that behaves as `script` says for the n-th request (from 1).
    pub(crate) async fn start(script: impl Fn(usize, &Json) -> Act + Send + Sync + 'static) -> Self {
        Self::start_on(0, script).await
    }

    pub(crate) async fn start_on(port: u16, script: impl Fn(usize, &Json) -> Act + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Shared { seen: Arc::clone(&seen), script: Arc::new(Box::new(script)) };
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().route("/hook", post(receive)).with_state(shared);
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { port, seen, server }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    pub(crate) fn requests(&self) -> usize {
        self.seen.lock().unwrap().requests
    }

    pub(crate) fn attempts(&self) -> Vec<u32> {
        self.seen.lock().unwrap().attempts.clone()
    }

    /// What each request said that a repetition is told by.
    pub(crate) fn event_ids(&self) -> Vec<String> {
        self.seen.lock().unwrap().event_ids.clone()
    }

    pub(crate) fn taken(&self) -> Vec<Json> {
        self.seen.lock().unwrap().taken.clone()
    }

    /// Waits until so many different events were taken.
    pub(crate) async fn has(&self, events: usize) -> Vec<Json> {
        until("events arrive", async || {
            let taken = self.taken();
            let different: std::collections::BTreeSet<String> =
                taken.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
            (different.len() >= events).then_some(taken)
        })
        .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Waits until `check` answers something; a test that waits five minutes fails.
pub(crate) async fn until<T>(what: &str, check: impl AsyncFn() -> Option<T>) -> T {
    for _ in 0..30_000 {
        if let Some(found) = check().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("still not: {what}");
}

/// Whether events of each document are in order, first deliveries only.
pub(crate) fn check_order(taken: &[Json]) {
    let mut last: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut states: BTreeMap<String, Json> = BTreeMap::new();
    for event in taken.iter().filter(|event| event["type"] == "documentChanged") {
        let key = format!("{} {}", event["collection"], event["documentId"]);
        let id = event["id"].as_str().unwrap().to_owned();
        let seen = last.entry(key.clone()).or_default();
        if seen.contains(&id) {
            continue;
        }
        seen.push(id);
        let before = states.get(&key).cloned().unwrap_or_default();
        let change = &event["change"];
        let old = if change["method"] == "remove" { &change["value"] } else { &change["oldValue"] };
        assert!(*old == before, "out of order: {event}, after {before}");
        states.insert(key, change.get("newValue").cloned().unwrap_or_default());
    }
}
