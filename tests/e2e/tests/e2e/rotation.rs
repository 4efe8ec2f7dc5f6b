//! Every key is changed while clients use it, and not one request of theirs fails: API keys, admin tokens, secrets of webhooks,
//! the master key over restarts, the certificate of the listeners. (Keys of issuers change under load in `services/auth`, signing keys
//! and authorities in `services/chassis`.)

mod hook;

use std::collections::BTreeSet;
use std::future::Future;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bigpeer_e2e::{Server, binary, wait_until};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::sync::RwLock;
use tokio::task::JoinHandle;

use hook::Hook;

/// Clients at once, and how much they do between two steps.
const CLIENTS: usize = 4;
const MORE: u64 = 60;

/// Clients that ask again and again, until they are to stop.
struct Load {
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    failures: Arc<Mutex<Vec<String>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    fn start<F: Future<Output = Result<(), String>> + Send + 'static>(
        ask: impl Fn(u64) -> F + Clone + Send + 'static,
    ) -> Self {
        let mut load = Self { done: Arc::default(), stop: Arc::default(), failures: Arc::default(), tasks: Vec::new() };
        for _ in 0..CLIENTS {
            let (done, stop, failures) = (Arc::clone(&load.done), Arc::clone(&load.stop), Arc::clone(&load.failures));
            let ask = ask.clone();
            load.tasks.push(tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    if let Err(failure) = ask(done.load(Ordering::SeqCst)).await {
                        failures.lock().unwrap().push(failure);
                    }
                    done.fetch_add(1, Ordering::SeqCst);
                }
            }));
        }
        load
    }

    /// Waits until the clients have done more.
    async fn more(&self) {
        let until = self.done.load(Ordering::SeqCst) + MORE;
        wait_until("the clients go on", 60, || async { (self.done.load(Ordering::SeqCst) >= until).then_some(()) })
            .await;
    }

    /// The clients stop, and nothing has failed.
    async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        let failures = self.failures.lock().unwrap();
        let first = &failures[..failures.len().min(3)];
        assert!(failures.is_empty(), "{} of {} failed: {first:?}", failures.len(), self.done.load(Ordering::SeqCst));
    }
}

/// What clients use until it is exchanged: whoever exchanges it waits until nobody uses the old one any more.
type Current = Arc<RwLock<String>>;

/// Asks at a path; with a body it is a POST.
async fn asked(client: &Client, url: &str, credential: &str, body: Option<Value>) -> Result<Value, String> {
    let request = match body {
        Some(body) => client.post(url).json(&body),
        None => client.get(url),
    };
    let answer = request.bearer_auth(credential).send().await.map_err(|error| format!("{error:?}"))?;
    let status = answer.status();
    let text = answer.text().await.map_err(|error| format!("{error:?}"))?;
    if status.is_success() {
        return Ok(serde_json::from_str(&text).unwrap_or_default());
    }
    Err(format!("{url}: {status} {text}"))
}

async fn put(server: &Server, admin: &str, path: &str, body: Value) -> Value {
    let (status, answer) = server.put_as(admin, path, &body).await;
    assert!((200..300).contains(&status), "{path}: {status} {answer}");
    answer
}

async fn delete(server: &Server, admin: &str, path: &str) {
    let request = Client::new().delete(format!("{}{path}", server.url())).bearer_auth(admin);
    assert_eq!(request.send().await.unwrap().status().as_u16(), 204, "{path}");
}

