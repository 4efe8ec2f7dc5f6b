//! A WebSocket with a [`PeerSession`] on it. Writing has a task of its own, so that reading never waits for it: two
//! ends that both wait for the other to read would wait for ever. What is queued for writing is bounded by the
//! protocol: the push window, and a few small messages.

use std::sync::Arc;
use std::time::Duration;

use bigpeer_protocol::{PeerEffect, PeerSession, SUBPROTOCOL, decode_gateway_frame, encode_frame, pb};
use bigpeer_types::limits::MAX_FRAME_BYTES;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::rustls::ClientConfig;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

use super::login::Endpoint;
use crate::{ConnectSettings, PeerError, Wire};

type Socket = WebSocketStream<MaybeTlsStream<Box<dyn Wire>>>;

/// What is to be written.
enum Outgoing {
    Message(Box<pb::PeerMessage>, pb::Compression),
    Ping,
    Close,
}

/// An open connection. Dropping it cuts the connection; [`Self::close`] ends it well.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) session: PeerSession,
    incoming: SplitStream<Socket>,
    outgoing: mpsc::UnboundedSender<Outgoing>,
    writer: JoinHandle<()>,
    idle_timeout: Duration,
    /// When something last came in.
    heard: Instant,
    /// When a ping was last sent.
    pinged: Instant,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

impl Link {
    /// Connects and says hello. The welcome is the first of [`Self::next`].
    pub(crate) async fn connect(
        endpoint: &Endpoint,
        settings: &ConnectSettings,
        tls: Option<Arc<ClientConfig>>,
        hello: pb::Hello,
    ) -> Result<Self, ConnectError> {
        let mut request = endpoint.sync().into_client_request().map_err(|_| PeerError::Url(settings.url.clone()))?;
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        let config =
            WebSocketConfig::default().max_message_size(Some(MAX_FRAME_BYTES)).max_frame_size(Some(MAX_FRAME_BYTES));
        let connecting = async {
            let (host, port) = endpoint.host()?;
            let wire = settings
                .network
                .connect(&host, port)
                .await
                .map_err(|error| PeerError::Unreachable(error.to_string()))?;
            let tls = tls.map(Connector::Rustls);
            client_async_tls_with_config(request, wire, Some(config), tls).await.map_err(connect_error)
        };
        let (socket, response) = tokio::time::timeout(settings.connect_timeout, connecting)
            .await
            .map_err(|_| PeerError::Unreachable("no connection within the time allowed".to_owned()))??;
        if response.headers().get(SEC_WEBSOCKET_PROTOCOL).is_none_or(|chosen| chosen != SUBPROTOCOL) {
            return Err(PeerError::Protocol(format!("the server does not speak {SUBPROTOCOL}")).into());
        }
        let (sink, incoming) = socket.split();
        let (outgoing, queue) = mpsc::unbounded_channel();
        let writer = tokio::spawn(write(sink, queue));
        let (session, effects) = PeerSession::open(hello);
        let (heard, pinged) = (Instant::now(), Instant::now());
        let link = Self { session, incoming, outgoing, writer, idle_timeout: settings.idle_timeout, heard, pinged };
        link.execute(effects);
        Ok(link)
    }

    /// Sends what effects say is to be sent, and answers the others.
    pub(crate) fn execute(&self, effects: Vec<PeerEffect>) -> Vec<PeerEffect> {
        let mut others = Vec::new();
        for effect in effects {
            if let PeerEffect::Send(message) = effect {
                // A writer that is gone shows as the end of what comes in.
                let _gone = self.outgoing.send(Outgoing::Message(Box::new(message), self.session.compression()));
            } else {
                others.push(effect);
            }
        }
        others
    }

