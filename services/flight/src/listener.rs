//! The listener: how many connections, and what each may send.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use bigpeer_chassis::{Accepted, Acceptor, Paced, Shutdown, Stream as Bytes, TooSlow};
use bigpeer_sql::SqlContext;
use futures::{Stream, stream};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};
use tonic::body::Body;
use tonic::codegen::http;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Status};
use tower::util::MapRequestLayer;

use crate::metrics;
use crate::service::{CLIENT, FlightSql};

/// Most connections at once; further ones wait to be accepted.
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

/// Answers Flight SQL on `listener`, below TLS if there is to be any, until `shutdown`, and then until what is under way has
/// ended.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Acceptor>,
    context: SqlContext,
    shutdown: Shutdown,
) -> io::Result<()> {
    let service = FlightServiceServer::new(FlightSql::new(context)).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let service = InterceptedService::new(service, told_from);
    Server::builder()
        .max_concurrent_streams(Some(MAX_STREAMS))
        .http2_max_header_list_size(Some(MAX_HEADER_BYTES))
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .layer(MapRequestLayer::new(paced))
        .add_service(service)
        .serve_with_incoming_shutdown(connections(listener, tls), shutdown.cancelled_owned())
        .await
        .map_err(io::Error::other)
}

/// The call, whose messages have to come on.
fn paced(call: http::Request<Body>) -> http::Request<Body> {
    let said = |error: Box<dyn Error + Send + Sync>| match error.downcast::<TooSlow>() {
        Ok(slow) => Status::deadline_exceeded(format!("the call's messages came too slowly: {slow}; call again")),
        Err(other) => Status::from_error(other),
    };
    call.map(|body| Body::new(Paced::new(body).map_err(said)))
}

/// Notes in a call's metadata where it comes from, in the place of whatever the client says there.
#[allow(clippy::unnecessary_wraps, clippy::result_large_err, reason = "what tonic asks for")]
fn told_from(mut call: Request<()>) -> Result<Request<()>, Status> {
    let from =
        call.extensions().get::<SocketAddr>().and_then(|from| MetadataValue::try_from(from.ip().to_string()).ok());
    call.metadata_mut().remove(CLIENT);
    if let Some(from) = from {
        call.metadata_mut().insert(CLIENT, from);
    }
    Ok(call)
}

/// The connections that there is room for.
fn connections(listener: TcpListener, tls: Option<Acceptor>) -> impl Stream<Item = io::Result<Connection>> {
    let accepted = bigpeer_chassis::connections(listener, tls, MAX_CONNECTIONS);
    stream::unfold(accepted, |mut accepted| async move {
        let Accepted { stream, from, place } = accepted.recv().await?;
        metrics::connections(1.0);
        let silence = Box::pin(tokio::time::sleep(SILENCE));
        Some((Ok(Connection { stream, from, silence, _place: place }), accepted))
    })
}

/// A connection that is counted, and ends when nothing comes for too long.
struct Connection {
    stream: Bytes,
    from: SocketAddr,
    silence: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
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
    use futures::{StreamExt, TryStreamExt};
    use http_body_util::{BodyStream, Full, StreamBody};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tonic::Code;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_let_go() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut connection = Box::pin(connections(listener, None)).next().await.unwrap().unwrap();
        client.write_all(b"PRI").await.unwrap();
        assert_eq!(connection.read(&mut [0; 8]).await.unwrap(), 3);
        let heard = Instant::now();
        let error = connection.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(heard.elapsed() >= SILENCE, "counted from what was heard last");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_whose_messages_do_not_come_on_is_ended() {
        let begun = BodyStream::new(Full::new(bytes::Bytes::from_static(b"begun")));
        let begun = TryStreamExt::map_err(begun, |never| -> Status { match never {} });
        let messages = StreamExt::chain(begun, stream::pending());
        let mut call = paced(http::Request::new(Body::new(StreamBody::new(messages)))).into_body();
        assert_eq!(call.frame().await.unwrap().unwrap().into_data().unwrap(), "begun");
        let ended = call.frame().await.unwrap().unwrap_err();
        assert_eq!(ended.code(), Code::DeadlineExceeded);
        assert!(ended.message().contains("after 5 bytes there was nothing more for 30 seconds"), "{ended}");
    }
}
