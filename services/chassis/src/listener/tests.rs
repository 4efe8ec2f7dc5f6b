//! Connections: plain and TLS, clients that dawdle, and the end.

use axum::Extension;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::tls::tests::{Files, localhost};

/// A server that tells where a request comes from.
async fn serve(tls: Option<Tls>) -> (SocketAddr, Shutdown, tokio::task::JoinHandle<()>) {
    let from = |Extension(ClientAddr(from)): Extension<ClientAddr>| async move { from.to_string() };
    let router = Router::new().route("/from", get(from));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, shutdown) = (listener.local_addr().unwrap(), Shutdown::new());
    let ending = shutdown.clone();
    let serving = tokio::spawn(async move { serve_http(listener, tls.as_ref(), router, &ending).await.unwrap() });
    (address, shutdown, serving)
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> String {
    stream.write_all(b"GET /from HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // Whoever closes without a farewell has said everything all the same.
    let _unfriendly = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn requests_are_answered_plain_and_below_tls_and_know_where_they_come_from() {
    let files = Files::new();
    for tls in [None, Tls::open(&files.settings()).unwrap()] {
        let is_tls = tls.is_some();
        let (address, shutdown, serving) = serve(tls).await;
        // One that never begins its handshake.
        let _dawdling = TcpStream::connect(address).await.unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let own = stream.local_addr().unwrap().to_string();
        let answer = match is_tls {
            true => ask(&mut files.client().connect(localhost(), stream).await.unwrap()).await,
            false => ask(&mut stream).await,
        };
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(&own), "{answer}");
        shutdown.cancel();
        serving.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err(), "the listener is closed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_to_its_end_ends_the_connection() {
    let (address, _shutdown, _serving) = serve(None).await;
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /from HTTP/1.1\r\nhost: he").await.unwrap();
    let mut answer = Vec::new();
    let _reset = slow.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(!answer.contains("200"), "{answer}");
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200"), "others are served");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_come_to_its_end_gives_its_place_back() {
    let files = Files::new();
    let tls = Tls::open(&files.settings()).unwrap().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut ready = connections(listener, Some(tls.acceptor(&[]).unwrap()), 1);
    let mut dawdling = TcpStream::connect(address).await.unwrap();
    // Waits in the system's queue until there is a place.
    let stream = TcpStream::connect(address).await.unwrap();
    let client = tokio::spawn(async move { files.client().connect(localhost(), stream).await });
    let accepted = ready.recv().await.unwrap();
    assert!(matches!(accepted.stream, Stream::Tls(_)));
    client.await.unwrap().unwrap();
    assert_eq!(dawdling.read(&mut [0; 8]).await.unwrap_or(0), 0, "it was let go");
}