#[tokio::test(flavor = "multi_thread")]
async fn api_keys_and_admin_tokens_are_exchanged_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data")).await;
    let dev = server.credentials();
    let client = Client::new();
    let execute = format!("{}/{}/api/v5/store/execute", server.url(), dev.app);
    let apps = format!("{}/admin/v1/apps", server.url());
    let key: Current = Arc::new(RwLock::new(dev.api_key.clone()));
    let admin: Current = Arc::new(RwLock::new(dev.admin_token.clone()));
    let load = {
        let (key, admin, execute, apps) = (Arc::clone(&key), Arc::clone(&admin), execute.clone(), apps.clone());
        let client = client.clone();
        Load::start(move |number| {
            let (key, admin, execute, apps) = (Arc::clone(&key), Arc::clone(&admin), execute.clone(), apps.clone());
            let client = client.clone();
            async move {
                let insert = json!({"statement": "INSERT INTO cars DOCUMENTS (:d)", "args": {"d": {"n": number}}});
                asked(&client, &execute, &key.read().await, Some(insert)).await?;
                asked(&client, &apps, &admin.read().await, None).await.map(drop)
            }
        })
    };
    let all = json!({"read": {"everything": true}, "write": {"everything": true}});
    let keys = format!("/admin/v1/apps/{}/api-keys", dev.app);
    let (mut old_key, mut old_admin) = ("dev".to_owned(), "dev".to_owned());
    for round in 0..3 {
        load.more().await;
        let name = format!("next-{round}");
        let token = admin.read().await.clone();
        let made = put(&server, &token, &format!("{keys}/{name}"), json!({"permissions": all})).await;
        let before = std::mem::replace(&mut *key.write().await, made["key"].as_str().unwrap().to_owned());
        delete(&server, &token, &format!("{keys}/{old_key}")).await;
        assert!(asked(&client, &execute, &before, Some(json!({"statement": "SELECT * FROM cars"}))).await.is_err());
        load.more().await;
        let path = format!("/admin/v1/admin-tokens/{name}");
        let made = put(&server, &token, &path, json!({"scope": "operator"})).await;
        let before = std::mem::replace(&mut *admin.write().await, made["token"].as_str().unwrap().to_owned());
        let token = admin.read().await.clone();
        delete(&server, &token, &format!("/admin/v1/admin-tokens/{old_admin}")).await;
        assert!(asked(&client, &apps, &before, None).await.is_err());
        (old_key, old_admin) = (name.clone(), name);
    }
    load.more().await;
    load.end().await;
    // What is there now was used, and lately.
    let token = admin.read().await.clone();
    let left = asked(&client, &format!("{}{keys}", server.url()), &token, None).await.unwrap();
    let names: Vec<&str> =
        left["api_keys"].as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["next-2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_of_webhooks_are_exchanged_under_load() {
    const OLD: &str = "dGhlIG9sZCBzZWNyZXQgb2YgYSB3ZWJob29r";
    const NEW: &str = "dGhlIG5ldyBzZWNyZXQgb2YgYSB3ZWJob29r";
    let (old, new) = ("the old secret of a webhook", "the new secret of a webhook");
    let dir = tempfile::tempdir().unwrap();
    let args = ["--allow-private-providers", "--allow-private-receivers"];
    let server = Server::start_with(&dir.path().join("data"), &args).await;
    let dev = server.credentials();
    let (provider, feed) = (Hook::start(old).await, Hook::start(old).await);
    let secrets = |provider_secrets: Value, feed_secrets: Value| {
        let (server, admin, base) = (&server, &dev.admin_token, format!("/admin/v1/apps/{}", dev.app));
        let (login, events) = (provider.url.clone(), feed.url.clone());
        async move {
            let hook = json!({"type": "webhook", "url": login, "secrets": provider_secrets});
            put(server, admin, &format!("{base}/providers/hook"), hook).await;
            let sink = json!({"type": "webhook", "url": events, "secrets": feed_secrets});
            put(server, admin, &format!("{base}/feeds/hook"), json!({"owner": "dev", "sink": sink})).await;
        }
    };
    secrets(json!([OLD]), json!([old])).await;
    let in_use: Current = Arc::default();
    let load = {
        let (url, app, key, in_use) = (server.url(), dev.app.clone(), dev.api_key.clone(), Arc::clone(&in_use));
        let client = Client::new();
        Load::start(move |number| {
            let (url, app, key, in_use) = (url.clone(), app.clone(), key.clone(), Arc::clone(&in_use));
            let client = client.clone();
            async move {
                let _in_use = in_use.read().await;
                let login = json!({"provider": "hook", "token": format!("user-{number}")});
                asked(&client, &format!("{url}/{app}/auth/login"), "", Some(login)).await?;
                let insert = json!({"statement": "INSERT INTO cars DOCUMENTS (:d)", "args": {"d": {"n": number}}});
                asked(&client, &format!("{url}/{app}/api/v5/store/execute"), &key, Some(insert)).await.map(drop)
            }
        })
    };
    load.more().await;
    secrets(json!([NEW, OLD]), json!([new, old])).await;
    for hook in [&provider, &feed] {
        hook.is_signed_for(2).await;
    }
    // What began before is signed with the old one alone: receivers wait for its end.
    drop(in_use.write().await);
    feed.has_all(&server).await;
    for hook in [&provider, &feed] {
        hook.knows_only(new);
    }
    load.more().await;
    secrets(json!([NEW]), json!([new])).await;
    for hook in [&provider, &feed] {
        hook.is_signed_for(1).await;
    }
    load.more().await;
    load.end().await;
    feed.has_all(&server).await;
    for (hook, what) in [(&provider, "provider"), (&feed, "feed")] {
        let seen = hook.seen();
        assert_eq!(seen.refused, 0, "{what}: requests without a good signature");
        assert!(seen.taken >= 3 * MORE, "{what}: {}", seen.taken);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_master_key_is_changed_over_restarts_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys");
    let (old, new) = ("11".repeat(32), "22".repeat(32));
    std::fs::write(&file, &old).unwrap();
    let flag = format!("--master-key-file={}", file.display());
    let data = dir.path().join("data");
    let mut server = Server::start_with(&data, &[&flag]).await;
    let dev = server.credentials();
    let (client, base) = (Client::new(), format!("{}/{}", server.url(), dev.app));
    // Each has a login of its own, made under the first key, that goes on.
    let tokens: Arc<Mutex<Vec<String>>> = Arc::default();
    for _ in 0..CLIENTS {
        let session = asked(&client, &format!("{base}/auth/login"), &dev.api_key, Some(json!({}))).await.unwrap();
        tokens.lock().unwrap().push(session["refresh_token"].as_str().unwrap().to_owned());
    }
    let load = {
        let (tokens, base, client) = (Arc::clone(&tokens), base.clone(), client.clone());
        Load::start(move |_| {
            let (tokens, base, client) = (Arc::clone(&tokens), base.clone(), client.clone());
            async move {
                let Some(token) = tokens.lock().unwrap().pop() else { return Err("no login".to_owned()) };
                let session = until_it_is_there(&client, &format!("{base}/auth/refresh"), &token, json!({})).await;
                // A login goes on, also after a failure: another client tries it.
                let next = session.as_ref().ok().and_then(|session| session["refresh_token"].as_str());
                tokens.lock().unwrap().push(next.unwrap_or(&token).to_owned());
                let access = session?["access_token"].as_str().unwrap_or_default().to_owned();
                until_it_is_there(&client, &format!("{base}/sql"), &access, json!({"query": "SELECT 1"}))
                    .await
                    .map(drop)
            }
        })
    };
    for list in [format!("{new}\n{old}"), new.clone()] {
        load.more().await;
        std::fs::write(&file, list).unwrap();
        assert!(server.terminate());
        server.restart().await;
    }
    load.more().await;
    load.end().await;
    // The new one is what secrets are sealed with: the old one alone opens nothing any more.
    server.kill();
    std::fs::write(&file, &old).unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap(), &flag];
    let refused = Command::new(binary()).args(serve).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("master key"), "{said}");
    std::fs::write(&file, &new).unwrap();
    server.restart().await;
    server.dql("SELECT * FROM cars", json!({})).await;
}

