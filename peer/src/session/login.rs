//! Login over HTTP: an API key becomes a site and a token, a refresh token the next token.

use bigpeer_types::{AppId, SiteId};
use bytes::Bytes;
use serde::Deserialize;

use crate::store::Token;
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
}

#[derive(Deserialize)]
struct Answer {
    site: SiteId,
    access_token: String,
    expires_at: u64,
    #[serde(default)]
    refresh_token: Option<String>,
}

#[derive(Deserialize)]
struct Failure {
    error: FailureBody,
}

#[derive(Deserialize)]
struct FailureBody {
    message: String,
}

/// A new site for an API key, or the site of `previous`, an access token of before, where the server knows it.
pub(crate) async fn log_in(
    endpoint: &Endpoint,
    api_key: &Secret,
    previous: Option<&Secret>,
    settings: &ConnectSettings,
) -> Result<Login, PeerError> {
    let body = serde_json::json!({"previous": previous.map(Secret::reveal)}).to_string();
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
    settings: &ConnectSettings,
) -> Result<Login, PeerError> {
    ask(&endpoint.auth("refresh"), last, Bytes::new(), settings).await
}

async fn ask(url: &str, bearer: &Secret, body: Bytes, settings: &ConnectSettings) -> Result<Login, PeerError> {
    let (status, body) = settings.network.post(url, bearer, body, settings.connect_timeout).await?;
    if (200..300).contains(&status) {
        let Answer { site, access_token, expires_at, refresh_token } = serde_json::from_slice(&body)
            .map_err(|_| PeerError::Protocol("the answer to the login is not one".to_owned()))?;
        let refresh = refresh_token.map(Secret::new);
        return Ok(Login { site, token: Token { token: Secret::new(access_token), expires_ms: expires_at, refresh } });
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
