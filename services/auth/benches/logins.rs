//! Logins with a webhook that answers at once, over HTTP, beside a bare client that asks the same webhook:
//! `cargo bench -p bigpeer-auth --bench logins`. Prints `name value unit beside`. Client, server and webhook are in one process and
//! share its processors: a login is two requests, one to the server and one of it, and a commit.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::cast_precision_loss, reason = "a benchmark")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::routing::post;
use axum::{Json, Router};
use bigpeer_auth::{AuthContext, AuthSettings, admin_router, router};
use bigpeer_chassis::{Catalogue, Name, Shutdown, finish_router, serve_http};
use bigpeer_log::{EmbeddedLog, EmbeddedSettings, MemoryLog, TransactionLog};
use bigpeer_types::{RandomIds, SystemClock};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Requests that are made before it is measured, and while it is.
const WARMING: u64 = 500;
const MEASURED: u64 = 10_000;
const AT_ONCE: [u64; 2] = [1, 64];

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A webhook that lets everybody in, by the name that the token is; its URL.
async fn webhook() -> String {
    let answer = |Json(asked): Json<Value>| async move {
        Json(json!({"authenticated": true, "userID": asked["token"], "expirationSeconds": 3600, "roles": [],
            "permissions": {"qlVersion": 1, "read": {"queriesByCollection": {"orders": ["owner = :claims.userID"]}}},
            "identityServiceMetadata": {"store": "s1"}}))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/hook", post(answer))).await });
    url
}

/// A server whose logins ask the webhook at `hook`; the URL of the login.
async fn server(log: Arc<dyn TransactionLog>, hook: &str) -> String {
    let (clock, ids) = (Arc::new(SystemClock), Arc::new(RandomIds));
    let catalogue = Catalogue::open(log, Arc::clone(&clock) as _, Arc::clone(&ids) as _).await.unwrap();
    catalogue.create_tenant(&name("t")).await.unwrap();
    let app = catalogue.create_app(&name("t"), &name("a")).await.unwrap().id;
    let admin = catalogue.create_admin(&name("root")).await.unwrap().unwrap();
    let settings = AuthSettings { allow_private_providers: true, ..AuthSettings::default() };
    let context = AuthContext::new(catalogue, settings);
    let routes = finish_router(router(context.clone()).merge(admin_router(context)), clock, ids);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { serve_http(listener, None, routes, &Shutdown::new()).await });
    let provider = format!("{url}/admin/v1/apps/{app}/providers/hook");
    let put = Client::new().put(provider).bearer_auth(admin.expose());
    let put = put.json(&json!({"type": "webhook", "url": hook})).send().await.unwrap();
    assert!(put.status().is_success(), "{}", put.text().await.unwrap());
    format!("{url}/{app}/auth/login")
}

/// How often a second `ask` is done, `at_once` of them at the same time.
async fn rate<F: Future<Output = ()> + Send + 'static>(
    at_once: u64,
    ask: impl Fn(u64) -> F + Clone + Send + 'static,
) -> f64 {
    let mut taken = 0.0;
    for requests in [WARMING, MEASURED] {
        let (next, started) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let tasks: Vec<_> = (0..at_once)
            .map(|_| {
                let (next, ask) = (Arc::clone(&next), ask.clone());
                tokio::spawn(async move {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= requests {
                            return;
                        }
                        ask(number).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        taken = started.elapsed().as_secs_f64();
    }
    MEASURED as f64 / taken
}

/// Sends `body`, and looks whether the answer is what is expected.
async fn ask(client: Client, url: String, body: Value, field: &'static str, expected: Value) {
    let answer = client.post(url).json(&body).send().await.unwrap();
    let status = answer.status();
    let json: Value = answer.json().await.unwrap();
    assert!(status.is_success() && json[field] == expected, "{status}: {json}");
}

#[tokio::main]
async fn main() {
    let (client, hook, dir) = (Client::new(), webhook().await, tempfile::tempdir().unwrap());
    let on_disk = EmbeddedLog::open(dir.path(), EmbeddedSettings::default()).unwrap();
    let logs: [(&str, Arc<dyn TransactionLog>); 2] =
        [("memory", Arc::new(MemoryLog::new())), ("disk", Arc::new(on_disk))];
    let mut logins = Vec::new();
    for (what, log) in logs {
        logins.push((what, server(log, &hook).await));
    }
    for at_once in AT_ONCE {
        let (to, with) = (hook.clone(), client.clone());
        let bare = rate(at_once, move |number| {
            let user = json!(format!("user-{number}"));
            ask(with.clone(), to.clone(), json!({"version": "1", "token": user}), "userID", user)
        })
        .await;
        println!("webhook_bare_{at_once}\t{bare:.0}\t1/s\ta client that asks the webhook itself, {at_once} at once");
        for (what, url) in &logins {
            let (to, with) = (url.clone(), client.clone());
            let rate = rate(at_once, move |number| {
                let user = json!(format!("user-{number}"));
                ask(with.clone(), to.clone(), json!({"provider": "hook", "token": user}), "user", user)
            })
            .await;
            println!("login_webhook_{what}_{at_once}\t{rate:.0}\t1/s\ttarget 1,000 for 64 at once; log in {what}");
            println!("login_webhook_{what}_{at_once}_share\t{:.3}\tof bare\t", rate / bare);
        }
    }
}
