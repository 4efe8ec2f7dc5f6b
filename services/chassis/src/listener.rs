//! A listener whose connections are plain or TLS, and HTTP on it: who connects is known, how many and how slowly is limited: the
//! head of a request and who reads an answer here, a request's body by [`crate::Paced`].

mod reading;
mod untaken;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, Version};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::server::TlsStream;
use tokio_util::task::TaskTracker;

use crate::certificate::{ClientCertificate, PeerCertificate};
use crate::tls::{Acceptor, Tls};
use crate::{Shutdown, metrics};
use reading::Reading;
use untaken::Answers;

/// Most connections of HTTP at once; further ones wait to be accepted. One that became a WebSocket counts no more: the gateway
/// limits those.
const MAX_CONNECTIONS: usize = 50_000;
/// How long a client has for the head of a request, the first one's from when it connected, and how long a connection may wait for
/// the next one.
const HEAD: Duration = Duration::from_secs(60);
/// How often a silent HTTP/2 client is asked whether it is still there, and how long it has to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// What HTTP's listeners speak below TLS, the best first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// Connections that are ready and wait to be taken.
const READY: usize = 64;

/// Where a request comes from: the other end of its connection, a proxy's if there is one. An extension of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddr(pub SocketAddr);

/// A connection's bytes, below TLS if there is any.
#[derive(Debug)]
pub enum Stream {
    /// As they are.
    Plain(TcpStream),
    /// Below TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// The certificate that the client showed: it was good at the handshake, or at the one that this one resumed.
    fn certificate(&self) -> Option<ClientCertificate> {
        let Self::Tls(stream) = self else { return None };
        let der = stream.get_ref().1.peer_certificates()?.first()?;
        Some(ClientCertificate(Arc::new(PeerCertificate::read(der).ok()?)))
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

/// A connection that is ready. It counts among those of its listener until it is dropped.
#[derive(Debug)]
pub struct Accepted {
    /// Its bytes.
    pub stream: Stream,
    /// Its other end.
    pub from: SocketAddr,
    /// Its place.
    pub place: OwnedSemaphorePermit,
}

/// The connections of `listener`, `most` at once, each after its handshake if there is to be one: a client that dawdles with
/// that holds up nobody else. The listener is closed when the receiver is dropped.
pub fn connections(listener: TcpListener, tls: Option<Acceptor>, most: usize) -> mpsc::Receiver<Accepted> {
    let (ready, receiver) = mpsc::channel(READY);
    tokio::spawn(async move {
        let room = Arc::new(Semaphore::new(most));
        // A place first: those that there is no place for stay with the system, whose queue ends, too.
        while let Ok(place) = Arc::clone(&room).acquire_owned().await {
            let (stream, from) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of file descriptors, or a client that left already: others are served all the same.
                        tracing::debug!(%error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
                () = ready.closed() => return,
            };
            // Small answers must not wait for more to send.
            let _best_effort = stream.set_nodelay(true);
            let Some(acceptor) = tls.clone() else {
                let _closed = ready.send(Accepted { stream: Stream::Plain(stream), from, place }).await;
                continue;
            };
            let ready = ready.clone();
            tokio::spawn(async move {
                match acceptor.accept(stream).await {
                    Ok(stream) => {
                        metrics::handshake("done");
                        let _closed = ready.send(Accepted { stream: Stream::Tls(Box::new(stream)), from, place }).await;
                    }
                    Err(error) => {
                        metrics::handshake("failed");
                        tracing::debug!(%error, %from, "a TLS handshake failed");
                    }
                }
            });
        }
    });
    receiver
}

/// Answers HTTP on `listener` with `router`, which finds a [`ClientAddr`] with every request and a [`ClientCertificate`] where
/// there is one, until `shutdown`, and then until what is under way has ended.
///
/// # Errors
/// When TLS cannot be set up.
pub async fn serve_http(
    listener: TcpListener,
    tls: Option<&Tls>,
    router: Router,
    shutdown: &Shutdown,
) -> Result<(), tokio_rustls::rustls::Error> {
    let acceptor = tls.map(|tls| tls.peer_acceptor(&ALPN)).transpose()?;
    let mut connections = connections(listener, acceptor, MAX_CONNECTIONS);
    let open = TaskTracker::new();
    while let Some(Some(accepted)) = shutdown.run_until_cancelled(connections.recv()).await {
        open.spawn(connection(accepted, router.clone(), shutdown.clone()));
    }
    drop(connections);
    open.close();
    open.wait().await;
    Ok(())
}

async fn connection(accepted: Accepted, router: Router, shutdown: Shutdown) {
    let Accepted { stream, from, place } = accepted;
    let certificate = stream.certificate();
    let (begun, upgraded) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let stream = Reading::new(stream, Arc::clone(&upgraded));
    let answer = TowerToHyperService::new(router);
    let (seen, answers) = (Arc::clone(&begun), Answers::default());
    let watched = answers.clone();
    let answer = service_fn(move |mut request: hyper::Request<Incoming>| {
        seen.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(ClientAddr(from));
        if let Some(certificate) = &certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        let is_one_of_many = request.version() == Version::HTTP_2;
        let (answered, upgraded, watched) = (answer.call(request), Arc::clone(&upgraded), watched.clone());
        async move {
            let Ok(answer) = answered.await as Result<Response, Infallible>;
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                upgraded.store(true, Ordering::Relaxed);
            }
            Ok::<_, Infallible>(if is_one_of_many { answer.map(|body| watched.watch(body)) } else { answer })
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(KEEPALIVE.0).keep_alive_timeout(KEEPALIVE.1);
    let mut served = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), answer));
    // HTTP's own limits begin when it is known which one is spoken.
    let silent = async {
        tokio::time::sleep(HEAD).await;
        if begun.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = silent => {
            tracing::debug!(%from, "a connection was closed on which no request came");
            return;
        }
        () = answers.one_is_not_taken() => {
            metrics::slow_reader();
            tracing::debug!(%from, "a connection was closed of which an answer was not taken");
            return;
        }
        () = shutdown.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %from, "a connection ended before its time");
    }
    drop(place);
}

#[cfg(test)]
mod tests;
