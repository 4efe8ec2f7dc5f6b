//! What every client command needs: which server, which app, which key. From flags, the environment, or a credentials file.

use std::fmt;
use std::path::{Path, PathBuf};

use bigpeer_peer::{SystemNetwork, http_client};
use bigpeer_types::{AppId, CollectionName};
use clap::Args;
use reqwest::StatusCode;
use serde::Deserialize;

use crate::failure::Failure;

/// Where `serve` puts the credentials when it is not told otherwise.
const DEFAULT_CREDENTIALS: &str = "data/dev-credentials.json";

/// How often the server is asked to wait for a transaction, each time for five seconds.
const WAITS: usize = 12;

/// Flags of every client command.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Which server")]
pub(crate) struct ClientArgs {
    /// Base URL of the server, such as http://127.0.0.1:8080
    #[arg(long, global = true, env = "BIGPEER_URL", value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Id of the app
    #[arg(long, global = true, env = "BIGPEER_APP", value_name = "ID")]
    pub(crate) app: Option<String>,
    /// API key of the app; better in the environment than on the command line, where others can read it
    #[arg(long, global = true, env = "BIGPEER_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub(crate) api_key: Option<String>,
    /// File that holds what the flags above leave open, as {"url", "app", "api_key"} [default: data/dev-credentials.json]
    #[arg(long, global = true, env = "BIGPEER_CREDENTIALS", value_name = "FILE")]
    pub(crate) credentials: Option<PathBuf>,
    /// Trust the certificate authorities in this file (PEM), and no others; such as the ca.pem of `bigpeer dev-cert`
    #[arg(long, global = true, env = "BIGPEER_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

impl fmt::Debug for ClientArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientArgs").field("url", &self.url).field("app", &self.app).finish_non_exhaustive()
    }
}

/// A server, an app and a key.
#[derive(Clone)]
pub(crate) struct Client {
    /// Without a slash at its end.
    pub(crate) url: String,
    pub(crate) app: AppId,
    pub(crate) api_key: String,
    /// Which servers are trusted.
    pub(crate) network: SystemNetwork,
    /// One pool of connections for all requests.
    http: reqwest::Client,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.url).field("app", &self.app).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct CredentialsFile {
    url: Option<String>,
    app: Option<String>,
    api_key: Option<String>,
    admin_token: Option<String>,
}

/// Flags of every command that asks the admin API.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Which server")]
pub(crate) struct AdminArgs {
    /// Base URL of the server, such as http://127.0.0.1:8080
    #[arg(long, global = true, env = "BIGPEER_URL", value_name = "URL")]
    url: Option<String>,
    /// Id of the app
    #[arg(long, global = true, env = "BIGPEER_APP", value_name = "ID")]
    app: Option<String>,
    /// Admin token; better in the environment than on the command line, where others can read it
    #[arg(long, global = true, env = "BIGPEER_ADMIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    admin_token: Option<String>,
    /// File that holds what the flags above leave open, as {"url", "app", "admin_token"} [default:
    /// data/dev-credentials.json]
    #[arg(long, global = true, env = "BIGPEER_CREDENTIALS", value_name = "FILE")]
    credentials: Option<PathBuf>,
    /// Trust the certificate authorities in this file (PEM), and no others; such as the ca.pem of `bigpeer dev-cert`
    #[arg(long, global = true, env = "BIGPEER_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl fmt::Debug for AdminArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminArgs").field("url", &self.url).field("app", &self.app).finish_non_exhaustive()
    }
}

/// A server, an app and an admin token.
pub(crate) struct Admin {
    url: String,
    app: AppId,
    token: String,
    http: reqwest::Client,
}

impl AdminArgs {
    /// Which server, app and token.
    ///
    /// # Errors
    /// When one of them is nowhere to be found.
    pub(crate) fn resolve(&self) -> Result<Admin, Failure> {
        let client = ClientArgs {
            url: self.url.clone(),
            app: self.app.clone(),
            api_key: self.admin_token.clone(),
            credentials: self.credentials.clone(),
            ca_file: self.ca_file.clone(),
        };
        let Client { url, app, api_key: token, http, .. } = client.find("admin-token", |file| file.admin_token)?;
        Ok(Admin { url, app, token, http })
    }
}

