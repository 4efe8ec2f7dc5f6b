//! The server with all its doors, apps in it, and a provider that vouches for whatever claims it is told.

use std::time::Duration;

use bigpeer_e2e::{Server, free_port, wait_until};
use reqwest::{Client, Method};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

pub(super) struct World {
    pub(super) server: Server,
    pub(super) pg: String,
    pub(super) flight: String,
    hook: String,
    admin: String,
    http: Client,
    pub(super) dir: tempfile::TempDir,
}

/// An app, and a key that may do everything.
pub(super) struct App {
    pub(super) id: String,
    pub(super) key: String,
}

/// What a door said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(super) fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

impl World {
    pub(super) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (pg, flight) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let flags = ["--listen-pg", &pg, "--listen-flight", &flight, "--allow-private-providers"];
        let server = Server::start_with(&dir.path().join("data"), &flags).await;
        let admin = server.credentials().admin_token;
        let hook = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/login", hook.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = hook.accept().await {
                tokio::spawn(vouch(stream));
            }
        });
        let http = Client::builder().timeout(Duration::from_secs(120)).build().unwrap();
        Self { server, pg, flight, hook: url, admin, http, dir }
    }

    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let mut request = self.http.request(method, format!("{}{path}", self.server.url()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.body(body).send().await.expect("the server answers");
        let status = answer.status().as_u16();
        Answer { status, body: answer.bytes().await.expect("a whole answer").to_vec() }
    }

    /// A request with a credential.
    pub(super) async fn get(&self, credential: &str, path: &str, accept: &str) -> Answer {
        let bearer = format!("Bearer {credential}");
        self.ask(Method::GET, path, &[("authorization", &bearer), ("accept", accept)], "").await
    }

    pub(super) async fn post(&self, credential: &str, path: &str, body: &Json) -> Answer {
        let bearer = format!("Bearer {credential}");
        self.ask(Method::POST, path, &[("authorization", &bearer)], body.to_string()).await
    }

    async fn admin(&self, method: Method, path: &str, body: &Json) -> Json {
        let bearer = format!("Bearer {}", self.admin);
        let path = format!("/admin/v1/{path}");
        let answer = self.ask(method, &path, &[("authorization", &bearer)], body.to_string()).await;
        assert!((200..300).contains(&answer.status), "{path}: {} {}", answer.status, answer.text());
        serde_json::from_slice(&answer.body).unwrap_or(Json::Null)
    }

    /// A new app with a provider of users, whose documents can be written.
    pub(super) async fn app(&self, name: &str) -> App {
        let id = self.admin(Method::PUT, &format!("tenants/dev/apps/{name}"), &json!({})).await;
        let id = id["id"].as_str().unwrap().to_owned();
        let key = self.put_key(&id, "all", &json!({"read": {"everything": true}, "write": {"everything": true}})).await;
        let provider = json!({"type": "webhook", "url": self.hook});
        self.admin(Method::PUT, &format!("apps/{id}/providers/hook"), &provider).await;
        let app = App { id, key: key.expect("a new key") };
        let is_open = || async {
            let path = format!("/{}/api/v5/store/execute", app.id);
            let answer = self.post(&app.key, &path, &json!({"statement": "SELECT COUNT(*) FROM docs"})).await;
            (answer.status == 200).then_some(())
        };
        wait_until("the app is open", 30, is_open).await;
        app
    }

    /// Makes or changes an API key; the secret of a new one.
    pub(super) async fn put_key(&self, app: &str, name: &str, permissions: &Json) -> Option<String> {
        let mut permissions = permissions.clone();
        permissions["qlVersion"] = json!(1);
        let body = json!({"permissions": permissions});
        let answer = self.admin(Method::PUT, &format!("apps/{app}/api-keys/{name}"), &body).await;
        answer["key"].as_str().map(str::to_owned)
    }

    pub(super) async fn put_role(&self, app: &App, name: &str, permissions: &Json) {
        let mut permissions = permissions.clone();
        permissions["qlVersion"] = json!(1);
        let body = json!({"permissions": permissions});
        self.admin(Method::PUT, &format!("apps/{}/roles/{name}", app.id), &body).await;
    }

    /// Logs in as the user `u` with these claims; the site and the access token.
    pub(super) async fn log_in(
        &self,
        app: &App,
        claims: &Json,
        roles: &[&str],
        previous: Option<&str>,
    ) -> (u64, String) {
        let vouched = json!({"authenticated": true, "userID": "u", "expirationSeconds": 86_400, "roles": roles,
            "identityServiceMetadata": claims});
        let mut body = json!({"provider": "hook", "token": vouched.to_string()});
        if let Some(previous) = previous {
            body["previous"] = json!(previous);
        }
        let answer = self.ask(Method::POST, &format!("/{}/auth/login", app.id), &[], body.to_string()).await;
        assert_eq!(answer.status, 200, "login: {}", answer.text());
        session(&answer.json())
    }

    /// Logs a peer in with an API key.
    pub(super) async fn log_in_with_key(&self, app: &App, key: &str) -> (u64, String) {
        let answer = self.post(key, &format!("/{}/auth/login", app.id), &json!({})).await;
        assert_eq!(answer.status, 200, "login: {}", answer.text());
        session(&answer.json())
    }

    /// Writes in one transaction, with everything allowed; its number.
    pub(super) async fn write(&self, app: &App, statements: &[(String, Json)]) -> u64 {
        let statements: Vec<Json> =
            statements.iter().map(|(statement, args)| json!({"statement": statement, "args": args})).collect();
        let answer = match statements.as_slice() {
            [one] => self.post(&app.key, &format!("/{}/api/v5/store/execute", app.id), one).await,
            several => {
                let body = json!({"statements": several});
                self.post(&app.key, &format!("/{}/api/v1/transaction", app.id), &body).await
            }
        };
        assert_eq!(answer.status, 200, "{statements:?}: {}", answer.text());
        answer.json()["transactionId"].as_u64().expect("a transaction")
    }

    pub(super) async fn upload(&self, app: &App, content: &str) -> String {
        let bearer = format!("Bearer {}", app.key);
        let path = format!("/{}/api/v4/attachments/upload", app.id);
        let answer = self.ask(Method::POST, &path, &[("authorization", &bearer)], content.to_owned()).await;
        assert!(answer.status < 300, "upload: {}", answer.text());
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// Puts everything into segments.
    pub(super) async fn compact(&self, app: &App) {
        self.admin(Method::POST, &format!("apps/{}/compact", app.id), &json!({})).await;
    }
}

fn session(answer: &Json) -> (u64, String) {
    let site = u64::from_str_radix(answer["site"].as_str().unwrap(), 16).unwrap();
    (site, answer["access_token"].as_str().unwrap().to_owned())
}

/// The provider's webhook: answers one login with what stands in its token.
async fn vouch(stream: TcpStream) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let body = crate::feeds::request(&mut stream).await?;
    let vouched = body["token"].as_str()?;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", vouched.len());
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(vouched.as_bytes()).await.ok()
}
