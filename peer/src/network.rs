//! How a peer reaches a server: handed in, as time and chance are, so that the simulation owns it.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::{PeerError, Secret};

/// The bytes of a connection, in both directions, in order.
pub trait Wire: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin + 'static> Wire for T {}

/// What carries a peer's connections and requests.
pub trait Network: Send + Sync + fmt::Debug {
    /// Opens a connection. TLS, where the URL asks for it, comes on top.
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Wire>>>;

    /// Sends `POST url` with a bearer token and an empty body. Answers status and body.
    ///
    /// # Errors
    /// [`PeerError::Unreachable`] when no answer came within `timeout`.
    fn post<'a>(
        &'a self,
        url: &'a str,
        bearer: &'a Secret,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<(u16, Bytes), PeerError>>;
}

/// The machine's own network.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemNetwork;

impl Network for SystemNetwork {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Wire>>> {
        async move {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Wire>)
        }
        .boxed()
    }

    fn post<'a>(
        &'a self,
        url: &'a str,
        bearer: &'a Secret,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<(u16, Bytes), PeerError>> {
        async move {
            let client = reqwest::Client::builder()
                .timeout(timeout)
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .map_err(|error| unreachable(&error))?;
            let sent = client.post(url).bearer_auth(bearer.reveal()).send().await;
            let response = sent.map_err(|error| unreachable(&error))?;
            let status = response.status().as_u16();
            Ok((status, response.bytes().await.map_err(|error| unreachable(&error))?))
        }
        .boxed()
    }
}

/// The innermost reason: reqwest's own text only says that sending failed.
fn unreachable(error: &reqwest::Error) -> PeerError {
    let mut reason: &dyn std::error::Error = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    PeerError::Unreachable(reason.to_string())
}