impl Admin {
    /// Asks the admin API about the app; the answer's body, if it has one.
    ///
    /// # Errors
    /// When the server cannot be reached, or with what it says.
    pub(crate) async fn ask(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<serde_json::Value, Failure> {
        let url = format!("{}/admin/v1/apps/{}/{path}", self.url, self.app);
        let mut request = self.http.request(method, &url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(|error| unreachable(&self.url, &error))?;
        let answer = accepted(&url, answer).await?;
        let text = answer.text().await.map_err(|error| Failure::new(format!("the answer broke off: {error}")))?;
        if text.is_empty() {
            return Ok(serde_json::Value::Null);
        }
        serde_json::from_str(&text).map_err(|error| Failure::new(format!("{url} answered no JSON: {error}")))
    }

    /// All entries of a list, page by page: those that answers have as `field`.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) async fn list(&self, path: &str, field: &str) -> Result<Vec<serde_json::Value>, Failure> {
        let (mut all, mut query) = (Vec::new(), "limit=1000".to_owned());
        loop {
            let mut page = self.ask(reqwest::Method::GET, &format!("{path}?{query}"), None).await?;
            if let Some(entries) = page.get_mut(field).and_then(serde_json::Value::as_array_mut) {
                all.append(entries);
            }
            // Names need no escaping.
            let Some(next) = page.get("next").and_then(serde_json::Value::as_str) else { return Ok(all) };
            query = format!("limit=1000&after={next}");
        }
    }
}

impl ClientArgs {
    /// Which server, app and key.
    ///
    /// # Errors
    /// When one of them is nowhere to be found.
    pub(crate) fn resolve(&self) -> Result<Client, Failure> {
        self.find("api-key", |file| file.api_key)
    }

    /// As [`Self::resolve`], with another secret from the file.
    fn find(&self, secret: &str, secret_of: impl FnOnce(CredentialsFile) -> Option<String>) -> Result<Client, Failure> {
        let complete = self.url.is_some() && self.app.is_some() && self.api_key.is_some();
        let file = match (&self.credentials, complete) {
            (_, true) => None,
            (Some(path), false) => Some(read(path)?),
            (None, false) if Path::new(DEFAULT_CREDENTIALS).exists() => Some(read(Path::new(DEFAULT_CREDENTIALS))?),
            (None, false) => None,
        };
        let (url, app, api_key) =
            file.map(|mut file| (file.url.take(), file.app.take(), secret_of(file))).unwrap_or_default();
        let need = |flag: &Option<String>, file: Option<String>, name: &str| {
            flag.clone().or(file).ok_or_else(|| {
                Failure::new(format!(
                    "no {name}: give --{name}, or --credentials FILE with the file that `bigpeer serve` wrote into its data directory"
                ))
            })
        };
        let url = need(&self.url, url, "url")?;
        let app = need(&self.app, app, "app")?;
        let api_key = need(&self.api_key, api_key, secret)?;
        let app = AppId::new(&app).map_err(|error| Failure::new(error.to_string()))?;
        let (url, api_key) = (url.trim_end_matches('/').to_owned(), api_key.trim().to_owned());
        let (network, http) = trusting(self.ca_file.as_deref())?;
        Ok(Client { url, app, api_key, network, http })
    }
}

/// What reaches servers, and trusts those that `ca_file` vouches for, or without one those that the web trusts.
fn trusting(ca_file: Option<&Path>) -> Result<(SystemNetwork, reqwest::Client), Failure> {
    let network = match ca_file {
        None => SystemNetwork::default(),
        Some(path) => {
            let cannot = |error: &dyn fmt::Display| Failure::new(format!("--ca-file {}: {error}", path.display()));
            let pem = std::fs::read(path).map_err(|error| cannot(&error))?;
            SystemNetwork::trusting(&pem).map_err(|error| cannot(&error))?
        }
    };
    let http = http_client(&network).build();
    let http = http.map_err(|error| Failure::new(format!("no client for HTTP: {error}")))?;
    Ok((network, http))
}

fn read(path: &Path) -> Result<CredentialsFile, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("cannot read the credentials {}: {error}", path.display())))?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::new(format!("the credentials {} are not {{\"url\", \"app\", \"api_key\"}}: {error}", path.display()))
    })
}

impl Client {
    /// POSTs JSON to a path below the app; the answer when it is a success.
    ///
    /// # Errors
    /// When the server cannot be reached, or with what it says.
    pub(crate) async fn post(&self, path: &str, body: &serde_json::Value) -> Result<reqwest::Response, Failure> {
        let url = format!("{}/{}/{path}", self.url, self.app);
        let sent = self.http.post(&url).bearer_auth(&self.api_key).json(body).send().await;
        accepted(&url, sent.map_err(|error| unreachable(&self.url, &error))?).await
    }

    /// Waits until statements see the transaction `version`, a minute at most; whether they do. Also when the key may not read
    /// `collection`, and so cannot tell.
    ///
    /// # Errors
    /// When the server cannot be reached, or with what it says.
    pub(crate) async fn sees(&self, version: u64, collection: &CollectionName) -> Result<bool, Failure> {
        let url = format!("{}/{}/api/v5/store/execute", self.url, self.app);
        let statement = format!("SELECT * FROM `{}` LIMIT 1", collection.as_str().replace('`', "``"));
        let body = serde_json::json!({"statement": statement});
        for _ in 0..WAITS {
            let sent = self.http.post(&url).bearer_auth(&self.api_key).header("x-ditto-txn-id", version).json(&body);
            let answer = sent.send().await.map_err(|error| unreachable(&self.url, &error))?;
            match answer.status() {
                // Not yet: the server has waited five seconds for it.
                StatusCode::NOT_FOUND => {}
                StatusCode::FORBIDDEN => return Ok(true),
                _ => return accepted(&url, answer).await.map(|_| true),
            }
        }
        Ok(false)
    }

