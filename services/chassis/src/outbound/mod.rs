//! Requests that others ask this process to make: to webhooks, to issuers of tokens. To public addresses only, unless the
//! operator allows others; without redirects and proxies; with bounded answers; signed, where a secret is shared.

mod address;
mod sign;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::redirect::Policy;
use reqwest::{ClientBuilder, Response, Url};

use address::{PublicOnly, is_public};
pub use sign::{SIGNATURE, Signer};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads the URL of a receiver. `what` is what the message calls it.
///
/// # Errors
/// When it is not http or https with a host and without credentials, or names an address that is not allowed.
pub fn outbound_url(what: &str, text: &str, allow_private: bool) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("'{what}' is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("'{what}' must be http or https, with a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("'{what}' must not hold a name or password; verify the signature instead"));
    }
    if !allow_private && is_private_literal(&url) {
        return Err(format!("the address of '{what}' is private; the operator has to allow such receivers"));
    }
    Ok(url)
}

/// A client whose requests go where [`outbound_url`] allows, also when a name resolves to something else.
pub fn outbound_client(allow_private: bool, timeout: Duration) -> ClientBuilder {
    ClientBuilder::new()
        .redirect(Policy::none())
        .no_proxy()
        .dns_resolver(Arc::new(PublicOnly { allow_private }))
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .timeout(timeout)
        .tcp_nodelay(true)
}

/// Whether the URL names an address instead of a host, and one that is not public.
fn is_private_literal(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host.parse::<IpAddr>().is_ok_and(|address| !is_public(address))
}

/// The body of an answer, if it has no more than `max` bytes.
///
/// # Errors
/// Says whether it was too long or broke off.
pub async fn bounded_body(mut answer: Response, max: usize) -> Result<Bytes, String> {
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| said(&error))? {
        if body.len() + chunk.len() > max {
            return Err(format!("the answer has more than {max} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// What went wrong with a request, without the URL, which may hold secrets.
#[must_use]
pub fn said(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it did not answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if std::ptr::addr_eq(cause, error) { "the request failed".to_owned() } else { cause.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_lead_inside_are_seen() {
        for url in ["http://127.0.0.1/", "http://[::1]:80/", "http://0x7f.1/", "http://2130706433/", "https://10.1.2.3"]
        {
            assert!(outbound_url("url", url, false).unwrap_err().contains("private"), "{url}");
            assert!(outbound_url("url", url, true).is_ok(), "{url}");
        }
        assert!(outbound_url("url", "https://example.com/x", false).is_ok());
        for url in ["ftp://example.com", "https://user:pw@example.com", "/x", "http:///", "file:///etc/passwd"] {
            assert!(outbound_url("url", url, true).is_err(), "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_this_machine_is_not_connected_to() {
        let client = outbound_client(false, Duration::from_secs(5)).build().unwrap();
        let error = client.get("http://localhost:9/").send().await.unwrap_err();
        assert!(said(&error).contains("no public address"), "{}", said(&error));
    }
}
