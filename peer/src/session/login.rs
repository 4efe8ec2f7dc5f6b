//! Login over HTTP: an API key becomes a site and a token, a refresh token the next token.

use bigpeer_types::{AppId, IdGenerator, SiteId};
use bytes::Bytes;
use serde::Deserialize;

use crate::identity::{Certificate, PeerKey};
use crate::store::{Durability, Store, Token};
use crate::{ConnectSettings, PeerError, Secret};

/// Where a bigpeer is, in the two forms that are asked for.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// `http://…` or `https://…`, without a slash at the end.
    http: String,
    app: AppId,
}

impl Endpoint {
    pub(crate) fn new(url: &str, app: &AppId) -> Result<Self, PeerError> {
        let bad = || PeerError::Url(url.chars().take(200).collect());
        let (scheme, rest) = url.split_once("://").ok_or_else(bad)?;
        let scheme = match scheme {
            "http" | "ws" => "http",
            "https" | "wss" => "https",
            _other => return Err(bad()),
        };
        // Credentials in a URL would end up in logs; a query or fragment means nothing here.
        if rest.contains(['@', '?', '#', ' ']) || rest.starts_with('/') || rest.is_empty() {
            return Err(bad());
        }
        Ok(Self { http: format!("{scheme}://{}", rest.trim_end_matches('/')), app: app.clone() })
    }

    /// The address of the WebSocket.
    pub(crate) fn sync(&self) -> String {
        // "http" → "ws", "https" → "wss".
        format!("{}/{}/sync", self.http.replacen("http", "ws", 1), self.app)
    }

    /// Whether it is spoken to below TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.http.starts_with("https:")
    }

    /// Host and port of both.
    pub(crate) fn host(&self) -> Result<(String, u16), PeerError> {
        let bad = || PeerError::Url(self.http.clone());
        let url = reqwest::Url::parse(&self.http).map_err(|_| bad())?;
        let host = url.host_str().ok_or_else(bad)?.trim_matches(['[', ']']).to_owned();
        Ok((host, url.port_or_known_default().ok_or_else(bad)?))
    }

    /// The address of what is below the app's.
    pub(crate) fn http(&self, below: &str) -> String {
        format!("{}/{}/{below}", self.http, self.app)
    }

    fn auth(&self, what: &str) -> String {
        format!("{}/{}/auth/{what}", self.http, self.app)
    }
}

/// A site, and the token to use it with.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) site: SiteId,
    pub(crate) token: Token,
    /// For the peer's own key, if it was asked for.
    pub(crate) certificate: Option<Certificate>,
}

#[derive(Deserialize)]
struct Answer {
    site: SiteId,
    access_token: String,
    expires_at: u64,
    #[serde(default)]
    refresh_token: Option<String>,
    #[serde(default)]
    certificate: Option<String>,
    #[serde(default)]
    certificate_expires_at: Option<u64>,
}

#[derive(Deserialize)]
struct Failure {
    error: FailureBody,
}

#[derive(Deserialize)]
struct FailureBody {
    message: String,
}

/// A certificate request for the store's own key, which is made now if there is none. None where the server is not spoken to
/// below TLS: a certificate would be shown to nobody, and tokens that everybody can read prove little.
pub(crate) async fn request(
    endpoint: &Endpoint,
    store: &Store,
    ids: &dyn IdGenerator,
) -> Result<Option<String>, PeerError> {
    if !endpoint.is_tls() {
        return Ok(None);
    }
    let key = match store.read(|tables| tables.key()).await? {
        Some(key) => key,
        None => {
            let new = PeerKey::generate(ids);
            store.write(Durability::Power, move |work| work.key_or(new)).await?
        }
    };
    key.request().map(Some)
}

