//! The listener: how many connections, and what each may send.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use bigpeer_chassis::Shutdown;
use bigpeer_sql::SqlContext;
use futures::{Stream, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tonic::transport::Server;
use tonic::transport::server::Connected;

use crate::metrics;
use crate::service::FlightSql;

/// Most connections at once; further ones are closed.
const MAX_CONNECTIONS: usize = 512;

/// Most calls at once on one connection.
const MAX_STREAMS: u32 = 64;

/// Largest message that a client may send.
const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// Largest headers of a call.
const MAX_HEADER_BYTES: u32 = 32 << 10;

/// How long nothing may come from a client. One that is there answers the keepalive, so that this is for those that connect and say
/// nothing.
const SILENCE: Duration = Duration::from_secs(60);

/// How often a silent client is asked whether it is still there, and how long it has to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// Answers Flight SQL on `listener` until `shutdown`, and then until what is under way has ended.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, context: SqlContext, shutdown: Shutdown) -> io::Result<()> {
    let service = FlightServiceServer::new(FlightSql::new(context)).max_decoding_message_size(MAX_MESSAGE_BYTES);
    Server::builder()
        .max_concurrent_streams(Some(MAX_STREAMS))
        .http2_max_header_list_size(Some(MAX_HEADER_BYTES))
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .add_service(service)
        .serve_with_incoming_shutdown(connections(listener), shutdown.cancelled_owned())
        .await
        .map_err(io::Error::other)
}

/// The connections that there is room for.
fn connections(listener: TcpListener) -> impl Stream<Item = io::Result<Connection>> {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    stream::unfold((listener, room), |(listener, room)| async move {
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, or a client that left already: others are served all the same.
                    tracing::debug!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                metrics::turned_away();
                continue;
            };
            let _best_effort = stream.set_nodelay(true);
            metrics::connections(1.0);
            let silence = Box::pin(tokio::time::sleep(SILENCE));
            return Some((Ok(Connection { stream, from, silence, _permit: permit }), (listener, room)));
        }
    })
}

/// A connection that is counted, and ends when nothing comes for too long.
struct Connection {
    stream: TcpStream,
    from: SocketAddr,
    silence: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Connection {
    fn drop(&mut self) {
        metrics::connections(-1.0);
    }
}

impl Connected for Connection {
    type ConnectInfo = SocketAddr;

    fn connect_info(&self) -> SocketAddr {
        self.from
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if polled.is_ready() {
            self.silence.as_mut().reset(Instant::now() + SILENCE);
        } else if self.silence.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use futures::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_let_go() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut connection = Box::pin(connections(listener)).next().await.unwrap().unwrap();
        client.write_all(b"PRI").await.unwrap();
        assert_eq!(connection.read(&mut [0; 8]).await.unwrap(), 3);
        let heard = Instant::now();
        let error = connection.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(heard.elapsed() >= SILENCE, "counted from what was heard last");
    }
}
