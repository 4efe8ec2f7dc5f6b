//! Connections: plain and TLS, clients that dawdle, and the end.

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use bigpeer_types::{ManualClock, SeededIds};
use futures::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::finish_router;
use crate::tls::tests::{Files, localhost};

/// A server that tells where a request comes from.
async fn serve(tls: Option<Tls>) -> (SocketAddr, Shutdown, tokio::task::JoinHandle<()>) {
    let from = |Extension(ClientAddr(from)): Extension<ClientAddr>| async move { from.to_string() };
    let router = Router::new().route("/from", get(from)).route("/take", post(|_: String| async {}));
    serve_router(tls, router).await
}

async fn serve_router(tls: Option<Tls>, router: Router) -> (SocketAddr, Shutdown, tokio::task::JoinHandle<()>) {
    let router = finish_router(router, Arc::new(ManualClock::new(0)), Arc::new(SeededIds::new(1)));
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

/// What comes until the other end closes, which it has to do within an hour of simulated time.
async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(3600), stream.read_to_end(&mut answer)).await;
    let _reset = closed.expect("the connection is closed");
    String::from_utf8(answer).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_says_anything_is_let_go() {
    let (address, _shutdown, _serving) = serve(None).await;
    // The latter may become the one version of HTTP or the other.
    for said in ["", "P"] {
        let mut silent = TcpStream::connect(address).await.unwrap();
        silent.write_all(said.as_bytes()).await.unwrap();
        assert_eq!(rest(&mut silent).await, "");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_to_its_end_is_answered_and_ends_the_connection() {
    let (address, _shutdown, _serving) = serve(None).await;
    for body in
        ["content-length: 100\r\n\r\n{", "transfer-encoding: chunked\r\n\r\n1\r\n{\r\n", "content-length: 1\r\n\r\n"]
    {
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(format!("POST /take HTTP/1.1\r\nhost: here\r\n{body}").as_bytes()).await.unwrap();
        let answer = rest(&mut slow).await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("connection: close"), "{answer}");
        assert!(answer.contains("the body of POST /take came too slowly"), "{answer}");
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200"), "others are served");
}

/// A server of an endless answer, which holds something, and lets it go with the answer.
async fn endless() -> (Arc<()>, (SocketAddr, Shutdown, tokio::task::JoinHandle<()>)) {
    let held = Arc::new(());
    let holds = Arc::clone(&held);
    let endless = move || {
        let held = Arc::clone(&holds);
        let bytes = stream::repeat(Bytes::from(vec![0; 1 << 16])).map(move |bytes| {
            let _held = &held;
            Ok::<_, Infallible>(bytes)
        });
        async move { Body::from_stream(bytes) }
    };
    (held, serve_router(None, Router::new().route("/endless", get(endless))).await)
}

/// The server ends, and with it every answer that it gives.
async fn ends(held: &Arc<()>, shutdown: &Shutdown, serving: tokio::task::JoinHandle<()>) {
    shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(3600), serving).await;
    ended.expect("its connections ended").unwrap();
    assert_eq!(Arc::strong_count(held), 1, "what an answer held");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_read_is_given_up() {
    let (held, (address, shutdown, serving)) = endless().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /endless HTTP/1.1\r\nhost: here\r\n\r\n").await.unwrap();
    // It is there, and from here on nobody reads it.
    stream.read_exact(&mut [0; 1000]).await.unwrap();
    ends(&held, &shutdown, serving).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_among_others_that_is_not_taken_is_given_up() {
    let (held, (address, shutdown, serving)) = endless().await;
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut client, connection) =
        hyper::client::conn::http2::handshake::<_, _, Body>(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let ask = |path: &str| hyper::Request::get(format!("http://here{path}")).body(Body::empty()).unwrap();
    let untaken = client.send_request(ask("/endless")).await.unwrap();
    assert_eq!(untaken.status(), StatusCode::OK);
    // The connection is alive: others are answered.
    assert_eq!(client.send_request(ask("/nothing")).await.unwrap().status(), StatusCode::NOT_FOUND);
    let closed = tokio::time::timeout(Duration::from_secs(3600), connection).await;
    let _reset = closed.expect("the connection is closed");
    drop(untaken);
    ends(&held, &shutdown, serving).await;
}