/// A new site for an API key, or the site of `previous`, an access token of before, where the server knows it.
pub(crate) async fn log_in(
    endpoint: &Endpoint,
    api_key: &Secret,
    previous: Option<&Secret>,
    csr: Option<&str>,
    settings: &ConnectSettings,
) -> Result<Login, PeerError> {
    let mut body = serde_json::json!({"previous": previous.map(Secret::reveal)});
    if let Some(csr) = csr {
        body["csr"] = csr.into();
    }
    let body = body.to_string();
    ask(&endpoint.auth("login"), api_key, body.into(), settings).await
}

/// [`log_in`] for who keeps one token only, and shows it for the next.
pub(crate) async fn log_in_without_refresh_token(
    endpoint: &Endpoint,
    api_key: &Secret,
    settings: &ConnectSettings,
) -> Result<Login, PeerError> {
    ask(&endpoint.auth("login"), api_key, Bytes::new(), settings).await
}

/// The next token for the same site: `last` is a refresh token, or the last access token where there is none.
pub(crate) async fn refresh(
    endpoint: &Endpoint,
    last: &Secret,
    csr: Option<&str>,
    settings: &ConnectSettings,
) -> Result<Login, PeerError> {
    let body = csr.map(|csr| Bytes::from(serde_json::json!({"csr": csr}).to_string())).unwrap_or_default();
    ask(&endpoint.auth("refresh"), last, body, settings).await
}

async fn ask(url: &str, bearer: &Secret, body: Bytes, settings: &ConnectSettings) -> Result<Login, PeerError> {
    let (status, body) = settings.network.post(url, bearer, body, settings.connect_timeout).await?;
    if (200..300).contains(&status) {
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|_| PeerError::Protocol("the answer to the login is not one".to_owned()))?;
        let refresh = answer.refresh_token.map(Secret::new);
        let token = Token { token: Secret::new(answer.access_token), expires_ms: answer.expires_at, refresh };
        let certificate = answer.certificate.zip(answer.certificate_expires_at);
        let certificate = certificate.map(|(chain, expires_ms)| Certificate { chain, expires_ms });
        return Ok(Login { site: answer.site, token, certificate });
    }
    let message = serde_json::from_slice::<Failure>(&body).map_or_else(
        |_| format!("the login was answered with status {status}"),
        |failure| failure.error.message.chars().take(500).collect(),
    );
    // What a later attempt may pass is no refusal: timeouts, conflicts, too many requests, trouble of the server.
    let later = (500..600).contains(&status) || [408, 409, 425, 429].contains(&status);
    Err(if later { PeerError::Unreachable(message) } else { PeerError::Refused(message) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_four_schemes_lead_to_the_same_place() {
        let app = AppId::new("an-app").expect("valid");
        for (given, sync, login) in [
            ("http://host:8080", "ws://host:8080/an-app/sync", "http://host:8080/an-app/auth/login"),
            ("ws://host:8080/", "ws://host:8080/an-app/sync", "http://host:8080/an-app/auth/login"),
            ("https://host", "wss://host/an-app/sync", "https://host/an-app/auth/login"),
            ("wss://host/below", "wss://host/below/an-app/sync", "https://host/below/an-app/auth/login"),
        ] {
            let endpoint = Endpoint::new(given, &app).expect(given);
            assert_eq!((endpoint.sync().as_str(), endpoint.auth("login").as_str()), (sync, login));
        }
        let hosts = [
            ("http://host:8080", "host", 8080),
            ("ws://host", "host", 80),
            ("https://host/below", "host", 443),
            ("http://[::1]:9", "::1", 9),
        ];
        for (given, host, port) in hosts {
            let endpoint = Endpoint::new(given, &app).expect(given);
            assert_eq!(endpoint.host().expect(given), (host.to_owned(), port));
        }
        for bad in ["", "host:8080", "ftp://host", "http://", "http:///x", "http://user:key@host", "http://host/?x=1"] {
            assert!(matches!(Endpoint::new(bad, &app), Err(PeerError::Url(_))), "{bad}");
        }
    }
}