    /// GETs a path below the app; the answer when it is a success.
    ///
    /// # Errors
    /// When the server cannot be reached, or with what it says.
    pub(crate) async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<reqwest::Response, Failure> {
        let url = format!("{}/{}/{path}", self.url, self.app);
        let sent = self.http.get(&url).query(query).bearer_auth(&self.api_key).send().await;
        accepted(&url, sent.map_err(|error| unreachable(&self.url, &error))?).await
    }
}

/// The answer, if it is a success; else what it says.
async fn accepted(url: &str, answer: reqwest::Response) -> Result<reqwest::Response, Failure> {
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status();
    let text = answer.text().await.unwrap_or_default();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let message = json.pointer("/error/message").and_then(serde_json::Value::as_str);
    Err(Failure::new(match message {
        Some(message) => message.to_owned(),
        None => format!("{url} answered {status}"),
    }))
}

fn unreachable(url: &str, error: &reqwest::Error) -> Failure {
    // The innermost cause is the one that says something ("Connection refused").
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let cause = cause.to_string();
    let hint = match cause.contains("certificate") {
        true => "name the authority to trust with --ca-file",
        false => "is `bigpeer serve` running there?",
    };
    Failure::new(format!("cannot reach {url}: {cause}; {hint}"))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::http::HeaderMap;
    use axum::routing::post;

    use super::*;

    fn args(url: Option<&str>, credentials: Option<&Path>) -> ClientArgs {
        ClientArgs {
            url: url.map(str::to_owned),
            credentials: credentials.map(Path::to_owned),
            ..ClientArgs::default()
        }
    }

    #[test]
    fn flags_win_over_the_file_and_what_is_missing_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, r#"{"url": "http://a:1/", "app": "app-1", "api_key": "k", "admin_token": "x"}"#).unwrap();
        let client = args(None, Some(file.path())).resolve().unwrap();
        assert_eq!((client.url.as_str(), client.app.as_str(), client.api_key.as_str()), ("http://a:1", "app-1", "k"));
        assert!(!format!("{client:?}").contains("\"k\""));
        assert_eq!(args(Some("http://b:2"), Some(file.path())).resolve().unwrap().url, "http://b:2");
        std::fs::write(&file, r#"{"url": "http://a:1"}"#).unwrap();
        assert!(args(None, Some(file.path())).resolve().unwrap_err().message.contains("--app"));
        std::fs::write(&file, "url = 1").unwrap();
        assert!(args(None, Some(file.path())).resolve().unwrap_err().message.contains("credentials"));
        std::fs::write(&file, "no certificate").unwrap();
        let (url, app, key) = (Some("https://a:1".to_owned()), Some("app-1".to_owned()), Some("k".to_owned()));
        let ca_file = Some(file.path().to_owned());
        let untrusting = ClientArgs { url, app, api_key: key, ca_file, credentials: None };
        assert!(untrusting.resolve().unwrap_err().message.contains("there is no certificate in it"));
        let missing = args(None, Some(Path::new("/nowhere/c.json"))).resolve().unwrap_err();
        assert!(missing.message.contains("/nowhere/c.json"), "{missing}");
    }

    /// A server that answers what it is told, one after the other, and the last for ever; and what it was asked for.
    async fn stub(answers: Vec<StatusCode>) -> (Client, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        let execute = post(async move |headers: HeaderMap, body: String| {
            let mut noted = noted.lock().unwrap();
            noted.push(format!("{} {body}", headers["x-ditto-txn-id"].to_str().unwrap()));
            *answers.get(noted.len() - 1).unwrap_or(answers.last().unwrap())
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/app-1/api/v5/store/execute", execute);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let args =
            ClientArgs { app: Some("app-1".to_owned()), api_key: Some("k".to_owned()), ..args(Some(&url), None) };
        (args.resolve().unwrap(), asked)
    }

    #[tokio::test]
    async fn a_transaction_is_waited_for_until_it_is_seen() {
        let cars = CollectionName::new("cars").unwrap();
        let (ok, not_yet) = (StatusCode::OK, StatusCode::NOT_FOUND);
        let (client, asked) = stub(vec![not_yet, not_yet, ok]).await;
        assert!(client.sees(7, &cars).await.unwrap());
        assert_eq!(*asked.lock().unwrap(), [r#"7 {"statement":"SELECT * FROM `cars` LIMIT 1"}"#; 3]);
        let (client, asked) = stub(vec![not_yet]).await;
        assert!(!client.sees(7, &cars).await.unwrap());
        assert_eq!(asked.lock().unwrap().len(), WAITS);
        // Who may not read cannot be told.
        let (client, _) = stub(vec![StatusCode::FORBIDDEN]).await;
        assert!(client.sees(7, &cars).await.unwrap());
        let (client, _) = stub(vec![StatusCode::INTERNAL_SERVER_ERROR]).await;
        assert!(client.sees(7, &cars).await.is_err());
    }
}
