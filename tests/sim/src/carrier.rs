//! `Carrier`: the peer library's network, over the simulated one.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bigpeer_peer::{Network as PeerNetwork, PeerError, Secret, Wire};
use bigpeer_types::IdGenerator;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::header::{AUTHORIZATION, HOST};
use hyper_util::rt::TokioIo;

use crate::network::{Host, Network};

/// One host's way to the servers; each connection goes to one of them, by chance.
pub struct Carrier {
    pub network: Network,
    pub host: Host,
    pub servers: Vec<Host>,
    pub chance: Arc<dyn IdGenerator>,
}

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Carrier({})", self.host)
    }
}

impl Carrier {
    fn server(&self) -> Host {
        let which = self.chance.next_u64() % self.servers.len() as u64;
        self.servers[which as usize]
    }

    async fn post(
        &self,
        url: &str,
        bearer: &Secret,
        body: Bytes,
    ) -> Result<(u16, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let path = url.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..])).unwrap_or("/");
        let stream = self.network.connect(self.host, self.server()).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::post(path)
            .header(HOST, "bigpeer")
            .header(AUTHORIZATION, format!("Bearer {}", bearer.reveal()))
            .body(Full::new(body))?;
        let asking = async {
            let response = sender.send_request(request).await?;
            let status = response.status().as_u16();
            Ok::<_, hyper::Error>((status, response.into_body().collect().await?.to_bytes()))
        };
        tokio::select! {
            biased;
            answer = asking => Ok(answer?),
            ended = connection => Err(format!("the connection ended: {ended:?}").into()),
        }
    }
}

impl PeerNetwork for Carrier {
    fn connect<'a>(&'a self, _host: &'a str, _port: u16) -> BoxFuture<'a, io::Result<Box<dyn Wire>>> {
        async move {
            let stream = self.network.connect(self.host, self.server()).await?;
            Ok(Box::new(stream) as Box<dyn Wire>)
        }
        .boxed()
    }

    fn post<'a>(
        &'a self,
        url: &'a str,
        bearer: &'a Secret,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<(u16, Bytes), PeerError>> {
        async move {
            match tokio::time::timeout(timeout, self.post(url, bearer, body)).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(error)) => Err(PeerError::Unreachable(error.to_string())),
                Err(_) => Err(PeerError::Unreachable("no answer in time".to_owned())),
            }
        }
        .boxed()
    }
}
