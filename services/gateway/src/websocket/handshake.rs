//! `Upgrade`: a request that asks for a WebSocket, and the answer to it (RFC 6455, section 4.2).

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::upgrade::OnUpgrade;
use sha1::{Digest, Sha1};

use super::WebSocket;

/// What RFC 6455 adds to the key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A request that may become a WebSocket.
pub(crate) struct Upgrade {
    accept: HeaderValue,
    connection: OnUpgrade,
}

impl Upgrade {
    /// Reads what the request asks for.
    ///
    /// # Errors
    /// Says what is missing.
    pub(crate) fn of(request: &mut Request) -> Result<Self, &'static str> {
        let headers = request.headers();
        if !names(headers, &CONNECTION, "upgrade") || !names(headers, &UPGRADE, "websocket") {
            return Err("the headers 'connection: upgrade' and 'upgrade: websocket' are missing");
        }
        if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err("the header 'sec-websocket-version' must be 13");
        }
        let key = headers.get(SEC_WEBSOCKET_KEY).ok_or("the header 'sec-websocket-key' is missing")?;
        let mut digest = Sha1::new();
        digest.update(key.as_bytes());
        digest.update(GUID);
        let accept = HeaderValue::try_from(STANDARD.encode(digest.finalize()));
        let accept = accept.map_err(|_| "the header 'sec-websocket-key' cannot be answered")?;
        let connection = request.extensions_mut().remove().ok_or("this connection cannot become a WebSocket")?;
        Ok(Self { accept, connection })
    }

    /// Whether the request offers the subprotocol.
    pub(crate) fn offers(headers: &HeaderMap, subprotocol: &str) -> bool {
        names(headers, &SEC_WEBSOCKET_PROTOCOL, subprotocol)
    }

    /// The answer that agrees, with this subprotocol.
    pub(crate) fn answer(&self, subprotocol: &'static str) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept.clone());
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
        response
    }

    /// The WebSocket, once the answer is on its way; none if the connection broke before.
    pub(crate) async fn socket(self) -> Option<WebSocket> {
        self.connection.await.ok().map(WebSocket::new)
    }
}

/// Whether a list in the header has the word, whatever its case.
fn names(headers: &HeaderMap, header: &HeaderName, word: &str) -> bool {
    let lists = headers.get_all(header).into_iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|one| one.trim().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said() {
        let mut request = Request::new(Body::empty());
        assert!(Upgrade::of(&mut request).err().unwrap().contains("'upgrade: websocket'"));
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        request.headers_mut().insert(UPGRADE, HeaderValue::from_static("WebSocket"));
        assert!(Upgrade::of(&mut request).err().unwrap().contains("must be 13"));
        request.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        assert!(Upgrade::of(&mut request).err().unwrap().contains("'sec-websocket-key'"));
        request.headers_mut().insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert!(Upgrade::of(&mut request).err().unwrap().contains("cannot become"));
        let offered = HeaderValue::from_static("chat, bigpeer.sync.v1");
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, offered);
        assert!(Upgrade::offers(request.headers(), "bigpeer.sync.v1"));
        assert!(!Upgrade::offers(request.headers(), "bigpeer.sync"));
    }
}
