//! A connection: what came in and was not read yet, what goes out and was not sent yet; waits that end.

use std::time::Duration;

use bigpeer_chassis::{Acceptor, Stream};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::frontend::{self, First, MAX_MESSAGE_BYTES, Malformed, Message};

/// What is sent at once.
const SEND_BYTES: usize = 64 << 10;

/// Why a session cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The client is gone, or does not take what it is sent.
    Gone,
    /// The client was silent for too long.
    Silent,
    /// It sent what is no message.
    Malformed(Malformed),
}

impl From<std::io::Error> for Ended {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

pub(crate) struct Io {
    /// None only while the handshake of TLS is under way, and after it failed.
    stream: Option<Stream>,
    input: BytesMut,
    /// What is to be sent.
    pub(crate) out: BytesMut,
    send_timeout: Duration,
}

impl Io {
    pub(crate) fn new(stream: TcpStream, send_timeout: Duration) -> Self {
        let stream = Some(Stream::Plain(stream));
        Self { stream, input: BytesMut::new(), out: BytesMut::new(), send_timeout }
    }

    /// The first message.
    pub(crate) async fn first(&mut self) -> Result<First, Ended> {
        loop {
            if let Some(first) = frontend::first(&mut self.input).map_err(Ended::Malformed)? {
                return Ok(first);
            }
            self.receive().await?;
        }
    }

    /// The next message, of at most `limit` bytes, within `wait`. Cancel safe.
    pub(crate) async fn next(&mut self, limit: usize, wait: Duration) -> Result<Message, Ended> {
        timeout(wait, async {
            loop {
                if let Some(message) = frontend::next(&mut self.input, limit).map_err(Ended::Malformed)? {
                    return Ok(message);
                }
                self.receive().await?;
            }
        })
        .await
        .unwrap_or(Err(Ended::Silent))
    }

    async fn receive(&mut self) -> Result<(), Ended> {
        let stream = self.stream.as_mut().ok_or(Ended::Gone)?;
        if stream.read_buf(&mut self.input).await? == 0 { Err(Ended::Gone) } else { Ok(()) }
    }

    /// Ends when the client has gone. What it sends meanwhile is kept, up to the size of a message. Cancel safe.
    pub(crate) async fn gone(&mut self) {
        while self.input.len() < MAX_MESSAGE_BYTES {
            if self.receive().await.is_err() {
                return;
            }
        }
        std::future::pending().await
    }

    /// Sends, when there is enough to send.
    pub(crate) async fn send_if_full(&mut self) -> Result<(), Ended> {
        if self.out.len() < SEND_BYTES { Ok(()) } else { self.send().await }
    }

    /// Sends what there is to send.
    pub(crate) async fn send(&mut self) -> Result<(), Ended> {
        let stream = self.stream.as_mut().ok_or(Ended::Gone)?;
        let sent = timeout(self.send_timeout, async {
            stream.write_all(&self.out).await?;
            stream.flush().await
        })
        .await;
        self.out.clear();
        // One large row must not keep its memory for the rest of the session.
        if self.out.capacity() > 4 * SEND_BYTES {
            self.out = BytesMut::new();
        }
        sent.map_err(|_| Ended::Gone)?.map_err(Ended::from)
    }

    /// Answers a request for encryption: no.
    pub(crate) async fn refuse_encryption(&mut self) -> Result<(), Ended> {
        self.out.extend_from_slice(b"N");
        self.send().await
    }

    /// Answers a request for encryption: yes, and goes on below TLS.
    pub(crate) async fn encrypt(&mut self, tls: &Acceptor) -> Result<(), Ended> {
        // What came already came in the clear, from anybody: it must not count as said below TLS.
        if !self.input.is_empty() {
            return Err(Ended::Malformed(Malformed("there is something between the request for encryption and TLS")));
        }
        self.out.extend_from_slice(b"S");
        self.send().await?;
        let Some(Stream::Plain(stream)) = self.stream.take() else { return Err(Ended::Gone) };
        self.stream = Some(Stream::Tls(Box::new(tls.accept(stream).await?)));
        Ok(())
    }

    /// Whether what is said is encrypted.
    pub(crate) const fn is_encrypted(&self) -> bool {
        matches!(self.stream, Some(Stream::Tls(_)))
    }
}