/// Asks until a server is there and says that it can: nothing else is asked again.
async fn until_it_is_there(client: &Client, url: &str, credential: &str, body: Value) -> Result<Value, String> {
    let answered = wait_until("a server answers", 60, || {
        let body = body.clone();
        async move {
            let answer = client.post(url).bearer_auth(credential).json(&body).send().await.ok()?;
            let status = answer.status();
            // It stops, or has just begun.
            let retry = status.as_u16() == 503 && answer.headers().contains_key("retry-after");
            let text = answer.text().await.ok()?;
            (!retry).then(|| if status.is_success() { Ok(text) } else { Err(format!("{url}: {status} {text}")) })
        }
    });
    answered.await.map(|text| serde_json::from_str(&text).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_renewed_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let tls = dir.path().join("tls");
    let renew = || {
        let made = Command::new(binary()).args(["dev-cert", "--dir"]).arg(&tls).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    renew();
    let server = Server::start_tls(&dir.path().join("data"), &tls, &[]).await;
    let ca = reqwest::Certificate::from_pem(&std::fs::read(tls.join("ca.pem")).unwrap()).unwrap();
    let client = move || {
        let builder = Client::builder().tls_built_in_root_certs(false).add_root_certificate(ca.clone());
        builder.tls_info(true).build().unwrap()
    };
    // One that keeps its connections. The others have no session to resume, so that they are shown what is there now.
    let keeping = client();
    let shown: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let load = {
        let (url, shown) = (format!("{}/readyz", server.url()), Arc::clone(&shown));
        Load::start(move |number| {
            let (url, shown, keeps) = (url.clone(), Arc::clone(&shown), number % 2 == 0);
            let client = if keeps { keeping.clone() } else { client() };
            async move {
                let answer = client.get(url).send().await.map_err(|error| format!("{error:?}"))?;
                let info = answer.extensions().get::<reqwest::tls::TlsInfo>().ok_or("no TLS")?;
                let certificate = info.peer_certificate().ok_or("no certificate")?.to_vec();
                if !keeps {
                    shown.lock().unwrap().push(certificate);
                }
                if answer.status().is_success() { Ok(()) } else { Err(answer.status().to_string()) }
            }
        })
    };
    let different = || shown.lock().unwrap().iter().cloned().collect::<BTreeSet<_>>();
    for round in 1..=3 {
        load.more().await;
        renew();
        wait_until("the renewed certificate is shown", 60, || async { (different().len() > round).then_some(()) })
            .await;
    }
    load.more().await;
    let (before, since) = (different(), shown.lock().unwrap().len());
    load.more().await;
    load.end().await;
    let shown = shown.lock().unwrap();
    assert_eq!(before.len(), 4, "each was shown");
    assert!(shown[since..].iter().all(|certificate| certificate == &shown[since]), "and then the last one only");
}