    /// The effects of the next message. Fails when the connection is lost; what the session said before stands. Cancel
    /// safe.
    pub(crate) async fn next(&mut self) -> Result<Vec<PeerEffect>, PeerError> {
        loop {
            let beat = self.heard.max(self.pinged) + self.idle_timeout / 3;
            tokio::select! {
                biased;
                frame = self.incoming.next() => match frame {
                    Some(Ok(Message::Binary(frame))) => {
                        self.heard = Instant::now();
                        let effects = self.receive(frame);
                        if !effects.is_empty() {
                            return Ok(effects);
                        }
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => self.heard = Instant::now(),
                    Some(Ok(Message::Text(_))) => return Err(PeerError::Protocol("a text frame".to_owned())),
                    Some(Ok(Message::Close(frame))) => {
                        let reason = frame.map(|frame| frame.reason.to_string()).filter(|reason| !reason.is_empty());
                        let reason = reason.unwrap_or_else(|| "the server closed the connection".to_owned());
                        return Err(PeerError::Unreachable(reason));
                    }
                    Some(Err(error)) => return Err(PeerError::Unreachable(error.to_string())),
                    None => return Err(PeerError::Unreachable("the connection ended".to_owned())),
                },
                () = tokio::time::sleep_until(beat) => {
                    if self.heard.elapsed() >= self.idle_timeout {
                        return Err(PeerError::Unreachable("the server went silent".to_owned()));
                    }
                    self.pinged = Instant::now();
                    let _gone = self.outgoing.send(Outgoing::Ping);
                }
            }
        }
    }

    fn receive(&mut self, frame: bytes::Bytes) -> Vec<PeerEffect> {
        let effects = match decode_gateway_frame(frame, MAX_FRAME_BYTES) {
            Ok(framed) => self.session.receive(framed.message, framed.bytes),
            Err(error) => self.session.malformed(&error),
        };
        self.execute(effects)
    }

    /// Says goodbye, and waits a moment for it to be written.
    pub(crate) async fn close(mut self, close: pb::Close) {
        let effects = self.session.close(close);
        self.execute(effects);
        let _gone = self.outgoing.send(Outgoing::Close);
        // The other end may not read any more; it is told as well as can be.
        let _late = tokio::time::timeout(Duration::from_secs(1), &mut self.writer).await;
    }
}

/// Writes what is queued; flushes when nothing more is.
async fn write(mut sink: SplitSink<Socket, Message>, mut queue: mpsc::UnboundedReceiver<Outgoing>) {
    while let Some(first) = queue.recv().await {
        let mut next = Some(first);
        while let Some(outgoing) = next {
            let written = match outgoing {
                Outgoing::Message(message, compression) => {
                    sink.feed(Message::Binary(encode_frame(&*message, compression).message)).await
                }
                Outgoing::Ping => sink.feed(Message::Ping(bytes::Bytes::new())).await,
                Outgoing::Close => {
                    // Nothing is lost if the other end is gone before it hears it.
                    let _ended = sink.close().await;
                    return;
                }
            };
            if written.is_err() {
                return;
            }
            next = queue.try_recv().ok();
        }
        if sink.flush().await.is_err() {
            return;
        }
    }
}

/// Why there is no connection.
pub(crate) enum ConnectError {
    /// The other end was reached, and broke off before it answered.
    Handshake(PeerError),
    /// Anything else.
    Other(PeerError),
}

impl From<PeerError> for ConnectError {
    fn from(error: PeerError) -> Self {
        Self::Other(error)
    }
}

impl From<ConnectError> for PeerError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Handshake(error) | ConnectError::Other(error) => error,
        }
    }
}

/// Whether the server said no, or could not be asked.
#[allow(clippy::wildcard_enum_match_arm, reason = "an open list of another crate; only a refusal is special")]
fn connect_error(error: Error) -> ConnectError {
    let answered = match error {
        Error::Http(response) if [401, 403].contains(&response.status().as_u16()) => {
            PeerError::Refused(format!("the server answered {} to the connection", response.status()))
        }
        Error::Http(response) => PeerError::Unreachable(format!("the server answered {}", response.status())),
        Error::Url(error) => PeerError::Url(error.to_string()),
        other => return ConnectError::Handshake(PeerError::Unreachable(other.to_string())),
    };
    answered.into()
}
